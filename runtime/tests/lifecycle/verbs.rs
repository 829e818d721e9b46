//! Each verb does what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bundle::{ROCI, Run};
use crate::container::{Container, SERVICE, wait_until};

#[test]
fn a_container_is_created_started_signalled_and_deleted() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|spec| spec["annotations"] = serde_json::json!({ "org.example.key": "value" }));
    let pid_file = container.file("pid");
    assert_eq!(container.create(&["--pid-file", pid_file.to_str().unwrap()]).ok(), "");

    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!((&state["ociVersion"], &state["id"]), (&Value::from("1.2.0"), &Value::from(container.id())));
    assert_eq!(state["bundle"], container.bundle.directory.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert_eq!(container.out(), "", "the command has not run");

    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out() == "up");
    assert_eq!(container.status(), "running");
    container.roci(&["kill", container.id()]).ok();
    wait_until(|| container.status() == "stopped");
    assert_eq!(container.state()["pid"], 0);
    container.roci(&["delete", container.id()]).ok();
    assert!(container.is_gone());
    let run = container.roci(&["state", container.id()]);
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("does not exist"), "{}", run.err);
}

#[test]
fn a_created_container_is_a_sealed_program_of_a_few_pages_and_no_child_of_ours() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    container.create(&[]).ok();
    let process = format!("/proc/{}", container.pid());
    let exe = fs::read_link(format!("{process}/exe")).unwrap();
    assert!(exe.to_str().unwrap().contains("memfd:longshore-init"), "{exe:?}");
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u32 = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(kilobytes < 64, "{kilobytes} kB");
    assert!(!status.contains("TracerPid:\t1"));
}

#[test]
fn a_created_container_can_be_killed_and_deleted_without_a_start() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    container.create(&[]).ok();
    let delete = container.roci(&["delete", container.id()]);
    assert!(delete.code == Some(1) && delete.err.contains("it is created"), "{delete:?}");
    container.roci(&["delete", "--force", container.id()]).ok();
    assert!(container.is_gone());
    container.create(&[]).ok();
    container.roci(&["kill", container.id(), "KILL"]).ok();
    wait_until(|| container.status() == "stopped");
    let start = container.roci(&["start", container.id()]);
    assert!(start.code == Some(1) && start.err.contains("ended"), "{start:?}");
}

#[test]
fn what_becomes_of_the_creator_is_nothing_to_the_container() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    // A session of its own, killed as a whole once the container is there.
    let script = "\"$@\" || exit 1; kill -9 0";
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", script, "sh"]).arg(ROCI).arg("--root").arg(container.state.path());
    command.args(["create", "--bundle"]).arg(container.bundle.directory.path()).arg(container.id());
    let output = fs::File::create(container.file("out")).unwrap();
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).status().unwrap();
    assert_eq!(container.status(), "created");
    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out() == "up");
}

#[test]
fn run_detached_comes_back_at_once_and_run_keep_leaves_the_state() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| container.out() == "up");
    assert_eq!(container.status(), "running");
    container.roci(&["kill", container.id(), "SIGTERM"]).ok();
    wait_until(|| container.status() == "stopped");
    container.roci(&["delete", container.id()]).ok();

    let container = Container::sh("exit 3").unwrap();
    container.write(|_| {});
    assert_eq!(container.bring_up("run", &["--keep"]).code, Some(3));
    assert_eq!(container.status(), "stopped");
    container.roci(&["delete", container.id()]).ok();
    assert!(container.is_gone());
}

#[test]
fn a_container_in_the_foreground_has_a_state_while_it_runs_and_none_after() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    let mut command = container.command(&["run", "--bundle"]);
    command.arg(container.bundle.directory.path()).arg(container.id()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    // The command does not wait for the launcher to write it.
    wait_until(|| container.roci(&["state", container.id()]).code == Some(0));
    assert_eq!(container.status(), "running");
    assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
    container.roci(&["kill", container.id()]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(container.is_gone());
}

#[test]
fn kill_nine_of_a_foreground_run_leaves_no_state() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    let mut command = container.command(&["run", "--bundle"]);
    command.arg(container.bundle.directory.path()).arg(container.id()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| container.is_gone());
}

#[test]
fn list_shows_all_containers_in_columns_as_json_and_by_name() {
    let Some(one) = Container::service() else { return };
    let two = Container { state: tempfile::tempdir().unwrap(), bundle: crate::bundle::Bundle::sh(SERVICE).unwrap() };
    two.write(|_| {});
    let root = one.state.path().to_str().unwrap();
    let in_one =
        |args: &[&str]| Run::of(Command::new(ROCI).args(["--root", root]).args(args).stdout(Stdio::piped()).output().unwrap());
    // Closed output: the second container's own is nobody's to wait for.
    let mut create = Command::new(ROCI);
    create.args(["--root", root, "create", "--bundle"]).arg(two.bundle.directory.path()).arg(two.id());
    assert!(create.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());

    let quiet = in_one(&["list", "-q"]).ok();
    let mut expected = [one.id(), two.id()];
    expected.sort_unstable();
    assert_eq!(quiet.lines().collect::<Vec<_>>(), expected);
    let json: Value = serde_json::from_str(&in_one(&["list", "--format", "json"]).ok()).unwrap();
    let statuses: Vec<_> = json.as_array().unwrap().iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert!(statuses.contains(&"running") && statuses.contains(&"created"), "{json}");
    let table = in_one(&["list"]).ok();
    let words: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(table.lines().count(), 3);
    in_one(&["delete", "--force", two.id()]).ok();
    assert_eq!(in_one(&["list", "-q"]).ok(), one.id());
}

#[test]
fn ps_lists_the_container_s_processes_and_no_others() {
    let Some(container) = Container::service() else { return };
    let pid = container.pid();
    let json: Vec<i32> = serde_json::from_str(&container.roci(&["ps", "--format", "json", container.id()]).ok()).unwrap();
    assert!(json.contains(&pid) && json.len() <= 3, "{pid} in {json:?}");
    if !crate::needs::installed("ps") {
        return;
    }
    let table = container.roci(&["ps", container.id()]).ok();
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert!(table.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(&pid.to_string())), "{table}");
    assert!(table.lines().count() <= 4, "{table}");
    let chosen = container.roci(&["ps", container.id(), "-o", "pid,comm"]);
    assert_eq!(chosen.code, Some(0), "{chosen:?}");
}

#[test]
fn a_paused_container_stands_still_and_goes_on_when_resumed() {
    let Some(container) = Container::sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done") else { return };
    container.write(|_| {});
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| !container.out().is_empty());
    container.roci(&["pause", container.id()]).ok();
    assert_eq!(container.status(), "paused");
    let before = container.out();
    let exec = container.exec(&["true"]);
    assert!(exec.code == Some(255) && exec.err.contains("paused"), "{exec:?}");
    let again = container.roci(&["pause", container.id()]);
    assert!(again.code == Some(1) && again.err.contains("paused"), "{again:?}");
    assert_eq!(container.out(), before, "nothing has moved");
    container.roci(&["resume", container.id()]).ok();
    wait_until(|| container.out() != before);
    assert_eq!(container.roci(&["resume", container.id()]).code, Some(1));
    // A frozen container can be ended.
    container.roci(&["pause", container.id()]).ok();
    assert_eq!(container.roci(&["delete", container.id()]).code, Some(1));
    container.roci(&["delete", "--force", container.id()]).ok();
    assert!(container.is_gone());
}

#[test]
fn kill_all_reaches_processes_the_first_one_knows_nothing_of() {
    let Some(container) =
        Container::sh("(trap 'echo child; exit' USR1; echo up; while :; do sleep 0.02; done) & trap '' USR1; wait")
    else {
        return;
    };
    container.write(|_| {});
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| container.out() == "up");
    container.roci(&["kill", "--all", container.id(), "USR1"]).ok();
    wait_until(|| container.out().contains("child"));
}

#[test]
fn without_a_pid_namespace_of_its_own_kill_and_delete_still_leave_no_process() {
    let Some(container) = Container::sh("sleep 1000 & echo $!; wait") else { return };
    container.write(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/proc");
        spec["linux"]["maskedPaths"] = serde_json::json!([]);
        spec["linux"]["readonlyPaths"] = serde_json::json!([]);
        spec["linux"]["sysctl"] = serde_json::json!({});
    });
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| !container.out().is_empty());
    let child = container.out();
    container.roci(&["kill", container.id(), "KILL"]).ok();
    let ended = || fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
    wait_until(ended);
    container.roci(&["delete", container.id()]).ok();
    assert!(container.is_gone());
}

#[test]
fn events_give_an_account_once_or_until_the_end() {
    let Some(container) = Container::service() else { return };
    let line = container.roci(&["events", "--stats", container.id()]).ok();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&Value::from("stats"), &Value::from(container.id())));
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{line}");
    let mut stream = container.command(&["events", "--interval", "10ms", container.id()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    container.roci(&["kill", container.id(), "KILL"]).ok();
    assert!(stream.wait().unwrap().success(), "it ends with the container");
}

#[test]
fn features_name_what_is_offered() {
    let output = Command::new(ROCI).arg("features").output().unwrap();
    let features: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(features["linux"]["capabilities"][40], "CAP_CHECKPOINT_RESTORE");
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert_eq!(features["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
}

#[test]
fn the_version_is_printed_as_engines_read_it() {
    let output = Command::new(ROCI).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("roci version 0.") && text.contains("\nspec: 1."), "{text}");
}

#[test]
fn spec_writes_runc_s_example_once() {
    let directory = tempfile::tempdir().unwrap();
    let roci = || Run::of(Command::new(ROCI).args(["spec", "--bundle"]).arg(directory.path()).output().unwrap());
    roci().ok();
    let text = fs::read(directory.path().join("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((spec["process"]["args"][0].as_str(), spec["process"]["user"]["uid"].as_u64()), (Some("sh"), Some(0)));
    assert!(spec["process"]["user"]["additionalGids"].is_null() && spec["linux"]["seccomp"].is_null(), "{spec}");
    let again = roci();
    assert!(again.code == Some(1) && again.err.contains("not overwritten"), "{again:?}");
    assert_eq!(fs::read(directory.path().join("config.json")).unwrap(), text);
}
