//! Bodies as the peer gets them, byte by byte, whatever way they take from the file to the socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::needs::installed;
use common::{Rhub, wait_until};
use longshore_runtime::name::Digest;
use longshore_server::limits::{READ_CHUNK_BYTES, SENDFILE_WINDOW_BYTES, SMALL_BLOB_BYTES};

fn rhub() -> (tempfile::TempDir, Rhub) {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    (dir, rhub)
}

/// Bytes without a zero among them: what was never read from the file would show.
fn content(len: usize) -> Vec<u8> {
    let mut state = len as u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0] | 1
    };
    (0..len).map(next).collect()
}

fn path(digest: &Digest) -> String {
    format!("/v2/a/blobs/{digest}")
}

/// A connection that is kept for further requests.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(rhub: &Rhub) -> Self {
        Self(BufReader::new(rhub.raw("")))
    }

    fn ask(&mut self, method: &str, path: &str, header: &str) {
        write!(self.0.get_mut(), "{method} {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n").unwrap();
    }

    /// The status and the body of the next response, to a request that was no HEAD.
    fn answer(&mut self) -> (u16, Vec<u8>) {
        let (status, length) = self.head();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, body)
    }

    /// The status and the content length of the next response.
    fn head(&mut self) -> (u16, usize) {
        let (mut status, mut length) = (0, 0);
        for n in 0.. {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "closed inside a head");
            match line.trim_end().split_once(": ") {
                None if n == 0 => status = line.split(' ').nth(1).unwrap().parse().unwrap(),
                Some(("content-length", value)) => length = value.parse().unwrap(),
                None if n > 0 => break,
                _ => {}
            }
        }
        (status, length)
    }
}

#[test]
fn every_byte_of_every_size_and_range_arrives_on_one_kept_connection() {
    let (_dir, rhub) = rhub();
    let (small, window) = (usize::try_from(SMALL_BLOB_BYTES).unwrap(), SENDFILE_WINDOW_BYTES);
    let mut kept = Kept::open(&rhub);
    for size in [0, 1, small - 1, small, small + 1, window - 1, window, window + 1, 2 * window, 3 * window + 17] {
        let content = content(size);
        let digest = rhub.push_blob("a", &content);
        let mut ranges = Vec::from([(0, size)].map(|(start, end)| start..end));
        for edge in [0, 1, small, window - 1, window, window + 1, 2 * window, size.saturating_sub(1)] {
            ranges.extend([edge..size, 0..edge, edge..edge + 1, edge..edge + small + 1, edge..edge + window + 1]);
        }
        ranges.retain(|range| range.start < range.end && range.end <= size);
        for range in ranges {
            kept.ask("HEAD", &path(&digest), "");
            kept.ask("GET", &path(&digest), &format!("range: bytes={}-{}\r\n", range.start, range.end - 1));
            assert_eq!(kept.head(), (200, size));
            let (status, body) = kept.answer();
            assert_eq!((status, body.len()), (206, range.len()));
            assert!(body == content[range.clone()], "{range:?} of {size}");
        }
        kept.ask("GET", &path(&digest), "");
        let (status, body) = kept.answer();
        assert!(status == 200 && body == content, "{size}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_dir, rhub) = rhub();
    let contents = [3 * SENDFILE_WINDOW_BYTES + 5, 10, SENDFILE_WINDOW_BYTES, 100_000, 1].map(content);
    let digests: Vec<_> = contents.iter().map(|content| rhub.push_blob("a", content)).collect();
    let mut kept = Kept::open(&rhub);
    for _ in 0..3 {
        for digest in &digests {
            kept.ask("GET", &path(digest), "");
            kept.ask("GET", "/v2/", "");
        }
    }
    for _ in 0..3 {
        for content in &contents {
            let (status, body) = kept.answer();
            assert!(status == 200 && body == *content, "of {} bytes", content.len());
            assert_eq!(kept.answer(), (200, Vec::new()));
        }
    }
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let (_dir, rhub) = rhub();
    let content = content(SENDFILE_WINDOW_BYTES + 1);
    let digest = rhub.push_blob("a", &content);
    let connection = rhub.raw(&format!("GET {} HTTP/1.0\r\n\r\n", path(&digest)));
    assert!(common::Reply::read(connection).unwrap().body == content);
}

#[test]
fn http_2_without_tls_gets_the_same_bytes() {
    if !installed("curl") {
        return;
    }
    let (dir, rhub) = rhub();
    for size in [READ_CHUNK_BYTES - 1, READ_CHUNK_BYTES, 3 * SENDFILE_WINDOW_BYTES + 17] {
        let content = content(size);
        let (url, out) = (format!("http://{}{}", rhub.address, path(&rhub.push_blob("a", &content))), dir.path().join("out"));
        let arguments = ["--silent", "--fail", "--http2-prior-knowledge", &url, "--output"];
        assert!(Command::new("curl").args(arguments).arg(&out).status().unwrap().success());
        assert!(std::fs::read(&out).unwrap() == content, "{size}");
    }
}

#[test]
fn a_reader_of_small_pieces_gets_every_byte() {
    let (_dir, rhub) = rhub();
    let content = content(8 * SENDFILE_WINDOW_BYTES);
    let digest = rhub.push_blob("a", &content);
    let mut kept = Kept::open(&rhub);
    rustix::net::sockopt::set_socket_recv_buffer_size(kept.0.get_ref(), 64 << 10).unwrap();
    kept.ask("GET", &path(&digest), "");
    assert_eq!(kept.head(), (200, content.len()));
    let mut piece = [0; 1009];
    for expected in content.chunks(piece.len()) {
        kept.0.read_exact(&mut piece[..expected.len()]).unwrap();
        assert!(piece[..expected.len()] == *expected);
    }
}

#[test]
fn downloads_that_are_broken_off_leave_nothing_open() {
    let (_dir, rhub) = rhub();
    let content = content(16 * SENDFILE_WINDOW_BYTES);
    let digest = rhub.push_blob("a", &content);
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", rhub.pid())).unwrap().count();
    assert_eq!(rhub.get("/v2/").status, 200);
    let before = open_files();
    for _ in 0..50 {
        let mut kept = Kept::open(&rhub);
        kept.ask("GET", &path(&digest), "");
        assert_eq!(kept.head(), (200, content.len()));
    }
    wait_until("every file and socket is closed", || open_files() <= before);
    assert!(rhub.get(&path(&digest)).body == content);
}

/// What the disk lost is missing; nothing stands in its place.
#[test]
fn a_file_cut_short_while_it_is_sent_ends_the_connection_with_no_byte_made_up() {
    let (dir, rhub) = rhub();
    let (content, kept_bytes) = (content(64 * SENDFILE_WINDOW_BYTES), 32 * SENDFILE_WINDOW_BYTES + 5);
    let digest = rhub.push_blob("a", &content);
    let mut kept = Kept::open(&rhub);
    kept.ask("GET", &path(&digest), "");
    assert_eq!(kept.head(), (200, content.len()));
    let file = dir.path().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(kept_bytes as u64).unwrap();
    let mut body = Vec::new();
    // Closed or reset: either way it is not the whole.
    let _ = kept.0.read_to_end(&mut body);
    assert!(body.len() <= kept_bytes, "{} bytes of {kept_bytes} came", body.len());
    assert!(content.starts_with(&body));
    drop(rhub);
}

#[test]
fn what_is_remembered_follows_every_change_at_once() {
    let (_dir, rhub) = rhub();
    let config = b"{}".to_vec();
    for content in [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()] {
        let manifest = rhub.push_image("a", "latest", std::str::from_utf8(&content).unwrap());
        for _ in 0..3 {
            assert_eq!(rhub.get("/v2/a/manifests/latest").body, manifest.as_bytes());
            assert_eq!(rhub.get(&path(&Digest::of(&content))).body, content);
        }
    }
    // Cached, and still wanted by another repository.
    let elsewhere = format!("/v2/b/blobs/{}", Digest::of(&config));
    assert_eq!(rhub.get(&elsewhere).status, 404, "content is in memory, but b never had it");
    rhub.push_blob("b", &config);
    assert_eq!(rhub.get(&elsewhere).body, config);
    let unused = rhub.push_blob("a", b"referred to by nothing");
    rhub.push_blob("b", b"referred to by nothing");
    for method in ["GET", "HEAD"] {
        assert_eq!(rhub.send(method, &path(&unused), &[], b"").status, 200);
    }
    assert_eq!(rhub.send("DELETE", &path(&unused), &[], b"").status, 202);
    for method in ["GET", "HEAD"] {
        assert_eq!(rhub.send(method, &path(&unused), &[], b"").status, 404, "cve_2026_35172");
        assert_eq!(rhub.send(method, &format!("/v2/b/blobs/{unused}"), &[], b"").status, 200);
    }
    assert_eq!(rhub.send("DELETE", "/v2/a/manifests/latest", &[], b"").status, 202);
    assert_eq!(rhub.get("/v2/a/manifests/latest").status, 404);
}
