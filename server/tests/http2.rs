//! HTTP/2 without TLS, by a real client and by one that keeps to no rule.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::needs::installed;
use common::{Rhub, wait_until};

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET or POST of a path (RFC 7541: two indexed fields, two literal ones).
fn head(method: u8, path: &str) -> Vec<u8> {
    [&[method, 0x86, 0x44, u8::try_from(path.len()).unwrap()], path.as_bytes(), &[0x41, 1, b'x']].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn connect(rhub: &Rhub) -> TcpStream {
    rhub.raw(&String::from_utf8([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat()).unwrap())
}

/// The next frame's kind, stream and payload; `None` at the end.
fn next(connection: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    connection.read_exact(&mut header).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
    connection.read_exact(&mut payload).ok()?;
    Some((header[3], u32::from_be_bytes(header[5..9].try_into().unwrap()), payload))
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn curl_speaks_http_2_without_tls() {
    if !installed("curl") {
        return;
    }
    let (_dir, rhub) = Rhub::with(&[]);
    let content = b"0123456789abcdef".repeat(100_000);
    let digest = rhub.push_blob("a", &content);
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--fail-with-body", "--max-time", "30"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let url = format!("http://{}/v2/a/blobs/{digest}", rhub.address);
    assert!(curl(&["--http2-prior-knowledge", "-w", "%{http_version}", &url]) == [&content[..], b"2"].concat());
    let upload = format!("http://{}/v2/b/blobs/uploads/?digest={digest}", rhub.address);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, &content).unwrap();
    let data = format!("@{}", file.path().display());
    assert_eq!(curl(&["--http2-prior-knowledge", "-w", "%{response_code}", "--data-binary", &data, &upload]), b"201");
}

#[test]
fn streams_over_the_limit_are_refused() {
    let (_dir, rhub) = Rhub::with(&["limits.streams=10"]);
    let mut connection = connect(&rhub);
    let (kind, _, settings) = next(&mut connection).unwrap();
    let limit = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| number(&setting[2..]));
    assert_eq!((kind, limit), (SETTINGS, Some(10)), "SETTINGS_MAX_CONCURRENT_STREAMS is announced");
    // Uploads whose bodies do not come.
    let path = format!("/v2/a/blobs/uploads/?digest=sha256:{:064}", 0);
    for stream in 0..15 {
        connection.write_all(&frame(HEADERS, END_HEADERS, 2 * stream + 1, &head(POST, &path))).unwrap();
    }
    let mut refused = Vec::new();
    while refused.len() < 5 {
        let (kind, stream, payload) = next(&mut connection).expect("the connection goes on");
        if kind == RST_STREAM {
            assert_eq!(number(&payload), REFUSED_STREAM);
            refused.push(stream);
        }
    }
    assert_eq!(refused, [21, 23, 25, 27, 29]);
}

#[test]
fn rapid_reset_ends_the_connection_and_costs_nothing() {
    let (_dir, rhub) = Rhub::with(&[]);
    rhub.get("/v2/");
    let before = rhub.peak_memory_bytes();
    let mut connection = connect(&rhub);
    let mut writer = connection.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        (0..200_000_u32).find(|n| {
            let stream = 2 * n + 1;
            let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(GET, "/v2/"));
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            writer.write_all(&[request, reset].concat()).is_err()
        })
    });
    let mut calm = None;
    while let Some((kind, _, payload)) = next(&mut connection) {
        if kind == GOAWAY {
            calm = Some(number(&payload[4..8]));
        }
    }
    assert_eq!(calm, Some(ENHANCE_YOUR_CALM));
    drop(connection);
    assert!(flood.join().unwrap().is_some(), "it was cut off before it was done");
    let grown = rhub.peak_memory_bytes() - before;
    assert!(grown < 8 << 20, "grew by {grown} bytes");
    wait_until("nothing is left of it", || rhub.metric("rhub_requests_in_progress") == 1 && rhub.metric("rhub_connections") == 1);
}
