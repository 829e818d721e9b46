//! Giving an implied directory the metadata it has in a lower layer.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

use super::metadata::is_foreign;

/// The longest list of attribute names, and the longest value, the kernel gives.
const XATTR_BYTES: usize = 64 << 10;

/// Copies mode, owner, mtime and extended attributes of the directory `path` from the layer `lower` to
/// the layer `layer`, where it must exist (an empty path is the layer's root). Overlayfs' own
/// attributes stay as they are on either side. True when it did; false when `lower` has no
/// directory there, not even through a symbolic link: then look in the next lower layer, unless
/// `lower` has anything else there (a whiteout, a file), which ends the search.
///
/// # Errors
///
/// [`Error::Io`] when `layer` has no such directory, or copying fails.
pub fn adopt_directory(lower: BorrowedFd<'_>, path: &Path, layer: BorrowedFd<'_>) -> Result<bool> {
    let attempted = || format!("copy the metadata of directory {path:?} from a lower layer");
    let from = match open(lower, path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        from => from.attempt(attempted)?,
    };
    let to = open(layer, path).attempt(attempted)?;
    copy(&from, &to).map_err(|source| Error::io(attempted(), source))?;
    Ok(true)
}

fn open(layer: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn copy(from: &std::os::fd::OwnedFd, to: &std::os::fd::OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    debug_assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Directory);
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
