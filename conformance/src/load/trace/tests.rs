//! Traces that are read, and others that are not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn record(method: &str, uri: &str, status: u16, written: i64, timestamp: &str) -> Value {
    json!({
        "host": "dc118836", "http.request.duration": 1.005269323, "http.request.method": method,
        "http.request.remoteaddr": "0ee76ffa", "http.request.uri": uri,
        "http.request.useragent": "docker/17.03.1-ce go/go1.7.5 UpstreamClient(Docker-Client/17.03.1-ce \\(linux\\))",
        "http.response.status": status, "http.response.written": written, "id": "ed29d65dbd", "timestamp": timestamp,
    })
}

fn read_all(records: &[Value]) -> anyhow::Result<Trace> {
    parse(serde_json::to_vec(records).unwrap().as_slice(), 1000)
}

fn at(second: u32) -> String {
    format!("2017-06-20T02:41:{second:02}.399Z")
}

#[test]
fn requests_are_understood_and_sorted_by_time() {
    let trace = read_all(&[
        record("GET", "v2/4715bf52/437c49db/blobs/93054319", 200, 9576, &at(18)),
        record("HEAD", "/v2/4715bf52/437c49db/manifests/9a?x=y", 404, 0, &at(17)),
        record("GET", "v2/4715bf52/437c49db/manifests/9a", 200, 524, &at(20)),
        record("PUT", "v2/4715bf52/437c49db/manifests/9a", 201, -1, &at(21)),
        record("GET", "v2/4715bf52/blobs/uploads/blobs/5", 307, 1, &at(22)),
        record("HEAD", "v2/one/blobs/5", 200, 1, &at(23)),
        // What is none of ours, or went wrong.
        record("GET", "v2/", 401, 1, &at(1)),
        record("GET", "v2/_catalog", 200, 1, &at(1)),
        record("DELETE", "v2/one/blobs/5", 202, 1, &at(1)),
        record("GET", "v2/one/tags/list", 200, 1, &at(1)),
        record("PUT", "v2/one/manifests/5", 404, 1, &at(1)),
        record("GET", "v2/one/blobs/5", 500, 1, &at(1)),
        record("GET", "v2/one/blobs/", 200, 1, &at(1)),
        record("GET", "v2//blobs/5", 200, 1, &at(1)),
        record("GET", "v2/one/blobs/5", 200, 1, "yesterday"),
        json!({"id": "nothing else"}),
    ])
    .unwrap();
    assert_eq!((trace.skipped, trace.merged), (10, 0));
    let told = trace.requests.iter().map(|r| (r.at.as_secs(), r.kind, r.found, r.size_bytes, r.repository.as_str()));
    let expected = [
        (0, Kind::ManifestHead, false, 0, "4715bf52/437c49db"),
        (1, Kind::BlobGet, true, 9576, "4715bf52/437c49db"),
        (3, Kind::ManifestGet, true, 524, "4715bf52/437c49db"),
        (4, Kind::ManifestPut, true, 0, "4715bf52/437c49db"),
        // A repository may be called like anything.
        (5, Kind::BlobGet, true, 1, "4715bf52/blobs/uploads"),
        (6, Kind::BlobHead, true, 1, "one"),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn the_requests_of_an_upload_are_one() {
    let trace = read_all(&[
        record("POST", "v2/a/b/blobs/uploads/", 202, 0, &at(1)),
        record("PATCH", "v2/a/b/blobs/uploads/s1?_state=x", 202, 600, &at(2)),
        record("PATCH", "v2/a/b/blobs/uploads/s1?_state=y", 202, 400, &at(3)),
        record("PUT", "v2/a/b/blobs/uploads/s1", 201, 1000, &at(4)),
        // Another session in one request, the same name in another repository, and one that was refused.
        record("PUT", "v2/a/b/blobs/uploads/s2", 201, 77, &at(5)),
        record("PUT", "v2/a/c/blobs/uploads/s1", 201, 5, &at(6)),
        record("PUT", "v2/a/b/blobs/uploads/s3", 400, 5, &at(7)),
        record("POST", "v2/a/b/blobs/uploads", 202, 0, &at(8)),
    ])
    .unwrap();
    let told: Vec<_> = trace.requests.iter().map(|r| (r.at.as_secs(), r.kind, r.size_bytes)).collect();
    assert_eq!(told, [(1, Kind::Upload, 1000), (4, Kind::Upload, 77), (5, Kind::Upload, 5)]);
    assert_eq!((trace.merged, trace.skipped), (4, 1));
}

#[test]
fn what_is_no_trace_is_said_and_no_more_is_kept_than_asked_for() {
    let many: Vec<_> = (0..50).map(|n| record("GET", "v2/a/blobs/5", 200, 1, &at(n))).collect();
    let bytes = serde_json::to_vec(&many).unwrap();
    assert_eq!(parse(bytes.as_slice(), 7).unwrap().requests.len(), 7);
    for (bad, why) in [
        ("", "a JSON array"),
        ("{}", "a JSON array"),
        ("[1]", "a JSON array"),
        ("[]", "no request that can be replayed"),
        ("[{}] x", "something follows"),
        (r#"[{"timestamp": 5}]"#, "line 1 column"),
        (std::str::from_utf8(&bytes[..bytes.len() - 9]).unwrap(), "EOF"),
    ] {
        let said = format!("{:#}", parse(bad.as_bytes(), 100).unwrap_err());
        assert!(said.contains(why), "{bad:?}: {said}");
    }
    let deep = "[".repeat(100_000);
    assert!(parse(deep.as_bytes(), 100).is_err());
    assert!(parse(bytes.as_slice(), 0).is_err() && parse(bytes.as_slice(), TRACE_REQUESTS_LIMIT + 1).is_err());
}

#[test]
fn times_are_those_of_the_calendar() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600),
        ("2017-06-20T02:41:18.399Z", 1_497_926_478),
        ("1969-12-31T23:59:59Z", -1),
    ] {
        assert_eq!(nanoseconds(text).unwrap().div_euclid(1_000_000_000), seconds, "{text}");
    }
    assert_eq!(nanoseconds("1970-01-01T00:00:00.000000001Z"), Some(1));
    for bad in [
        "2017-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2017-13-01T00:00:00Z",
        "2017-00-01T00:00:00Z",
        "2017-01-01T24:00:00Z",
        "2017-01-01T00:00:00",
        "2017-01-01T00:00:00+02:00",
        "2017-01-01T00:00:00.Z",
        "2017-01-01T00:00:00.0000000001Z",
        "+017-01-01T00:00:00Z",
        "2017-01-01-01T00:00:00Z",
        "2017-1-1T00:00:00Z",
    ] {
        assert_eq!(nanoseconds(bad), None, "{bad}");
    }
}

/// A record in which any member may be missing or of any type.
fn any_record() -> impl Strategy<Value = Value> {
    let scalar =
        || prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), ".{0,20}".prop_map(Value::from)];
    let path = "(/?v2/)?([a-z/]{0,5}/)?(blobs|manifests|blobs/uploads)?/[a-z0-9?/]{0,4}".prop_map(Value::from);
    let method = prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", ""]).prop_map(Value::from);
    let time = "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{0,10})?Z".prop_map(Value::from);
    let status = prop::sample::select(vec![200, 201, 202, 404, 500, -1]).prop_map(Value::from);
    let member = |name: &'static str, likely: BoxedStrategy<Value>| {
        let value = prop_oneof![20 => likely.prop_map(Some), 1 => scalar().prop_map(Some), 1 => Just(None)];
        value.prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    };
    let members = (
        member("http.request.uri", path.boxed()),
        member("http.request.method", method.boxed()),
        member("timestamp", time.boxed()),
        member("http.response.status", status.boxed()),
        member("http.response.written", scalar().boxed()),
    );
    members.prop_map(|(a, b, c, d, e)| Value::Object([a, b, c, d, e].into_iter().flatten().collect()))
}

proptest! {
    /// What is understood is in order, named and within the limit; each record of a file is accounted for.
    #[test]
    fn any_records_are_understood_or_refused(records in prop::collection::vec(any_record(), 0..12), limit in 1_usize..14) {
        if let Ok(trace) = parse(serde_json::to_vec(&records).unwrap().as_slice(), limit) {
            prop_assert!(trace.requests.len() <= limit);
            prop_assert!(trace.requests.is_sorted_by_key(|r| r.at));
            prop_assert!(trace.requests.iter().all(|r| !r.repository.is_empty() && !r.reference.is_empty()));
            if limit >= records.len() {
                prop_assert_eq!(trace.requests.len() as u64 + trace.skipped + trace.merged, records.len() as u64);
            }
        }
    }

    /// No bytes at all bring the reader down.
    #[test]
    fn any_bytes_are_an_error_at_most(bytes in prop::collection::vec(any::<u8>(), 0..300), limit in 1_usize..5) {
        let _ = parse(bytes.as_slice(), limit);
        let _ = parse([b"[".as_slice(), &bytes, b"]"].concat().as_slice(), limit);
        let _ = nanoseconds(&String::from_utf8_lossy(&bytes));
    }

    /// Times are told apart to the nanosecond and keep their order.
    #[test]
    fn a_later_time_is_a_greater_number(day in 1..=28_u8, second in 0..60_u8, fraction in 0..1_000_000_000_u32) {
        let time = nanoseconds(&format!("2017-06-{day:02}T02:41:{second:02}.{fraction:09}Z")).unwrap();
        let first = nanoseconds("2017-06-01T02:41:00Z").unwrap();
        let expected = (i128::from(day - 1) * 86_400 + i128::from(second)) * 1_000_000_000 + i128::from(fraction);
        prop_assert_eq!(time - first, expected);
    }
}
