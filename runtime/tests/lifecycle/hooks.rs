//! Hooks of all six kinds: where they run, when, with what, and what their failure means.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::container::{Container, SERVICE, wait_until};

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends a line to `log`: its kind, what the state says, its namespaces.
fn noting(kind: &str, log: &Path) -> Value {
    let script = format!(
        "state=$(cat); echo \"{kind} $(echo $state | sed 's/.*\"pid\":\\([0-9]*\\).*\"status\":\"\\([a-z]*\\)\".*/\\1 \\2/') \
         $(readlink /proc/self/ns/mnt) $VARIABLE $0\" >> {}",
        log.display()
    );
    json!({ "path": "/bin/sh", "args": ["given-name", "-c", script, "zero"], "env": ["VARIABLE=value", "PATH=/usr/bin:/bin"] })
}

fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn all_six_run_in_their_order_place_and_state() {
    let Some(container) = Container::sh(SERVICE) else { return };
    let log = container.file("hooks.log");
    container.write(|spec| {
        for kind in KINDS {
            // Inside, the file system is the image's.
            let path = if kind == "startContainer" { Path::new("/hooks.log") } else { &log };
            spec["hooks"][kind] = json!([noting(kind, path)]);
        }
        spec["hooks"]["startContainer"][0]["env"] = json!(["VARIABLE=value", "PATH=/bin"]);
        spec["hooks"]["startContainer"][0]["args"][0] = json!("sh");
        spec["hooks"]["startContainer"][0]["args"][2] =
            json!("grep -c . >/dev/null; echo startContainer $(readlink /proc/self/ns/mnt) $(grep CapEff /proc/self/status) >> /hooks.log");
    });
    container.create(&[]).ok();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap().to_owned();
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).unwrap().to_str().unwrap().to_owned();
    let pid = container.pid().to_string();
    let seen = lines(&log);
    let expected = |kind: &str, pid: &str, status: &str, namespace: &str| {
        [kind, pid, status, namespace, "value", "zero"].map(str::to_owned).to_vec()
    };
    assert_eq!(seen[0], expected("prestart", &pid, "created", &own));
    assert_eq!(seen[1], expected("createRuntime", &pid, "creating", &own));
    assert_eq!(seen[2], expected("createContainer", "1", "creating", &theirs));
    assert_eq!(seen.len(), 3);
    assert!(!container.bundle.root().join("hooks.log").exists());
    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out() == "up");
    let inside = lines(&container.bundle.root().join("hooks.log"));
    assert_eq!(inside[0][..2], ["startContainer".to_owned(), theirs]);
    assert_eq!(inside[0][3], "00000000a80425fb", "with the privileges of the container's process");
    assert_eq!(lines(&log)[3], expected("poststart", &pid, "running", &own));
    container.roci(&["delete", "--force", container.id()]).ok();
    assert_eq!(lines(&log)[4], expected("poststop", "0", "stopped", &own));
    assert!(container.is_gone());
}

#[test]
fn create_container_hooks_begin_in_the_root_file_system_as_the_container_sees_it() {
    let Some(container) = Container::sh("cat /given") else { return };
    let (root, given) = (container.bundle.root(), container.file("given"));
    fs::write(&given, "mounted\n").unwrap();
    let script = format!("pwd >{0}.pwd; touch ./given; mount --bind {0} ./given", given.display());
    container.write(|spec| {
        let env = json!(["PATH=/usr/bin:/bin"]);
        spec["hooks"]["createContainer"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }]);
    });
    container.bring_up("run", &[]).ok();
    assert_eq!(container.out(), "mounted");
    assert_eq!(fs::read_to_string(container.file("given.pwd")).unwrap().trim(), root.to_str().unwrap());
    assert_eq!(fs::read_to_string(root.join("given")).unwrap(), "", "the mount is the container's alone");
}

#[test]
fn all_six_run_for_a_container_in_the_foreground() {
    let Some(container) = Container::sh("cat /hooks.log") else { return };
    let log = container.file("hooks.log");
    container.write(|spec| {
        for kind in KINDS {
            let path = if kind == "startContainer" { "/hooks.log".into() } else { log.display().to_string() };
            spec["hooks"][kind] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {kind} >> {path}")] }]);
        }
        spec["hooks"]["startContainer"][0]["env"] = json!(["PATH=/bin"]);
    });
    let mut command = container.command(&["run", "--bundle"]);
    let run = crate::bundle::Run::of(command.arg(container.bundle.directory.path()).arg(container.id()).output().unwrap());
    assert_eq!(run.ok(), "startContainer");
    assert_eq!(fs::read_to_string(&log).unwrap(), "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");
    assert!(container.is_gone());
}

#[test]
fn hooks_of_creation_see_the_container_s_mounts_where_the_bundle_has_its_root() {
    let Some(container) = Container::sh("cat /tmp/given/file") else { return };
    let root = container.bundle.root().canonicalize().unwrap();
    container.write(|spec| {
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp/given", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"],
        }));
        let script = format!("echo by a hook > {}/tmp/given/file", root.display());
        spec["hooks"]["createContainer"] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    });
    let mut command = container.command(&["run", "--bundle"]);
    let run = crate::bundle::Run::of(command.arg(container.bundle.directory.path()).arg(container.id()).output().unwrap());
    assert_eq!(run.ok(), "by a hook");
    assert!(!root.join("tmp/given/file").exists(), "it was the container's mount and not the host's directory");
}

#[test]
fn a_hook_that_fails_while_creating_ends_the_container_and_says_what_it_printed() {
    for kind in &KINDS[..3] {
        let Some(container) = Container::sh(SERVICE) else { return };
        let log = container.file("hooks.log");
        container.write(|spec| {
            spec["hooks"][kind] = json!([
                { "path": "/bin/sh", "args": ["sh", "-c", "echo something is wrong >&2; exit 3"] },
                noting("second", &log),
            ]);
            spec["hooks"]["poststop"] = json!([noting("poststop", &log)]);
        });
        let run = container.create(&[]);
        assert_eq!(run.code, Some(1));
        assert!(run.err.contains(kind) && run.err.contains("something is wrong") && run.err.contains("3"), "{run:?}");
        assert!(container.is_gone(), "{kind}");
        let seen = lines(&log);
        assert!(seen.len() == 1 && seen[0][0] == "poststop", "{seen:?}");
    }
}

#[test]
fn a_hook_that_fails_at_the_start_ends_the_container_too() {
    for (kind, path) in [("startContainer", "/bin/false"), ("poststart", "/bin/false"), ("startContainer", "/no/such/hook")] {
        let Some(container) = Container::sh(SERVICE) else { return };
        container.write(|spec| {
            spec["ociVersion"] = json!("1.2.1");
            spec["hooks"][kind] = json!([{ "path": path }]);
        });
        container.create(&[]).ok();
        let run = container.roci(&["start", container.id()]);
        assert!(run.code == Some(1) && run.err.contains(kind), "{run:?}");
        assert!(container.is_gone(), "{kind}");
        if kind == "startContainer" {
            assert_eq!(container.out(), "", "the command has not run");
        }
    }
}

#[test]
fn a_poststart_hook_that_fails_ends_no_container_of_a_version_that_says_so() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|spec| {
        spec["ociVersion"] = json!("1.2.0-rc.1");
        spec["hooks"]["poststart"] = json!([{ "path": "/bin/false" }, { "path": "/bin/touch", "args": ["touch", container.file("second").to_str().unwrap()] }]);
    });
    container.create(&[]).ok();
    let run = container.roci(&["start", container.id()]);
    assert!(run.code == Some(0) && run.err.contains("warning") && run.err.contains("poststart"), "{run:?}");
    assert!(container.file("second").exists(), "the remaining hooks run");
    assert_eq!(container.state()["status"], "running");
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_one_after_the_end_changes_nothing() {
    for kind in ["createRuntime", "startContainer"] {
        let Some(container) = Container::sh(SERVICE) else { return };
        container.write(|spec| {
            spec["hooks"][kind] = json!([{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }]);
        });
        let created = container.create(&[]);
        let run = if kind == "createRuntime" { created } else { container.roci(&["start", container.id()]) };
        assert!(run.code == Some(1) && run.err.contains("timeout of 1 s"), "{run:?}");
        assert!(container.is_gone());
    }
    let container = Container::sh("true").unwrap();
    container.write(|spec| spec["hooks"]["poststop"] = json!([{ "path": "/bin/false" }, { "path": "/bin/touch", "args": ["touch", container.file("second").to_str().unwrap()] }]));
    container.create(&[]).ok();
    let run = container.roci(&["delete", "--force", container.id()]);
    assert_eq!(run.code, Some(0));
    assert!(run.err.contains("warning") && run.err.contains("poststop"), "{run:?}");
    assert!(container.file("second").exists(), "the remaining hooks run");
}

#[test]
fn a_hook_gets_the_whole_state_on_its_input_however_large_and_need_not_read_it() {
    let Some(container) = Container::sh("true") else { return };
    let copy = container.file("state.copy");
    container.write(|spec| {
        // More than a pipe holds.
        spec["annotations"] = json!({ "long": "x".repeat(200_000) });
        spec["hooks"]["createRuntime"] =
            json!([{ "path": "/bin/true" }, { "path": "/bin/cp", "args": ["cp", "/dev/stdin", copy.to_str().unwrap()] }]);
    });
    container.create(&[]).ok();
    let state: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
    assert_eq!(state["annotations"]["long"].as_str().unwrap().len(), 200_000);
    assert_eq!(state["id"], container.id());
    assert_eq!(state["pid"], container.pid());
}
