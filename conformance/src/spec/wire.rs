//! Hostile input in how a request comes: lengths, hosts, headers and time.

use std::io::Write as _;
use std::time::Instant;

use super::{Context, Requirement, should};
use crate::limits::{HOSTILE_HEADER_BYTES, SERVED_WITHIN, SLOW_CONNECTIONS};
use crate::outcome::{Finding, Outcome};
use crate::raw::{self, RawAnswers, RawRequest};

const SMUGGLING: &str = "API; RFC 9112 section 6.1";
const LENGTHS: &str = "API; RFC 9112 section 6.3";
const HOST: &str = "API; RFC 9112 section 3.2";
const HEADERS: &str = "API; RFC 6585 section 5";
const TIME: &str = "API; RFC 9110 section 15.5.9";

pub(super) const TABLE: &[Requirement] = &[
    should("hostile-smuggling", SMUGGLING, "a request with a length and in chunks is refused, or is the last one", smuggling),
    should("hostile-length-conflict", LENGTHS, "a request with two lengths is refused", length_conflict),
    should("hostile-length-malformed", LENGTHS, "a length that is no number is refused", length_malformed),
    should("hostile-host-missing", HOST, "a request without Host is refused", host_missing),
    should("hostile-header-large", HEADERS, "a header of 2 MiB is a client's error", header_large),
    should("hostile-slow-clients", TIME, "64 clients that never finish keep nobody waiting", slow_clients),
];

/// Fails unless the request was refused: by an error of the client's, or a closed connection.
fn must_refuse(answers: &RawAnswers) -> Outcome {
    let answer = &answers.exchange;
    answer.must((400..500).contains(&answer.status()) || (answer.status() == 0 && answers.closed), "a 4xx status")
}

fn uploads(cx: &Context<'_>) -> Outcome<RawRequest> {
    cx.raw_request("POST", cx.path("blobs/uploads/").as_bytes(), true)
}

fn smuggling(cx: &Context<'_>) -> Outcome {
    let hidden = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", raw::host(cx.registry()));
    let body = format!("0\r\n\r\n{hidden}");
    let request = uploads(cx)?.header("Content-Length", &body.len().to_string()).header("Transfer-Encoding", "chunked");
    let answers = cx.send_raw(&request.body(body).answers(2))?;
    cx.note_session(&answers.exchange);
    let answer = &answers.exchange;
    if (400..500).contains(&answer.status()) || (answers.closed && answers.further.is_empty()) {
        return Ok(());
    }
    let note = match answers.further.first() {
        Some(status) => format!("the request hidden behind the last chunk was answered too, with {status}"),
        None => "the connection stays open, and Content-Length was what counted".into(),
    };
    Err(answer.clone().noted(note).fail("a 4xx status, or the end of the connection after the answer"))
}

fn length_conflict(cx: &Context<'_>) -> Outcome {
    let request = uploads(cx)?.header("Content-Length", "0").header("Content-Length", "5").body("hello");
    let answers = cx.send_raw(&request)?;
    cx.note_session(&answers.exchange);
    must_refuse(&answers)
}

fn length_malformed(cx: &Context<'_>) -> Outcome {
    for length in ["+5", "0x5", "-5", "5 5", "99999999999999999999999"] {
        let answers = cx.send_raw(&uploads(cx)?.header("Content-Length", length).body("hello"))?;
        cx.note_session(&answers.exchange);
        must_refuse(&answers)?;
    }
    Ok(())
}

fn host_missing(cx: &Context<'_>) -> Outcome {
    must_refuse(&cx.send_raw(&RawRequest::new("GET", b"/v2/"))?)
}

fn header_large(cx: &Context<'_>) -> Outcome {
    let request = cx.raw_request("GET", b"/v2/", false)?.header("X-Large", &"x".repeat(HOSTILE_HEADER_BYTES));
    let answers = cx.send_raw(&request)?;
    if answers.exchange.status() == 200 {
        return Err(Finding::Differs(format!("a header of {HOSTILE_HEADER_BYTES} bytes is taken")));
    }
    must_refuse(&answers)?;
    cx.must_still_serve()
}

fn slow_clients(cx: &Context<'_>) -> Outcome {
    let request = cx.raw_request("GET", b"/v2/", false)?;
    let begun = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\nX-Slow: ", raw::host(cx.registry()));
    let mut slow = Vec::new();
    for _ in 0..SLOW_CONNECTIONS {
        let mut stream = raw::connect(cx.registry())?;
        // Closed at once is one way to deal with them.
        let _ = stream.write_all(begun.as_bytes());
        slow.push(stream);
    }
    let start = Instant::now();
    let answer = cx.send_raw(&request)?.exchange;
    let elapsed = start.elapsed();
    drop(slow);
    answer.must(answer.status() != 0 && elapsed < SERVED_WITHIN, format_args!("an answer within {SERVED_WITHIN:?}"))
}
