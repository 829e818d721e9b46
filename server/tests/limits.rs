//! Every limit an operator can set is kept, and what is over it is told so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{OCI_INDEX, OCI_MANIFEST, Reply, Rhub, error, index_manifest, wait_until};

const KEPT_OPEN: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

/// Reads one answer of a connection that is kept open.
fn read_alive(connection: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"alive\n") {
        let mut byte = [0];
        assert_eq!(connection.read(&mut byte).unwrap(), 1, "closed after {}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
}

/// Reads until the server ends the connection; how long that took.
fn time_to_end(connection: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let _ = connection.read_to_end(&mut Vec::new());
    start.elapsed()
}

#[test]
fn requests_over_the_limit_are_told_at_once_to_come_again() {
    let (_dir, rhub) = Rhub::with(&["limits.requests=2"]);
    let uploads = [rhub.start_upload("a"), rhub.start_upload("a")];
    let mut held: Vec<_> = uploads.iter().map(|location| rhub.begin("PATCH", location, &[], 4)).collect();
    wait_until("both uploads are being worked on", || rhub.metric("rhub_requests_in_progress") == 3);
    let refused = rhub.get("/v2/");
    assert_eq!(refused.error(), error(429, "TOOMANYREQUESTS"));
    assert_eq!(refused.header("retry-after"), "1");
    // At once: nobody waits for a body that is not wanted.
    let with_body = rhub.begin("PUT", "/v2/a/manifests/t", &[("content-type", OCI_MANIFEST)], 1 << 30);
    assert_eq!(Reply::read(with_body).unwrap().error(), error(429, "TOOMANYREQUESTS"));
    assert_eq!(rhub.metric("rhub_requests_refused_total"), 2);
    assert_eq!((rhub.get("/livez").status, rhub.get("/readyz").status), (200, 200), "probes are answered all the same");
    let mut first = held.remove(0);
    first.write_all(b"1234").unwrap();
    assert_eq!(Reply::read(first).unwrap().status, 202);
    wait_until("there is room again", || rhub.get("/v2/").status == 200);
}

#[test]
fn a_download_nobody_reads_is_a_request_in_progress() {
    let (_dir, rhub) = Rhub::with(&["limits.requests=1"]);
    let digest = rhub.push_blob("a", &vec![7; 16 << 20]);
    let slow = rhub.begin("GET", &format!("/v2/a/blobs/{digest}"), &[], 0);
    wait_until("the download is being worked on", || rhub.metric("rhub_requests_in_progress") == 2);
    assert_eq!(rhub.get("/v2/").error(), error(429, "TOOMANYREQUESTS"));
    assert_eq!(Reply::read(slow).unwrap().body.len(), 16 << 20);
    wait_until("there is room again", || rhub.get("/v2/").status == 200);
}

#[test]
fn connections_over_the_limit_wait_for_others_to_end() {
    let (_dir, rhub) = Rhub::with(&["limits.connections=2"]);
    let mut served = [rhub.raw(KEPT_OPEN), rhub.raw(KEPT_OPEN)];
    served.iter_mut().for_each(read_alive);
    let mut waiting = rhub.raw(KEPT_OPEN);
    // The others are still served, however long it is their turn.
    for _ in 0..100 {
        served[0].write_all(KEPT_OPEN.as_bytes()).unwrap();
        read_alive(&mut served[0]);
    }
    waiting.set_nonblocking(true).unwrap();
    assert_eq!(waiting.peek(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it is not its turn");
    waiting.set_nonblocking(false).unwrap();
    drop(served);
    read_alive(&mut waiting);
}

#[test]
fn headers_that_do_not_end_are_not_waited_for() {
    let (_dir, rhub) = Rhub::with(&["limits.header_timeout_s=1"]);
    for begun in ["", "GET /v2/ HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n"] {
        let took = time_to_end(&mut rhub.raw(begun));
        assert!((Duration::from_millis(900)..Duration::from_secs(20)).contains(&took), "{begun:?}: {took:?}");
    }
    // Nor are those that come byte by byte, each in time.
    let mut dripping = rhub.raw("GET /v2/ HTTP/1.1\r\n");
    dripping.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    while dripping.write_all(b"a").is_ok() && !matches!(dripping.read(&mut [0; 512]), Ok(0)) {
        assert!(start.elapsed() < Duration::from_secs(20), "it drips on");
    }
}

#[test]
fn a_connection_on_which_nothing_moves_ends() {
    let (_dir, rhub) = Rhub::with(&["limits.idle_timeout_s=1"]);
    // Before a request, and after one.
    let took = time_to_end(&mut rhub.raw(""));
    assert!((Duration::from_millis(900)..Duration::from_secs(20)).contains(&took), "{took:?}");
    let mut used = rhub.raw(KEPT_OPEN);
    read_alive(&mut used);
    assert!(time_to_end(&mut used) < Duration::from_secs(20));
    // Inside a body.
    let location = rhub.start_upload("a");
    let mut stalled = rhub.begin("PATCH", &location, &[], 4);
    stalled.write_all(b"12").unwrap();
    let reply = Reply::read(stalled).unwrap();
    assert_eq!(reply.error(), error(400, "SIZE_INVALID"));
    assert_eq!(rhub.get(&location).status, 204, "the upload can go on");
    // With an answer that is not taken.
    let digest = rhub.push_blob("a", &vec![7; 16 << 20]);
    let _deaf = rhub.begin("GET", &format!("/v2/a/blobs/{digest}"), &[], 0);
    wait_until("the download is given up", || rhub.metric("rhub_connections") == 1);
}

#[test]
fn uploads_over_the_limit_are_refused_until_one_ends() {
    let (_dir, rhub) = Rhub::with(&["limits.uploads=2"]);
    let first = rhub.start_upload("a");
    rhub.start_upload("b");
    for path in
        ["/v2/c/blobs/uploads/".to_owned(), "/v2/c/blobs/uploads/?mount=sha256:0&from=x".replace(":0", &format!(":{:064}", 0))]
    {
        let refused = rhub.send("POST", &path, &[], b"");
        assert_eq!(refused.error(), error(429, "TOOMANYREQUESTS"));
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert_eq!(rhub.metric("rhub_uploads_open"), 2);
    assert_eq!(rhub.get("/readyz").status, 200, "busy is not broken");
    assert_eq!(rhub.send("DELETE", &first, &[], b"").status, 204);
    rhub.start_upload("c");
}

#[test]
fn a_page_has_no_more_entries_than_the_limit() {
    let (_dir, rhub) = Rhub::with(&["limits.page_entries=2", "limits.catalog_entries=3"]);
    for repo in ["a", "b", "c", "d"] {
        for tag in ["1", "2", "3"] {
            rhub.push_image(repo, tag, "layer");
        }
    }
    let entries = |path: &str, list: &str| {
        let reply = rhub.get(path);
        (reply.json()[list].as_array().unwrap().len(), reply.find_header("link").is_some())
    };
    for query in ["", "?n=1000", "?n=2", "?n=18446744073709551616"] {
        assert_eq!(entries(&format!("/v2/a/tags/list{query}"), "tags"), (2, true), "{query}");
    }
    assert_eq!(entries("/v2/a/tags/list?n=1", "tags"), (1, true));
    assert_eq!(entries("/v2/a/tags/list?n=1000&last=2", "tags"), (1, false));
    for query in ["", "?n=1000", "?n=3", "?n=18446744073709551616"] {
        assert_eq!(entries(&format!("/v2/_catalog{query}"), "repositories"), (3, true), "{query}");
    }
    assert_eq!(entries("/v2/_catalog?n=1000&last=c", "repositories"), (1, false));
}

#[test]
fn a_manifest_names_no_more_than_the_limit() {
    let (_dir, rhub) = Rhub::with(&["limits.manifest_descriptors=2"]);
    let images: Vec<_> = ["1", "2", "3"].iter().map(|tag| rhub.push_image("a", tag, tag)).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    assert_eq!(rhub.put_manifest("a", "i", OCI_INDEX, index_manifest(&images[..2]).as_bytes()).status, 201);
    let refused = rhub.put_manifest("a", "i", OCI_INDEX, index_manifest(&images).as_bytes());
    assert_eq!(refused.error(), error(400, "MANIFEST_INVALID"));
}
