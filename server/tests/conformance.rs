//! `rhub` does what the distribution-spec says, and under load too, as `rconform` sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;
#[path = "common/users.rs"]
mod users;

use std::path::Path;
use std::process::Command;

use common::Rhub;
use users::{Hub, PASSWORD};

/// `rconform`, which is beside rhub once the workspace is built.
fn rconform(arguments: &[&str]) -> serde_json::Value {
    rconform_with(arguments, "")
}

/// With the password of the user it is told.
fn rconform_with(arguments: &[&str], password: &str) -> serde_json::Value {
    let rconform = Path::new(env!("CARGO_BIN_EXE_rhub")).with_file_name("rconform");
    let output = Command::new(&rconform).args(arguments).args(["--format", "json"]).env("RCONFORM_PASSWORD", password).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; run `cargo test --workspace`", rconform.display()));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn rhub_conforms_to_every_requirement() {
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let report = rconform(&["spec", &format!("http://{}", rhub.address)]);
    let rows = report["requirements"].as_array().unwrap_or_else(|| panic!("{report}"));
    let short: Vec<_> = rows.iter().filter(|row| row["verdict"] != "pass").collect();
    assert!(rows.len() > 50 && short.is_empty(), "{short:?}");
}

#[test]
fn no_request_of_any_load_fails_and_what_it_pushed_can_be_deleted() {
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let (url, pid) = (format!("http://{}", rhub.address), rhub.pid().to_string());
    let reads = ["manifest-get", "manifest-head", "blob-get", "blob-head", "tag-list", "referrers"];
    for kind in reads.into_iter().chain(["upload", "manifest-put", "tag-put", "mixed"]) {
        let settings =
            ["load", &url, "--kind", kind, "-c", "8", "-n", "200", "--warm-up", "0", "--existing-tags", "150", "--pid", &pid];
        let found = rconform(&settings);
        let counts = [&found["requests"], &found["failures"], &found["left_behind"]];
        assert_eq!(counts, [200, 0, 0], "{found}");
        assert!(found["server"]["peak_bytes"].as_u64().unwrap() > 1 << 20, "{found}");
    }
    let large = ["load", &url, "--kind", "upload", "-c", "2", "-n", "4", "--size", "20MiB"];
    assert_eq!(rconform(&large)["failures"], 0);
    for repository in rhub.get("/v2/_catalog").json()["repositories"].as_array().unwrap() {
        let tags = rhub.get(&format!("/v2/{}/tags/list", repository.as_str().unwrap()));
        assert_eq!(tags.json()["tags"], serde_json::json!([]), "no load left a tag");
    }
}

#[test]
fn a_trace_is_replayed_and_what_it_pushed_can_be_deleted() {
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let record = |second: u32, method: &str, path: &str, status: u16, written: u32| {
        let timestamp = format!("2017-06-20T02:41:{second:02}.399Z");
        serde_json::json!({
            "http.request.method": method, "http.request.uri": format!("v2/4715bf52/437c49db/{path}"), "timestamp": timestamp,
            "http.response.status": status, "http.response.written": written,
        })
    };
    let records: Vec<_> = (0..50)
        .flat_map(|second| {
            let session = format!("blobs/uploads/{second}");
            [
                record(second, "GET", &format!("manifests/{}", second % 7), 200, 1000 + second),
                record(second, "GET", &format!("blobs/{second}"), 200, 1000 * second),
                record(second, "HEAD", &format!("blobs/absent{second}"), 404, 0),
                record(second, "PATCH", &session, 202, 5000 + second),
                record(second, "PUT", &session, 201, 0),
                record(second, "PUT", &format!("manifests/new{second}"), 201, 2000),
            ]
        })
        .collect();
    let trace = data.path().join("trace.json");
    std::fs::write(&trace, serde_json::to_vec(&records).unwrap()).unwrap();
    let url = format!("http://{}", rhub.address);
    let found = rconform(&["load", &url, "--trace", trace.to_str().unwrap(), "--speed", "100", "-c", "4"]);
    assert_eq!([&found["requests"], &found["failures"], &found["left_behind"]], [250, 0, 0], "{found}");
}

#[test]
fn a_load_is_put_by_a_user() {
    let rules = "[[access.rules]]\nwho = [\"user:admin\"]\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\", \"delete\"]\n";
    let hub = Hub::start(&["admin"], rules);
    let url = format!("http://{}", hub.rhub.address);
    let arguments = ["load", &url, "--kind", "mixed", "-n", "200", "-c", "4", "--user", "admin"];
    let found = rconform_with(&arguments, PASSWORD);
    assert_eq!([&found["requests"], &found["failures"], &found["left_behind"]], [200, 0, 0], "{found}");
}
