//! Containers without a mount namespace of their own: what is mounted for them is mounted on the host, and goes with
//! them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::container::{Container, SERVICE, wait_until};

/// The mount points at and below `path`, as this process sees them.
fn mounted(path: &Path) -> Vec<String> {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = list.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned));
    points.filter(|point| Path::new(point).starts_with(path)).collect()
}

fn without_mounts(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "mount");
}

fn container(script: &str, edit: impl FnOnce(&mut Value)) -> Option<Container> {
    let container = Container::sh(script)?;
    container.write(|spec| {
        without_mounts(spec);
        edit(spec);
    });
    Some(container)
}

#[test]
fn it_has_its_root_and_its_mounts_and_the_host_keeps_its_own() {
    let Some(container) = container(SERVICE, |spec| {
        spec["root"]["readonly"] = json!(true);
        spec["hooks"]["createContainer"] = json!([{ "path": "/bin/true" }]);
    }) else {
        return;
    };
    let root = container.bundle.root().canonicalize().unwrap();
    container.create(&[]).ok();
    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out() == "up");
    let file = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(file(&container.pid().to_string()), file("self"));
    assert!(mounted(&root).contains(&root.join("proc").to_str().unwrap().to_owned()), "{:?}", mounted(&root));
    let inside = container.exec(&["sh", "-c", "touch /file; ls -d /proc/1 /etc; tr '\\0' ' ' < /proc/1/cmdline"]);
    assert!(inside.err.contains("Read-only") && inside.out.starts_with("/etc\n/proc/1\n"), "{inside:?}");
    assert!(inside.out.contains("trap"), "its own processes: {inside:?}");
    container.roci(&["delete", "--force", container.id()]).ok();
    assert!(container.is_gone());
    assert_eq!(mounted(&root), Vec::<String>::new());
    let left = mounted(Path::new("/"));
    assert!(["/", "/proc", "/sys"].iter().all(|own| left.iter().any(|point| point == own)), "{left:?}");
}

#[test]
fn nothing_of_one_that_fails_or_ends_or_loses_its_launcher_stays_mounted() {
    let Some(container) = container("echo $(readlink /proc/self/ns/mnt)", |_| {}) else { return };
    let root = container.bundle.root().canonicalize().unwrap();
    let run = container.bring_up("run", &[]);
    assert_eq!(run.ok(), fs::read_link("/proc/self/ns/mnt").unwrap().to_str().unwrap());
    assert_eq!(mounted(&root), Vec::<String>::new());

    for path in ["/proc/self/ns/mnt", ""] {
        container.write(|spec| {
            without_mounts(spec);
            if !path.is_empty() {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "mount", "path": path }));
            }
            spec["process"]["args"] = json!(["/no/such/command"]);
        });
        assert_eq!(container.bring_up("run", &[]).code, Some(127));
        assert_eq!(mounted(&root), Vec::<String>::new());
        assert_ne!(container.create(&[]).code, None);
        container.roci(&["delete", "--force", container.id()]).ok();
        assert_eq!(mounted(&root), Vec::<String>::new());
    }

    container.write(|spec| {
        without_mounts(spec);
        spec["process"]["args"] = json!(["/bin/sh", "-c", SERVICE]);
    });
    let mut run = container.command(&["run", "--bundle"]);
    run.arg(container.bundle.directory.path()).arg(container.id()).stdout(std::process::Stdio::null());
    let mut run = run.spawn().unwrap();
    wait_until(|| !mounted(&root).is_empty() && container.roci(&["state", container.id()]).out.contains("running"));
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until(|| container.is_gone() && mounted(&root).is_empty());
}

#[test]
fn what_somebody_else_mounted_on_the_root_stays() {
    let Some(container) = container(SERVICE, |_| {}) else { return };
    let root = container.bundle.root().canonicalize().unwrap();
    let bind = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).arg(&root).status().unwrap().success());
    bind(&["mount", "--bind", root.to_str().unwrap()]);
    container.create(&[]).ok();
    assert!(mounted(&root).len() > 2);
    container.roci(&["delete", "--force", container.id()]).ok();
    assert_eq!(mounted(&root), [root.to_str().unwrap()]);
    // One that was never attached: the command line is wrong only after the process exists.
    container.write(|spec| {
        without_mounts(spec);
        spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/x", "type": "tmpfs", "options": ["size=wrong"] }));
    });
    assert_ne!(container.create(&[]).code, Some(0));
    assert_eq!(mounted(&root), [root.to_str().unwrap()]);
    bind(&["umount"]);
}

#[test]
fn with_a_user_namespace_it_is_refused() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let Some(container) = container("true", |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
    }) else {
        return;
    };
    let run = container.create(&[]);
    assert!(run.code == Some(1) && run.err.contains("a mount namespace is needed"), "{run:?}");
    assert!(container.is_gone());
}
