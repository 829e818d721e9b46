//! What the process is given: scheduling, limits, labels, the five capability sets.

use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::{root, useful};

#[test]
fn scheduling_io_priority_and_execution_domain_are_set() {
    // Of /proc/PID/stat, behind the name: nice, real-time priority, policy.
    let Some(bundle) = Bundle::sh("cut -d ' ' -f 19,40,41 /proc/self/stat; ionice; uname -m") else { return };
    if !root() {
        return;
    }
    let out = bundle.run_edited(|spec| {
        spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 3 });
        spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    let out = out.ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "7 0 3");
    assert!(lines[1].starts_with("idle"), "{out}");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(lines[2], "i686");
    }
    let out = bundle.run_edited(|spec| {
        spec["process"]["scheduler"] = json!({ "policy": "SCHED_RR", "priority": 12, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
        // With a flag of its own the kernel gives children ordinary scheduling: so no child is asked.
        spec["process"]["args"] = json!(["cut", "-d", " ", "-f", "19,40,41", "/proc/self/stat"]);
        spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    assert_eq!(out.ok(), "0 12 2");
}

#[test]
fn the_five_capability_sets_are_each_what_is_asked_for() {
    let Some(bundle) = Bundle::sh("grep ^Cap /proc/self/status | cut -f 2") else { return };
    if !root() {
        return;
    }
    let names = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"];
    let out = bundle.run_edited(|spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["process"]["capabilities"] = json!({
            "bounding": names, "permitted": names[..3], "inheritable": names[1..3], "effective": names[..1], "ambient": names[2..3],
        });
    });
    // Inheritable, permitted, effective, bounding, ambient. For a program of an ordinary user the kernel
    // leaves the ambient set of the permitted and effective ones.
    let sets: Vec<u64> = out.ok().lines().map(|set| u64::from_str_radix(set, 16).unwrap()).collect();
    assert_eq!(sets, [1 << 5 | 1 << 7, 1 << 7, 1 << 7, 1 << 0 | 1 << 5 | 1 << 7 | 1 << 13, 1 << 7]);
}

#[test]
fn what_cannot_be_granted_is_left_out_with_a_warning() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let run = bundle.run_edited(|spec| {
        spec["process"]["capabilities"]["bounding"].as_array_mut().unwrap().push(json!("CAP_FROM_THE_FUTURE"));
    });
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("warning:") && run.err.contains("CAP_FROM_THE_FUTURE"), "{}", run.err);
}

#[test]
fn parts_for_other_systems_and_rdt_are_ignored_with_a_warning() {
    let Some(bundle) = Bundle::sh("echo ran") else { return };
    let run = bundle.run_edited(|spec| {
        spec["linux"]["intelRdt"] = json!({ "closID": "x", "l3CacheSchema": "L3:0=f" });
        spec["solaris"] = json!({ "milestone": "x" });
        spec["zos"] = json!({});
        spec["vm"] = json!({ "kernel": { "path": "/boot/x" } });
    });
    assert_eq!((run.code, run.out.as_str()), (Some(0), "ran"), "{}", run.err);
    for name in ["linux.intelRdt", "solaris", "zos", "vm"] {
        assert!(run.err.lines().any(|line| line.starts_with(&format!("warning: {name} is ignored"))), "{name}: {}", run.err);
    }
}

#[test]
fn security_modules_the_kernel_lacks_are_never_silently_left_out() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if useful(!Path::new("/sys/module/apparmor").exists(), "a kernel without AppArmor") {
        let run = bundle.run_edited(|spec| spec["process"]["apparmorProfile"] = json!("docker-default"));
        assert_eq!(run.code, Some(125));
        assert!(run.err.contains("process.apparmorProfile") && run.err.contains("AppArmor"), "{}", run.err);
        // What every process is there, and an empty field, ask for nothing.
        for nothing in ["unconfined", ""] {
            assert_eq!(bundle.run_edited(|spec| spec["process"]["apparmorProfile"] = json!(nothing)).code, Some(0));
        }
    }
    if useful(!Path::new("/sys/fs/selinux/enforce").exists(), "a kernel without SELinux") {
        let run = bundle.run_edited(|spec| spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0"));
        assert!(run.code == Some(125) && run.err.contains("process.selinuxLabel"), "{}", run.err);
        let run = bundle.run_edited(|spec| spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0"));
        assert!(run.code == Some(0) && run.err.contains("linux.mountLabel is ignored"), "no file has a label: {}", run.err);
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let limit = |soft: u64, hard: u64| json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard });
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/process/rlimits", json!([limit(2, 1)]), "RLIMIT_NOFILE"),
        ("/process/rlimits", json!([limit(1, 2), limit(1, 2)]), "twice"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/scheduler", json!({ "policy": "SCHED_FIFO" }), "process.scheduler"),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 }), "nice"),
        ("/process/scheduler", json!({ "policy": "SCHED_ISO" }), "SCHED_ISO"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 5, "period": 5 }),
            "process.scheduler",
        ),
        ("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }), "process.ioPriority.priority"),
        ("/process/execCPUAffinity", json!({ "initial": "0-" }), "invalid"),
        ("/linux/personality", json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }), "linux.personality.flags"),
        ("/linux/maskedPaths", json!(["proc/kcore"]), "linux.maskedPaths"),
        ("/linux/maskedPaths", json!(["/"]), "linux.maskedPaths"),
        ("/linux/readonlyPaths", json!(["x"]), "linux.readonlyPaths"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "a" }]), "linux.devices"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 0 }]), "linux.devices"),
        ("/hostname", json!("x".repeat(65)), "hostname"),
        ("/process/cwd", json!("tmp"), "absolute"),
    ];
    for (field, value, names) in cases {
        let run = bundle.run_edited(|spec| {
            let (parent, name) = field.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[name] = value.clone();
        });
        assert_eq!(run.code, Some(125), "{field} {value}: {}", run.out);
        if names != "invalid" {
            assert!(run.err.contains(names), "{field} {value}: {}", run.err);
        }
    }
}

#[test]
fn devices_of_every_type_with_their_owners_and_modes() {
    let Some(bundle) = Bundle::sh("stat -c '%n %F %a %u %g %t:%T' /dev/one /deep/in/two /dev/pipe /dev/null") else { return };
    if !root() {
        return;
    }
    let out = bundle.run_edited(|spec| {
        spec["linux"]["devices"] = json!([
            { "path": "/dev/one", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4 },
            { "path": "/deep/in/two", "type": "b", "major": 7, "minor": 1 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o600 },
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 9 },
        ]);
    });
    let expected = "/dev/one character special file 640 3 4 a:e5\n/deep/in/two block special file 666 0 0 7:1\n\
                    /dev/pipe fifo 600 0 0 0:0\n/dev/null character special file 666 0 9 1:3";
    assert_eq!(out.ok(), expected);
    let run = bundle.run_edited(|spec| {
        std::fs::write(bundle.root().join("file"), "").unwrap();
        spec["linux"]["devices"] = json!([{ "path": "/file", "type": "c", "major": 1, "minor": 3 }]);
    });
    assert_eq!(run.code, Some(125), "another file is there already");
}
