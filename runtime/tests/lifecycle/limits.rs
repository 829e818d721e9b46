//! `update`: limits of a running container that bite at once, and usage as it is counted.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Run;
use crate::container::{Container, SERVICE, wait_until};
use crate::needs::useful;

/// A running container with cgroups in all hierarchies; `None` where the host has no `controller`.
fn limited(controller: &str) -> Option<Container> {
    let container = Container::sh(SERVICE)?;
    let v1 = Path::new("/sys/fs/cgroup").join(controller).is_dir();
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|list| list.contains(controller));
    if !useful(v1 || v2, &format!("the {controller} controller")) {
        return None;
    }
    container.write(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 100 });
        spec["linux"]["resources"]["memory"] = json!({ "limit": 256 << 20 });
        spec["linux"]["resources"]["cpu"] = json!({ "shares": 512 });
    });
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| container.out() == "up");
    Some(container)
}

/// A file of the container's cgroup as the host sees it: by its v1 or its cgroup2 name.
fn read(container: &Container, controller: &str, v1: &str, v2: &str) -> String {
    let name = format!("longshore-{}", container.id());
    let paths: [PathBuf; 2] =
        [Path::new("/sys/fs/cgroup").join(controller).join(&name).join(v1), Path::new("/sys/fs/cgroup").join(&name).join(v2)];
    let text = paths.iter().find_map(|path| std::fs::read_to_string(path).ok());
    text.unwrap_or_else(|| panic!("neither of {paths:?}")).trim().to_owned()
}

#[test]
fn a_limit_of_processes_set_by_a_flag_stops_the_next_fork() {
    let Some(container) = limited("pids") else { return };
    container.exec(&["sh", "-c", "sleep 0.01 & sleep 0.01 & wait"]).ok();
    container.roci(&["update", "--pids-limit", "3", container.id()]).ok();
    assert_eq!(read(&container, "pids", "pids.max", "pids.max"), "3");
    let run = container.exec(&["sh", "-c", "for i in 1 2 3 4 5; do sleep 1 & done; wait"]);
    assert!(run.err.contains("fork") && run.code != Some(0), "{run:?}");
    container.roci(&["update", "--pids-limit", "-1", container.id()]).ok();
    container.exec(&["sh", "-c", "for i in 1 2 3 4 5; do sleep 0.01 & done; wait"]).ok();
}

#[test]
fn a_document_on_standard_input_changes_what_it_has_and_nothing_else() {
    let Some(container) = limited("memory") else { return };
    let mut child = container.command(&["update", "--resources=-", container.id()]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"memory":{"limit":134217728},"devices":[]}"#).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read(&container, "memory", "memory.limit_in_bytes", "memory.max"), (128 << 20).to_string());
    assert_eq!(read(&container, "pids", "pids.max", "pids.max"), "100");
    container.roci(&["update", "--memory", "64m", "--cpu-quota", "50000", "--cpu-period", "100000", container.id()]).ok();
    assert_eq!(read(&container, "memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let quota = read(&container, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    for document in ["{", "[]", r#"{"memory":{"limit":"much"}}"#] {
        let path = container.file("resources.json");
        std::fs::write(&path, document).unwrap();
        let run = container.roci(&["update", "-r", path.to_str().unwrap(), container.id()]);
        assert!(run.code == Some(1) && run.err.contains("resources"), "{run:?}");
    }
    assert_ne!(container.roci(&["update", "--memory", "lots", container.id()]).code, Some(0));
    // The devices of before still hold.
    let mknod = container.exec(&["sh", "-c", "mknod /tmp/mem c 1 1 && cat /tmp/mem"]);
    assert!(mknod.code != Some(0) && mknod.err.contains("not permitted"), "{mknod:?}");
}

#[test]
fn events_count_memory_and_processes_and_tell_of_kills_for_want_of_memory() {
    let Some(container) = limited("memory") else { return };
    let stats = || -> Value { serde_json::from_str(&container.roci(&["events", "--stats", container.id()]).ok()).unwrap() };
    let data = stats()["data"].clone();
    assert_eq!(data["memory"]["usage"]["limit"], 256 << 20);
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["pids"]["limit"], 100);
    assert!(data["pids"]["current"].as_u64().unwrap() > 0, "{data}");
    let mut command = container.command(&["events", "--interval", "20ms", container.id()]);
    let mut stream = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stream.stdout.take().unwrap()));
    container.roci(&["update", "--memory", "16m", "--memory-swap", "16m", container.id()]).ok();
    // tail keeps a line that never ends.
    let eater = container.exec(&["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M count=1"]);
    assert_eq!(eater.code, Some(137), "{eater:?}");
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(lines.any(|event| event["type"] == "oom" && event["id"] == container.id()));
    stream.kill().unwrap();
    stream.wait().unwrap();
}

#[test]
fn cgroups_of_all_hierarchies_are_found_again_frozen_and_removed() {
    let Some(container) = limited("pids") else { return };
    container.roci(&["pause", container.id()]).ok();
    assert_eq!(container.status(), "paused");
    container.roci(&["resume", container.id()]).ok();
    let memory = read(&container, "memory", "cgroup.procs", "cgroup.procs");
    let pids: Vec<i32> = serde_json::from_str(&container.roci(&["ps", "-f", "json", container.id()]).ok()).unwrap();
    assert!(memory.lines().any(|line| line == container.pid().to_string()) && pids.contains(&container.pid()));
    let out = Run::of(container.command(&["delete", "--force", container.id()]).output().unwrap());
    out.ok();
    let name = format!("longshore-{}", container.id());
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!entry.unwrap().path().join(&name).exists());
    }
}
