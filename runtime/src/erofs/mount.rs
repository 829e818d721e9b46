//! Layers as mounts that are attached nowhere: an image by its file, a directory as it is.
//!
//! Such a mount exists as a descriptor, and inside the overlay that is made of it; it is gone with the last of
//! them, whatever happens to the process, and no mount table ever shows it. Containers share them
//! ([`share`](super::share)); other commands mount what they need for themselves.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::tree::{Attributes, Builder};
use super::xattr::Xattrs;
use crate::error::{Attempt, Error, Result};
use crate::launch::Rootfs;

/// Mounts an EROFS image, read-only and attached nowhere. The descriptor is its root directory.
///
/// # Errors
///
/// [`Error::Io`]: without `CAP_SYS_ADMIN` in the first user namespace, before Linux 6.12, and when the
/// file is no image.
pub fn mount(image: BorrowedFd<'_>) -> Result<OwnedFd> {
    let attempted = || "mount a layer's EROFS image (as root, on Linux 6.12 or later)";
    let fs = rustix::mount::fsopen(c"erofs", FsOpenFlags::FSOPEN_CLOEXEC).attempt(attempted)?;
    rustix::mount::fsconfig_set_flag(&fs, c"ro").attempt(attempted)?;
    rustix::mount::fsconfig_set_string(&fs, c"source", format!("/proc/self/fd/{}", image.as_raw_fd())).attempt(attempted)?;
    rustix::mount::fsconfig_create(&fs).attempt(attempted)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).attempt(attempted)
}

/// The root directory of an unpacked layer, whichever form it has: the directory `path` or the EROFS
/// image `path`.
///
/// # Errors
///
/// [`Error::Io`] when it cannot be opened or mounted, [`Error::Invalid`] when it is neither.
pub fn open_layer(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let layer = rustix::fs::openat(CWD, path, flags, Mode::empty()).attempt(|| format!("open layer {path:?}"))?;
    let stat = rustix::fs::fstat(&layer).attempt(|| format!("look at layer {path:?}"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(layer),
        FileType::RegularFile => mount(layer.as_fd()),
        _ => Err(Error::invalid(format!("layer {path:?}"), "it is neither a directory nor an image")),
    }
}

/// Whether layers can be EROFS images here, tried with an empty one: whether it can be mounted from a
/// file on the file system of the empty directory `scratch`, and an overlay be made of it there.
///
/// # Errors
///
/// What stands in the way, from [`mount`] or from overlayfs.
pub fn probe(scratch: &Path) -> Result<()> {
    let [image, upper, work] = ["image", "upper", "work"].map(|name| scratch.join(name));
    let file = File::create_new(&image).attempt(|| format!("create {image:?}"))?;
    let mtime = Timespec { tv_sec: 0, tv_nsec: 0 };
    let root = Attributes { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Xattrs::default() };
    Builder::new(file, root, usize::MAX).finish([0; 16], b"")?;
    for directory in [&upper, &work] {
        std::fs::create_dir(directory).attempt(|| format!("create directory {directory:?}"))?;
    }
    Rootfs::Overlay { lower: vec![image], upper, work, userxattr: false, ephemeral: true }.mount().map(drop)
}
