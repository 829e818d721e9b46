//! `rhub` does what the distribution-spec says, and under load too, as `rconform` sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::path::Path;
use std::process::Command;

use common::Rhub;

/// `rconform`, which is beside rhub once the workspace is built.
fn rconform(arguments: &[&str]) -> serde_json::Value {
    let rconform = Path::new(env!("CARGO_BIN_EXE_rhub")).with_file_name("rconform");
    let output = Command::new(&rconform).args(arguments).args(["--format", "json"]).output();
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
    for kind in ["manifest-get", "blob-get", "blob-head", "upload", "manifest-put", "tag-put", "tag-list"] {
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
