//! Cgroups, of both versions: the place, the limits, device rules, and removal.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::runtime::bundle::{Bundle, cgroups_path};
use crate::runtime::command::text_of;
use crate::runtime::container::Container;
use crate::runtime::finding::{Outcome, here, not_offered, require};
use crate::runtime::{Context, Requirement, must, should};

const PATH: &str = "Cgroups Path";
const MEMORY: &str = "Memory";
const CPU: &str = "CPU";
const PIDS: &str = "PIDs";
const DEVICES: &str = "Allowed Device list";

/// Controllers that a container is expected to have a cgroup of.
const CONTROLLERS: [&str; 5] = ["memory", "pids", "cpu", "devices", "freezer"];

pub(super) const TABLE: &[Requirement] = &[
    must("cgroups-path", PATH, "the container is in the cgroup cgroupsPath names, below the mount point", path),
    should("cgroups-path-default", PATH, "without cgroupsPath the container has a cgroup of its own", path_default),
    must("cgroups-removed", "Lifecycle", "delete removes the cgroup everywhere", removed),
    must("cgroups-removed-after-failure", "Errors", "a create that fails leaves no cgroup", removed_after_failure),
    must("cgroups-memory-limit", MEMORY, "memory.limit", memory_limit),
    must("cgroups-memory-reservation", MEMORY, "memory.reservation", memory_reservation),
    must("cgroups-memory-swap", MEMORY, "memory.swap", memory_swap),
    must("cgroups-memory-enforced", MEMORY, "a program that needs more than the limit is ended", memory_enforced),
    must("cgroups-cpu-shares", CPU, "cpu.shares", cpu_shares),
    must("cgroups-cpu-quota", CPU, "cpu.quota and cpu.period", cpu_quota),
    must("cgroups-cpuset", CPU, "cpu.cpus and cpu.mems", cpuset),
    must("cgroups-pids", PIDS, "pids.limit", pids),
    must("cgroups-devices-deny", DEVICES, "a device that no rule allows cannot be opened", devices_deny),
    must("cgroups-devices-allow", DEVICES, "a device can be used as far as its rule allows", devices_allow),
    must("cgroups-devices-order", DEVICES, "device rules apply in the listed order", devices_order),
    must("cgroups-unified", "Unified", "unified values are written as they are", unified),
];

/// A container with these resources, besides the typical ones.
fn limited<'a>(cx: &'a Context, resource: &str, value: impl Into<Value>) -> Outcome<Container<'a>> {
    cx.need_root("cgroups")?;
    cx.running(&cx.bundle()?.set(&format!("linux/resources/{resource}"), value).stays(""))
}

/// The value of a file of the container's cgroup: by name in version 1 and in version 2.
fn value(cx: &Context, container: &Container<'_>, controller: &str, v1: &str, v2: &str) -> Outcome<String> {
    let file = if cx.hierarchies.is_v1(controller) { v1 } else { v2 };
    let path = container.cgroup(controller)?.join(file);
    if !path.exists() {
        return Err(not_offered(format_args!("{file} by this machine")));
    }
    let text = here(text_of(&path), format_args!("read {}", path.display()))?.trim().to_owned();
    cx.note(format!("{}: {text}\n", path.display()));
    Ok(text)
}

fn need_controller(cx: &Context, controller: &str) -> Outcome {
    cx.need_root("cgroups")?;
    let there = cx.hierarchies.is_v1(controller) || cx.hierarchies.is_v2(controller);
    if there { Ok(()) } else { Err(not_offered(format_args!("the controller {controller} by this machine"))) }
}

fn path(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    let bundle = cx.bundle()?.stays("");
    let container = cx.running(&bundle)?;
    let expected = cgroups_path(&bundle.id);
    let controllers: Vec<_> = CONTROLLERS.into_iter().filter(|name| cx.hierarchies.is_v1(name)).collect();
    // Version 2 has one cgroup for all; asking for any controller finds it.
    for controller in if controllers.is_empty() { vec!["memory"] } else { controllers } {
        let found = container.cgroup(controller)?;
        let held = cx.hierarchies.directories(&expected).contains(&found);
        require(held, format_args!("the cgroup {expected} for {controller}, not {}", found.display()))?;
    }
    Ok(())
}

fn path_default(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    let container = cx.running(&cx.bundle()?.remove("linux/cgroupsPath").stays(""))?;
    // The last is the hierarchy of version 2.
    let controllers = ["devices", "pids", "memory", "cpu", ""];
    let own = |controller| cx.hierarchies.of_process(std::process::id(), controller);
    let found =
        controllers.into_iter().filter_map(|name| container.cgroup(name).ok().filter(|path| own(name).as_ref() != Some(path)));
    let found: Vec<_> = found.collect();
    require(!found.is_empty(), "another cgroup than the runtime's")?;
    if cx.offers("delete") {
        container.end()?;
        for path in found {
            require(!path.exists(), format_args!("{} to be gone after delete", path.display()))?;
        }
    }
    Ok(())
}

fn removed(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    let bundle = cx.bundle()?.stays("");
    let path = cgroups_path(&bundle.id);
    if cx.offers("create") {
        let container = cx.running(&bundle)?;
        require(!cx.hierarchies.directories(&path).is_empty(), format_args!("the cgroup {path} while the container runs"))?;
        container.end()?;
    } else {
        cx.run(&bundle.script("true"))?.must_succeed()?;
    }
    gone(cx, &path)
}

fn gone(cx: &Context, path: &str) -> Outcome {
    let left = cx.hierarchies.directories(path);
    require(left.is_empty(), format_args!("no cgroup left, but there is {left:?}"))
}

fn removed_after_failure(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    let bundle = cx.bundle()?.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    let path = cgroups_path(&bundle.id);
    if cx.offers("create") {
        cx.try_create(&bundle, &[])?.1.must_fail("a mount is impossible")?;
    } else {
        cx.run(&bundle)?.must_fail("a mount is impossible")?;
    }
    gone(cx, &path)
}

const MIB: u64 = 1 << 20;

fn memory_limit(cx: &Context) -> Outcome {
    need_controller(cx, "memory")?;
    let container = limited(cx, "memory/limit", 64 * MIB)?;
    let found = value(cx, &container, "memory", "memory.limit_in_bytes", "memory.max")?;
    require(found == (64 * MIB).to_string(), format_args!("{}", 64 * MIB))
}

fn memory_reservation(cx: &Context) -> Outcome {
    need_controller(cx, "memory")?;
    let container = limited(cx, "memory/reservation", 32 * MIB)?;
    let found = value(cx, &container, "memory", "memory.soft_limit_in_bytes", "memory.low")?;
    require(found == (32 * MIB).to_string(), format_args!("{}", 32 * MIB))
}

fn memory_swap(cx: &Context) -> Outcome {
    need_controller(cx, "memory")?;
    let file = if cx.hierarchies.is_v1("memory") { "memory.memsw.limit_in_bytes" } else { "memory.swap.max" };
    // What the kernel does not count, no runtime can limit: look where there is a container anyway.
    let plain = cx.running(&cx.bundle()?.stays(""))?;
    if !plain.cgroup("memory")?.join(file).exists() {
        return Err(not_offered(format_args!("{file} by this machine")));
    }
    let container = limited(cx, "memory", json!({ "limit": 64 * MIB, "swap": 96 * MIB }))?;
    let found = value(cx, &container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")?;
    // Version 1 counts both together.
    let expected = if cx.hierarchies.is_v1("memory") { 96 * MIB } else { 32 * MIB };
    require(found == expected.to_string(), format_args!("{expected}"))
}

fn memory_enforced(cx: &Context) -> Outcome {
    need_controller(cx, "memory")?;
    let bundle = cx.bundle()?.set("linux/resources/memory", json!({ "limit": 24 * MIB, "swap": 24 * MIB }));
    let bundle =
        if cx.hierarchies.is_v1("memory") { bundle.set("linux/resources/memory", json!({ "limit": 24 * MIB })) } else { bundle };
    // `tail` keeps what it reads: /dev/zero has no line end.
    let step = cx.run(&bundle.script("head -c 128m /dev/zero | tail -n 1 > /dev/null; echo $?"))?;
    require(step.stdout.trim() != "0", "a program that wants 128 MiB to be ended at 24 MiB")
}

fn cpu_shares(cx: &Context) -> Outcome {
    need_controller(cx, "cpu")?;
    let container = limited(cx, "cpu/shares", 512)?;
    let found = value(cx, &container, "cpu", "cpu.shares", "cpu.weight")?;
    if cx.hierarchies.is_v1("cpu") {
        return require(found == "512", "512");
    }
    // The older conversion is linear (20), the newer one quadratic (59): runc's cgroups#20.
    require(found == "20" || found == "59", "a weight of 20 or 59, which 512 shares become")
}

fn cpu_quota(cx: &Context) -> Outcome {
    need_controller(cx, "cpu")?;
    let container = limited(cx, "cpu", json!({ "quota": 25000, "period": 50000 }))?;
    if !cx.hierarchies.is_v1("cpu") {
        return require(value(cx, &container, "cpu", "", "cpu.max")? == "25000 50000", "25000 50000");
    }
    let quota = value(cx, &container, "cpu", "cpu.cfs_quota_us", "")?;
    let period = value(cx, &container, "cpu", "cpu.cfs_period_us", "")?;
    require((quota.as_str(), period.as_str()) == ("25000", "50000"), "quota 25000 and period 50000")
}

fn cpuset(cx: &Context) -> Outcome {
    need_controller(cx, "cpuset")?;
    let container = limited(cx, "cpu", json!({ "cpus": "0", "mems": "0" }))?;
    let cpus = value(cx, &container, "cpuset", "cpuset.cpus", "cpuset.cpus")?;
    let mems = value(cx, &container, "cpuset", "cpuset.mems", "cpuset.mems")?;
    require((cpus.as_str(), mems.as_str()) == ("0", "0"), "cpu 0 and memory node 0")
}

fn pids(cx: &Context) -> Outcome {
    need_controller(cx, "pids")?;
    let container = limited(cx, "pids/limit", 77)?;
    require(value(cx, &container, "pids", "pids.max", "pids.max")? == "77", "77")
}

/// A bundle whose program may make a device: kmsg, which can be opened to write without any capability.
fn with_device_rules(cx: &Context, rules: &Value, script: &str) -> Outcome<Bundle> {
    cx.need_root("device rules")?;
    let list = ["CAP_MKNOD", "CAP_SYSLOG"];
    let sets = json!({ "bounding": list, "effective": list, "permitted": list });
    let bundle = cx.bundle()?.capabilities(&sets).set("linux/resources/devices", rules.clone());
    Ok(bundle.script(&format!("mknod /dev/test c 1 11 || echo no node; {script}; echo end")))
}

const OPEN_BOTH: &str = "true 2> /dev/null > /dev/test && echo wrote; true 2> /dev/null < /dev/test && echo read";

fn deny_all() -> Value {
    json!({ "allow": false, "access": "rwm" })
}

fn kmsg(allow: bool, access: &str) -> Value {
    json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access })
}

fn devices_deny(cx: &Context) -> Outcome {
    let bundle = with_device_rules(cx, &json!([deny_all(), kmsg(true, "m")]), OPEN_BOTH)?;
    cx.run(&bundle)?.must_print(&["end"]).map(drop)
}

fn devices_allow(cx: &Context) -> Outcome {
    let bundle = with_device_rules(cx, &json!([deny_all(), kmsg(true, "wm")]), OPEN_BOTH)?;
    cx.run(&bundle)?.must_print(&["wrote", "end"]).map(drop)
}

fn devices_order(cx: &Context) -> Outcome {
    let rules = json!([deny_all(), kmsg(true, "rwm"), kmsg(false, "w")]);
    cx.run(&with_device_rules(cx, &rules, OPEN_BOTH)?)?.must_print(&["read", "end"]).map(drop)
}

fn unified(cx: &Context) -> Outcome {
    cx.need_root("cgroups")?;
    if cx.hierarchies.is_v1("pids") || !cx.hierarchies.is_v2("pids") {
        return Err(not_offered("cgroups of version 2 with pids by this machine"));
    }
    let container = limited(cx, "unified", json!({ "pids.max": "66", "memory.high": "50331648" }))?;
    require(value(cx, &container, "pids", "", "pids.max")? == "66", "pids.max 66")?;
    require(value(cx, &container, "memory", "", "memory.high")? == "50331648", "memory.high 50331648")
}

/// Whether a cgroup is frozen, by either version.
pub(super) fn is_frozen(directory: &Path) -> bool {
    let file = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    file("freezer.state").trim() == "FROZEN" || file("cgroup.events").contains("frozen 1")
}
