//! The container's root filesystem as a mount that is attached nowhere.
//!
//! It exists only as a file descriptor: never in the host's mount table, gone with the last process
//! that uses it, whatever happens to the launcher.

use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::erofs;
use crate::error::{Attempt, Error, Result};
use crate::sys::{self, MountAttributes};

/// What the container's root filesystem is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// A directory, used as it is.
    Directory(PathBuf),
    /// An overlay of layers.
    Overlay {
        /// The read-only layers, topmost first: directories or EROFS images.
        lower: Vec<PathBuf>,
        /// Receives the container's changes.
        upper: PathBuf,
        /// overlayfs' own working space, on `upper`'s filesystem.
        work: PathBuf,
        /// Whiteouts and opaque marks are `user.overlay.*` attributes: in a user namespace.
        userxattr: bool,
        /// The changes go with the container: overlayfs need not write them to the disk when it ends, which
        /// would wait for everything else that file system has to write.
        ephemeral: bool,
    },
}

/// A root filesystem that is attached in the host's mount namespace, because its container has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostMount(pub(super) u64);

impl HostMount {
    /// The mount [`Rootfs::mount`] made.
    pub(super) fn of(root: &OwnedFd) -> Result<Self> {
        mount_id(root.as_fd(), c"", AtFlags::EMPTY_PATH).map(Self).attempt(|| "look at the root filesystem")
    }

    /// Detaches it from `path`, with all that is mounted in it, if it is what is mounted there.
    pub(crate) fn detach(self, path: &Path) -> Result<()> {
        match mount_id(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(id) if id == self.0 => rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .attempt(|| format!("detach the container's root filesystem {path:?}")),
            // It never was, or somebody was there first.
            _ => Ok(()),
        }
    }
}

/// A mount's number, which no other gets as long as the machine is up (before Linux 6.8: while it exists).
fn mount_id(directory: BorrowedFd<'_>, path: impl rustix::path::Arg, flags: AtFlags) -> rustix::io::Result<u64> {
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    rustix::fs::statx(directory, path, flags, StatxFlags::MNT_ID | UNIQUE).map(|found| found.stx_mnt_id)
}

/// Where the host's procfs and sysfs are mounted. A namespace in which they can be seen whole lets who has a user
/// namespace of its own mount new ones, without what masks and covers the container's.
pub(super) fn host_views() -> Result<Vec<CString>> {
    let path = "/proc/self/mountinfo";
    let list = std::fs::read_to_string(path).attempt(|| format!("read {path}"))?;
    let view = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let shown = matches!(filesystem.split(' ').next(), Some("proc" | "sysfs"));
        mount.split(' ').nth(4).filter(|_| shown).map(unescaped)
    };
    list.lines().filter_map(view).map(|point| c_string("mount point", point)).collect()
}

/// A field of mountinfo: blanks, newlines and backslashes are octal there.
fn unescaped(field: &str) -> Vec<u8> {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let octal = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        text.extend(octal);
        text.extend(part.get(3..).unwrap_or_default().bytes());
    }
    text
}

/// The most layers an overlay takes (overlayfs' own limit).
const LAYERS_LIMIT: usize = 500;

impl Rootfs {
    /// Makes the detached mount. The descriptor can be used for `openat2` at once, and is what
    /// [`super::Launch`] takes.
    pub fn mount(&self) -> Result<OwnedFd> {
        self.mount_by(&mut erofs::open_layer)
    }

    /// The same with layers opened by `open`.
    pub(crate) fn mount_by(&self, open: &mut dyn FnMut(&Path) -> Result<OwnedFd>) -> Result<OwnedFd> {
        match self {
            Self::Directory(path) => directory(path),
            Self::Overlay { lower, upper, work, userxattr, ephemeral } => {
                check_count(lower)?;
                let lower = lower.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
                overlay(&lower, upper, work, *userxattr, *ephemeral)
            }
        }
    }
}

fn check_count(lower: &[PathBuf]) -> Result<()> {
    if lower.is_empty() || lower.len() > LAYERS_LIMIT {
        return Err(Error::invalid("root filesystem", format!("{} layers; overlayfs takes 1 to {LAYERS_LIMIT}", lower.len())));
    }
    Ok(())
}

/// A copy of the mount `path` is on, cut at `path`, with what is mounted below it. Still a peer of the
/// original: see [`separate`].
fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let mount = rustix::mount::open_tree(CWD, path, flags).attempt(|| format!("use {path:?} as root filesystem"))?;
    if super::path::file_type(&mount).attempt(|| format!("look at {path:?}"))? != rustix::fs::FileType::Directory {
        return Err(Error::invalid(format!("root filesystem {path:?}"), "it is not a directory"));
    }
    Ok(mount)
}

/// Cuts a root filesystem off from the mounts it was copied from: nothing mounted in it reaches them, and
/// with `MS_SLAVE`, unlike `MS_PRIVATE`, what is mounted there still reaches it.
pub(super) fn separate(mount: &OwnedFd, propagation: u64) -> Result<()> {
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    sys::mount_setattr(mount.as_fd(), attributes, true).attempt(|| "cut the root filesystem off from the host's mounts")
}

/// An overlay made by file descriptors, so that no layer's name needs escaping and none is looked up
/// twice.
fn overlay(lower: &[OwnedFd], upper: &Path, work: &Path, userxattr: bool, ephemeral: bool) -> Result<OwnedFd> {
    let (upper, work) = (directory_fd(upper)?, directory_fd(work)?);
    let make = |layers: SetLayers| {
        let fs = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .attempt(|| "open overlayfs (is the module loaded?)")?;
        let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&fs, key, value);
        layers(lower, &set).attempt(|| "give overlayfs its layers")?;
        set("upperdir", &fd_path(&upper)).attempt(|| "give overlayfs its upper directory")?;
        set("workdir", &fd_path(&work)).attempt(|| "give overlayfs its work directory")?;
        if ephemeral {
            match rustix::mount::fsconfig_set_flag(&fs, c"volatile") {
                // Before Linux 5.10 it is only slower.
                Ok(()) | Err(Errno::INVAL) => {}
                other => other.attempt(|| "ask overlayfs not to sync")?,
            }
        }
        if userxattr {
            rustix::mount::fsconfig_set_flag(&fs, c"userxattr").attempt(|| "ask overlayfs for user.overlay attributes")?;
        } else {
            // Layers are untrusted: their attributes must not send lookups elsewhere.
            for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off")] {
                set(key, value).attempt(|| format!("set overlayfs' {key}={value}"))?;
            }
        }
        rustix::mount::fsconfig_create(&fs).attempt(|| overlay_advice(userxattr))?;
        rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).attempt(|| "mount the overlay")
    };
    match make(layer_by_layer) {
        // Before Linux 6.5 overlayfs looks at its options only now: one it does not know is found here.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::InvalidInput => make(layers_at_once),
        made => made,
    }
}

/// Gives overlayfs its layers by a function that sets an option.
type SetLayers = fn(&[OwnedFd], &dyn Fn(&str, &str) -> rustix::io::Result<()>) -> rustix::io::Result<()>;

/// One `lowerdir+` a layer (Linux 6.8).
fn layer_by_layer(lower: &[OwnedFd], set: &dyn Fn(&str, &str) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    lower.iter().try_for_each(|directory| set("lowerdir+", &fd_path(directory)))
}

/// All in one option, whose 255 bytes hold 15 layers or so.
fn layers_at_once(lower: &[OwnedFd], set: &dyn Fn(&str, &str) -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    set("lowerdir", &lower.iter().map(fd_path).collect::<Vec<_>>().join(":"))
}

fn directory_fd(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).attempt(|| format!("open directory {path:?}"))
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn overlay_advice(userxattr: bool) -> String {
    let advice =
        if userxattr { " (in a user namespace: needs Linux 5.11)" } else { " (upper and work must be on one filesystem)" };
    format!("make the overlay{advice}")
}

/// A C string from a path or text the user gave; a NUL in it is refused by name.
pub(super) fn c_string(what: &str, bytes: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::invalid(what, "it contains a NUL byte"))
}
