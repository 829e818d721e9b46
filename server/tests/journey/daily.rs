//! What is done with containers while they run: frozen, renamed, looked at.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Mounts, Ready};

#[test]
fn a_paused_container_stands_still_until_it_goes_on_or_is_stopped() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let count = "trap 'echo bye; exit 33' TERM; n=0; while :; do n=$((n + 1)); echo $n; sleep 0.01; done";
    let id = ready.detach(&["--name", "counter"], count);
    let lines = || ready.rbox(&["logs", "counter"]).lines().count();
    wait_until("it counts", || lines() > 3);
    assert_eq!(ready.rbox(&["pause", "counter"]), "counter\n");
    assert!(ready.status(&id).unwrap().ends_with("(Paused)"));
    let state = &ready.inspect("counter")["State"];
    assert_eq!(
        (state["Status"].as_str(), state["Paused"].as_bool(), state["Running"].as_bool()),
        (Some("paused"), Some(true), Some(true))
    );
    assert_eq!(ready.rbox(&["ps", "-q", "--no-trunc", "--filter", "status=paused"]), format!("{id}\n"));
    let stood = lines();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(lines(), stood);
    assert!(ready.user.fail("rbox", &["pause", "counter"]).contains("paused"));
    assert!(ready.user.fail("rbox", &["exec", "counter", "true"]).contains("paused"));
    assert_eq!(ready.rbox(&["unpause", "counter"]), "counter\n");
    wait_until("it goes on", || lines() > stood);
    assert!(ready.user.fail("rbox", &["unpause", "counter"]).contains("running"));
    // Who is stopped while paused hears it, and is not killed for not hearing.
    ready.rbox(&["pause", "counter"]);
    ready.rbox(&["stop", "counter"]);
    assert!(ready.status(&id).unwrap().starts_with("Exited (33) "));
    assert!(ready.user.fail("rbox", &["pause", "counter"]).contains("not running"));
    // And who is killed then is killed.
    ready.rbox(&["start", "counter"]);
    ready.rbox(&["pause", "counter"]);
    ready.rbox(&["rm", "-f", "counter"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_container_is_called_something_else_while_it_runs() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let (first, second) = (ready.detach(&["--name", "one"], POLITE), ready.detach(&["--name", "two"], POLITE));
    for (name, why) in [("two", "already"), ("one", "already"), ("a/b", "must match"), ("", "must match")] {
        let said = ready.user.fail("rbox", &["rename", "one", name]);
        assert!(said.contains(why) || said.contains("in use"), "{name:?}: {said}");
    }
    assert_eq!(ready.rbox(&["rename", "one", "uno"]), "");
    assert_eq!(ready.inspect("uno")["Id"].as_str(), Some(&*first));
    assert!(ready.user.fail("rbox", &["inspect", "one"]).contains("one"));
    // Its old name is free, also where a rename was broken off that had given it the new one.
    std::os::unix::fs::symlink(&first, ready.user.store().join("names/one")).unwrap();
    assert!(ready.user.fail("rbox", &["logs", "one"]).contains("not found"));
    ready.rbox(&["rename", "two", "one"]);
    assert_eq!(ready.inspect("one")["Id"].as_str(), Some(&*second));
    ready.rbox(&["stop", "uno", "one"]);
    assert!(ready.status(&first).unwrap().starts_with("Exited (33)"));
    ready.rbox(&["start", "uno"]);
    ready.rbox(&["rm", "-f", "uno", "one"]);
    no_containers(&ready, &before, &[&first, &second]);
}

#[test]
fn processes_and_what_they_use_are_shown_as_dockers() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let busy = ready.detach(&["--name", "busy"], "(sleep 1000 &); while :; do :; done");
    let idle = ready.detach(&["--name", "idle"], POLITE);
    wait_until("both processes are there", || ready.rbox(&["top", "busy"]).lines().count() == 3);
    let top = ready.rbox(&["top", "busy"]);
    assert!(top.starts_with("UID ") && top.contains("sleep 1000"), "{top}");
    assert_eq!(ready.rbox(&["top", "busy", "-eo", "pid,comm"]).lines().count(), 3);
    assert!(ready.user.fail("rbox", &["top", "busy", "-eo", "comm"]).contains("PID"));

    let table = ready.rbox(&["stats", "--no-stream"]);
    let headings: Vec<&str> = table.lines().next().unwrap().split("  ").map(str::trim).filter(|h| !h.is_empty()).collect();
    assert_eq!(headings, ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]);
    let row = |name: &str| -> serde_json::Value {
        let text = ready.rbox(&["stats", "--no-stream", "--no-trunc", "--format", "json", name]);
        serde_json::from_str(text.trim_end()).unwrap()
    };
    let percent = |row: &serde_json::Value| row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse::<f64>().unwrap();
    let (one, other) = (row("busy"), row("idle"));
    assert_eq!((one["ID"].as_str(), one["Name"].as_str(), one["PIDs"].as_str()), (Some(&*busy), Some("busy"), Some("2")));
    assert!(percent(&one) > 3.0 * percent(&other) && percent(&one) < 130.0, "{one} {other}");
    let memory = one["MemUsage"].as_str().unwrap();
    assert!(memory.contains("iB / ") && !memory.starts_with("0B"), "{memory}");
    assert_eq!(one["NetIO"], "0B / 0B");
    // As it changes: a look each second, until nobody reads any more.
    let mut stream = ready.user.command("rbox", &["stats", "--format", "json", "idle"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    assert!((0..2).all(|_| lines.next().unwrap().unwrap().contains("idle")));
    drop(lines);
    assert!(stream.wait().unwrap().success(), "that nobody reads any more is no error");
    ready.rbox(&["stop", "idle"]);
    let rows = ready.rbox(&["stats", "--no-stream", "--all"]);
    assert!(rows.lines().any(|row| row.contains("idle") && row.contains("-- / --")), "{rows}");
    assert!(ready.user.fail("rbox", &["top", "idle"]).contains("not running"));
    assert!(ready.user.fail("rbox", &["stats", "--no-stream", "nobody"]).contains("not found"));
    ready.rbox(&["rm", "-f", "busy", "idle"]);
    no_containers(&ready, &before, &[&busy, &idle]);
}

#[test]
fn verbs_are_behind_their_nouns_too_and_info_counts_what_there_is() {
    let Some(ready) = Ready::new() else { return };
    let id = ready.detach(&["--name", "runs"], POLITE);
    let other = ready.rbox(&["container", "create", "--name", "made", &ready.image]).trim_end().to_owned();
    ready.logged(&id, "up");
    for list in ["ls", "list", "ps"] {
        assert_eq!(ready.rbox(&["container", list, "-q", "--no-trunc"]), format!("{id}\n"), "{list}");
    }
    assert_eq!(ready.rbox(&["container", "logs", "runs"]), "up\n");
    assert_eq!(ready.rbox(&["container", "exec", "runs", "echo", "hello"]), "hello\n");
    assert!(ready.rbox(&["container", "inspect", "runs"]).contains(&id));
    assert!(ready.user.fail("rbox", &["container", "inspect", &ready.image]).contains("container"));
    assert!(ready.user.fail("rbox", &["image", "inspect", "runs"]).contains("image"));
    assert_eq!(ready.rbox(&["image", "inspect", &ready.image]), ready.rbox(&["inspect", &ready.image]));
    assert_eq!(ready.rbox(&["image", "ls"]), ready.rbox(&["images"]));
    let info: serde_json::Value = serde_json::from_str(&ready.rbox(&["system", "info", "--format", "json"])).unwrap();
    let counts = ["Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images"];
    assert_eq!(counts.map(|key| info[key].as_u64().unwrap()), [2, 1, 0, 1, 1]);
    assert_eq!(info["DockerRootDir"], ready.user.store().to_str().unwrap());
    assert!(ready.rbox(&["info"]).starts_with("Containers: 2\n Running: 1\n Paused: 0\n Stopped: 1\nImages: 1\n"));
    let version: serde_json::Value = serde_json::from_str(&ready.rbox(&["version", "--format", "json"])).unwrap();
    assert_eq!(version["Client"]["Version"], env!("CARGO_PKG_VERSION"));
    // docker has none of these by itself.
    for alone in ["ls", "list", "prune"] {
        assert!(ready.user.fail("rbox", &[alone]).contains("unrecognized subcommand"), "{alone}");
    }
    ready.rbox(&["container", "stop", "runs"]);
    ready.rbox(&["container", "rm", "runs", "made"]);
    let all = ready.rbox(&["system", "events", "--until", "0s"]);
    assert!(all.contains(&other) && all.contains("image pull"), "{all}");
    assert!(ready.rbox(&["image", "remove", &ready.image]).contains("Untagged"));
}
