//! Limits that bite, and the directories they are in.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Run};
use crate::needs::{root, useful};

/// Where a controller is on this host: mounted as v1, or cgroup2 with it.
fn has(controller: &str) -> bool {
    let v1 = Path::new("/sys/fs/cgroup").join(controller).join("tasks").exists();
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|list| list.contains(controller));
    useful(v1 || v2, &format!("cgroup controller {controller}"))
}

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory/tasks").exists()
}

fn v1() -> bool {
    useful(is_v1(), "a host with cgroup v1")
}

/// Whether this host has cgroup v2 alone, with its usual controllers.
fn v2() -> bool {
    let list = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let all =
        ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].iter().all(|name| list.split_whitespace().any(|one| one == *name));
    useful(all, "a host with cgroup v2 alone")
}

#[test]
fn memory_is_limited_and_a_kill_by_the_kernel_is_reported_as_that() {
    // dd allocates its block: the shell survives it.
    let Some(bundle) = Bundle::sh("dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?") else { return };
    if !root() || !has("memory") {
        return;
    }
    let limit = |bytes: u64| move |spec: &mut Value| spec["linux"]["resources"]["memory"] = json!({ "limit": bytes });
    let run = bundle.run_edited(limit(16 << 20));
    assert_eq!((run.code, run.out.as_str()), (Some(0), "137"), "{}", run.err);
    assert!(run.err.contains("out of memory: the kernel killed a process"), "{}", run.err);
    let run = bundle.run_edited(limit(256 << 20));
    assert_eq!((run.out.as_str(), run.err.as_str()), ("0", ""), "the guard of this test");
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}

#[test]
fn forks_above_the_limit_of_processes_are_refused() {
    let Some(bundle) = Bundle::sh("sleep 5 & sleep 5 & sleep 5 & sleep 5 & echo four") else { return };
    if !root() || !has("pids") {
        return;
    }
    let limit = |count: i64| move |spec: &mut Value| spec["linux"]["resources"]["pids"] = json!({ "limit": count });
    let run = bundle.run_edited(limit(3));
    assert!(run.out.is_empty() && run.err.contains("can't fork"), "{run:?}");
    assert_eq!(bundle.run_edited(limit(-1)).ok(), "four");
}

/// How many rounds a busy container makes in the time `roci` is let run.
fn rounds(run: &Run) -> f64 {
    run.out.lines().last().unwrap_or_else(|| panic!("{}", run.err)).parse().unwrap()
}

const BUSY: &str = "i=0; end=$(($(cut -d . -f 1 /proc/uptime) + 3)); \
     while [ $(cut -d . -f 1 /proc/uptime) -lt $end ]; do j=0; while [ $j -lt 2000 ]; do j=$((j+1)); done; i=$((i+1)); done; echo $i";

#[test]
fn a_larger_share_gets_more_of_a_processor() {
    if !root() || !has("cpu") || !has("cpuset") {
        return;
    }
    // Neither has the processor to itself: they begin when both are there, and end at the same time.
    let script = "echo up; until [ -s /tmp/end ]; do sleep 0.02; done; i=0; end=$(cat /tmp/end); \
         while [ $(cut -d . -f 1 /proc/uptime) -lt $end ]; do j=0; while [ $j -lt 1000 ]; do j=$((j+1)); done; i=$((i+1)); done; echo $i";
    let Some(first) = Bundle::sh(script) else { return };
    let second = Bundle::sh(script).unwrap();
    // Both on one processor, so that they compete for it.
    let start = |bundle: &Bundle, shares: u64| {
        bundle.write(|spec| spec["linux"]["resources"]["cpu"] = json!({ "shares": shares, "cpus": "0" }));
        let mut child = bundle.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        child
    };
    let children = [start(&first, 4096), start(&second, 256)];
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let end_s = uptime.split('.').next().unwrap().parse::<u64>().unwrap() + 5;
    for bundle in [&first, &second] {
        fs::write(bundle.root().join("tmp/end"), end_s.to_string()).unwrap();
    }
    let [much, little] = children.map(|child| rounds(&Run::of(child.wait_with_output().unwrap())));
    // 16 to 1 by the shares; other work on the machine blurs it.
    assert!(much > 3.0 * little, "{much} and {little} rounds");
}

#[test]
fn a_quota_is_not_exceeded() {
    let Some(bundle) = Bundle::sh(&format!("{BUSY}; cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>/dev/null; times"))
    else {
        return;
    };
    if !root() || !has("cpu") {
        return;
    }
    let begun = Instant::now();
    let run = bundle.run_edited(|spec| spec["linux"]["resources"]["cpu"] = json!({ "quota": 10_000, "period": 100_000 }));
    let wall_s = begun.elapsed().as_secs_f64();
    let times: Vec<&str> = run.out.lines().rev().take(2).flat_map(str::split_whitespace).collect();
    // 0m0.123s: of the shell and its children, user and system.
    let seconds = |text: &&str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let used_s: f64 = times.iter().map(seconds).sum();
    assert!(used_s < 0.2 * wall_s, "{used_s} of {wall_s} s: {}", run.out);
    let throttled = run.out.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap();
    assert_ne!(throttled, "0");
}

#[test]
fn every_limit_is_found_in_its_file() {
    let Some(bundle) = Bundle::sh(
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.swappiness \
         cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max \
         unified/hugetlb.2MB.max; grep oom_kill_disable memory/memory.oom_control; grep Cpus_allowed_list /proc/self/status; ls",
    ) else {
        return;
    };
    if !root() || !v1() || !useful(Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists(), "a hybrid host") {
        return;
    }
    let out = bundle.run_edited(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20, "swappiness": 10, "disableOOMKiller": true });
        resources["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" });
        resources["pids"] = json!({ "limit": 0x50 });
        resources["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    });
    let out = out.ok();
    let values: Vec<&str> = out.lines().take(10).collect();
    assert_eq!(values, ["67108864", "33554432", "10", "512", "50000", "100000", "0", "0", "80", "4194304"]);
    assert!(out.contains("oom_kill_disable 1") && out.contains("Cpus_allowed_list:\t0"), "{out}");
    let listed: Vec<&str> = out.lines().skip(12).collect();
    assert_eq!(listed, ["cpu", "cpuset", "memory", "pids", "unified"], "the hierarchies it is in, and no others");
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}

#[test]
fn on_cgroup_v2_every_limit_is_found_in_its_file() {
    let Some(bundle) = Bundle::sh(
        "cd /sys/fs/cgroup; cat memory.max memory.low memory.high cpu.weight cpu.max cpuset.cpus cpuset.mems pids.max hugetlb.2MB.max; \
         grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup",
    ) else {
        return;
    };
    if !root() || !v2() {
        return;
    }
    let out = bundle.run_edited(|spec| {
        let resources = &mut spec["linux"]["resources"];
        resources["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20 });
        resources["cpu"] = json!({ "shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" });
        resources["pids"] = json!({ "limit": 80 });
        resources["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
        resources["unified"] = json!({ "memory.high": "50331648" });
    });
    let out = out.ok();
    let values =
        ["67108864", "33554432", "50331648", "100", "50000 100000", "0", "0", "80", "4194304", "Cpus_allowed_list:\t0", "0::/"];
    assert_eq!(out.lines().collect::<Vec<_>>(), values);
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}

/// The whole disk that a directory's filesystem is on, as `8:0`.
fn disk_of(directory: &Path) -> Option<String> {
    let device = fs::metadata(directory).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let node = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if node.join("partition").exists() { node.parent()?.to_owned() } else { node };
    Some(fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned())
}

#[test]
fn a_disk_gives_no_more_bytes_a_second_than_it_may() {
    // Past the page cache: version 1 counts nothing else.
    let uptime = "cut -d ' ' -f 1 /proc/uptime";
    let script = format!("{uptime} && dd if=/dev/zero of=/tmp/data bs=256k count=12 oflag=direct 2>/dev/null && {uptime}");
    let Some(bundle) = Bundle::sh(&script) else { return };
    let disk = disk_of(bundle.directory.path());
    let controller = if is_v1() { "blkio" } else { "io" };
    if !root() || !has(controller) || !useful(disk.is_some(), "a temporary directory on a disk") {
        return;
    }
    let (major, minor) =
        disk.as_deref().unwrap().split_once(':').map(|(a, b)| (a.parse::<u32>().unwrap(), b.parse::<u32>().unwrap())).unwrap();
    let run = bundle.run_edited(|spec| {
        let device = json!([{ "major": major, "minor": minor, "rate": 1 << 20 }]);
        spec["linux"]["resources"]["blockIO"] = json!({ "throttleWriteBpsDevice": device });
    });
    let out = run.ok();
    let [before_s, after_s] = out.split_whitespace().map(|word| word.parse::<f64>().unwrap()).collect::<Vec<_>>()[..] else {
        panic!("{out}")
    };
    // Some of it may go through at once.
    assert!(after_s - before_s > 2.0, "{} s for 3 MiB at 1 MiB a second", after_s - before_s);
}

/// The directories a named path has on this host.
fn named(path: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|mount| mount.join(path)).filter(|path| path.exists()).collect()
}

#[test]
fn a_named_path_is_joined_in_every_hierarchy_seen_as_its_own_and_removed() {
    let Some(bundle) =
        Bundle::sh("cat /proc/self/cgroup; ls /sys/fs/cgroup/memory | grep -c memory.limit; ls /sys/fs/cgroup/memory")
    else {
        return;
    };
    if !root() || !v1() {
        return;
    }
    let name = format!("longshore-tests-{}", std::process::id());
    for path in [format!("/{name}/inner"), format!("{name}/inner")] {
        let out = bundle.run_edited(|spec| {
            spec["linux"]["cgroupsPath"] = json!(path);
            // Without a namespace the kernel's own list says where that is on the host.
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
        });
        let out = out.ok();
        for controller in ["memory", "cpu", "pids", "devices", "freezer"] {
            let line = out.lines().find(|line| line.contains(&format!(":{controller}:"))).unwrap();
            assert!(line.ends_with(&format!(":/{name}/inner")), "{line}");
        }
        assert!(
            !out.contains(&name[..].to_owned().repeat(2)) && !out.lines().any(|line| line == name),
            "the host's tree is not shown: {out}"
        );
        assert!(named(&format!("{name}/inner")).is_empty(), "removed");
    }
    for path in named(&name) {
        fs::remove_dir(path).unwrap();
    }
}

#[test]
fn device_rules_of_a_named_path_are_a_v1_list() {
    let Some(bundle) =
        Bundle::sh("cat /sys/fs/cgroup/devices/devices.list; mknod /tmp/m c 1 1; dd if=/tmp/m count=1 of=/dev/null")
    else {
        return;
    };
    if !root() || !v1() {
        return;
    }
    let name = format!("longshore-devices-{}", std::process::id());
    let run = bundle.run_edited(|spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("/{name}"));
        let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw" }]);
        spec["linux"]["resources"]["devices"] = rules;
    });
    assert!(run.out.contains("c 10:200 rw") && !run.out.contains("a *:*"), "{}", run.out);
    assert!(run.err.contains("Operation not permitted"), "{}", run.err);
    assert!(named(&name).is_empty());
}

#[test]
fn a_cgroup_that_is_frozen_is_refused_and_not_waited_for() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !root() || !useful(freezer.join("tasks").exists(), "the freezer of cgroup v1") {
        return;
    }
    let name = format!("longshore-frozen-{}", std::process::id());
    fs::create_dir(freezer.join(&name)).unwrap();
    fs::write(freezer.join(&name).join("freezer.state"), "FROZEN").unwrap();
    let run = bundle.run_edited(|spec| spec["linux"]["cgroupsPath"] = json!(format!("/{name}")));
    assert!(run.code == Some(125) && run.err.contains("it is frozen"), "{run:?}");
    let _ = fs::remove_dir(freezer.join(&name));
    assert!(named(&name).is_empty());
}

#[test]
fn what_the_container_made_below_its_cgroup_goes_with_it() {
    let Some(bundle) = Bundle::sh(
        "mkdir -p /sys/fs/cgroup/a/b && sleep 1000 & sleep 0.2; echo $! >/sys/fs/cgroup/a/b/cgroup.procs; cat /sys/fs/cgroup/a/b/cgroup.procs | wc -l",
    ) else {
        return;
    };
    if !root() || !useful(Path::new("/sys/fs/cgroup/unified").exists() || !is_v1(), "cgroup2") {
        return;
    }
    let out = bundle.run_edited(|spec| {
        for mount in spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
            }
        }
    });
    assert_eq!(out.ok(), "1");
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}

#[test]
fn on_cgroup_v2_alone_the_path_is_made_controllers_are_handed_down_and_the_user_s_part_is_its_own() {
    // Of this host only: in a mount namespace where the hierarchy is the one at the usual place.
    let Some(bundle) = Bundle::sh(
        "cat /proc/self/cgroup | grep ^0:; cat /sys/fs/cgroup/hugetlb.2MB.max /sys/fs/cgroup/hugetlb.2MB.rsvd.max; \
         grep ' /sys/fs/cgroup ' /proc/mounts | cut -d ' ' -f 3; stat -c '%u %n' /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/hugetlb.2MB.max; \
         mkdir /sys/fs/cgroup/mine && echo divided",
    ) else {
        return;
    };
    let hugetlb =
        |mount: &str| fs::read_to_string(Path::new(mount).join("cgroup.controllers")).is_ok_and(|list| list.contains("hugetlb"));
    if !root() || !useful(hugetlb("/sys/fs/cgroup/unified") || hugetlb("/sys/fs/cgroup"), "cgroup2 with the controller hugetlb") {
        return;
    }
    for path in [bundle.root(), bundle.root().join("tmp")] {
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).unwrap();
    }
    let name = format!("longshore-v2-{}", std::process::id());
    bundle.write(|spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("/{name}/inner"));
        spec["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 6 << 20 }]);
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
        for mount in spec["mounts"].as_array_mut().unwrap().iter_mut().filter(|mount| mount["destination"] == "/sys/fs/cgroup") {
            mount["options"].as_array_mut().unwrap().retain(|option| option != "ro");
        }
    });
    let roci = bundle.command();
    let script = "umount -R /sys/fs/cgroup && mount -t cgroup2 x /sys/fs/cgroup && \"$@\" && rmdir /sys/fs/cgroup/$0";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, &name]).arg(roci.get_program()).args(roci.get_args());
    let run = Run::of(command.output().unwrap());
    assert_eq!(run.code, Some(0), "{} {}", run.out, run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[..4], ["0::/", "6291456", "6291456", "cgroup2"]);
    assert_eq!(
        lines[4..6],
        ["0 /sys/fs/cgroup/cgroup.procs", "65534 /sys/fs/cgroup/hugetlb.2MB.max"],
        "to divide, but not to raise"
    );
    assert_eq!(lines[6], "divided");
}

#[test]
fn kill_nine_leaves_no_directory_in_any_hierarchy() {
    let Some(bundle) = Bundle::sh("echo up; sleep 1000") else { return };
    if !root() || !has("memory") || !has("pids") {
        return;
    }
    bundle.write(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        spec["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    });
    let mut child = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert!(bundle.cgroups().iter().filter(|path| path.exists()).count() >= 1, "the guard of this test");
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    while bundle.cgroups().iter().any(|path| path.exists()) {
        assert!(Instant::now() < deadline, "{:?}", bundle.cgroups());
        std::thread::yield_now();
    }
}

#[test]
fn wrong_limits_are_refused_by_name_and_leave_nothing() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if !root() || !v1() {
        return;
    }
    let list = [
        (json!({ "memory": { "limit": 10 << 20, "swap": 5 << 20 } }), "linux.resources.memory.swap"),
        (json!({ "memory": { "swappiness": 101 } }), "linux.resources.memory.swappiness"),
        (json!({ "cpu": { "quota": 10, "period": 100_000 } }), "linux.resources.cpu.quota"),
        (json!({ "cpu": { "cpus": "4000" } }), "linux.resources.cpu.cpus"),
        (json!({ "cpu": { "cpus": "one" } }), "linux.resources.cpu.cpus"),
        (json!({ "blockIO": { "weight": 5 } }), "linux.resources.blockIO.weight"),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 4000, "minor": 0, "rate": 1 }] } }),
            "linux.resources.blockIO.throttleReadBpsDevice",
        ),
        (json!({ "network": { "classID": 1 } }), "controller net_cls"),
        (json!({ "rdma": { "mlx": { "hcaHandles": 1 } } }), "controller rdma"),
        (json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }), "linux.resources.hugepageLimits"),
        (json!({ "unified": { "pids.max": "5" } }), "controller pids"),
        (json!({ "unified": { "../x.y": "5" } }), "linux.resources.unified"),
    ];
    refused_by_name(&bundle, &list);
    for (path, names) in
        [("system.slice:longshore:x", "--systemd-cgroup"), ("/../x", "linux.cgroupsPath"), ("/", "linux.cgroupsPath")]
    {
        let run = bundle.run_edited(|spec| spec["linux"]["cgroupsPath"] = json!(path));
        assert!(run.code == Some(125) && run.err.contains(names), "{path}: {}", run.err);
    }
}

/// Runs the bundle with each of these resources: none comes to be, the message names the field, nothing is left.
fn refused_by_name(bundle: &Bundle, list: &[(Value, &str)]) {
    for (resources, names) in list {
        let run = bundle.run_edited(|spec| spec["linux"]["resources"] = resources.clone());
        assert_eq!(run.code, Some(125), "{resources}: {}", run.out);
        assert!(run.err.contains(names), "{resources}: {}", run.err);
        assert!(bundle.cgroups().iter().all(|path| !path.exists()), "{resources}");
    }
}

#[test]
fn on_cgroup_v2_what_it_does_not_have_is_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if !root() || !v2() {
        return;
    }
    let list = [
        (json!({ "memory": { "swappiness": 10 } }), "linux.resources.memory.swappiness"),
        (json!({ "memory": { "disableOOMKiller": true } }), "linux.resources.memory.disableOOMKiller"),
        (json!({ "memory": { "swap": 5 << 20 } }), "linux.resources.memory.swap"),
        (json!({ "cpu": { "realtimeRuntime": 10 } }), "linux.resources.cpu.realtimeRuntime"),
        (json!({ "cpu": { "quota": 10, "period": 100_000 } }), "linux.resources.cpu.quota"),
        (json!({ "cpu": { "cpus": "one" } }), "linux.resources.cpu.cpus"),
        (json!({ "blockIO": { "leafWeight": 10 } }), "linux.resources.blockIO.leafWeight"),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 4000, "minor": 0, "rate": 1 }] } }),
            "linux.resources.blockIO.throttleReadBpsDevice",
        ),
        (json!({ "network": { "classID": 1 } }), "controller net_cls"),
        (json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }), "linux.resources.hugepageLimits"),
        (json!({ "unified": { "nosuch.max": "5" } }), "controller nosuch"),
        (json!({ "unified": { "pids.such": "5" } }), "linux.resources.unified"),
    ];
    refused_by_name(&bundle, &list);
}

#[test]
fn an_ordinary_user_s_limits_are_an_error_where_no_cgroup_is_its_own() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if !root() || !useful(Command::new("setpriv").arg("--version").output().is_ok(), "setpriv") {
        return;
    }
    bundle.write(|spec| {
        spec["linux"]["resources"]["pids"] = json!({ "limit": 5 });
        spec["linux"]["resources"].as_object_mut().unwrap().remove("devices");
    });
    let roci = bundle.directory.path().join("roci");
    fs::copy(crate::bundle::ROCI, &roci).unwrap();
    fs::set_permissions(&roci, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "61234", "--regid", "61234", "--clear-groups"]).arg(roci).args(["run", "--bundle"]);
    let run = Run::of(command.arg(bundle.directory.path()).arg(&bundle.id).output().unwrap());
    assert_eq!(run.code, Some(125), "{}", run.out);
    assert!(run.err.contains("linux.resources (pids)"), "{}", run.err);
}
