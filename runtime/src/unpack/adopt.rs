//! Giving an implied directory the metadata it has in a lower layer.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, XattrFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Result};

use super::metadata::{Metadata, is_foreign};

/// The longest list of attribute names, and the longest value, the kernel gives.
const XATTR_BYTES: usize = 64 << 10;

/// Copies mode, owner, mtime and extended attributes of the directory `path` to the layer `layer`, where
/// it must exist (an empty path is the layer's root), from the nearest of the layers below it that has
/// the directory: `below` starts with the nearest. Overlayfs' own attributes stay as they are.
///
/// The search ends without a copy at a layer that has something else there or among its parents: a
/// file, a symbolic link, a whiteout. True when something was copied.
///
/// Go through an image's layers from the bottom upwards, so that what is copied was itself adopted.
///
/// # Errors
///
/// [`crate::Error::Io`] when `layer` has no such directory, or copying fails.
pub fn adopt_directory(below: &[BorrowedFd<'_>], path: &Path, layer: BorrowedFd<'_>) -> Result<bool> {
    let Some(metadata) = find(below, path)? else { return Ok(false) };
    let written = open(layer, path).and_then(|to| write(&metadata, &to));
    written.attempt(|| attempted(path))?;
    Ok(true)
}

/// The metadata that would be copied.
pub(super) fn find(below: &[BorrowedFd<'_>], path: &Path) -> Result<Option<Metadata>> {
    for &lower in below {
        return match open(lower, path).and_then(|from| read(from.as_fd())) {
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            metadata => metadata.map(Some).attempt(|| attempted(path)),
        };
    }
    Ok(None)
}

fn attempted(path: &Path) -> String {
    format!("copy the metadata of directory {path:?} from a lower layer")
}

fn open(layer: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

pub(super) fn read(from: BorrowedFd<'_>) -> rustix::io::Result<Metadata> {
    let stat = rustix::fs::fstat(from)?;
    let mut names = vec![0; XATTR_BYTES];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut value = vec![0; XATTR_BYTES];
    let mut xattrs = Vec::new();
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if is_foreign(name.to_bytes()) {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        xattrs.push((name.to_bytes().to_vec(), value[..length].to_vec()));
    }
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Ok(Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
}

fn write(metadata: &Metadata, to: &OwnedFd) -> rustix::io::Result<()> {
    let owner = rustix::fs::Uid::from_raw(metadata.uid);
    let group = rustix::fs::Gid::from_raw(metadata.gid);
    rustix::fs::fchown(to, Some(owner), Some(group))?;
    for (name, value) in &metadata.xattrs {
        rustix::fs::fsetxattr(to, &name[..], value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(metadata.mode))?;
    rustix::fs::futimens(to, &metadata.times())
}
