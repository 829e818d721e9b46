//! The mounts of a runtime-spec configuration, prepared before the container exists.
//!
//! Bind mounts and filesystems that belong to no namespace (tmpfs, devpts) are made here as detached
//! mounts; those of the new namespaces (proc, sysfs, mqueue, cgroup) can only be made from inside.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::path::{InRoot, file_type};
use super::rootfs::c_string;
use crate::error::{Attempt, Error, Result};
use crate::sys::{self, MountAttributes};

/// The bits of `mount_setattr` that hold the access-time mode, cleared before one is set.
const ATIME_BITS: u64 = 0x70;

/// Procfs files a mount may cover, as LXCFS does; anything else below `/proc` is refused.
const PROC_TARGETS: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// A mount, ready to be attached by the container's own process.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// For error messages: type and destination.
    pub(super) name: String,
    pub(super) target: InRoot,
    pub(super) source: Source,
    /// The target may be a procfs file; everywhere else procfs is off limits.
    pub(super) over_proc: bool,
    /// Procfs and sysfs: the target must be a real directory, reached through no symbolic link.
    pub(super) real_directory: bool,
    /// What is made if the target is missing.
    pub(super) onto_directory: bool,
    /// Made read-only once all mounts are attached: others are mounted below it.
    pub(super) seal: bool,
}

/// Where a mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Made already, attached nowhere.
    Made(OwnedFd),
    /// To be made inside the new namespaces.
    ToMake(Filesystem),
}

/// A filesystem to be made by `fsopen`, `fsconfig`, `fsmount`.
#[derive(Debug)]
pub(super) struct Filesystem {
    pub(super) kind: CString,
    source: CString,
    parameters: Vec<(CString, Option<CString>)>,
    attributes: MountAttrFlags,
}

impl Filesystem {
    /// Makes the detached mount. Allocates nothing.
    pub(super) fn make(&self) -> rustix::io::Result<OwnedFd> {
        let fs = rustix::mount::fsopen(self.kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&fs, c"source", self.source.as_c_str())?;
        for (key, value) in &self.parameters {
            match value {
                Some(value) => rustix::mount::fsconfig_set_string(&fs, key.as_c_str(), value.as_c_str())?,
                None => rustix::mount::fsconfig_set_flag(&fs, key.as_c_str())?,
            }
        }
        rustix::mount::fsconfig_create(&fs)?;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
    }
}

/// fstab-style options, sorted by what they change.
#[derive(Debug, Default)]
struct Options {
    bind: bool,
    recursive: bool,
    own: MountAttributes,
    /// From `rro`, `rnosuid`, ...: for the mount and all below it.
    tree: MountAttributes,
    tree_propagation: bool,
    parameters: Vec<(CString, Option<CString>)>,
}

impl Options {
    fn parse(mount: &Mount) -> Result<Self> {
        let mut options = Self { bind: mount.typ().as_deref() == Some("bind"), ..Self::default() };
        for option in mount.options().iter().flatten() {
            options.apply(option, mount)?;
        }
        if options.own.propagation == 0 {
            options.own.propagation = libc::MS_PRIVATE;
            options.tree_propagation = true;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str, mount: &Mount) -> Result<()> {
        match option {
            "defaults" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "idmap" | "ridmap" | "tmpcopyup" | "remount" => {
                return Err(Error::invalid(
                    format!("mount {:?}", mount.destination()),
                    format!("option {option:?} is not supported"),
                ));
            }
            _ if self.propagation(option) => {}
            _ if attribute(option).is_some_and(|change| self.own.add(change)) => {}
            _ if option.strip_prefix('r').and_then(attribute).is_some_and(|change| self.tree.add(change)) => {}
            _ => {
                let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
                let value = value.map(|value| c_string("mount option", value)).transpose()?;
                self.parameters.push((c_string("mount option", key)?, value));
            }
        }
        Ok(())
    }

    fn propagation(&mut self, option: &str) -> bool {
        let plain = option.strip_prefix('r').unwrap_or(option);
        self.own.propagation = match plain {
            "private" => libc::MS_PRIVATE,
            "slave" => libc::MS_SLAVE,
            "shared" => libc::MS_SHARED,
            "unbindable" => libc::MS_UNBINDABLE,
            _ => return false,
        };
        self.tree_propagation = plain != option;
        true
    }
}

impl MountAttributes {
    fn add(&mut self, (set, clear): (u64, u64)) -> bool {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear & !set) | clear;
        true
    }
}

/// The attribute bits an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    let flag = |flag: MountAttrFlags| u64::from(flag.bits());
    Some(match option {
        "ro" => (flag(MountAttrFlags::MOUNT_ATTR_RDONLY), 0),
        "rw" => (0, flag(MountAttrFlags::MOUNT_ATTR_RDONLY)),
        "nosuid" => (flag(MountAttrFlags::MOUNT_ATTR_NOSUID), 0),
        "suid" => (0, flag(MountAttrFlags::MOUNT_ATTR_NOSUID)),
        "nodev" => (flag(MountAttrFlags::MOUNT_ATTR_NODEV), 0),
        "dev" => (0, flag(MountAttrFlags::MOUNT_ATTR_NODEV)),
        "noexec" => (flag(MountAttrFlags::MOUNT_ATTR_NOEXEC), 0),
        "exec" => (0, flag(MountAttrFlags::MOUNT_ATTR_NOEXEC)),
        "nodiratime" => (flag(MountAttrFlags::MOUNT_ATTR_NODIRATIME), 0),
        "diratime" => (0, flag(MountAttrFlags::MOUNT_ATTR_NODIRATIME)),
        "nosymfollow" => (flag(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW), 0),
        "relatime" | "norelatime" | "nostrictatime" | "atime" => (0, ATIME_BITS),
        "noatime" => (flag(MountAttrFlags::MOUNT_ATTR_NOATIME), ATIME_BITS),
        "strictatime" => (flag(MountAttrFlags::MOUNT_ATTR_STRICTATIME), ATIME_BITS),
        _ => return None,
    })
}

/// What a mount of type `cgroup` shows: the hierarchies in which the container has a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupView {
    /// The cgroup2 hierarchy.
    Unified,
    /// The v1 `devices` controller, in a directory of its name.
    Devices,
    /// Nothing: an empty directory.
    Empty,
}

/// Prepares all mounts, in their order.
pub(super) fn prepare_all(mounts: &[Mount], view: CgroupView) -> Result<Vec<MountPlan>> {
    let mut plans = Vec::with_capacity(mounts.len() + 1);
    for mount in mounts {
        if mount.typ().as_deref() == Some("cgroup") && view != CgroupView::Unified {
            plans.extend(cgroup_v1(mount, view)?);
        } else {
            plans.push(prepare(mount)?);
        }
    }
    Ok(plans)
}

/// A tmpfs with one directory a hierarchy, as cgroup v1 hosts have it.
fn cgroup_v1(mount: &Mount, view: CgroupView) -> Result<Vec<MountPlan>> {
    let derived = |destination: PathBuf, kind: &str, extra: &str| {
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| attribute(option).is_some() && (kind == "cgroup" || option != "ro"));
        options.push(extra.to_owned());
        let mut derived = mount.clone();
        derived.set_destination(destination).set_typ(Some(kind.to_owned())).set_options(Some(options));
        prepare(&derived)
    };
    let mut plans = vec![derived(mount.destination().clone(), "tmpfs", "mode=755")?];
    plans[0].seal = true;
    if view == CgroupView::Devices {
        plans.push(derived(mount.destination().join("devices"), "cgroup", "devices")?);
    }
    Ok(plans)
}

/// Prepares one mount.
fn prepare(mount: &Mount) -> Result<MountPlan> {
    let destination = mount.destination();
    let options = Options::parse(mount)?;
    let kind = if options.bind { "bind" } else { mount.typ().as_deref().unwrap_or("none") };
    let name = format!("{kind} on {destination:?}");
    let target = InRoot::new(destination).ok_or_else(|| Error::invalid(&name, "its destination is not a usable path"))?;
    if target.is_root() {
        return Err(Error::invalid(name, "the root itself cannot be a destination"));
    }
    let clean = format!("/{}", target.as_c_str().to_string_lossy());
    let is_proc_root = clean == "/proc";
    let over_proc = PROC_TARGETS.contains(&clean.as_str());
    if clean.starts_with("/proc/") && !over_proc || is_proc_root && kind != "proc" {
        return Err(Error::invalid(name, "mounts over /proc would undo the container's protection"));
    }
    let (source, onto_directory) = match kind {
        "bind" => bind(mount, &options)?,
        "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2" => (Source::ToMake(filesystem(kind, mount, options)?), true),
        _ => {
            let fs = filesystem(kind, mount, options)?;
            (
                Source::Made(
                    fs.make().map_err(|errno| Error::Launch { step: format!("create mount {name}"), source: errno.into() })?,
                ),
                true,
            )
        }
    };
    Ok(MountPlan {
        name,
        target,
        source,
        over_proc,
        real_directory: matches!(kind, "proc" | "sysfs"),
        onto_directory,
        seal: false,
    })
}

fn filesystem(kind: &str, mount: &Mount, mut options: Options) -> Result<Filesystem> {
    let kind = match kind {
        // Without a v1 controller among the options it is the unified hierarchy that is meant.
        "cgroup" if options.parameters.is_empty() => "cgroup2",
        other => other,
    };
    let source = mount.source().as_deref().unwrap_or(Path::new("none"));
    options.parameters.retain(|(key, _)| key.as_c_str() != c"newinstance");
    let attributes = options.own.set | options.tree.set;
    Ok(Filesystem {
        kind: c_string("mount type", kind)?,
        source: c_string("mount source", source.as_os_str().as_encoded_bytes())?,
        parameters: options.parameters,
        attributes: MountAttrFlags::from_bits_retain(attributes as u32),
    })
}

/// A detached copy of a host path's mount, with its attributes changed while nobody can see it.
fn bind(mount: &Mount, options: &Options) -> Result<(Source, bool)> {
    let path = mount
        .source()
        .as_deref()
        .ok_or_else(|| Error::invalid(format!("mount {:?}", mount.destination()), "a bind mount needs a source"))?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(CWD, path, flags)
        .attempt(|| format!("bind {path:?} to {:?} in the container", mount.destination()))?;
    let apply = |attributes: MountAttributes, recursive: bool| {
        if attributes.set | attributes.clear | attributes.propagation == 0 {
            return Ok(());
        }
        sys::mount_setattr(tree.as_fd(), attributes, recursive)
            .attempt(|| format!("set the options of the bind mount of {path:?}"))
    };
    apply(MountAttributes { propagation: 0, ..options.own }, false)?;
    apply(MountAttributes { propagation: options.own.propagation, ..MountAttributes::default() }, options.tree_propagation)?;
    apply(options.tree, true)?;
    let is_directory = file_type(&tree).attempt(|| format!("look at {path:?}"))? == FileType::Directory;
    Ok((Source::Made(tree), is_directory))
}

/// The detached devpts instance among `mounts`, in which a terminal for the container is opened.
pub(super) fn devpts(mounts: &[MountPlan]) -> Option<BorrowedFd<'_>> {
    mounts.iter().find_map(|mount| match &mount.source {
        Source::Made(fd) if mount.target.as_c_str() == c"dev/pts" => Some(fd.as_fd()),
        _ => None,
    })
}

/// A detached mount of a host device node, for namespaces that cannot make their own.
pub(super) fn device(path: &Path) -> Result<OwnedFd> {
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .attempt(|| format!("use the host's device {path:?}"))
}

/// An empty, read-only directory as a detached mount, for masked directories.
pub(super) fn empty_directory() -> Result<OwnedFd> {
    let fs = Filesystem {
        kind: c"tmpfs".to_owned(),
        source: c"tmpfs".to_owned(),
        parameters: vec![
            (c"size".to_owned(), Some(c"0".to_owned())),
            (c"nr_inodes".to_owned(), Some(c"1".to_owned())),
            (c"mode".to_owned(), Some(c"755".to_owned())),
        ],
        attributes: MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    };
    fs.make().attempt(|| "create the empty directory for masked paths")
}

/// Whether this process is in the first user namespace, where device nodes can be made.
pub(crate) fn in_first_user_namespace() -> Result<bool> {
    let mut map = String::new();
    std::io::Read::read_to_string(
        &mut std::io::Read::take(File::open("/proc/self/uid_map").attempt(|| "open /proc/self/uid_map")?, 4096),
        &mut map,
    )
    .attempt(|| "read /proc/self/uid_map")?;
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}
