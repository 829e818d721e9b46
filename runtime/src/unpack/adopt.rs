//! Giving an implied directory the metadata it has in a lower layer.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

use super::metadata::is_foreign;

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
/// [`Error::Io`] when `layer` has no such directory, or copying fails.
pub fn adopt_directory(below: &[BorrowedFd<'_>], path: &Path, layer: BorrowedFd<'_>) -> Result<bool> {
    let attempted = || format!("copy the metadata of directory {path:?} from a lower layer");
    for &lower in below {
        let from = match open(lower, path) {
            Err(Errno::NOENT) => continue,
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            from => from.attempt(attempted)?,
        };
        let to = open(layer, path).attempt(attempted)?;
        copy(&from, &to).map_err(|source| Error::io(attempted(), source))?;
        return Ok(true);
    }
    Ok(false)
}

fn open(layer: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn copy(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let owner = rustix::fs::Uid::from_raw(stat.st_uid);
    let group = rustix::fs::Gid::from_raw(stat.st_gid);
    rustix::fs::fchown(to, Some(owner), Some(group))?;
    let mut names = vec![0; XATTR_BYTES];
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut value = vec![0; XATTR_BYTES];
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if is_foreign(name.to_bytes()) {
            continue;
        }
        let length = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        rustix::fs::fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(to, &Timestamps { last_access: mtime, last_modification: mtime })
}
