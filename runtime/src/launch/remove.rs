//! Removal of a directory tree by descriptor: no symbolic link is followed, whatever a container left.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

/// Directories deeper than this are moved up first: depth costs neither stack nor descriptors.
const DEPTH_LIMIT: usize = 64;

/// Removes the directory `path` and all in it. One that is not there is no error, nor is another
/// process that removes it at the same time.
pub fn remove_tree(path: &Path) -> Result<()> {
    let name = path.file_name().map(OsStr::as_bytes).and_then(|name| CString::new(name).ok());
    let (Some(name), Some(parent)) = (name, path.parent()) else {
        return Err(Error::invalid(format!("directory {path:?}"), "it has no name that could be removed"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match rustix::fs::open(parent, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.attempt(|| format!("open {parent:?}"))?,
    };
    remove_in(parent.as_fd(), &name).attempt(|| format!("remove directory {path:?}"))
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the directory `name` in `parent`.
pub(super) fn remove_in(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let top = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0;
    while empty(top.as_fd(), top.as_fd(), 0, &mut moved)? {}
    remove_empty(parent, name)
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes what is in `directory`; true if there was anything.
fn empty(directory: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> rustix::io::Result<bool> {
    let mut found = false;
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            // The directory itself is gone.
            Err(Errno::NOENT) => break,
            other => other?,
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        found = true;
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if depth == DEPTH_LIMIT {
            loop {
                *moved += 1;
                match rustix::fs::renameat(directory, name, top, format!(".longshore-deep-{moved}")) {
                    Ok(()) | Err(Errno::NOENT) => break,
                    // Of somebody who was killed, or is at it, too.
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            continue;
        }
        let inner = match rustix::fs::openat(directory, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        while empty(inner.as_fd(), top, depth + 1, moved)? {}
        remove_empty(directory, name)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_limit_goes_and_what_links_lead_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("keep"), "x").unwrap();
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.join("link")).unwrap();
        // As one that was killed left it, and in the way.
        std::fs::create_dir_all(tree.join(".longshore-deep-1/x")).unwrap();
        std::fs::write(tree.join(".longshore-deep-2"), "").unwrap();
        let mut at = std::fs::File::open(&tree).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            rustix::fs::symlinkat("/", &at, "up").unwrap();
            at = rustix::fs::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap().into();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.path().join("keep").exists());
        remove_tree(&tree).unwrap();
    }
}
