//! How much a volume holds.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Result;

/// Directories deeper than that are not looked into.
const DEPTH_LIMIT: usize = 256;

/// The unit of `st_blocks`, in bytes.
const BLOCK_BYTES: u64 = 512;

/// Bytes on disk of everything in `directory`, a file of several names once. What cannot be looked at counts
/// nothing; no link is followed.
pub(super) fn disk_bytes(directory: BorrowedFd<'_>) -> u64 {
    count(directory, &mut HashSet::new(), 0).unwrap_or_default()
}

fn count(directory: BorrowedFd<'_>, seen: &mut HashSet<(u64, u64)>, depth: usize) -> Result<u64> {
    let mut bytes = 0;
    for entry in Dir::read_from(directory)?.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < DEPTH_LIMIT {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(directory, name, flags, Mode::empty());
            bytes += inner.and_then(|inner| count(inner.as_fd(), seen, depth + 1)).unwrap_or_default();
        } else if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK_BYTES;
    }
    Ok(bytes)
}
