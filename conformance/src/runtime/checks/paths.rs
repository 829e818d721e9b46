//! The root file system and paths in it: read-only, masked, devices and links.

use serde_json::json;

use crate::runtime::bundle::{make_directory, write_file};
use crate::runtime::finding::{Outcome, here, require};
use crate::runtime::{Context, Requirement, must};

const ROOT: &str = "Root";
const MASKED: &str = "Masked Paths";
const READONLY: &str = "Readonly Paths";
const DEVICES: &str = "Devices";

pub(super) const TABLE: &[Requirement] = &[
    must("paths-root", ROOT, "/ is the root file system of the bundle and can be written", root),
    must("paths-root-readonly", ROOT, "a root file system that is readonly cannot be written", root_readonly),
    must("paths-root-absolute", ROOT, "the path of the root file system may be absolute", root_absolute),
    must("paths-root-left", ROOT, "the host's files cannot be seen", root_left),
    must("paths-masked-file", MASKED, "a masked file is empty", masked_file),
    must("paths-masked-directory", MASKED, "a masked directory is empty and cannot be written", masked_directory),
    must("paths-masked-missing", MASKED, "a masked path that is not there does no harm", masked_missing),
    must("paths-readonly", READONLY, "a readonly path can be read and not written", readonly),
    must(
        "paths-devices-default",
        "Default Devices",
        "null, zero, full, random, urandom, tty and ptmx are there",
        devices_default,
    ),
    must("paths-devices-links", "Dev symbolic links", "fd, stdin, stdout and stderr in /dev are links", devices_links),
    must("paths-devices", DEVICES, "devices asked for are there, with their numbers, mode and owner", devices),
];

fn root(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    write_file(&bundle.rootfs().join("marker"), "here")?;
    let bundle = bundle.script("cat /marker && touch /written");
    let step = cx.run(&bundle)?;
    step.must_succeed()?;
    step.must_print(&["here"])?;
    require(bundle.rootfs().join("written").exists(), "what was written, in the bundle's root file system")
}

fn root_readonly(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.set("root/readonly", true);
    let step = cx.run(&bundle.script("touch /written && echo written; touch /dev/shm/x && echo elsewhere"))?;
    step.must_print(&["elsewhere"]).map(drop)
}

fn root_absolute(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let path = bundle.rootfs().to_string_lossy().into_owned();
    cx.run(&bundle.set("root/path", path).args(&["/bin/echo", "ran"]))?.must_print(&["ran"]).map(drop)
}

fn root_left(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?;
    let work = bundle.directory.to_string_lossy().into_owned();
    // By name, and by climbing out of the root directory.
    let script = format!("ls -d {work} ../../..{work} /proc/1/root{work} 2>/dev/null; cd ..; pwd");
    cx.run(&bundle.script(&script))?.must_print(&["/"]).map(drop)
}

fn masked_file(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/maskedPaths", "/etc/secret").push("linux/maskedPaths", "/proc/version");
    write_file(&bundle.rootfs().join("etc/secret"), "secret\n")?;
    let step = cx.run(&bundle.script("cat /etc/secret /proc/version; echo end"))?;
    step.must_print(&["end"]).map(drop)
}

fn masked_directory(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/maskedPaths", "/etc/secrets");
    let directory = bundle.rootfs().join("etc/secrets");
    here(make_directory(&directory), "make a directory")?;
    write_file(&directory.join("key"), "secret\n")?;
    let step = cx.run(&bundle.script("ls -A /etc/secrets; touch /etc/secrets/new && echo written; echo end"))?;
    step.must_print(&["end"]).map(drop)
}

fn masked_missing(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/maskedPaths", "/not/there").push("linux/readonlyPaths", "/not/there/either");
    cx.run(&bundle.args(&["/bin/echo", "ran"]))?.must_print(&["ran"]).map(drop)
}

fn readonly(cx: &Context) -> Outcome {
    let bundle = cx.bundle()?.push("linux/readonlyPaths", "/etc/fixed");
    let directory = bundle.rootfs().join("etc/fixed");
    here(make_directory(&directory), "make a directory")?;
    write_file(&directory.join("file"), "fixed\n")?;
    let script = "cat /etc/fixed/file; echo no > /etc/fixed/file; touch /etc/fixed/new; cat /etc/fixed/*; \
                  echo 1 > /proc/sys/kernel/ns_last_pid && echo written; touch /etc/free && echo end";
    cx.run(&bundle.script(script))?.must_print(&["fixed", "fixed", "end"]).map(drop)
}

fn devices_default(cx: &Context) -> Outcome {
    // Major and minor number in hexadecimal.
    let script = "for d in null zero full random urandom tty; do stat -c \"$d %F %t %T %a\" /dev/$d; done; \
                  echo x > /dev/null; head -c 1 /dev/zero | wc -c; head -c 1 /dev/urandom | wc -c; stat -L -c '%F' /dev/ptmx";
    let step = cx.run_script(script)?;
    step.must_succeed()?;
    let numbers = [("null", "1 3"), ("zero", "1 5"), ("full", "1 7"), ("random", "1 8"), ("urandom", "1 9"), ("tty", "5 0")];
    let mut expected: Vec<_> = numbers.iter().map(|(name, at)| format!("{name} character special file {at} 666")).collect();
    expected.extend(["1", "1", "character special file"].map(String::from));
    step.must_print(&expected.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
}

fn devices_links(cx: &Context) -> Outcome {
    let step = cx.run_script("for l in fd stdin stdout stderr; do readlink /dev/$l; done")?;
    step.must_succeed()?;
    step.must_print(&["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]).map(drop)
}

fn devices(cx: &Context) -> Outcome {
    cx.need_root("devices")?;
    let device = |path: &str, kind: &str, major: u32, minor: u32, mode: u32| json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": 1000, "gid": 1001 });
    let bundle = cx.bundle()?.push("linux/devices", device("/dev/test/char", "c", 10, 229, 0o640));
    let bundle = bundle.push("linux/devices", device("/dev/block", "b", 7, 200, 0o600));
    let step = cx.run(&bundle.script("stat -c '%F %t %T %a %u %g' /dev/test/char /dev/block"))?;
    step.must_succeed()?;
    step.must_print(&["character special file a e5 640 1000 1001", "block special file 7 c8 600 1000 1001"]).map(drop)
}
