//! What is wrong is refused by name, changes nothing and leaves nothing behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{ROCI, Run};
use crate::container::{Container, SERVICE, wait_until};

#[track_caller]
fn refused(run: &Run, code: i32, words: &str) {
    assert_eq!(run.code, Some(code), "{run:?}");
    assert!(run.err.contains(words), "{run:?}");
}

#[test]
fn a_container_nobody_knows_is_refused_by_every_verb_in_words_engines_look_for() {
    let state = tempfile::tempdir().unwrap();
    let roci = |args: &[&str]| Run::of(Command::new(ROCI).arg("--root").arg(state.path()).args(args).output().unwrap());
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "events", "ps", "checkpoint"] {
        refused(&roci(&[verb, "nobody"]), 1, "does not exist");
    }
    refused(&roci(&["update", "--pids-limit", "3", "nobody"]), 1, "does not exist");
    refused(&roci(&["exec", "nobody", "true"]), 255, "does not exist");
    roci(&["delete", "--force", "nobody"]).ok();
    assert_eq!(roci(&["list", "-q"]).ok(), "");
}

#[test]
fn ids_that_would_be_paths_are_refused_by_every_verb() {
    let state = tempfile::tempdir().unwrap();
    let outside = state.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("state.json"), "{}").unwrap();
    let root = state.path().join("root");
    fs::create_dir(&root).unwrap();
    for id in ["../outside", "..", ".", "", "a/b", "/etc", "a\nb", &"x".repeat(129), ".hidden"] {
        for verb in ["start", "state", "kill", "delete", "pause", "resume", "events", "ps", "exec", "update", "create", "run"] {
            let mut command = Command::new(ROCI);
            command.arg("--root").arg(&root).arg(verb);
            if verb == "delete" {
                command.arg("--force");
            }
            command.arg("--").arg(id);
            if verb == "exec" {
                command.arg("true");
            }
            let run = Run::of(command.current_dir(state.path()).output().unwrap());
            assert!(run.code.is_some_and(|code| code != 0), "{verb} {id:?}: {run:?}");
        }
    }
    assert!(outside.join("state.json").exists());
}

#[test]
fn a_second_container_of_the_same_name_is_refused_and_harms_nothing() {
    let Some(container) = Container::service() else { return };
    let pid = container.pid();
    let out = container.out();
    for verb in ["create", "run"] {
        let mut command = container.command(&[verb, "--bundle"]);
        let run = Run::of(command.arg(container.bundle.directory.path()).arg(container.id()).output().unwrap());
        refused(&run, if verb == "run" { 125 } else { 1 }, "already exists");
    }
    assert_eq!((container.pid(), container.status(), container.out()), (pid, "running".into(), out));
}

#[test]
fn what_runs_is_neither_deleted_nor_started_again() {
    let Some(container) = Container::service() else { return };
    refused(&container.roci(&["delete", container.id()]), 1, "it is running");
    refused(&container.roci(&["start", container.id()]), 1, "running");
    assert_eq!(container.status(), "running");
    container.roci(&["kill", container.id(), "KILL"]).ok();
    wait_until(|| container.status() == "stopped");
    refused(&container.roci(&["kill", container.id()]), 1, "container not running");
    refused(&container.exec(&["true"]), 255, "container not running");
    refused(&container.roci(&["pause", container.id()]), 1, "container not running");
    refused(&container.roci(&["kill", container.id(), "NOSIGNAL"]), 1, "signal");
}

#[test]
fn a_broken_state_is_named_and_removed_by_force_alone() {
    for text in ["", "{", "[]", "{\"id\":7}", "\0\0"] {
        let Some(container) = Container::sh(SERVICE) else { return };
        let directory = container.state.path().join(container.id());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("state.json"), text).unwrap();
        refused(&container.roci(&["state", container.id()]), 1, "state.json");
        refused(&container.roci(&["delete", container.id()]), 1, "--force");
        refused(&container.roci(&["kill", container.id()]), 1, "state.json");
        assert_eq!(container.roci(&["list", "-q"]).out, "");
        assert_eq!(container.roci(&["delete", "--force", container.id()]).code, Some(0));
        assert!(container.is_gone());
    }
}

#[test]
fn the_state_of_one_container_is_not_taken_for_another_s() {
    let Some(container) = Container::service() else { return };
    let copy = container.state.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["state.json", "config.json"] {
        fs::copy(container.state.path().join(container.id()).join(name), copy.join(name)).unwrap();
    }
    refused(&container.roci(&["kill", "copy", "KILL"]), 1, "it is the state of container");
    symlink(container.id(), container.state.path().join("link")).unwrap();
    assert_eq!(container.roci(&["kill", "link", "KILL"]).code, Some(1));
    assert_eq!(container.status(), "running");
}

#[test]
fn a_number_that_is_another_process_s_now_is_no_container_s() {
    let Some(container) = Container::service() else { return };
    container.roci(&["kill", container.id(), "KILL"]).ok();
    wait_until(|| container.status() == "stopped");
    let path = container.state.path().join(container.id()).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    record["pid"] = json!(stranger.id());
    fs::write(&path, record.to_string()).unwrap();
    assert_eq!(container.status(), "stopped");
    assert_eq!(container.roci(&["kill", container.id(), "KILL"]).code, Some(1));
    container.roci(&["delete", "--force", container.id()]).ok();
    assert_eq!(stranger.try_wait().unwrap(), None, "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_bundle_that_cannot_be_used_leaves_nothing_behind() {
    let Some(container) = Container::sh(SERVICE) else { return };
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 6] = [
        ("ociVersion", |spec| spec["ociVersion"] = json!("2.0.0")),
        ("root", |spec| drop(spec.as_object_mut().unwrap().remove("root"))),
        ("root filesystem", |spec| spec["root"]["path"] = json!("nowhere")),
        ("process", |spec| drop(spec.as_object_mut().unwrap().remove("process"))),
        ("hook", |spec| spec["hooks"] = json!({ "poststop": [{ "path": "relative" }] })),
        ("timeout", |spec| spec["hooks"] = json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] })),
    ];
    for (word, edit) in cases {
        container.write(edit);
        refused(&container.create(&[]), 1, word);
        assert!(container.is_gone(), "{word}");
    }
    fs::write(container.file("config.json"), "{").unwrap();
    refused(&container.create(&[]), 1, "config.json");
    fs::remove_file(container.file("config.json")).unwrap();
    refused(&container.create(&[]), 1, "config.json");
    assert!(container.is_gone());
}

#[test]
fn a_command_that_is_not_there_is_said_by_create_in_words_engines_look_for() {
    let Some(container) = Container::sh("true") else { return };
    container.write(|spec| spec["process"]["args"] = json!(["no-such-command"]));
    refused(&container.create(&[]), 1, "executable file not found in $PATH");
    fs::write(container.bundle.root().join("etc/plain"), "x").unwrap();
    container.write(|spec| spec["process"]["args"] = json!(["/etc/plain"]));
    refused(&container.create(&[]), 1, "permission denied");
    container.write(|spec| spec["process"]["args"] = json!(["/etc"]));
    refused(&container.create(&[]), 1, "permission denied");
    assert!(container.is_gone());
    // Gone between the two: known only when it is executed.
    fs::copy(container.bundle.root().join("bin/busybox"), container.bundle.root().join("bin/fleeting")).unwrap();
    container.write(|spec| spec["process"]["args"] = json!(["/bin/fleeting"]));
    container.create(&[]).ok();
    fs::remove_file(container.bundle.root().join("bin/fleeting")).unwrap();
    refused(&container.roci(&["start", container.id()]), 1, "no such file or directory");
    wait_until(|| container.status() == "stopped");
    container.roci(&["delete", container.id()]).ok();
}

#[test]
fn errors_are_in_the_log_as_engines_read_them_and_on_standard_error() {
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("log.json");
    let call = |format: &str| {
        let mut command = Command::new(ROCI);
        command.arg("--root").arg(state.path().join("r")).arg("--log").arg(&log).args([
            "--log-format",
            format,
            "state",
            "nobody",
        ]);
        Run::of(command.output().unwrap())
    };
    refused(&call("json"), 1, "does not exist");
    refused(&call("json"), 1, "does not exist");
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["level"], "error");
        assert!(entry["msg"].as_str().unwrap().contains("nobody"));
        let time = entry["time"].as_str().unwrap();
        assert!(time.len() == 30 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
    fs::remove_file(&log).unwrap();
    call("text");
    assert!(fs::read_to_string(&log).unwrap().starts_with("time=\"2"));
}

#[test]
fn cve_2024_25621_state_is_for_its_owner_alone_and_not_kept_where_others_write() {
    let Some(container) = Container::sh(SERVICE) else { return };
    let root = container.state.path().join("made");
    container.write(|_| {});
    let mut command = Command::new(ROCI);
    command.arg("--root").arg(&root).args(["create", "--bundle"]).arg(container.bundle.directory.path()).arg(container.id());
    let null = std::process::Stdio::null;
    assert!(command.stdin(null()).stdout(null()).stderr(null()).status().unwrap().success());
    for path in [root.clone(), root.join(container.id())] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }
    for name in ["state.json", "config.json", "start", "report"] {
        assert_eq!(fs::symlink_metadata(root.join(container.id()).join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    let delete = Command::new(ROCI).arg("--root").arg(&root).args(["delete", "--force", container.id()]).status();
    assert!(delete.unwrap().success());
    fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).unwrap();
    refused(&Run::of(command.stderr(std::process::Stdio::piped()).output().unwrap()), 1, "writable by no other");
}
