//! How much is on the disk.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Result;

/// Directories deeper than that are not looked into.
const DEPTH_LIMIT: usize = 256;

/// The unit of `st_blocks`, in bytes, whatever the file system's blocks are.
const BLOCK_BYTES: u64 = 512;

/// Bytes on disk of what is at `path` and everything in it, a file of several names once: what `du` says. What cannot
/// be looked at counts nothing; no link is followed.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    let own = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| blocks_bytes(&stat));
    let inner = open(CWD, path).and_then(|directory| count(directory.as_fd(), &mut HashSet::new(), 0));
    own + inner.unwrap_or_default()
}

fn blocks_bytes(stat: &rustix::fs::Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK_BYTES
}

fn open(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
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
            let inner = open(directory, name);
            bytes += inner.and_then(|inner| count(inner.as_fd(), seen, depth + 1)).unwrap_or_default();
        } else if stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        bytes += blocks_bytes(&stat);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_what_du_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/one"), [1; 100_000]).unwrap();
        std::fs::hard_link(dir.path().join("a/b/one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("x")).unwrap();
        let du = std::process::Command::new("du").args(["-s", "-B1"]).arg(dir.path()).output().unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        assert_eq!(disk_bytes(dir.path()).to_string(), du.split_whitespace().next().unwrap());
        let file_bytes = disk_bytes(&dir.path().join("two"));
        assert!(file_bytes >= 100_000 && file_bytes < disk_bytes(dir.path()), "{file_bytes}");
        assert_eq!(disk_bytes(Path::new("/nowhere")), 0);
    }
}
