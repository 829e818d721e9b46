//! The replay of a trace, on a small registry in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use longshore_conformance::load::{Kind, Summary};
use serde_json::{Value, json};

/// A request as the published traces write it, so many milliseconds after the first.
fn record(at_ms: u32, method: &str, uri: &str, status: u16, written: u64) -> Value {
    json!({
        "host": "033292e5", "http.request.duration": 1.40929383, "http.request.method": method,
        "http.request.remoteaddr": "e1852826", "http.request.uri": uri, "http.request.useragent": "docker/17.04.0-ce",
        "http.response.status": status, "http.response.written": written, "id": "baeef7c1eb",
        "timestamp": format!("2017-09-05T17:23:{:02}.{:03}Z", at_ms / 1000, at_ms % 1000),
    })
}

/// A pull, a push of a layer and a manifest, and a pull of something that is not there; 2 s in all.
fn pull_and_push() -> Vec<Value> {
    vec![
        record(0, "GET", "v2/503550a5/d1002b86/manifests/817c8a39", 200, 2000),
        record(100, "GET", "v2/503550a5/d1002b86/blobs/93054319", 200, 50_000),
        record(200, "GET", "v2/503550a5/d1002b86/blobs/7a", 200, 3_000_000),
        record(300, "HEAD", "v2/503550a5/other/blobs/93054319", 404, 0),
        record(400, "POST", "v2/503550a5/other/blobs/uploads/", 202, 0),
        record(500, "PATCH", "v2/503550a5/other/blobs/uploads/5eee", 202, 70_000),
        record(900, "PUT", "v2/503550a5/other/blobs/uploads/5eee", 201, 0),
        record(1000, "HEAD", "v2/503550a5/other/blobs/93054319", 200, 0),
        record(1100, "PUT", "v2/503550a5/other/manifests/8c", 201, 1500),
        record(1200, "HEAD", "v2/503550a5/other/manifests/8c", 200, 0),
        record(1300, "GET", "v2/503550a5/other/manifests/none", 404, 0),
        record(1400, "GET", "v2/_catalog", 200, 5),
        record(2000, "GET", "v2/503550a5/d1002b86/blobs/93054319", 200, 50_000),
    ]
}

fn write(directory: &Path, records: &[Value]) -> PathBuf {
    let path = directory.join("prod-dal09-logstash-2017.09.05-0.json");
    std::fs::write(&path, serde_json::to_vec(records).unwrap()).unwrap();
    path
}

fn replay(url: &str, trace: &Path, arguments: &[&str]) -> Output {
    let rconform =
        Command::new(env!("CARGO_BIN_EXE_rconform")).args(["load", url, "--trace"]).arg(trace).args(arguments).output();
    rconform.unwrap()
}

fn summary(url: &str, trace: &Path, arguments: &[&str]) -> Summary {
    let output = replay(url, trace, &[arguments, &["--format", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[test]
fn a_trace_is_replayed_with_its_content_and_at_its_times() {
    let (address, state) = support::start(None);
    let directory = tempfile::tempdir().unwrap();
    let trace = write(directory.path(), &pull_and_push());
    let found = summary(&format!("http://{address}"), &trace, &["--speed", "8", "-c", "3"]);
    assert_eq!((found.kind, found.requests, found.failures, &found.first_failure), (Kind::Trace, 10, 0, &None), "{found:?}");
    let replayed = found.replayed.clone().unwrap();
    assert_eq!((replayed.requests, replayed.merged, replayed.skipped), (10, 2, 1));
    assert!(found.seconds >= 0.25 && found.seconds < 2.0, "2 s at eight times their speed: {}", found.seconds);
    let parts: Vec<_> = found.parts.iter().map(|part| (part.kind, part.requests)).collect();
    let expected = [
        (Kind::ManifestGet, 2),
        (Kind::ManifestHead, 1),
        (Kind::BlobGet, 3),
        (Kind::BlobHead, 2),
        (Kind::Upload, 1),
        (Kind::ManifestPut, 1),
    ];
    assert_eq!(parts, expected);
    // Every size is the recorded one; the answer to what is not there is an error of a few bytes.
    let content = found.megabytes_per_second * found.seconds * 1e6;
    let recorded = f64::from(2000 + 50_000 + 3_000_000 + 70_000 + 1500 + 50_000);
    assert!((recorded..recorded + 100.0).contains(&content), "{content}");
    assert_eq!(found.offered.unwrap().not_started, 0);
    assert_eq!((found.left_behind, state.lock().unwrap().len()), (0, 0));
}

#[test]
fn a_replay_is_bounded_and_repeats_nothing_it_wrote() {
    let (address, state) = support::start(None);
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    let trace = write(directory.path(), &pull_and_push());
    let found = summary(&url, &trace, &["--trace-limit", "3", "--speed", "100", "--layer-limit", "10KiB"]);
    let content = found.megabytes_per_second * found.seconds * 1e6;
    assert_eq!((found.requests, content.round() as u64), (3, 2000 + 2 * 10_240), "{found:?}");

    let versus = ["--versus", &url, "--rounds", "3", "--speed", "100", "--keep", "--repository", "here/too"];
    let output = replay(&url, &trace, &versus);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Two layers and a config in the first repository, in the other one a layer, a config and three uploads; manifests:
    // two with their tags, and three with theirs. All of it twice, in the same place.
    assert_eq!(state.lock().unwrap().len(), 3 + 5 + 2 * 2 + 2 * 3);
}

#[test]
fn what_went_wrong_then_goes_right_now_and_what_is_no_trace_is_said() {
    let (address, _) = support::start(None);
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://{address}");
    for (records, why) in [
        (vec![], "no request that can be replayed"),
        (vec![record(0, "GET", "v2/a/b/blobs/1", 500, 7)], "no request that can be replayed; 1 are of other kinds"),
        (vec![json!("a request")], "a JSON array of requests"),
        (vec![record(0, "GET", "v2/a/b/blobs/1", 200, 9_000_000_000_000_000); 3], ""),
        (
            (0..9000).map(|n| record(0, "GET", &format!("v2/a/b/blobs/{n}"), 200, 9_000_000_000_000_000)).collect(),
            "--trace-limit",
        ),
    ] {
        let trace = write(directory.path(), &records);
        let output = replay(&url, &trace, &["--speed", "1000", "-c", "4"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if why.is_empty() { 0 } else { 2 }), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let absent = replay(&url, &directory.path().join("absent"), &[]);
    assert!(String::from_utf8_lossy(&absent.stderr).contains("absent"), "{absent:?}");
    let both = replay(&url, &directory.path().join("absent"), &["--kind", "upload"]);
    assert_eq!(both.status.code(), Some(2));
}
