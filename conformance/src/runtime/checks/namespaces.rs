//! Namespaces: new ones, the runtime's own, those of others by path, and their mappings.

use serde_json::json;

use crate::runtime::bundle::Bundle;
use crate::runtime::finding::{Finding, Outcome, here, not_offered, require};
use crate::runtime::machine::{NAMESPACES, has_namespace, namespace_of};
use crate::runtime::{Context, Requirement, must};

const NEW: &str = "Namespaces";
const USER: &str = "User namespace mappings";
const TIME: &str = "Offset for Time Namespace";

pub(super) const TABLE: &[Requirement] = &[
    must("namespaces-new-pid", NEW, "a new pid namespace, in which the program is 1", new_pid),
    must("namespaces-new-network", NEW, "a new network namespace, with nothing but a loopback", new_network),
    must("namespaces-new-mount", NEW, "a new mount namespace", |cx| new(cx, "mount")),
    must("namespaces-new-ipc", NEW, "a new ipc namespace", |cx| new(cx, "ipc")),
    must("namespaces-new-uts", NEW, "a new uts namespace", |cx| new(cx, "uts")),
    must("namespaces-new-cgroup", NEW, "a new cgroup namespace, in which the program is at the root", new_cgroup),
    must("namespaces-new-user", NEW, "a new user namespace", new_user),
    must("namespaces-new-time", NEW, "a new time namespace", new_time),
    must("namespaces-inherit", NEW, "what is not listed is the runtime's own", inherit),
    must("namespaces-join-pid", NEW, "a pid namespace by path", |cx| join(cx, "pid")),
    must("namespaces-join-network", NEW, "a network namespace by path", |cx| join(cx, "network")),
    must("namespaces-join-ipc", NEW, "an ipc namespace by path", |cx| join(cx, "ipc")),
    must("namespaces-join-uts", NEW, "a uts namespace by path", |cx| join(cx, "uts")),
    must("namespaces-join-cgroup", NEW, "a cgroup namespace by path", |cx| join(cx, "cgroup")),
    must("namespaces-join-user", NEW, "a user namespace by path", join_user),
    must("namespaces-join-time", NEW, "a time namespace by path", |cx| join(cx, "time")),
    must("namespaces-join-wrong-kind", NEW, "a path to a namespace of another kind is refused", join_wrong_kind),
    must("namespaces-join-missing", NEW, "a path that is not there is refused", join_missing),
    must("namespaces-duplicate", NEW, "two of one kind are refused", duplicate),
    must("namespaces-user-mappings", USER, "the user namespace has the mappings asked for", user_mappings),
    must("namespaces-time-offsets", TIME, "the time namespace has the offsets asked for", time_offsets),
];

/// The link in `/proc/self/ns` for a kind of namespace; not offered where the kernel has no such kind.
fn link_of(kind: &str) -> Outcome<&'static str> {
    let link = NAMESPACES.iter().find(|(name, _)| *name == kind).map(|(_, link)| *link);
    link.filter(|link| has_namespace(link)).ok_or_else(|| not_offered(format_args!("{kind} namespaces by this kernel")))
}

fn host(link: &str) -> Outcome<String> {
    here(namespace_of(std::process::id(), link), "look at a namespace of the host")
}

/// Whether the runtime is known to have no time namespaces: they came with version 1.1.
fn is_late(kind: &str) -> bool {
    kind == "time"
}

/// Runs a bundle that must be in another namespace of this kind than the host; what it printed after its link.
fn run_in_new(cx: &Context, bundle: Bundle, kind: &str, script: &str) -> Outcome<Vec<String>> {
    let link = link_of(kind)?;
    let step = cx.run(&bundle.script(&format!("readlink /proc/self/ns/{link}; {script}")))?;
    if is_late(kind) {
        step.or_not_offered("time namespaces")?;
    }
    step.must_succeed()?;
    let mut lines = step.stdout.lines().map(str::to_owned);
    let inside = lines.next().unwrap_or_default();
    require(inside.starts_with(link), format_args!("the name of a {kind} namespace"))?;
    let host = host(link)?;
    require(inside != host, format_args!("another {kind} namespace than the host's {host}"))?;
    Ok(lines.collect())
}

fn new(cx: &Context, kind: &str) -> Outcome {
    run_in_new(cx, cx.bundle()?, kind, "").map(drop)
}

fn new_pid(cx: &Context) -> Outcome {
    let lines = run_in_new(cx, cx.bundle()?, "pid", "echo $$")?;
    require(lines == ["1"], "pid 1 inside")
}

fn new_network(cx: &Context) -> Outcome {
    let lines = run_in_new(cx, cx.bundle()?, "network", "grep -c : /proc/net/dev; grep -o lo: /proc/net/dev")?;
    // Kernels may have fallback tunnels (tunl0, sit0 ...) in every namespace; the host's own devices must not be here.
    require(lines.last().is_some_and(|line| line == "lo:"), "a loopback device")
}

fn new_cgroup(cx: &Context) -> Outcome {
    let lines = run_in_new(cx, cx.bundle()?, "cgroup", "cat /proc/self/cgroup")?;
    let controllers = ["pids", "memory", "devices"];
    let set =
        |line: &&String| controllers.iter().any(|name| line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == *name)));
    let known: Vec<_> = lines.iter().filter(set).collect();
    let all: Vec<_> = if known.is_empty() { lines.iter().filter(|line| line.starts_with("0:")).collect() } else { known };
    require(all.iter().all(|line| line.ends_with(":/")), "the program's own cgroup to be / inside")
}

/// A bundle with a user namespace of 65536 ids.
fn with_user_namespace(cx: &Context) -> Outcome<Bundle> {
    cx.need_root("mapping other ids than one's own")?;
    let map = || json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let bundle = cx.bundle()?.with_namespace("user", None).set("linux/uidMappings", map()).set("linux/gidMappings", map());
    // A user namespace may not mount the host's cgroups of version 1.
    Ok(bundle.without_mount("/sys/fs/cgroup"))
}

fn new_user(cx: &Context) -> Outcome {
    if !cx.is_root() {
        return new(cx, "user");
    }
    run_in_new(cx, with_user_namespace(cx)?, "user", "").map(drop)
}

fn user_mappings(cx: &Context) -> Outcome {
    let step = cx.run(&with_user_namespace(cx)?.script("cat /proc/self/uid_map /proc/self/gid_map"))?;
    step.must_succeed()?;
    let maps: Vec<_> = step.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    require(maps == ["0 100000 65536", "0 100000 65536"], "two maps of 0 100000 65536")
}

fn new_time(cx: &Context) -> Outcome {
    link_of("time")?;
    match run_in_new(cx, cx.bundle()?.with_namespace("time", None), "time", "") {
        Err(Finding::Fail(expected)) => cx.must_since((1, 1), false, &expected),
        other => other.map(drop),
    }
}

fn time_offsets(cx: &Context) -> Outcome {
    link_of("time")?;
    let offsets = json!({ "monotonic": { "secs": 86400, "nanosecs": 0 }, "boottime": { "secs": 172_800, "nanosecs": 0 } });
    let bundle = cx.bundle()?.with_namespace("time", None).set("linux/timeOffsets", offsets);
    let step = cx.run(&bundle.script("cat /proc/self/timens_offsets"))?;
    step.or_not_offered("time namespaces")?;
    let offset = |clock: &str| step.stdout.lines().find_map(|line| line.strip_prefix(clock)?.split_whitespace().next());
    let held = offset("monotonic") == Some("86400") && offset("boottime") == Some("172800");
    cx.must_since((1, 1), held, "offsets of 86400 s (monotonic) and 172800 s (boottime)")
}

fn inherit(cx: &Context) -> Outcome {
    cx.need_root("the runtime's own namespaces without a new user namespace")?;
    let kinds = ["network", "ipc", "uts", "cgroup"];
    let links = kinds.iter().map(|kind| link_of(kind)).collect::<Outcome<Vec<_>>>()?;
    let bundle = kinds.iter().fold(cx.bundle()?.remove("hostname"), |bundle, kind| bundle.without_namespace(kind));
    let bundle = bundle.without_mount("/dev/mqueue").without_mount("/sys").without_mount("/sys/fs/cgroup");
    let script: String = links.iter().map(|link| format!("readlink /proc/self/ns/{link};")).collect();
    let step = cx.run(&bundle.script(&script))?;
    step.must_succeed()?;
    let hosts = links.iter().map(|link| host(link)).collect::<Outcome<Vec<_>>>()?;
    require(step.stdout.lines().eq(hosts.iter()), format_args!("the host's namespaces {hosts:?}"))
}

/// Runs a bundle that must be in the namespace of a container that runs.
fn join_of(cx: &Context, holder: &Bundle, kind: &str, joining: Bundle) -> Outcome {
    let link = link_of(kind)?;
    let container = cx.running(holder)?;
    let pid = container.pid()?;
    let held = here(namespace_of(pid, link), "look at a container's namespace")?;
    require(held != host(link)?, format_args!("another {kind} namespace than the host's to join"))?;
    let bundle = joining.with_namespace(kind, Some(&format!("/proc/{pid}/ns/{link}")));
    let step = cx.run(&bundle.script(&format!("readlink /proc/self/ns/{link}")))?;
    step.must_succeed()?;
    step.must_print(&[&held]).map(drop)
}

fn join(cx: &Context, kind: &str) -> Outcome {
    cx.need_root("joining a namespace of another user namespace")?;
    let holder = if is_late(kind) {
        link_of(kind)?;
        // Whether there is one to join is judged elsewhere.
        new_time(cx).map_err(|_| not_offered("new time namespaces"))?;
        cx.bundle()?.with_namespace(kind, None)
    } else {
        cx.bundle()?
    };
    // A name is not to be set in a namespace of somebody else.
    let joining = if kind == "uts" { cx.bundle()?.remove("hostname") } else { cx.bundle()? };
    join_of(cx, &holder.stays(""), kind, joining)
}

fn join_user(cx: &Context) -> Outcome {
    let holder = with_user_namespace(cx)?.stays("");
    let joining = with_user_namespace(cx)?.remove("linux/uidMappings").remove("linux/gidMappings");
    join_of(cx, &holder, "user", joining)
}

fn join_wrong_kind(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.with_namespace("network", Some("/proc/self/ns/uts"));
    cx.run(&bundle.script("echo ran"))?.must_fail("the path is that of a uts namespace").map(drop)
}

fn join_missing(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.with_namespace("network", Some("/nowhere/net"));
    cx.run(&bundle.script("echo ran"))?.must_fail("there is nothing at the path").map(drop)
}

fn duplicate(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/namespaces", json!({ "type": "uts" }));
    cx.run(&bundle.script("echo ran"))?.must_fail("there are two uts namespaces").map(drop)
}
