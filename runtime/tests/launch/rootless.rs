//! An ordinary user's containers, with a range of ids and with a single one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use longshore_runtime::userns::Mapping;
use serde_json::{Value, json};

use crate::bundle::{Bundle, ROCI, Run};
use crate::needs::{installed, root, useful};

/// The user the tests run as; no account of the host needs to exist.
const UID: u32 = 61_234;

/// Runs the bundle as an ordinary user, with `subids` as its `/etc/subuid` and `/etc/subgid`.
fn run_as_user(bundle: &Bundle, subids: &str) -> Run {
    run_edited_as_user(bundle, subids, |_| {})
}

fn run_edited_as_user(bundle: &Bundle, subids: &str, edit: impl FnOnce(&mut Value)) -> Run {
    run_in_cgroup_as_user(bundle, subids, "", edit)
}

/// The same, begun in the cgroup `cgroup`, if that is not empty.
fn run_in_cgroup_as_user(bundle: &Bundle, subids: &str, cgroup: &str, edit: impl FnOnce(&mut Value)) -> Run {
    let directory = bundle.directory.path();
    for path in [directory.to_owned(), bundle.root()] {
        chown(&path, Some(UID), Some(UID)).unwrap();
    }
    for entry in fs::read_dir(bundle.root()).unwrap() {
        chown(entry.unwrap().path(), Some(UID), Some(UID)).unwrap();
    }
    bundle.write(edit);
    let roci = directory.join("roci");
    fs::copy(ROCI, &roci).unwrap();
    fs::set_permissions(&roci, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(directory.join("subids"), subids).unwrap();
    fs::write(directory.join("passwd"), format!("root:x:0:0::/:\ntester:x:{UID}:{UID}::/:\n")).unwrap();
    let script = "[ -z \"$4\" ] || echo $$ >$4/cgroup.procs; mount --bind $1/passwd /etc/passwd && mount --bind $1/subids /etc/subuid && mount --bind $1/subids /etc/subgid && \
                  exec setpriv --reuid $2 --regid $2 --clear-groups $1/roci run --bundle $1 $3";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(directory)
        .arg(UID.to_string())
        .arg(&bundle.id)
        .arg(cgroup)
        .output();
    Run::of(output.unwrap())
}

fn available() -> bool {
    root() && installed("newuidmap") && installed("setpriv")
}

const SCRIPT: &str = "id -u; cat /proc/self/uid_map; hostname; touch /file; touch /dev/shm/x; echo x >/dev/null; readlink /proc/1/exe; \
     grep -c . /proc/keys; grep CapEff /proc/self/status; mknod /tmp/x c 1 3 2>&1; unshare -U true 2>&1; ls /sys >/dev/null; true";

#[test]
fn with_a_range_of_ids_an_ordinary_user_is_root_inside() {
    let Some(mut bundle) = Bundle::sh(SCRIPT) else { return };
    if !available() {
        return;
    }
    bundle.options.rootless = Some(Mapping::Full { uids: 1001, gids: 1001 });
    let out = run_as_user(&bundle, &format!("tester:200000:1000\n{UID}:300000:10\n")).ok();
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["0"]);
    assert_eq!(words[1], ["0", "61234", "1"]);
    assert_eq!(words[2], ["1", "200000", "1000"]);
    assert_eq!(words[3], ["1001", "300000", "10"]);
    assert!(out.contains("/bin/busybox") && out.contains("00000000a80425fb"), "{out}");
    assert!(out.matches("not permitted").count() == 2, "{out}");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.root().join("file")).unwrap()), UID);
}

#[test]
fn files_of_other_users_inside_belong_to_the_range_outside() {
    let Some(mut bundle) = Bundle::sh("id -u; id -G; touch /tmp/mine") else { return };
    if !available() {
        return;
    }
    bundle.options.rootless = Some(Mapping::Full { uids: 1001, gids: 1001 });
    bundle.options.user = Some("5:6".into());
    fs::set_permissions(bundle.root().join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    assert_eq!(run_as_user(&bundle, "tester:200000:1000\n").ok(), "5\n6");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(bundle.root().join("tmp/mine")).unwrap()), 200_004);
}

#[test]
fn without_a_range_there_is_a_single_id_and_containers_run_all_the_same() {
    let Some(mut bundle) = Bundle::sh(SCRIPT) else { return };
    if !available() {
        return;
    }
    bundle.options.rootless = Some(Mapping::Single { advice: "" });
    let out = run_as_user(&bundle, "").ok();
    let map: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", "61234", "1"]);
    assert!(out.contains("/bin/busybox"), "{out}");
}

#[test]
fn the_configuration_s_own_mapping_counts_with_helpers_and_without() {
    let script = "cat /proc/self/uid_map; cat /proc/self/gid_map; cat /proc/self/setgroups; id -u; touch /tmp/mine; hostname";
    let Some(mut bundle) = Bundle::sh(script) else { return };
    if !available() {
        return;
    }
    let mapped = |list: Value| {
        move |spec: &mut Value| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            spec["linux"]["uidMappings"] = list.clone();
            spec["linux"]["gidMappings"] = list.clone();
        }
    };
    let words = |out: &str| out.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    // The user's own id alone: anybody may map that, and has to give up setgroups for it.
    bundle.options.rootless = Some(Mapping::Single { advice: "" });
    let own = json!([{ "containerID": 0, "hostID": UID, "size": 1 }]);
    let out = run_edited_as_user(&bundle, "", mapped(own.clone())).ok();
    assert!(words(&out).starts_with(&format!("0 {UID} 1 0 {UID} 1 deny 0")), "{out}");
    // More than that is for newuidmap to allow.
    let range = json!([{ "containerID": 0, "hostID": UID, "size": 1 }, { "containerID": 1, "hostID": 200_000, "size": 10 }]);
    bundle.options.rootless = Some(Mapping::Full { uids: 11, gids: 11 });
    let out = run_edited_as_user(&bundle, "tester:200000:10\n", mapped(range.clone())).ok();
    assert!(words(&out).starts_with(&format!("0 {UID} 1 1 200000 10 0 {UID} 1 1 200000 10 allow 0")), "{out}");
    let run = run_edited_as_user(&bundle, "tester:300000:10\n", mapped(range));
    assert_eq!(run.code, Some(125), "somebody else's ids: {}", run.out);
    assert!(run.err.contains("linux.uidMappings") && run.err.contains("newuidmap"), "{}", run.err);
}

#[test]
fn limits_of_an_ordinary_user_bite_in_a_cgroup_v2_that_is_its_own() {
    let Some(mut bundle) = Bundle::sh("sleep 5 & sleep 5 & sleep 5 & sleep 5 & echo four") else { return };
    let file = |name: &str| format!("/sys/fs/cgroup/{name}");
    let controllers = fs::read_to_string(file("cgroup.controllers")).unwrap_or_default();
    if !available() || !useful(["memory", "pids"].iter().all(|name| controllers.contains(name)), "cgroup v2 with memory and pids")
    {
        return;
    }
    // As systemd hands it to a user with Delegate=yes: roci itself is in a cgroup below.
    fs::write(file("cgroup.subtree_control"), "+memory +pids").unwrap();
    let own = file(&format!("longshore-own-{}", std::process::id()));
    let inner = format!("{own}/inner");
    fs::create_dir_all(&inner).unwrap();
    for cgroup in [&own, &inner] {
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(format!("{cgroup}/{name}"), Some(UID), Some(UID)).unwrap();
        }
    }
    bundle.options.rootless = Some(Mapping::Full { uids: 1001, gids: 1001 });
    let subids = format!("{UID}:200000:1000\n");
    let limit = |resource: &str, value: Value| {
        run_in_cgroup_as_user(&bundle, &subids, &inner, |spec| spec["linux"]["resources"][resource] = value)
    };
    let run = limit("pids", json!({ "limit": 3 }));
    assert!(run.out.is_empty() && run.err.contains("can't fork"), "{run:?}");
    assert_eq!(limit("pids", json!({ "limit": 50 })).ok(), "four");
    let run = limit("memory", json!({ "limit": 64 << 10 }));
    assert!(run.err.contains("out of memory: the kernel killed"), "{run:?}");
    for cgroup in [inner, own] {
        fs::remove_dir(cgroup).unwrap();
    }
}
