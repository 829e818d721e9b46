//! Checkpoints and restores that cannot be: what is said then, and that nothing has changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Run;
use crate::checkpoint::{checkpoint, command_of, images, not_restored, nothing_is_mounted, restore_command};
use crate::container::{Container, SERVICE, wait_until};
use crate::needs::installed;

#[test]
fn a_directory_without_a_checkpoint_is_refused_and_nothing_is_made_of_it() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    let refused = |words: &str| {
        for flags in [&[][..], &["--detach"]] {
            let refusal = not_restored(&container, flags, container.id());
            assert!(refusal.contains(words), "{words} in {refusal}");
            assert!(container.is_gone());
            nothing_is_mounted(&container);
        }
    };
    refused("open directory");
    fs::write(images(&container), "").unwrap();
    refused("Not a directory");
    fs::remove_file(images(&container)).unwrap();
    fs::create_dir(images(&container)).unwrap();
    refused("inventory.img");
    if !installed("criu") {
        return;
    }
    // Whatever criu says of this: it is told with its log, or in its own words.
    fs::remove_dir(images(&container)).unwrap();
    hollow_images(&container);
    refused("restore the container by");
}

#[test]
fn without_criu_it_is_said_what_to_install() {
    let Some(container) = Container::service() else { return };
    let state = container.state();
    for (file, path) in [("/nowhere/criu", None), ("criu", Some("/nowhere"))] {
        let mut command = container.command(&["--criu", file, "checkpoint", "--image-path"]);
        command.arg(images(&container)).arg(container.id());
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let refused = Run::of(command.output().unwrap());
        assert_eq!(refused.code, Some(1));
        assert!(refused.err.contains(file) && refused.err.contains("apt install criu"), "{refused:?}");
    }
    assert_eq!(container.state(), state);
    assert!(!images(&container).exists());
    hollow_images(&container);
    let mut command = restore_command(&container, &["--detach"], "other");
    let refused = Run::of(command.env("PATH", "/nowhere").stderr(Stdio::piped()).output().unwrap());
    assert!(refused.code == Some(1) && refused.err.contains("apt install criu"), "{refused:?}");
    assert!(!container.state.path().join("other").exists());
}

/// A program in criu's place.
fn in_place_of_criu(container: &Container, script: &str) -> String {
    let path = container.file("instead");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Images that are refused by nobody but criu.
fn hollow_images(container: &Container) {
    fs::create_dir(images(container)).unwrap();
    for (name, text) in [("inventory.img", "no image"), ("pstree.img", "no tree."), ("descriptors.json", "[]")] {
        fs::write(images(container).join(name), text).unwrap();
    }
}

#[test]
fn a_criu_that_ends_without_an_answer_changes_nothing() {
    let Some(container) = Container::service() else { return };
    let state = container.state();
    // One that is killed leaves it frozen.
    let freezer = container.bundle.cgroups().into_iter().map(|path| path.join("cgroup.freeze")).find(|path| path.exists());
    let freeze = freezer.map_or("exit 1".into(), |file| format!("echo 1 > {}; kill -9 $$", file.display()));
    for script in ["exit 0", &freeze] {
        let criu = in_place_of_criu(&container, script);
        let mut command = container.command(&["--criu", &criu, "checkpoint", "--image-path"]);
        let refused = Run::of(command.arg(images(&container)).arg(container.id()).output().unwrap());
        assert!(refused.code == Some(1) && refused.err.contains("without an answer"), "{refused:?}");
        assert_eq!(container.state(), state);
        fs::remove_dir_all(images(&container)).unwrap();
        hollow_images(&container);
        let mut command = container.command(&["--criu", &criu, "restore", "--detach", "--image-path"]);
        let refused = Run::of(
            command.arg(images(&container)).arg("--bundle").arg(container.bundle.directory.path()).arg("other").output().unwrap(),
        );
        assert!(refused.code == Some(1) && refused.err.contains("without an answer"), "{refused:?}");
        assert!(!container.state.path().join("other").exists());
        assert!(!Path::new("/sys/fs/cgroup/longshore-other").exists());
        fs::remove_dir_all(images(&container)).unwrap();
    }
}

#[test]
fn kill_nine_of_a_restore_that_is_not_done_leaves_nothing_behind() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    hollow_images(&container);
    let criu = in_place_of_criu(&container, "echo $$ > \"${0%/*}/criu.pid\"; exec sleep 1000");
    for detach in [true, false] {
        let mut command = container.command(&["--criu", &criu, "restore", "--image-path"]);
        command.arg(images(&container)).arg("--bundle").arg(container.bundle.directory.path());
        command.args(detach.then_some("--detach")).arg(container.id()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pid = || fs::read_to_string(container.file("criu.pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
        wait_until(|| pid().and_then(command_of).is_some_and(|line| line.starts_with(b"sleep")));
        assert!(!container.is_gone());
        nothing_is_mounted(&container);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until(|| container.is_gone() && pid().and_then(command_of).is_none());
        nothing_is_mounted(&container);
        assert!(container.bundle.root().join("bin/busybox").exists());
        fs::remove_file(container.file("criu.pid")).unwrap();
    }
}

#[test]
fn only_what_runs_is_checkpointed() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    container.create(&[]).ok();
    let refused = checkpoint(&container, &[]);
    assert!(refused.code == Some(1) && refused.err.contains("it is created"), "{refused:?}");
    assert_eq!(container.status(), "created");
    container.roci(&["start", container.id()]).ok();
    container.roci(&["kill", container.id(), "KILL"]).ok();
    wait_until(|| container.status() == "stopped");
    let refused = checkpoint(&container, &[]);
    assert!(refused.code == Some(1) && refused.err.contains("not running"), "{refused:?}");
    assert!(!images(&container).exists());
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let Some(container) = Container::service() else { return };
    for (flags, words) in [
        (&["--lazy-pages"][..], "--lazy-pages"),
        // Given twice, as podman does.
        (&["--leave-running", "--leave-running", "--work-path", "a", "--work-path", "b", "--lazy-pages"], "--lazy-pages"),
        (&["--status-fd", "5"], "--status-fd"),
        (&["--empty-ns", "pid"], "--empty-ns"),
        (&["--page-server", "nowhere"], "ADDRESS:PORT"),
        (&["--page-server", ":1"], "ADDRESS:PORT"),
    ] {
        let refused = checkpoint(&container, flags);
        assert!(refused.code == Some(1) && refused.err.contains(words), "{refused:?}");
    }
    let help = container.roci(&["checkpoint", "--help"]);
    assert_eq!(help.code, Some(0), "engines look at this for whether it can be done");
    if !installed("criu") {
        return;
    }
    // Id-mapped mounts would come back without their mapping.
    let config = container.state.path().join(container.id()).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/mapped", "type": "bind", "source": "/tmp", "options": ["bind"],
        "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
        "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
    }));
    fs::write(&config, spec.to_string()).unwrap();
    let refused = checkpoint(&container, &[]);
    assert!(refused.code == Some(1) && refused.err.contains("/mapped") && refused.err.contains("id-mapped"), "{refused:?}");
    assert_eq!(container.status(), "running");
}
