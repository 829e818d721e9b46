//! Uploads (end-4, end-5, end-6, end-11, end-13, end-14): every status and header, and what is malformed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use common::{Reply, Rhub, error};
use longshore_runtime::name::{Algorithm, Digest};

fn rhub() -> (tempfile::TempDir, Rhub) {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    (dir, rhub)
}

fn sha512(content: &[u8]) -> Digest {
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(content);
    hasher.finish()
}

fn post(rhub: &Rhub, query: &str) -> Reply {
    rhub.send("POST", &format!("/v2/team/app/blobs/uploads/?{query}"), &[], b"")
}

/// What every answer about a session says of it.
fn describes(reply: &Reply, status: u16, location: &str, range: &str) {
    assert_eq!((reply.status, reply.header("location"), reply.header("range")), (status, location, range), "{reply:?}");
    assert!(location.ends_with(reply.header("docker-upload-uuid")));
    assert!(reply.body.is_empty());
}

#[test]
fn a_session_says_at_every_step_where_it_is_and_how_far() {
    let (_dir, rhub) = rhub();
    let started = post(&rhub, "");
    let location = started.header("location").to_owned();
    describes(&started, 202, &location, "0-0");
    assert_eq!(started.find_header("oci-chunk-min-length"), None, "chunks of any size are welcome");
    describes(&rhub.get(&location), 204, &location, "0-0");
    describes(&rhub.send("PATCH", &location, &[("content-range", "0-4")], b"hello"), 202, &location, "0-4");
    describes(&rhub.get(&location), 204, &location, "0-4");
    describes(&rhub.send("PATCH", &location, &[("content-range", "5-5")], b" "), 202, &location, "0-5");
    let digest = Digest::of(b"hello world");
    let done = rhub.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "6-10")], b"world");
    assert_eq!((done.status, done.header("docker-content-digest")), (201, digest.as_str()));
    assert_eq!(done.header("location"), format!("/v2/team/app/blobs/{digest}"));
    assert_eq!(rhub.get(done.header("location")).body, b"hello world");
    assert_eq!(rhub.get(&location).error(), error(404, "BLOB_UPLOAD_UNKNOWN"));
}

#[test]
fn the_digest_algorithm_is_announced_or_comes_with_the_digest() {
    let (_dir, rhub) = rhub();
    let content = b"content".repeat(100_000);
    for (announced, digest) in [
        ("digest-algorithm=sha512", sha512(&content)),
        ("digest-algorithm=sha256", Digest::of(&content)),
        ("digest-algorithm=sha512", Digest::of(&content)),
        ("", sha512(&content)),
    ] {
        let location = post(&rhub, announced).header("location").to_owned();
        assert_eq!(rhub.send("PATCH", &location, &[], &content[..300_000]).status, 202);
        let done = rhub.send("PUT", &format!("{location}?digest={digest}"), &[], &content[300_000..]);
        assert_eq!((done.status, done.header("docker-content-digest")), (201, digest.as_str()), "{announced}");
    }
    for unknown in ["md5", "SHA256", "", "sha512:"] {
        assert_eq!(post(&rhub, &format!("digest-algorithm={unknown}")).error(), error(400, "DIGEST_INVALID"), "{unknown}");
    }
}

#[test]
fn an_upload_goes_on_after_the_server_was_killed() {
    let (dir, rhub) = rhub();
    let content = b"content".repeat(100_000);
    let location = post(&rhub, "digest-algorithm=sha512").header("location").to_owned();
    assert_eq!(rhub.send("PATCH", &location, &[("content-range", "0-299999")], &content[..300_000]).status, 202);
    rhub.kill_nine();
    let rhub = Rhub::start(dir.path());
    describes(&rhub.get(&location), 204, &location, "0-299999");
    let again = rhub.send("PATCH", &location, &[("content-range", "0-299999")], &content[..300_000]);
    assert_eq!(again.error(), error(416, "BLOB_UPLOAD_INVALID"));
    let range = [("content-range", "300000-699999")];
    describes(&rhub.send("PATCH", &location, &range, &content[300_000..]), 202, &location, "0-699999");
    let digest = sha512(&content);
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
    assert!(rhub.get(&format!("/v2/team/app/blobs/{digest}")).body == content);
}

#[test]
fn what_came_of_a_chunk_that_broke_off_is_kept_and_said() {
    let (_dir, rhub) = rhub();
    let location = post(&rhub, "").header("location").to_owned();
    let connection = rhub.begin("PATCH", &location, &[("content-range", "0-9")], 10);
    std::io::Write::write_all(&mut &connection, b"01234").unwrap();
    drop(connection);
    // The server sees the end of the connection when it sees it.
    common::wait_until("the five bytes are there", || rhub.get(&location).header("range") == "0-4");
    let range = [("content-range", "5-9")];
    describes(&rhub.send("PATCH", &location, &range, b"56789"), 202, &location, "0-9");
    let digest = Digest::of(b"0123456789");
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
}

#[test]
fn every_malformed_request_is_the_clients_error_and_ends_nothing() {
    let (_dir, rhub) = rhub();
    let digest = Digest::of(b"abcd");
    let location = post(&rhub, "").header("location").to_owned();
    let put = |query: &str, headers: &[(&str, &str)]| rhub.send("PUT", &format!("{location}{query}"), headers, b"abcd").error();
    for bad in ["", "?digest", "?digest=", "?digest=sha256:abc", "?digest=md5:d41d8cd98f00b204e9800998ecf8427e"] {
        assert_eq!(put(bad, &[]), error(400, "DIGEST_INVALID"), "{bad}");
    }
    assert_eq!(put("?digest=%zz", &[]), error(400, "UNSUPPORTED"));
    assert_eq!(put(&format!("?digest={digest}&digest={digest}"), &[]), error(400, "UNSUPPORTED"), "which one?");
    for range in ["0-9", "0-2", "3-0", "abc", "0-", "bytes */4", "0-18446744073709551615"] {
        let refused = put(&format!("?digest={digest}"), &[("content-range", range)]);
        assert_eq!(refused, error(400, "BLOB_UPLOAD_INVALID"), "{range}");
    }
    let early = put(&format!("?digest={digest}"), &[("content-range", "1-4")]);
    assert_eq!(early, error(416, "BLOB_UPLOAD_INVALID"));
    describes(&rhub.get(&location), 204, &location, "0-0");
    // What the specification does not know is no hindrance.
    let done = rhub.send("PUT", &format!("{location}?_state=abc&digest={digest}&x"), &[("content-range", "0-3")], b"abcd");
    assert_eq!(done.status, 201, "{done:?}");

    let unknown = "/v2/team/app/blobs/uploads/0123456789abcdef0123456789abcdef";
    let other = rhub.start_upload("team/other").replace("team/other", "team/app");
    for location in [unknown, &other, "/v2/team/app/blobs/uploads/..%2f..", "/v2/team/app/blobs/uploads/1"] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let query = if method == "PUT" { format!("?digest={digest}") } else { String::new() };
            let reply = rhub.send(method, &format!("{location}{query}"), &[], b"");
            assert_eq!(reply.status, 404, "{method} {location}: {reply:?}");
        }
    }
}

#[test]
fn a_single_post_brings_exactly_the_blob_or_nothing() {
    let (dir, rhub) = rhub();
    let digest = Digest::of(b"abcd");
    let single = |query: &str, headers: &[(&str, &str)]| {
        rhub.send("POST", &format!("/v2/team/app/blobs/uploads/?{query}"), headers, b"abcd")
    };
    for bad in ["digest=sha256:abc", "digest=", "digest=abc"] {
        assert_eq!(single(bad, &[]).error(), error(400, "DIGEST_INVALID"), "{bad}");
    }
    assert_eq!(single(&format!("digest={}", Digest::of(b"other")), &[]).error(), error(400, "DIGEST_INVALID"));
    let elsewhere = single(&format!("digest={digest}"), &[("content-range", "4-7")]);
    assert_eq!(elsewhere.error(), error(416, "BLOB_UPLOAD_INVALID"));
    let longer = single(&format!("digest={digest}"), &[("content-range", "0-7")]);
    assert_eq!(longer.error(), error(400, "BLOB_UPLOAD_INVALID"));
    assert_eq!(rhub.get(&format!("/v2/team/app/blobs/{digest}")).status, 404);
    let left = walk(dir.path()).into_iter().filter(|name| name.contains("upload")).count();
    assert_eq!(left, 1, "the directory of sessions, and none in it: {:?}", walk(dir.path()));
    for query in [format!("digest={digest}"), format!("digest={}", sha512(b"abcd"))] {
        assert_eq!(single(&query, &[("content-range", "0-3")]).status, 201);
    }
}

/// The paths of all files and directories below one.
fn walk(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            let below = if path.is_dir() { walk(&path) } else { Vec::new() };
            std::iter::once(path.display().to_string()).chain(below)
        })
        .collect()
}

#[test]
fn a_mount_that_cannot_be_is_an_upload_and_a_malformed_one_an_error() {
    let (_dir, rhub) = rhub();
    let digest = rhub.push_blob("from/here", b"shared");
    let nowhere = post(&rhub, &format!("mount={digest}&from=not/there"));
    let location = nowhere.header("location").to_owned();
    describes(&nowhere, 202, &location, "0-0");
    assert_eq!(rhub.send("PUT", &format!("{location}?digest={digest}"), &[], b"shared").status, 201);
    for (query, code) in [
        (format!("mount={digest}&from=Not/A/Name"), "NAME_INVALID"),
        (format!("mount={digest}&from="), "NAME_INVALID"),
        ("mount=sha256:abc&from=from/here".into(), "DIGEST_INVALID"),
        ("mount=".into(), "DIGEST_INVALID"),
        (format!("mount={digest}&from=from/here&from=a"), "UNSUPPORTED"),
    ] {
        assert_eq!(post(&rhub, &query).error(), error(400, code), "{query}");
    }
}
