//! Mounts: types, options, binds, propagation, order and mount points.

use std::fs;
use std::os::unix::fs::symlink;

use crate::runtime::bundle::{Bundle, make_directory, write_file};
use crate::runtime::command::Step;
use crate::runtime::finding::{Finding, Outcome, here, not_offered, require};
use crate::runtime::machine::mounts_below;
use crate::runtime::{Context, Requirement, must, should};

const MOUNTS: &str = "Mounts";
const OPTIONS: &str = "Linux mount options";
const PROPAGATION: &str = "Rootfs Mount Propagation";
const DEFAULT: &str = "Default Filesystems";

pub(super) const TABLE: &[Requirement] = &[
    must("mounts-proc", DEFAULT, "/proc is of the container's own pid namespace", proc),
    should("mounts-default", DEFAULT, "/proc, /sys, /dev/pts and /dev/shm are what they should be", default_filesystems),
    must("mounts-tmpfs-options", OPTIONS, "a tmpfs has the size, mode and flags asked for", tmpfs_options),
    must("mounts-flags", OPTIONS, "noatime, nodiratime, sync, noexec, nosuid, nodev and ro reach the mount", flags),
    must("mounts-flags-undone", OPTIONS, "a later option undoes an earlier one: ro, rw", flags_undone),
    must("mounts-bind", MOUNTS, "a bind mount shows a directory of the host, both ways", bind),
    must("mounts-bind-file", MOUNTS, "a bind mount of a single file", bind_file),
    must("mounts-bind-ro", OPTIONS, "a bind mount with ro cannot be written", bind_ro),
    must("mounts-bind-noexec", OPTIONS, "a bind mount with noexec runs no program", bind_noexec),
    must("mounts-bind-flat", OPTIONS, "bind does not bring what is mounted below", |cx| submount(cx, "bind", false)),
    must("mounts-bind-recursive", OPTIONS, "rbind brings what is mounted below", |cx| submount(cx, "rbind", true)),
    should("mounts-bind-rro", OPTIONS, "rro makes what is mounted below read-only too", bind_rro),
    must("mounts-propagation-shared", OPTIONS, "shared makes a mount a peer", |cx| propagation(cx, "shared", "shared:")),
    must("mounts-propagation-slave", OPTIONS, "slave makes a shared mount a slave", propagation_slave),
    must("mounts-propagation-unbindable", OPTIONS, "unbindable", |cx| propagation(cx, "unbindable", "unbindable")),
    must("mounts-propagation-private", OPTIONS, "private undoes what was inherited", propagation_private),
    must("mounts-rootfs-propagation-shared", PROPAGATION, "a root file system that is shared", |cx| {
        root_propagation(cx, "shared", "shared:")
    }),
    must("mounts-rootfs-propagation-unbindable", PROPAGATION, "a root file system that is unbindable", |cx| {
        root_propagation(cx, "unbindable", "unbindable")
    }),
    must("mounts-order", MOUNTS, "mounts are made in the listed order", order),
    should("mounts-tmpcopyup", OPTIONS, "tmpcopyup fills a tmpfs with what it covers", tmpcopyup),
    should("mounts-point-made", MOUNTS, "a mount point that is missing is made", point_made),
    must("mounts-confined", MOUNTS, "a mount point behind a symbolic link stays inside the root file system", confined),
    must("mounts-source-missing", MOUNTS, "a source that is not there is refused", source_missing),
    must("mounts-type-unknown", "Valid values", "a type of file system that does not exist is refused", type_unknown),
];

/// The line of mountinfo of the topmost mount at a place: options, propagation, type and super options.
fn info<'a>(step: &'a Step, place: &str) -> Outcome<Info<'a>> {
    let at = |line: &&str| line.split(' ').nth(4) == Some(place);
    let found = step.stdout.lines().rfind(at).and_then(Info::parse);
    found.ok_or_else(|| Finding::Fail(format!("a mount at {place} in the container's mountinfo")))
}

/// What mountinfo says of a mount (proc_pid_mountinfo(5)).
struct Info<'a> {
    options: Vec<&'a str>,
    propagation: &'a str,
    kind: &'a str,
    super_options: Vec<&'a str>,
}

impl<'a> Info<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.splitn(7, ' ').skip(5);
        let options = front.next()?.split(',').collect();
        let mut back = back.split(' ');
        let (kind, super_options) = (back.next()?, back.nth(1)?.split(',').collect());
        Some(Self { options, propagation: front.next().unwrap_or_default(), kind, super_options })
    }

    fn must_have(&self, options: &[&str]) -> Outcome {
        let missing: Vec<_> = options.iter().filter(|o| !self.options.contains(o) && !self.super_options.contains(o)).collect();
        require(missing.is_empty(), format_args!("the options {missing:?} in mountinfo"))
    }
}

/// Runs a bundle that prints its mountinfo.
fn mountinfo(cx: &Context, bundle: Bundle) -> Outcome<Step> {
    let step = cx.run(&bundle.script("cat /proc/self/mountinfo"))?;
    step.must_succeed()?;
    Ok(step)
}

fn proc(cx: &Context) -> Outcome {
    let step = cx.run_script("cd /proc; echo [0-9]*; grep ' /proc ' self/mountinfo | grep -c ' - proc '")?;
    step.must_succeed()?;
    step.must_print(&["1", "1"]).map(drop)
}

fn default_filesystems(cx: &Context) -> Outcome {
    let step = mountinfo(cx, cx.bundle()?)?;
    for (place, kind) in [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")] {
        require(info(&step, place)?.kind == kind, format_args!("a {kind} at {place}"))?;
    }
    Ok(())
}

fn tmpfs_options(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "size=1024k", "mode=1750"]);
    let step = cx.run(&bundle.script("cat /proc/self/mountinfo; stat -c 'mode: %a' /mnt"))?;
    step.must_succeed()?;
    let mount = info(&step, "/mnt")?;
    require(mount.kind == "tmpfs", "a tmpfs")?;
    mount.must_have(&["nosuid", "nodev", "noexec", "size=1024k"])?;
    require(step.field("mode")? == "1750", "mode 1750")
}

fn flags(cx: &Context) -> Outcome {
    let options = ["noatime", "nodiratime", "sync", "noexec", "nosuid", "nodev", "ro"];
    let step = mountinfo(cx, cx.bundle()?.mount("/mnt", "tmpfs", "tmpfs", &options))?;
    info(&step, "/mnt")?.must_have(&options)
}

fn flags_undone(cx: &Context) -> Outcome {
    let options = ["ro", "noexec", "nosuid", "rw", "exec"];
    let step = mountinfo(cx, cx.bundle()?.mount("/mnt", "tmpfs", "tmpfs", &options))?;
    let mount = info(&step, "/mnt")?;
    mount.must_have(&["rw", "nosuid"])?;
    require(!mount.options.contains(&"noexec") && !mount.options.contains(&"ro"), "neither ro nor noexec")
}

fn bind(cx: &Context) -> Outcome {
    let (bundle, shared) = cx.bundle()?.share()?;
    write_file(&shared.join("from-host"), "hello")?;
    let step = cx.run(&bundle.script("cat /shared/from-host && echo hi > /shared/from-container"))?;
    step.must_succeed()?;
    require(step.stdout == "hello", "the host's file inside")?;
    let back = fs::read_to_string(shared.join("from-container")).unwrap_or_default();
    require(back == "hi\n", "the container's file on the host")
}

fn bind_file(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let file = bundle.directory.join("file");
    write_file(&file, "hello")?;
    let bundle = bundle.mount("/etc/hosts", "bind", &file.to_string_lossy(), &["bind"]);
    let step = cx.run(&bundle.script("cat /etc/hosts; echo more > /etc/hosts"))?;
    step.must_succeed()?;
    require(step.stdout == "hello", "the file's content inside")?;
    require(here(fs::read_to_string(&file), "read the file")? == "more\n", "what was written inside")
}

/// A bundle with a directory of the host at `/data`, which is given.
fn with_data(cx: &Context, options: &[&str]) -> Outcome<(Bundle, std::path::PathBuf)> {
    let bundle = cx.bundle()?;
    let data = bundle.directory.join("data");
    here(make_directory(&data), "make a directory")?;
    write_file(&data.join("file"), "kept\n")?;
    let source = data.to_string_lossy().into_owned();
    Ok((bundle.mount("/data", "bind", &source, options), data))
}

fn bind_ro(cx: &Context) -> Outcome {
    let (bundle, data) = with_data(cx, &["bind", "ro"])?;
    let step = cx.run(&bundle.script("echo no > /data/file; touch /data/new; cat /data/file"))?;
    step.must_print(&["kept"])?;
    let unchanged = here(fs::read_to_string(data.join("file")), "read a file")? == "kept\n";
    require(unchanged && !data.join("new").exists(), "the host's directory as it was")
}

fn bind_noexec(cx: &Context) -> Outcome {
    let (bundle, _) = with_data(cx, &["bind", "noexec"])?;
    let script = "cp /bin/busybox /data/busybox && chmod 755 /data/busybox; /data/busybox true; echo $?";
    cx.run(&bundle.script(script))?.must_print(&["126"]).map(drop)
}

/// A directory of the host with something mounted below it: `/dev`, as nearly every machine has it.
fn with_host_dev(cx: &Context, options: &[&str]) -> Outcome<Bundle> {
    let below = here(mounts_below("/dev".as_ref()), "read mountinfo")?;
    if !below.iter().any(|place| place.as_os_str() == "/dev/pts") {
        return Err(not_offered("a mount below a directory of this machine: /dev/pts"));
    }
    Ok(cx.bundle()?.mount("/host", "bind", "/dev", options))
}

fn submount(cx: &Context, option: &str, expected: bool) -> Outcome {
    cx.need_root("a bind of the host's mounts")?;
    let step = mountinfo(cx, with_host_dev(cx, &[option, "ro"])?)?;
    info(&step, "/host")?;
    let there = info(&step, "/host/pts").is_ok();
    require(there == expected, format_args!("{} at /host/pts", if expected { "a mount" } else { "no mount" }))
}

fn bind_rro(cx: &Context) -> Outcome {
    cx.need_root("a bind of the host's mounts")?;
    let step = cx.run(&with_host_dev(cx, &["rbind", "rro"])?.script("cat /proc/self/mountinfo"))?;
    step.or_not_offered("rro")?;
    let below = info(&step, "/host/pts")?;
    cx.must_since((1, 1), below.options.contains(&"ro"), "ro at /host/pts")
}

fn propagation(cx: &Context, option: &str, expected: &str) -> Outcome {
    let step = mountinfo(cx, cx.bundle()?.mount("/mnt", "tmpfs", "tmpfs", &[option]))?;
    require(info(&step, "/mnt")?.propagation.contains(expected), format_args!("{expected} at /mnt in mountinfo"))
}

fn propagation_slave(cx: &Context) -> Outcome {
    cx.need_root("a bind of the host's mounts")?;
    let table = here(fs::read_to_string("/proc/self/mountinfo"), "read mountinfo")?;
    // Only a mount with peers can become a slave of them: one of the host's.
    let shared = table.lines().find(|line| {
        let is_directory = line.split(' ').nth(4).is_some_and(|place| std::path::Path::new(place).is_dir());
        is_directory && Info::parse(line).is_some_and(|mount| mount.propagation.contains("shared:"))
    });
    let place = shared.and_then(|line| line.split(' ').nth(4)).ok_or_else(|| not_offered("a shared mount on this machine"))?;
    let step = mountinfo(cx, cx.bundle()?.mount("/host", "bind", place, &["bind", "ro", "slave"]))?;
    require(info(&step, "/host")?.propagation.contains("master:"), "master: at /host in mountinfo")
}

fn propagation_private(cx: &Context) -> Outcome {
    let step = mountinfo(cx, cx.bundle()?.mount("/mnt", "tmpfs", "tmpfs", &["shared", "private"]))?;
    require(!info(&step, "/mnt")?.propagation.contains("shared:"), "no shared: at /mnt in mountinfo")
}

fn root_propagation(cx: &Context, kind: &str, expected: &str) -> Outcome {
    cx.need_root("the propagation of the root file system")?;
    let step = mountinfo(cx, cx.bundle()?.set("linux/rootfsPropagation", kind))?;
    require(info(&step, "/")?.propagation.contains(expected), format_args!("{expected} at / in mountinfo"))
}

fn order(cx: &Context) -> Outcome {
    let (bundle, _) = with_data(cx, &["bind"])?;
    let source = bundle.directory.join("data").to_string_lossy().into_owned();
    let bundle = bundle
        .mount("/mnt", "tmpfs", "first", &["size=1024k"])
        .mount("/mnt/inner", "bind", &source, &["bind"])
        .mount("/over", "bind", &source, &["bind"])
        .mount("/over", "tmpfs", "second", &["size=2048k"]);
    let script = "cat /mnt/inner/file; ls /over | wc -l; awk '$2 == \"/over\" { print $1 }' /proc/mounts | tail -n 1";
    let step = cx.run(&bundle.script(script))?;
    step.must_succeed()?;
    step.must_print(&["kept", "0", "second"]).map(drop)
}

fn tmpcopyup(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let etc = bundle.rootfs().join("etc/conf");
    here(make_directory(&etc), "make a directory")?;
    write_file(&etc.join("file"), "copied\n")?;
    let bundle = bundle.mount("/etc/conf", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let step = cx.run(&bundle.script("cat /etc/conf/file; grep -c ' /etc/conf tmpfs ' /proc/mounts"))?;
    step.or_not_offered("tmpcopyup")?;
    step.must_print(&["copied", "1"]).map(drop)
}

fn point_made(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/not/there/yet", "tmpfs", "tmpfs", &[]);
    let step = cx.run(&bundle.script("grep -c ' /not/there/yet tmpfs ' /proc/mounts"))?;
    step.must_succeed()?;
    step.must_print(&["1"]).map(drop)
}

fn confined(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let outside = bundle.directory.join("outside");
    here(make_directory(&outside), "make a directory")?;
    for (name, target) in [("absolute", outside.clone()), ("relative", "../../../../../../../../".into())] {
        let target = if name == "relative" { target.join(outside.strip_prefix("/").unwrap_or(&outside)) } else { target };
        here(symlink(target, bundle.rootfs().join(name)), "make a symbolic link")?;
    }
    let bundle = bundle.mount("/absolute/one", "tmpfs", "tmpfs", &[]).mount("/relative/two", "tmpfs", "tmpfs", &[]);
    // To refuse is as safe as to stay inside; what is outside must not be touched.
    cx.run(&bundle.script("echo ran"))?;
    let touched = here(fs::read_dir(&outside), "look at a directory")?.count();
    require(touched == 0, format_args!("nothing made in {}, which is outside", outside.display()))
}

fn source_missing(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    cx.run(&bundle.script("echo ran"))?.must_fail("the source is not there").map(drop)
}

fn type_unknown(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.mount("/mnt", "no-such-file-system", "none", &[]);
    cx.run(&bundle.script("echo ran"))?.must_fail("there is no such file system").map(drop)
}
