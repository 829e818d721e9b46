//! `rhub` does what the distribution-spec says, as `rconform` sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::path::Path;
use std::process::Command;

use common::Rhub;

#[test]
fn rhub_conforms_to_every_requirement() {
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    // Beside rhub once the workspace is built.
    let rconform = Path::new(env!("CARGO_BIN_EXE_rhub")).with_file_name("rconform");
    let judged = Command::new(&rconform).args(["spec", &format!("http://{}", rhub.address), "--format", "json"]).output();
    let judged = judged.unwrap_or_else(|e| panic!("{}: {e}; run `cargo test --workspace`", rconform.display()));
    let report: serde_json::Value = serde_json::from_slice(&judged.stdout).unwrap();
    let rows = report["requirements"].as_array().unwrap_or_else(|| panic!("{report}"));
    let short: Vec<_> = rows.iter().filter(|row| row["verdict"] != "pass").collect();
    assert!(rows.len() > 50 && short.is_empty(), "{short:?}");
}
