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
fn rconform(arguments: &[&str], password: Option<&str>) -> serde_json::Value {
    let rconform = Path::new(env!("CARGO_BIN_EXE_rhub")).with_file_name("rconform");
    let mut command = Command::new(&rconform);
    command.args(arguments).args(["--format", "json"]).envs(password.map(|password| ("RCONFORM_PASSWORD", password)));
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; run `cargo test --workspace`", rconform.display()));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// What is known not to pass, and how: an open registry has no logins to judge, `rhub` warns of nothing and
/// takes names of up to 220 bytes.
const OPEN: [(&str, &str); 2] = [("limits-name-long", "differs"), ("errors-warnings", "not-offered")];

/// Of what fell short, what was not to be expected.
fn surprises(report: &serde_json::Value, expected: impl Fn(&str, &str) -> bool) -> Vec<serde_json::Value> {
    let rows = report["requirements"].as_array().unwrap_or_else(|| panic!("{report}"));
    assert!(rows.len() > 160, "{}", rows.len());
    let known = |row: &serde_json::Value| expected(row["id"].as_str().unwrap(), row["verdict"].as_str().unwrap());
    rows.iter().filter(|row| row["verdict"] != "pass" && !known(row)).cloned().collect()
}

#[test]
fn rhub_conforms_to_every_requirement() {
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let report = rconform(&["spec", &format!("http://{}", rhub.address), "--anonymous"], None);
    let surprises =
        surprises(&report, |id, verdict| OPEN.contains(&(id, verdict)) || (id.starts_with("auth-") && verdict == "not-offered"));
    assert!(surprises.is_empty(), "{surprises:?}");
    assert_eq!(report["left_behind"], serde_json::json!([]));
}

#[test]
fn rhub_with_users_conforms_to_every_requirement() {
    let hub = Hub::start(&["tester"], "");
    let url = format!("http://{}", hub.rhub.address);
    let report = rconform(&["spec", &url, "--user", "tester"], Some(PASSWORD));
    let surprises = surprises(&report, |id, verdict| {
        // A token says which repositories may be looked into: without a source there is none.
        OPEN.contains(&(id, verdict)) || (id, verdict) == ("push-mount-anywhere", "not-offered")
    });
    assert!(surprises.is_empty(), "{surprises:?}");
    assert_eq!(report["left_behind"], serde_json::json!([]));
    assert!(!report.to_string().contains(PASSWORD));
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
        let found = rconform(&settings, None);
        let counts = [&found["requests"], &found["failures"], &found["left_behind"]];
        assert_eq!(counts, [200, 0, 0], "{found}");
        assert!(found["server"]["peak_bytes"].as_u64().unwrap() > 1 << 20, "{found}");
    }
    let large = ["load", &url, "--kind", "upload", "-c", "2", "-n", "4", "--size", "20MiB"];
    assert_eq!(rconform(&large, None)["failures"], 0);
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
    let found = rconform(&["load", &url, "--trace", trace.to_str().unwrap(), "--speed", "100", "-c", "4"], None);
    assert_eq!([&found["requests"], &found["failures"], &found["left_behind"]], [250, 0, 0], "{found}");
}

#[test]
fn a_load_is_put_by_a_user() {
    let rules = "[[access.rules]]\nwho = [\"user:admin\"]\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\", \"delete\"]\n";
    let hub = Hub::start(&["admin"], rules);
    let url = format!("http://{}", hub.rhub.address);
    let arguments = ["load", &url, "--kind", "mixed", "-n", "200", "-c", "4", "--user", "admin"];
    let found = rconform(&arguments, Some(PASSWORD));
    assert_eq!([&found["requests"], &found["failures"], &found["left_behind"]], [200, 0, 0], "{found}");
}
