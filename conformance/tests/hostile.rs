//! A registry that means harm gets a failure in the report, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use longshore_conformance::credentials::Credentials;
use longshore_conformance::limits::ANSWER_LIMIT_BYTES;
use longshore_conformance::{Registry, Report, Verdict, spec};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What the header begins with that nobody but the registry may see.
const CREDENTIALS: &str = "authorization";

/// A server that gives each request line to `answer`; its address and the lines it got.
fn server(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut head = BufReader::new(stream);
            let line = head.by_ref().lines().next().and_then(Result::ok).unwrap_or_default();
            log.lock().unwrap().push(line.clone());
            // The rest of the head, up to the empty line. What is secret in it is noted.
            let rest = head.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let secrets: Vec<_> = rest.filter(|line| line.to_ascii_lowercase().starts_with(CREDENTIALS)).collect();
            log.lock().unwrap().extend(secrets);
            // A client that has had enough is what these tests want.
            let _ = answer(&line, head.get_mut());
        }
    });
    (address, seen)
}

fn judge(address: SocketAddr, only: &str) -> Report {
    let registry = Registry::new(format!("http://{address}").parse().unwrap()).unwrap();
    spec::run(&registry, "judged", &spec::choose(&[only.to_owned()], &[]).unwrap()).unwrap()
}

/// The one row's exchange; fails unless it is a failure.
fn failure(report: &Report) -> &str {
    assert_eq!(report.requirements[0].verdict, Verdict::Fail);
    report.requirements[0].exchange.as_deref().unwrap()
}

#[test]
fn an_endless_answer_is_cut_off_at_the_limit() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let (address, _) = server(move |line, stream| {
        if line.contains(" /v2/ ") {
            return stream.write_all(OK);
        }
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nConnection: close\r\n\r\n")?;
        loop {
            count.fetch_add(stream.write(&[b'x'; 65536])?, Ordering::Relaxed);
        }
    });
    let report = judge(address, "push-upload");
    assert!(failure(&report).contains(&format!("over {ANSWER_LIMIT_BYTES} bytes")), "{}", failure(&report));
    // It is asked three times, and what fits into socket buffers comes on top.
    assert!(written.load(Ordering::Relaxed) < 3 * 2 * ANSWER_LIMIT_BYTES, "{written:?}");
}

#[test]
fn a_circle_of_redirects_is_left() {
    let (address, seen) = server(|line, stream| {
        if line.contains(" /v2/ ") {
            return stream.write_all(OK);
        }
        stream.write_all(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/again\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        )
    });
    let report = judge(address, "push-upload");
    assert!(failure(&report).contains("redirect"), "{}", failure(&report));
    assert!(seen.lock().unwrap().len() < 20);
}

#[test]
fn an_answer_that_is_not_http_is_a_failure() {
    let (address, _) =
        server(|line, stream| stream.write_all(if line.contains(" /v2/ ") { OK } else { b"SSH-2.0-registry\r\n" }));
    assert!(failure(&judge(address, "push-upload")).contains("no answer"));
}

#[test]
fn terminal_escapes_of_the_registry_do_not_reach_the_report() {
    let (address, _) = server(|line, stream| {
        if line.contains(" /v2/ ") {
            return stream.write_all(OK);
        }
        stream.write_all(b"HTTP/1.1 500 No\r\nX-Note: \xc2\x9b2J\r\nConnection: close\r\nContent-Length: 8\r\n\r\n\x1b[2J\x1b]0;")
    });
    let report = judge(address, "push-upload");
    let mut table = Vec::new();
    report.write_table(&mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("\\u{1b}[2J"), "{table:?}");
    assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
}

#[test]
fn nothing_is_deleted_on_a_host_the_registry_points_to() {
    let (bystander, seen) = server(|_, stream| stream.write_all(OK));
    let (address, _) = server(move |line, stream| {
        if line.contains(" /v2/ ") {
            return stream.write_all(OK);
        }
        let head = format!(
            "HTTP/1.1 202 Accepted\r\nLocation: http://{bystander}/precious\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes())
    });
    failure(&judge(address, "push-chunk-range"));
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|line| line.starts_with("PATCH /precious")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.starts_with("DELETE")), "{seen:?}");
}

#[test]
fn credentials_go_to_no_token_server_and_no_host_the_registry_points_to_without_tls() {
    let (bystander, seen) = server(|_, stream| stream.write_all(OK));
    for attack in ["realm", "redirect", "location"] {
        let posts = AtomicUsize::new(0);
        let (address, asked) = server(move |line, stream| {
            let is_first = line.starts_with("POST") && posts.fetch_add(1, Ordering::Relaxed) == 0;
            let answer = match attack {
                "realm" => format!("401 No\r\nWWW-Authenticate: Bearer realm=\"http://{bystander}/token\",service=\"x\""),
                "redirect" if line.contains(" /v2/ ") => "401 No\r\nWWW-Authenticate: Basic realm=\"x\"".into(),
                "redirect" => format!("307 There\r\nLocation: http://{bystander}/there"),
                _ if line.contains(" /v2/ ") => "200 OK".into(),
                _ if is_first => "401 No\r\nWWW-Authenticate: Basic realm=\"x\"".into(),
                // What works for the registry's own uploads would be sent here, were it only for the path.
                _ => format!("202 Accepted\r\nLocation: http://{bystander}/v2/judged/spec/blobs/uploads/1"),
            };
            stream.write_all(format!("HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes())
        });
        let credentials = Some(Credentials::new("tester", "hunter2"));
        let registry = Registry::with_credentials(format!("http://{address}").parse().unwrap(), credentials).unwrap();
        let only = spec::choose(&["push-upload".to_owned()], &[]).unwrap();
        let judged = spec::run(&registry, "judged", &only);
        let said = judged.map_or_else(|e| format!("{e:#}"), |report| format!("{report:?}"));
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!asked.lock().unwrap().is_empty());
        let seen = seen.lock().unwrap();
        assert!(!seen.iter().any(|line| line.to_ascii_lowercase().starts_with(CREDENTIALS)), "{attack}: {seen:?}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|line| line.starts_with("PUT /v2/judged/spec/blobs/uploads/1?")), "{seen:?}");
}
