//! Namespaces: joined by path, made anew, mapped.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::{installed, root};

const KINDS: [(&str, &str); 8] = [
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("pid", "pid"),
    ("time", "time"),
    ("mount", "mnt"),
    ("user", "user"),
];

/// A process in namespaces of its own, for others to join.
struct Holder {
    child: Child,
    pid: u32,
}

impl Holder {
    fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(arguments).args(["--fork", "--kill-child", "sh", "-c", "echo up; exec sleep 1000"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        let pid = children.split_whitespace().next().unwrap().parse().unwrap();
        Self { child, pid }
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/ns/{file}", self.pid)
    }

    fn id(&self, file: &str) -> String {
        fs::read_link(self.path(file)).unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the container join a namespace, in place of a new one.
fn join(spec: &mut Value, kind: &str, path: &str) {
    let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != kind);
    list.push(json!({ "type": kind, "path": path }));
    if matches!(kind, "network" | "uts") {
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
    }
}

#[test]
fn each_namespace_is_joined_by_path_alone_and_all_together() {
    if !root() || !installed("unshare") {
        return;
    }
    let all = ["--net", "--ipc", "--uts", "--cgroup", "--pid", "--time", "--mount"];
    let Some(bundle) = Bundle::sh("for n in net ipc uts cgroup pid time mnt user; do readlink /proc/self/ns/$n; done") else {
        return;
    };
    for (kind, file) in &KINDS[..7] {
        // A joined mount namespace is the container's from then on: so one each.
        let holder = Holder::new(&all);
        let out = bundle.run_edited(|spec| join(spec, kind, &holder.path(file))).ok();
        assert!(out.lines().any(|line| line == holder.id(file)), "{kind}: {out} has no {}", holder.id(file));
        for (other, file) in KINDS[..6].iter().filter(|(other, _)| other != kind) {
            assert!(!out.contains(&holder.id(file)), "{other} with {kind}");
        }
    }
    let holder = Holder::new(&all);
    let out = bundle.run_edited(|spec| {
        for (kind, file) in &KINDS[..7] {
            join(spec, kind, &holder.path(file));
        }
    });
    let out = out.ok();
    for (kind, file) in &KINDS[..7] {
        assert!(out.contains(&holder.id(file)), "{kind}: {out}");
    }
}

#[test]
fn a_user_namespace_is_joined_with_those_it_owns_and_owns_the_new_ones() {
    if !root() || !installed("unshare") {
        return;
    }
    let holder = Holder::new(&["--user", "--net", "--ipc"]);
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.pid), "0 100000 1000").unwrap();
    }
    let Some(bundle) = Bundle::sh(
        "readlink /proc/self/ns/user; readlink /proc/self/ns/net; cat /proc/self/uid_map; id -u; hostname changed && hostname; \
         touch /tmp/mine; touch /dev/shm/x; echo x >/dev/null; mount -t tmpfs x /mnt && echo mounted",
    ) else {
        return;
    };
    give_root(&bundle);
    fs::create_dir(bundle.root().join("mnt")).unwrap();
    let run = bundle.run_edited(|spec| {
        join(spec, "user", &holder.path("user"));
        join(spec, "network", &holder.path("net"));
        join(spec, "ipc", &holder.path("ipc"));
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
        }
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
    });
    let out = run.ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], [holder.id("user"), holder.id("net")]);
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000"]);
    // The new uts and mount namespaces are the user namespace's: its root may change them.
    assert_eq!(lines[3..], ["0", "changed", "mounted"]);
    assert_eq!(fs::metadata(bundle.root().join("tmp/mine")).unwrap().uid(), 100_000);
}

/// Makes the image the mapped container's own, as an engine does that has it unpacked for it.
fn give_root(bundle: &Bundle) {
    for path in [bundle.root(), bundle.root().join("tmp")] {
        chown(path, Some(100_000), Some(100_000)).unwrap();
    }
}

/// A user namespace of the container's own: ids from 100000 up.
fn mapped(spec: &mut Value) {
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    spec["linux"]["uidMappings"] = map.clone();
    spec["linux"]["gidMappings"] = map;
    spec["linux"].as_object_mut().unwrap().remove("sysctl");
}

#[test]
fn a_user_namespace_of_its_own_maps_owners_and_is_otherwise_like_any_container() {
    let Some(bundle) = Bundle::sh(
        "id -u; cat /proc/self/uid_map; touch /tmp/mine; stat -c %u:%g /tmp/mine /dev/shm /dev/pts; touch /dev/shm/x; \
         echo x >/dev/null; cat /proc/self/oom_score_adj; ulimit -Hn; grep CapEff /proc/self/status; mknod /tmp/d c 1 3; \
         ls /sys/kernel >/dev/null; ls -A /proc/acpi; cat /proc/self/setgroups",
    ) else {
        return;
    };
    if !root() {
        return;
    }
    give_root(&bundle);
    let run = bundle.run_edited(|spec| {
        mapped(spec);
        spec["process"]["oomScoreAdj"] = json!(5);
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 900, "hard": 1000 }]);
    });
    assert_eq!(run.code, Some(0), "{}", run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[2..4], ["0:0", "0:0"]);
    assert_eq!(lines[5..8], ["5", "1000", "CapEff:\t00000000a80425fb"]);
    assert_eq!(lines[8..], ["allow"], "{}", run.out);
    assert!(run.err.contains("mknod") && run.err.lines().count() == 1, "{}", run.err);
    assert_eq!(fs::metadata(bundle.root().join("tmp/mine")).unwrap().uid(), 100_000);
}

#[test]
fn a_mapped_container_has_terminals_and_the_host_s_sysfs_with_the_host_s_network() {
    let Some(mut bundle) = Bundle::sh("tty; stat -c %u:%g:%a /dev/pts/0; id -u") else { return };
    if !root() {
        return;
    }
    bundle.options.tty = true;
    give_root(&bundle);
    let out = bundle.run_edited(mapped).ok();
    assert_eq!(out.lines().collect::<Vec<_>>(), ["/dev/pts/0", "0:5:620", "0"]);
    let Some(mut bundle) = Bundle::sh("ls /sys/class/net | head -n 1; touch /sys/x") else { return };
    bundle.options.network = longshore_runtime::spec::Network::Host;
    give_root(&bundle);
    let run = bundle.run_edited(mapped);
    assert!(!run.out.is_empty() && run.err.contains("Read-only"), "{run:?}");
}

#[test]
fn an_id_mapped_mount_without_ids_takes_the_container_s() {
    let Some(bundle) = Bundle::sh("stat -c %u /data/file; touch /data/made") else { return };
    if !root() {
        return;
    }
    give_root(&bundle);
    let host = tempfile::tempdir().unwrap();
    fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(host.path().join("file"), "").unwrap();
    let out = bundle.run_edited(|spec| {
        mapped(spec);
        let mount = json!({ "destination": "/data", "source": host.path(), "options": ["bind", "idmap"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    // Root's file is the container's root's, and the other way round.
    assert_eq!(out.ok(), "0");
    assert_eq!(fs::metadata(host.path().join("made")).unwrap().uid(), 0);
}

#[test]
fn clocks_of_a_time_namespace_are_off_by_what_is_asked() {
    let Some(bundle) = Bundle::sh("cat /proc/uptime; readlink /proc/self/ns/time") else { return };
    if !root() {
        return;
    }
    let run = bundle.run_edited(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 5_000_000, "nanosecs": 5 }, "monotonic": { "secs": 7 } });
    });
    let out = run.ok();
    let uptime: f64 = out.split_whitespace().next().unwrap().parse().unwrap();
    let own = fs::read_to_string("/proc/uptime").unwrap();
    let own: f64 = own.split_whitespace().next().unwrap().parse().unwrap();
    assert!((4_999_990.0..5_000_010.0).contains(&(uptime - own)), "{uptime} and {own}");
    assert_ne!(out.lines().last(), fs::read_link("/proc/self/ns/time").unwrap().to_str());
    let out = bundle.run_edited(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" })));
    assert_ne!(out.ok().lines().last(), fs::read_link("/proc/self/ns/time").unwrap().to_str());
}

#[test]
fn wrong_namespaces_are_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let push = |namespace: Value| {
        move |spec: &mut Value| {
            let list = spec["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|other| other["type"] != namespace["type"]);
            list.push(namespace.clone());
        }
    };
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    type Edit = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(Edit, &str)> = vec![
        (Box::new(push(json!({ "type": "network", "path": "/proc/self/ns/uts" }))), "namespace of that type"),
        (Box::new(push(json!({ "type": "network", "path": "/etc/passwd" }))), "no file of a namespace"),
        (Box::new(push(json!({ "type": "network", "path": "/no/such" }))), "/no/such"),
        (Box::new(push(json!({ "type": "network", "path": "proc/self/ns/net" }))), "absolute"),
        (Box::new(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" }))), "twice"),
        (Box::new(push(json!({ "type": "user" }))), "linux.uidMappings"),
        (
            Box::new(move |spec| (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map.clone())),
            "namespace of type \"user\"",
        ),
        (Box::new(|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } })), "linux.timeOffsets"),
        (
            Box::new(|spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
                spec["linux"]["timeOffsets"] = json!({ "realtime": { "secs": 1 } });
            }),
            "linux.timeOffsets.realtime",
        ),
        (Box::new(|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "uts")), "hostname"),
        (
            Box::new(|spec| {
                mapped(spec);
                spec["process"]["user"]["uid"] = json!(70_000);
            }),
            "process.user.uid 70000",
        ),
    ];
    for (edit, names) in cases {
        let run = bundle.run_edited(edit);
        assert_eq!(run.code, Some(125), "{names}: {}", run.out);
        assert!(run.err.contains(names), "{names}: {}", run.err);
    }
}

#[test]
fn a_kernel_setting_belongs_to_a_namespace_of_the_container_s_or_is_refused() {
    let Some(bundle) = Bundle::sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname; cat /proc/sys/kernel/shmmni")
    else {
        return;
    };
    let set = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        move |spec: &mut Value| spec["linux"]["sysctl"] = json!({ name.clone(): value.clone() })
    };
    let out = bundle.run_edited(|spec| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel/domainname": "inside", "kernel.shmmni": "77" });
    });
    assert_eq!(out.ok(), "1\ninside\n77");
    for (name, why) in [
        ("kernel.panic", "no namespace"),
        ("vm.swappiness", "no namespace"),
        ("kernel.hostname", "hostname"),
        ("fs.file-max", "no namespace"),
        ("user.max_user_namespaces", "user namespace"),
    ] {
        let run = bundle.run_edited(set(name, "1"));
        assert_eq!(run.code, Some(125), "{name}");
        assert!(run.err.contains(name) && run.err.contains(why), "{}", run.err);
    }
    let mut bundle = Bundle::sh("true").unwrap();
    bundle.options.network = longshore_runtime::spec::Network::Host;
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let run = bundle.run_edited(set("net.ipv4.ip_forward", "1"));
    assert!(run.code == Some(125) && run.err.contains("network namespace"), "{}", run.err);
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
}
