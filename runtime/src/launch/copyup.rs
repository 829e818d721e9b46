//! `tmpcopyup`: what the image has in a directory is copied into the tmpfs that will cover it.
//!
//! Done by the launcher on two detached mounts, before the container exists. The image is untrusted: no
//! link of it is followed, and of what is neither directory, file nor link nothing is copied.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::{Errno, Result};

/// The deepest tree that is copied.
const DEPTH_LIMIT: usize = 128;

/// Copies everything in `from` to `to`, owners and modes included; `to` itself gets those of `from`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // Both are bare references (O_PATH), which can neither be listed nor changed.
    let open =
        |directory| rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    copy_directory(&open(from)?, open(to)?.as_fd(), DEPTH_LIMIT)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth)?;
        }
    }
    adopt(to, c"", &rustix::fs::fstat(from)?, AtFlags::EMPTY_PATH)
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let status = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let target = rustix::fs::openat(to, name, OFlags::RDONLY | flags, Mode::empty())?;
            copy_directory(&source, target.as_fd(), depth - 1)
        }
        FileType::RegularFile => copy_file(from, to, name),
        FileType::Symlink => {
            let link: CString = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&link, to, name)?;
            adopt(to, name, &status, AtFlags::SYMLINK_NOFOLLOW)
        }
        _ => Ok(()),
    }
}

fn copy_file(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // What was a file may have become a fifo: without NONBLOCK opening that would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let status = rustix::fs::fstat(&source)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    std::io::copy(&mut File::from(source), &mut File::from(target.try_clone().map_err(errno)?)).map_err(errno)?;
    adopt(target.as_fd(), c"", &status, AtFlags::EMPTY_PATH)
}

fn errno(error: impl Into<std::io::Error>) -> Errno {
    Errno::from_io_error(&error.into()).unwrap_or(Errno::IO)
}

/// Owner first: changing it takes set-id bits away.
fn adopt(to: BorrowedFd<'_>, name: &CStr, status: &Stat, flags: AtFlags) -> Result<()> {
    rustix::fs::chownat(to, name, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)), flags)?;
    if flags == AtFlags::EMPTY_PATH {
        rustix::fs::fchmod(to, Mode::from_raw_mode(status.st_mode))?;
    }
    Ok(())
}
