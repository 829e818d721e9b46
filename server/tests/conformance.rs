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
    let surprises = surprises(&report, |id, verdict| {
        OPEN.contains(&(id, verdict))
            || (id.starts_with("auth-") && verdict == "not-offered")
            // RFC 9112 section 3.2 wants a 400; without users nothing here looks at Host.
            || (id, verdict) == ("hostile-host-missing", "fail")
    });
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
    for kind in ["manifest-get", "blob-get", "blob-head", "upload", "manifest-put", "tag-put", "tag-list"] {
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
