//! Two registries under the same load in turn.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/paced.rs"]
mod paced;
mod support;

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use longshore_conformance::load::{Comparison, Kind};

fn versus(first: &str, second: &str, arguments: &[&str]) -> Output {
    let common = ["load", first, "--versus", second];
    Command::new(env!("CARGO_BIN_EXE_rconform")).args(common).args(arguments).output().unwrap()
}

#[test]
fn the_slower_one_is_found_and_by_how_much() {
    let [quick, slow] = [2, 60].map(|ms| format!("http://{}", paced::start(move |_| Duration::from_millis(ms))));
    let size = paced::BLOB_BYTES.to_string();
    let settings = ["--kind", "blob-get", "--prepared", "--repository", "x/y", "--keep", "--size", &size, "--warm-up", "0"];
    let own = std::process::id().to_string();
    let settings = [&settings[..], &["-n", "6", "-c", "2", "--rounds", "3", "--pid", &own, "--versus-pid", &own]].concat();
    let output = versus(&quick, &slow, &[&settings[..], &["--format", "json"]].concat());
    let found: Comparison = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!((found.rounds.len(), found.failures(), output.status.code()), (3, 0, Some(0)));
    let figure = |name: &str| found.figures.iter().find(|figure| figure.name == name).unwrap();
    // By how much exactly is up to the machine's load: that the first is the quicker one is not.
    for (name, more_is_quicker) in [("requests/s", true), ("MB/s", true), ("p50 ms", false)] {
        let figure = figure(name);
        assert_eq!(figure.ratio < 1.0, more_is_quicker, "{figure:?}");
        assert!(figure.ratio_min <= figure.ratio && figure.ratio <= figure.ratio_max, "{figure:?}");
        assert!(figure.first > 0.0 && figure.second > 0.0);
    }
    assert!(figure("peak MiB").ratio > 0.5);
    let text = String::from_utf8(versus(&quick, &slow, &settings).stdout).unwrap();
    assert!(
        text.contains("blob-get over 2 connections, 3 rounds") && text.contains("requests/s") && text.contains(" to "),
        "{text}"
    );
}

#[test]
fn both_are_given_the_same_content_and_the_same_work() {
    let (address, state) = support::start(None);
    let url = format!("http://{address}");
    // One registry plays both: what it is given twice, it has once.
    for (kind, each) in [("upload", 1), ("manifest-put", 2)] {
        let settings = ["--kind", kind, "-n", "6", "-c", "2", "--rounds", "3", "--warm-up", "0", "--repository", kind, "--keep"];
        let before = state.lock().unwrap().len();
        let output = versus(&url, &url, &settings);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let image = if kind == "upload" { 0 } else { 3 };
        assert_eq!(state.lock().unwrap().len() - before, each * 6 * 3 + image, "{kind}");
    }
    let (address, state) = support::start(None);
    let url = format!("http://{address}");
    let mixed =
        ["--kind", "mixed", "-n", "100", "--rounds", "2", "--warm-up", "0.01", "--existing-tags", "20", "--format", "json"];
    let output = versus(&url, &format!("http://{}", support::start(None).0), &mixed);
    let found: Comparison = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    for summary in found.rounds.iter().flatten() {
        let count = |kind| summary.parts.iter().find(|part| part.kind == kind).map_or(0, |part| part.requests);
        let counts = [Kind::ManifestGet, Kind::BlobGet, Kind::Upload, Kind::TagPut, Kind::TagList].map(count);
        assert_eq!((counts, summary.failures, summary.left_behind), ([70, 20, 5, 3, 2], 0, 0), "{summary:?}");
    }
    assert_eq!(state.lock().unwrap().len(), 0, "both are left as they were");
}

#[test]
fn one_that_cannot_be_measured_leaves_nothing_on_the_other() {
    let (address, state) = support::start(None);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = versus(&format!("http://{address}"), &format!("http://{closed}"), &["--kind", "manifest-get", "-n", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains(&closed.to_string()), "{said}");
    assert_eq!(state.lock().unwrap().len(), 0);
}
