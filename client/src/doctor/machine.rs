//! Checks of this machine: the store, what the kernel offers, the programs that are needed beside this one.

use std::path::Path;

use longshore_runtime::userns::{self, Mapping};
use longshore_runtime::{Store, files};
use rustix::fs::{Access, StatVfs};

use super::{Check, installed, read};
use crate::text;

/// With less than that nothing, or not much, can be pulled, in bytes.
const SPACE_FAIL_BYTES: u64 = 100 << 20;
const SPACE_WARN_BYTES: u64 = 2 << 30;

/// The same in files: an image may have some ten thousand.
const INODES_FAIL: u64 = 10_000;
const INODES_WARN: u64 = 100_000;

/// The first kernel that takes EROFS images as lower layers of an overlay without a loop device, as they are used here.
const EROFS_KERNEL: (u32, u32) = (6, 15);

/// File systems by their magic numbers (`statfs(2)`), and what is wrong with a store there.
const FILE_SYSTEMS: [(u64, &str, &str); 11] = [
    (0xef53, "ext4", ""),
    (0x5846_5342, "xfs", ""),
    (0x9123_683e, "btrfs", ""),
    (0xf2f5_2010, "f2fs", ""),
    (0x2fc1_2fc1, "zfs", ""),
    (0xca45_1a4e, "bcachefs", ""),
    (0x0102_1994, "tmpfs", "it takes memory, and is empty after a reboot; --root or LONGSHORE_ROOT names another place"),
    (0x794c_7630, "overlay", "containers cannot write there; name a place on a disk with --root or LONGSHORE_ROOT"),
    (0x6969, "nfs", "containers cannot write there; name a place on a disk with --root or LONGSHORE_ROOT"),
    (0xff53_4d42, "cifs", "containers cannot write there; name a place on a disk with --root or LONGSHORE_ROOT"),
    (0x6573_5546, "fuse", "containers may not be able to write there; name a place on a disk with --root or LONGSHORE_ROOT"),
];

/// The checks in order. An ordinary user's process is in its user namespace afterwards: call it while it has one thread.
pub fn machine(root: &Path) -> Vec<Check> {
    let is_root = rustix::process::geteuid().is_root();
    let mut checks = store(root);
    checks.push(overlay());
    checks.push(erofs(is_root));
    checks.push(cgroup(is_root));
    checks.push(network(is_root));
    checks.push(user_namespace(is_root));
    checks
}

fn store(root: &Path) -> Vec<Check> {
    let made = Store::open(root).and_then(|store| files::unnamed_file(&store.root().join("scratch")));
    if let Err(e) = made {
        let advice = "see who owns it and whether it is mounted read-only, or name another place with --root or LONGSHORE_ROOT";
        return vec![Check::fail("store", e.to_string(), advice)];
    }
    let mut checks = vec![Check::ok("store", root.display().to_string())];
    checks.extend(rustix::fs::statvfs(root).ok().into_iter().flat_map(|space| of_space(&space)));
    if let Ok(status) = rustix::fs::statfs(root) {
        let magic = status.f_type as u64 & 0xffff_ffff;
        checks.push(match FILE_SYSTEMS.iter().find(|(known, ..)| *known == magic) {
            Some((_, name, "")) => Check::ok("file system", *name),
            Some((_, name, wrong)) => Check::warn("file system", *name, *wrong),
            None => Check::warn(
                "file system",
                format!("of type {magic:#x}"),
                "nobody has tried it: ext4, xfs and btrfs are known to do",
            ),
        });
    }
    checks
}

fn of_space(space: &StatVfs) -> Vec<Check> {
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let advice = "`rbox system prune` removes what nobody needs, `rbox system df` shows what there is";
    let judge = |name, found: String, left: u64, fail: u64, warn: u64| match left {
        _ if left < fail => Check::fail(name, found, advice),
        _ if left < warn => Check::warn(name, found, advice),
        _ => Check::ok(name, found),
    };
    let mut checks = vec![judge("space", format!("{} free", text::size(free)), free, SPACE_FAIL_BYTES, SPACE_WARN_BYTES)];
    // Where they are made as they are needed there is no number.
    if space.f_files > 0 {
        checks.push(judge("inodes", format!("{} free", space.f_favail), space.f_favail, INODES_FAIL, INODES_WARN));
    }
    checks
}

/// Whether the kernel knows a file system, now.
fn has_file_system(name: &str) -> bool {
    read("/proc/filesystems").is_some_and(|text| text.lines().any(|line| line.split_whitespace().next_back() == Some(name)))
}

fn overlay() -> Check {
    if has_file_system("overlay") {
        return Check::ok("overlayfs", "there");
    }
    Check::warn("overlayfs", "not loaded", "containers need it: modprobe overlay, and a line `overlay` in /etc/modules-load.d")
}

fn erofs(is_root: bool) -> Check {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let is_new = version(&kernel).is_some_and(|version| version >= EROFS_KERNEL);
    let (major, minor) = EROFS_KERNEL;
    match (is_root, is_new, has_file_system("erofs")) {
        (true, true, true) => Check::ok("erofs", "layers can be images"),
        (true, true, false) => Check::ok("erofs", "layers are directories; modprobe erofs lets them be images"),
        (true, false, _) => {
            Check::ok("erofs", format!("layers are directories; images need Linux {major}.{minor}, this is {kernel}"))
        }
        (false, ..) => Check::ok("erofs", "layers are directories: only root can mount images"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cgroup(is_root: bool) -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if is_root {
        return Check::ok("cgroups", if unified { "version 2" } else { "version 1" });
    }
    let advice = "limits as --memory are refused: an ordinary user needs version 2, and a cgroup of systemd's with Delegate=yes";
    if !unified {
        return Check::warn("cgroups", "version 1", advice);
    }
    let own = read("/proc/self/cgroup").and_then(|text| Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned()));
    let is_own = own.is_some_and(|own| {
        let path = format!("/sys/fs/cgroup{own}/cgroup.procs");
        rustix::fs::access(&path, Access::WRITE_OK).is_ok()
    });
    if is_own {
        Check::ok("cgroups", "version 2, handed over")
    } else {
        Check::warn("cgroups", "version 2, not handed over", advice)
    }
}

fn network(is_root: bool) -> Check {
    let there = |programs: &[&'static str]| programs.iter().find(|program| installed(program)).copied();
    match (is_root, there(if is_root { &["nft"] } else { &["pasta", "slirp4netns"] })) {
        (_, Some(program)) => Check::ok("network", format!("{program} is there")),
        (true, None) => Check::warn("network", "there is no nft", "networks need it: apt install nftables"),
        (false, None) => Check::warn("network", "there is neither pasta nor slirp4netns", "networks need one: apt install passt"),
    }
}

/// By making one: what stands in its way is too much to look for.
fn user_namespace(is_root: bool) -> Check {
    const NAME: &str = "user namespaces";
    if is_root {
        return Check::ok(NAME, "root needs none");
    }
    match userns::enter_rootless() {
        Ok(Mapping::Full { uids, gids }) => Check::ok(NAME, format!("{uids} user and {gids} group ids")),
        Ok(Mapping::Single { advice }) => Check::warn(NAME, "with one id: every file belongs to this user", advice),
        Err(e) => {
            let advice = "see kernel.unprivileged_userns_clone, user.max_user_namespaces and \
                          kernel.apparmor_restrict_unprivileged_userns (sysctl)";
            Check::fail(NAME, e.to_string(), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_kernel_s_version_is_read_from_its_name() {
        for (text, expected) in [("6.18.44-fc", Some((6, 18))), ("5.10", Some((5, 10))), ("6", None), ("x.y", None), ("", None)] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn a_store_that_can_be_used_is_well_and_one_that_cannot_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let checks = store(directory.path());
        assert_eq!((checks[0].name, checks[0].verdict), ("store", Verdict::Ok));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let checks = store(&file);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fail));
        assert!(checks[0].advice.contains("--root"), "{checks:?}");
    }
}
