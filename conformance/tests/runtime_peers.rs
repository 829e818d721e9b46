//! The runtimes of Debian and `roci` are judged: what they do otherwise is exactly what the docs list.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;
#[path = "support/runtimes.rs"]
mod runtimes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Where cgroups of both versions are mounted, version 2 is: crun 1.8 refuses such a machine when that has controllers.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Whether this machine can run containers for the tests.
fn ready() -> bool {
    let found = [needs::root(), needs::installed("busybox")];
    !found.contains(&false)
}

/// `rconform runtime`, in a mount namespace without the cgroups of version 2 that are beside version 1.
fn rconform(arguments: &[&str]) -> Output {
    let script = format!("if mountpoint -q {UNIFIED}; then umount {UNIFIED}; fi; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_rconform"), "runtime"]);
    command.args(arguments).output().unwrap()
}

fn judge(program: &Path) -> Value {
    let output = rconform(&[&program.to_string_lossy(), "--format", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
    assert_eq!(report["left_behind"], Value::Array(Vec::new()));
    let fails = |row: &Value| row["level"] == "MUST" && row["verdict"] == "fail";
    let conforms = !report["requirements"].as_array().unwrap().iter().any(fails);
    assert_eq!(output.status.code(), Some(i32::from(!conforms)), "{errors}");
    report
}

fn with<'a>(report: &'a Value, verdict: &str) -> Vec<&'a str> {
    let rows = report["requirements"].as_array().unwrap();
    rows.iter().filter(|row| row["verdict"] == verdict).map(|row| row["id"].as_str().unwrap()).collect()
}

/// What fails, with its steps: for whoever reads that a test failed.
fn told(report: &Value, ids: &[&str]) -> String {
    let rows = report["requirements"].as_array().unwrap().iter();
    let unexpected = rows.filter(|row| row["verdict"] == "fail" && !ids.contains(&row["id"].as_str().unwrap()));
    unexpected.map(|row| format!("{}: expected {}\n{}\n", row["id"], row["detail"], row["exchange"].as_str().unwrap())).collect()
}

#[track_caller]
fn fails_exactly(report: &Value, expected: &[&str]) {
    assert_eq!(with(report, "fail"), expected, "\n{}", told(report, expected));
}

#[test]
fn what_crun_does_otherwise_is_known() {
    let Some(crun) = runtimes::peer("crun").filter(|_| ready()) else { return };
    let report = judge(&crun);
    fails_exactly(&report, runtimes::CRUN_FAILS);
    assert_eq!(with(&report, "differs"), Vec::<&str>::new());
}

#[test]
fn what_runc_does_otherwise_is_known() {
    let Some(runc) = runtimes::peer("runc").filter(|_| ready()) else { return };
    let report = judge(&runc);
    fails_exactly(&report, runtimes::RUNC_FAILS);
    assert_eq!(with(&report, "differs"), Vec::<&str>::new());
}

/// `roci`, built beside `rconform`.
fn roci() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_rconform")).with_file_name("roci");
    needs::useful(path.is_file(), "roci beside rconform: cargo test --workspace builds it").then_some(path)
}

#[test]
fn roci_does_all_that_is_required_of_it() {
    let Some(roci) = roci().filter(|_| ready()) else { return };
    let report = judge(&roci);
    fails_exactly(&report, &[]);
    assert_eq!(with(&report, "differs"), Vec::<&str>::new());
    // What this machine has not.
    let machine = ["mounts-propagation-slave", "cgroups-unified"];
    let not_offered = with(&report, "not-offered");
    assert!(not_offered.iter().all(|id| machine.contains(id)), "{not_offered:?}");
}

#[test]
fn launches_are_measured_in_turns() {
    let (Some(runc), Some(crun)) = (runtimes::peer("runc"), runtimes::peer("crun")) else { return };
    if !ready() {
        return;
    }
    let (runc, crun) = (runc.to_string_lossy(), crun.to_string_lossy());
    let output = rconform(&[&crun, "--time", "--versus", &runc, "-n", "3", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let timing: Value = serde_json::from_slice(&output.stdout).unwrap();
    let operations = timing["operations"].as_array().unwrap();
    let names: Vec<_> = operations.iter().map(|row| row["operation"].as_str().unwrap()).collect();
    assert_eq!(names, ["run", "create", "start", "delete", "exec"]);
    for row in operations {
        let median = |who: &str| row[who]["median_ms"].as_f64().unwrap();
        assert!(median("subject") > 0.0 && median("versus") > 0.0, "{row}");
        let ratio: Vec<_> = row["ratio"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        assert!(ratio[0] <= ratio[1] && ratio[1] <= ratio[2], "{row}");
    }
}

#[test]
fn a_runtime_that_cannot_be_judged_gives_exit_code_2_and_the_reason() {
    for (program, reason) in [("/nowhere/runtime", "there is no program"), ("no-such-runtime", "in PATH")] {
        let output = Command::new(env!("CARGO_BIN_EXE_rconform")).args(["runtime", program]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_list_names_every_requirement_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_rconform")).args(["runtime", "--list", "--skip", "exec"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 200 && !text.contains("exec-output") && text.contains("mounts-order"), "{text}");
}
