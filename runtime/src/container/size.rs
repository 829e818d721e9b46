//! How much containers take.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

use super::store::{Container, Containers};
use crate::usage::disk_bytes;

/// How deep a container's own directories are looked into.
const DEPTH_LIMIT: usize = 500;

/// How large the files of a container are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Those it has written, in bytes.
    pub written_bytes: u64,
    /// Those and its image's.
    pub all_bytes: u64,
}

impl Containers {
    /// What a container takes on disk: what it wrote, its log and its files, in bytes.
    pub fn disk_bytes(&self, id: &str) -> u64 {
        disk_bytes(&self.directory(id))
    }

    /// How large a container's files are. Of what changes meanwhile, or cannot be read, what can be seen.
    pub fn sizes(&self, container: &Container) -> Sizes {
        let written_bytes = file_bytes(CWD, &self.directory(&container.config.id).join("upper"), 0);
        let layers = container.config.layers.iter().filter_map(|diff_id| self.store.layer_info(diff_id).ok());
        Sizes { written_bytes, all_bytes: written_bytes + layers.map(|info| info.unpacked_bytes).sum::<u64>() }
    }
}

/// The lengths of a directory's files, each once. By descriptors: it is the container that writes there.
fn file_bytes(parent: BorrowedFd<'_>, path: &Path, depth: usize) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(directory) = openat(parent, path, flags, Mode::empty()) else { return 0 };
    let Ok(entries) = Dir::read_from(&directory) else { return 0 };
    let bytes = |name: &CStr| match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            u64::try_from(stat.st_size).unwrap_or_default() / stat.st_nlink.max(1)
        }
        Ok(_) if depth < DEPTH_LIMIT => file_bytes(directory.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())), depth + 1),
        _ => 0,
    };
    entries
        .flatten()
        .map(|entry| if matches!(entry.file_name().to_bytes(), b"." | b"..") { 0 } else { bytes(entry.file_name()) })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/one"), [0; 1000]).unwrap();
        std::fs::hard_link(dir.path().join("a/b/one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("x")).unwrap();
        assert_eq!(file_bytes(CWD, dir.path(), 0), 1000 + 4, "a symbolic link is as long as what it says");
        assert_eq!(file_bytes(CWD, Path::new("/nowhere"), 0), 0);
    }
}
