//! Hostile input in what a registry reads: paths, digests, ranges, queries and manifests. Each request is
//! bounded in time and in bytes, and none of them may cost a registry more than an answer.

use reqwest::Method;

use super::context::{BYTES_TYPE, MANIFEST_TYPE, sha256};
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, should};
use crate::http::{Exchange, Request};
use crate::limits::{HOSTILE_DEPTH, HOSTILE_NAME_BYTES, HOSTILE_RANGES};
use crate::outcome::{Finding, Outcome};

const PATHS: &str = "Endpoints; RFC 3986 section 6.2.2";
const REQUESTS: &str = "Endpoints; RFC 9110 section 15.5";
const RANGES: &str = "Pulling blobs (end-2); RFC 9110 section 14.2";
const CHUNKS: &str = "Pushing a blob in chunks (end-5)";
const MANIFESTS: &str = "Pushing Manifests (end-7)";

pub(super) const TABLE: &[Requirement] = &[
    should("hostile-path-dots", PATHS, "dots in a path lead out of nothing", path_dots),
    should("hostile-path-encoded", PATHS, "dots and slashes that are percent-encoded lead out of nothing", path_encoded),
    should("hostile-path-slashes", PATHS, "empty parts of a path lead nowhere", path_slashes),
    should("hostile-path-control", PATHS, "NUL and line ends in a path are refused and not repeated in headers", path_control),
    should("hostile-name-long", REQUESTS, "a name of 8 KiB is a client's error", name_long),
    should("hostile-digest", REQUESTS, "digests of every wrong form are a client's error", digest),
    should("hostile-range", RANGES, "a range that makes no sense is ignored or a client's error", range),
    should("hostile-ranges-many", RANGES, "a thousand overlapping ranges do not multiply the blob", ranges_many),
    should("hostile-content-range", CHUNKS, "a Content-Range that makes no sense is refused", content_range),
    should("hostile-upload-foreign", CHUNKS, "an upload of one repository is none of another", upload_foreign),
    should("hostile-query", REQUESTS, "parameters that make no sense are no server error", query),
    should("hostile-method", "RFC 9110 section 15.6.2", "a method nobody knows is 405 or 501", method),
    should("hostile-manifest-deep", MANIFESTS, "a manifest nested 100000 deep is refused", manifest_deep),
    should("hostile-manifest-shape", MANIFESTS, "JSON that is no manifest is no server error", manifest_shape),
];

/// Asks for a path as it is, which no client would send.
fn get_raw(cx: &Context<'_>, target: &[u8]) -> Outcome<Exchange> {
    Ok(cx.send_raw(&cx.raw_request("GET", target, false)?)?.exchange)
}

/// Fails unless each path is refused: by a redirect to a clean one, an error, or a closed connection.
fn must_lead_nowhere(cx: &Context<'_>, targets: &[String]) -> Outcome {
    for target in targets {
        let answer = get_raw(cx, target.as_bytes())?;
        let refused = answer.status() == 0 || (300..500).contains(&answer.status());
        answer.must(refused, "a 3xx or 4xx status")?;
    }
    cx.must_still_serve()
}

fn path_dots(cx: &Context<'_>) -> Outcome {
    let up = "../".repeat(12);
    must_lead_nowhere(
        cx,
        &[
            format!("/v2/{up}etc/passwd"),
            cx.path(&format!("blobs/{up}etc/passwd")),
            cx.path(&format!("manifests/{up}etc/passwd")),
            cx.path(&format!("blobs/sha256:{up}etc/passwd")),
            cx.path(&format!("blobs/uploads/{up}etc/passwd")),
            format!("/v2/./{up}blobs/{UNKNOWN_DIGEST}"),
        ],
    )
}

fn path_encoded(cx: &Context<'_>) -> Outcome {
    let up = "%2e%2e%2f".repeat(12);
    must_lead_nowhere(
        cx,
        &[
            format!("/v2/{up}etc%2fpasswd"),
            format!("/v2/{}etc/passwd", "%2e%2e/".repeat(12)),
            cx.path(&format!("blobs/{up}etc%2fpasswd")),
            cx.path(&format!("manifests/{up}etc%2fpasswd")),
            cx.path(&format!("blobs/{}etc%252fpasswd", "%252e%252e%252f".repeat(12))),
            cx.path(&format!("manifests/{}windows", "..%5c".repeat(12))),
        ],
    )
}

fn path_slashes(cx: &Context<'_>) -> Outcome {
    let tag = &cx.image()?.tag;
    let targets = [
        "//etc/passwd".to_owned(),
        format!("//v2//{}//manifests//{tag}", cx.repository),
        cx.path(&format!("manifests//{tag}")),
        cx.path("manifests/"),
        cx.path("blobs//"),
    ];
    for target in &targets {
        let answer = get_raw(cx, target.as_bytes())?;
        if answer.status() == 200 && answer.body() == cx.image()?.manifest {
            return Err(Finding::Differs("several slashes count as one".into()));
        }
        answer.must(answer.status() == 0 || (300..500).contains(&answer.status()), "a 3xx or 4xx status")?;
    }
    Ok(())
}

fn path_control(cx: &Context<'_>) -> Outcome {
    let tag = &cx.image()?.tag;
    let injected = cx.path("manifests/x%0d%0aX-Injected:%20yes");
    let targets = [cx.path(&format!("manifests/{tag}%00")), cx.path(&format!("manifests/{tag}\0")), injected];
    for target in &targets {
        let answer = get_raw(cx, target.as_bytes())?;
        answer.must(answer.header("X-Injected").is_none(), "no header that was in the path")?;
    }
    must_lead_nowhere(cx, &targets)
}

fn name_long(cx: &Context<'_>) -> Outcome {
    let name = "x".repeat(HOSTILE_NAME_BYTES);
    for path in [format!("/v2/{name}/tags/list"), cx.path(&format!("manifests/{name}"))] {
        cx.send(Request::new(Method::GET, path))?.must_be_refused()?;
    }
    Ok(())
}

fn digest(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let hex = &UNKNOWN_DIGEST["sha256:".len()..];
    let forms = [
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("SHA256:{hex}"),
        format!("sha256:{}", "0".repeat(4096)),
        format!("sha256:{hex}%2f.."),
        format!("../sha256:{hex}").replace('/', "%2f"),
        format!("sha256+x:{hex}:{hex}"),
        "sha256:%ff%fe".to_owned(),
    ];
    for form in forms {
        for (method, path) in [
            (Method::GET, format!("blobs/{form}")),
            (Method::HEAD, format!("manifests/{form}")),
            (Method::DELETE, format!("blobs/{form}")),
        ] {
            cx.ask(method, &path)?.must_be_refused()?;
        }
    }
    Ok(())
}

fn get_range(cx: &Context<'_>, range: &str) -> Outcome<Exchange> {
    let path = cx.path(&format!("blobs/{}", cx.image()?.layer_digest));
    cx.send(Request::new(Method::GET, path).header("Range", range))
}

fn range(cx: &Context<'_>) -> Outcome {
    for range in [
        "bytes=9-5",
        "bytes=",
        "bytes=a-b",
        "bytes=--1",
        "lines=1-2",
        "bytes=0-99999999999999999999999",
        "bytes=-99999999999999999999999",
        "bytes=18446744073709551615-",
        "bytes=9223372036854775807-9223372036854775808",
    ] {
        get_range(cx, range)?.must_be(&[200, 206, 400, 416])?;
    }
    Ok(())
}

fn ranges_many(cx: &Context<'_>) -> Outcome {
    let size = cx.image()?.layer.len();
    let answer = get_range(cx, &format!("bytes={}", vec!["0-"; HOSTILE_RANGES].join(",")))?;
    answer.must_be(&[200, 206, 400, 416, 431])?;
    // An error says why, and parts come with headers: neither is many times a small blob.
    answer.must(answer.body().len() <= 4 * size, format_args!("at most {} bytes", 4 * size))
}

fn content_range(cx: &Context<'_>) -> Outcome {
    for range in ["9-5", "a-b", "-1-5", "0-", "0-99999999999999999999999", "18446744073709551615-18446744073709551616"] {
        let upload = cx.begin_upload()?;
        let chunk = Request::new(Method::PATCH, upload).header("Content-Range", range).body(BYTES_TYPE, cx.fresh_bytes());
        cx.send(chunk)?.must_be_refused()?;
    }
    Ok(())
}

fn upload_foreign(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = cx.begin_upload()?;
    let (own, other) = (format!("/v2/{}/", cx.repository), format!("/v2/{}/", cx.other_repository));
    if !upload.contains(&own) {
        return Err(Finding::NotOffered("uploads with the repository's name in their Location".into()));
    }
    let digest = sha256(&bytes);
    cx.will_have_mounted(&digest);
    let answer = cx.send(cx.close_request(&upload.replace(&own, &other), &digest, &bytes))?;
    answer.must_be_refused()
}

fn query(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    let lists = ["n=-1", "n=abc", "n=99999999999999999999999", "n=", "last=%00", "last=%ff", "n=1&n=2", "last=..%2f..%2f"];
    let mut answers = Vec::new();
    for list in lists {
        answers.push(cx.ask(Method::GET, &format!("tags/list?{list}"))?);
    }
    answers.push(cx.ask(Method::GET, &format!("referrers/{}?artifactType=%00%ff", image.digest))?);
    for mount in [format!("mount={UNKNOWN_DIGEST}&from=..%2f..%2fetc"), "mount=..%2fx&from=%00".into(), "digest=%00".into()] {
        let answer = cx.send(Request::new(Method::POST, cx.path(&format!("blobs/uploads/?{mount}"))))?;
        cx.note_session(&answer);
        answer.must(answer.status() != 201, "no status 201")?;
        answers.push(answer);
    }
    answers.iter().try_for_each(|answer| answer.must(answer.status() < 500, "a status below 500"))
}

fn method(cx: &Context<'_>) -> Outcome {
    let tag = &cx.image()?.tag;
    for path in [cx.path(&format!("manifests/{tag}")), "/v2/".to_owned()] {
        let answer = cx.send_raw(&cx.raw_request("BREW", path.as_bytes(), false)?)?.exchange;
        let refused = (400..500).contains(&answer.status()) || answer.status() == 501;
        answer.must(refused, "status 405 or 501, or another 4xx")?;
    }
    Ok(())
}

fn put_hostile(cx: &Context<'_>, document: &[u8]) -> Outcome<Exchange> {
    cx.image()?;
    cx.put_manifest_as(MANIFEST_TYPE, &sha256(document), document)
}

fn manifest_deep(cx: &Context<'_>) -> Outcome {
    let document = format!(r#"{{"schemaVersion":2,"x":{}{}}}"#, "[".repeat(HOSTILE_DEPTH), "]".repeat(HOSTILE_DEPTH));
    put_hostile(cx, document.as_bytes())?.must_be_refused()?;
    cx.must_still_serve()
}

fn manifest_shape(cx: &Context<'_>) -> Outcome {
    let digest = &cx.image()?.layer_digest;
    let mut taken = None;
    for document in [
        "null".to_owned(),
        "[]".to_owned(),
        "\"manifest\"".to_owned(),
        r#"{"schemaVersion":"two","config":[],"layers":{}}"#.to_owned(),
        r#"{"schemaVersion":2,"config":"sha256:0","layers":"none"}"#.to_owned(),
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":-1}},"layers":[null]}}"#),
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"../../etc/passwd","size":1}},"layers":[{{"digest":"{digest}"}}]}}"#),
    ] {
        let put = put_hostile(cx, document.as_bytes())?;
        if put.status() == 201 {
            taken.get_or_insert(document);
        } else {
            put.must((400..500).contains(&put.status()), "status 201 or a 4xx status")?;
        }
    }
    match taken {
        Some(document) => Err(Finding::Differs(format!("JSON that is no manifest is taken: {document}"))),
        None => Ok(()),
    }
}
