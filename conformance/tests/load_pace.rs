//! Loads at a rate and with pauses: latency counts from the moment a request was to start.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/paced.rs"]
mod paced;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use longshore_conformance::load::Summary;

/// A load of GETs of the server's blob.
fn load(address: SocketAddr, arguments: &[&str]) -> Output {
    let (url, size) = (format!("http://{address}"), paced::BLOB_BYTES.to_string());
    let common = ["load", &url, "--kind", "blob-get", "--prepared", "--repository", "x/y", "--warm-up", "0", "--size", &size];
    Command::new(env!("CARGO_BIN_EXE_rconform")).args(common).arg("--keep").args(arguments).output().unwrap()
}

fn summary(address: SocketAddr, arguments: &[&str]) -> Summary {
    let output = load(address, &[arguments, &["--format", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The server stops once, for 600 ms, in the middle of 400 requests.
fn stalls_once() -> SocketAddr {
    paced::start(|number| Duration::from_millis(if number == 200 { 600 } else { 0 }))
}

#[test]
fn a_stall_that_a_closed_load_hides_shows_in_an_open_one() {
    let closed = summary(stalls_once(), &["-n", "400", "-c", "2"]);
    assert_eq!((closed.requests, closed.failures), (400, 0));
    let latency = closed.latency_ms;
    assert!(latency.max > 599.0 && latency.p99 < 300.0, "only those under way were late: {latency}");

    let open = summary(stalls_once(), &["-n", "400", "-c", "2", "--rate", "200"]);
    assert_eq!((open.requests, open.failures), (400, 0));
    // 120 of them were to start while nothing was answered: three of ten, from 600 ms down to none.
    let latency = open.latency_ms;
    assert!(latency.max > 599.0 && latency.p90 > 300.0 && latency.p99 > 500.0, "{latency}");
    let offered = open.offered.unwrap();
    assert!(offered.not_started == 0 && offered.latest_start_ms > 500.0, "{offered:?}");
    assert!(closed.offered.is_none());
}

#[test]
fn a_rate_is_kept_and_shared_by_connections_and_threads() {
    for threads in ["1", "2"] {
        let arguments = ["--duration", "0.5", "-c", "4", "--rate", "200", "--threads", threads];
        let found = summary(paced::start(|_| Duration::ZERO), &arguments);
        let offered = found.offered.clone().unwrap();
        // As fast as it is answered there would be thousands; a busy machine may miss the last ones.
        assert_eq!((found.requests + offered.not_started, found.failures), (100, 0), "{found:?}");
        assert!(found.requests > 50 && found.seconds > 0.45, "{found:?}");
        assert!((offered.per_second - 200.0).abs() < 1.0, "{offered:?}");
        let counted = found.timeline.iter().map(|(_, per_second)| per_second).sum::<f64>() / found.timeline.len() as f64;
        assert!((counted - found.per_second).abs() < 0.1 * found.per_second, "{:?}", found.timeline);
        assert_eq!(found.threads, threads.parse::<usize>().unwrap());
    }
}

#[test]
fn a_rate_that_is_too_high_is_said_and_ends_in_time() {
    // 5 ms each, one after the other: 200 a second at most.
    let slow = || paced::start(|_| Duration::from_millis(5));
    let found = summary(slow(), &["--duration", "0.5", "-c", "4", "--rate", "1000"]);
    let offered = found.offered.unwrap();
    assert!(!offered.reached && offered.not_started > 300 && offered.started_per_second < 300.0, "{offered:?}");
    assert!(found.seconds < 5.0 && found.requests + offered.not_started == 500, "what is late is not made up for");
    let said = load(slow(), &["-n", "200", "-c", "4", "--rate", "1000"]);
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("WARNING: the rate was not reached"), "{text}");
}

#[test]
fn a_connection_thinks_between_its_requests_and_is_not_charged_for_it() {
    let found = summary(paced::start(|_| Duration::ZERO), &["-n", "5", "-c", "1", "--think-ms", "60"]);
    // Four pauses and five answers are all there was time for: neither is counted in the other.
    let answers_ms = 5.0 * found.latency_ms.mean;
    assert!(found.seconds >= 0.24 && answers_ms + 240.0 < 1e3 * found.seconds + 5.0, "{found:?}");
    assert!((found.think_ms - 60.0).abs() < 1e-9);
    let short = summary(paced::start(|_| Duration::ZERO), &["--duration", "0.2", "-c", "2", "--think-ms", "30000"]);
    assert!(short.requests == 2 && short.seconds < 5.0, "who thinks at the end does not hold it up: {short:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let address = paced::start(|_| Duration::ZERO);
    for bad in [
        &["--rate", "0"][..],
        &["--rate", "1e9"],
        &["--rate", "nan"],
        &["--rate", "5", "--think-ms", "5"],
        &["--think-ms", "100000"],
        &["--threads", "0"],
        &["-c", "100000"],
        &["--mix", "upload=1"],
    ] {
        let output = load(address, bad);
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}
