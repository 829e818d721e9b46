//! Paths inside a root filesystem, resolved by file descriptor only.
//!
//! `RESOLVE_IN_ROOT` keeps every symbolic link and every `..` inside the root, and magic links
//! (`/proc/self/fd/N`) are refused. Nothing here allocates after [`InRoot::new`]: the container's
//! own process uses it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// The deepest path accepted, in components.
const DEPTH_LIMIT: usize = 128;

/// A path inside a root filesystem, taken apart ahead of time.
#[derive(Debug)]
pub(crate) struct InRoot {
    /// Relative to the root, without `.` and `..`; `"."` for the root itself.
    whole: CString,
    /// Every ancestor below the root with its own last component, topmost first, `whole` last.
    steps: Vec<(CString, CString)>,
}

impl InRoot {
    /// Takes a path apart; `..` is resolved lexically, as runc does. `None` if the path holds a NUL
    /// or is too deep.
    pub(crate) fn new(path: &Path) -> Option<Self> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => parts.push(name.as_bytes()),
                Component::ParentDir => drop(parts.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        if parts.len() > DEPTH_LIMIT {
            return None;
        }
        let mut steps = Vec::with_capacity(parts.len());
        for (index, name) in parts.iter().enumerate() {
            steps.push((CString::new(parts[..=index].join(&b'/')).ok()?, CString::new(*name).ok()?));
        }
        let whole = steps.last().map_or_else(|| c".".to_owned(), |(prefix, _)| prefix.clone());
        Some(Self { whole, steps })
    }

    /// The path relative to the root.
    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.whole
    }

    /// True for the root itself.
    pub(crate) fn is_root(&self) -> bool {
        self.steps.is_empty()
    }

    /// Opens what the path leads to, as a bare reference (`O_PATH`).
    pub(crate) fn open(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        open_in(root, &self.whole, OFlags::PATH, ResolveFlags::IN_ROOT)
    }

    /// Opens a directory that no symbolic link leads to.
    pub(crate) fn open_real_directory(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        open_in(root, &self.whole, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// Opens the directory, making what is missing on the way (mode 0755).
    pub(crate) fn open_or_create_directory(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        match self.open(root) {
            Err(Errno::NOENT) => {
                let (parent, name) = self.parent(root)?;
                make_directory(&parent, name)
            }
            other => other,
        }
    }

    /// Opens the file, making an empty one (mode 0644) and its directories if missing.
    pub(crate) fn open_or_create_file(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        match self.open(root) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = self.parent(root)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// The directory the path's last component is in, made if missing, and that component.
    pub(crate) fn parent(&self, root: BorrowedFd<'_>) -> Result<(OwnedFd, &CStr)> {
        let (_, name) = self.steps.last().ok_or(Errno::ISDIR)?;
        Ok((self.create_directories(root, self.steps.len() - 1)?, name))
    }

    /// Opens the first `count` components as a directory, making those that are missing.
    fn create_directories(&self, root: BorrowedFd<'_>, count: usize) -> Result<OwnedFd> {
        let mut existing = count;
        let mut current = loop {
            let prefix = self.steps[..existing].last().map_or(c".", |(prefix, _)| prefix.as_c_str());
            match open_in(root, prefix, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT) {
                Err(Errno::NOENT) if existing > 0 => existing -= 1,
                other => break other?,
            }
        };
        for (_, name) in &self.steps[existing..count] {
            current = make_directory(&current, name)?;
        }
        Ok(current)
    }
}

fn make_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        // A dangling link also exists: opening it without following then fails.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// `openat2(2)` below `root`. Another process renaming on the way makes the kernel ask for another
/// try (`EAGAIN`): a bounded number is made.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
    const TRIES: usize = 128;
    for _ in 0..TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The type of what `fd` refers to.
pub(crate) fn file_type(fd: impl AsFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_lexically() {
        let path = InRoot::new(Path::new("/a/./b/../../../c/d")).unwrap();
        assert_eq!(path.as_c_str(), c"c/d");
        assert!(InRoot::new(Path::new("/../..")).unwrap().is_root());
        assert!(InRoot::new(Path::new("/a\0b")).is_none());
    }

    #[test]
    fn links_never_lead_out_of_the_root_and_missing_directories_are_made_inside() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../..", root.path().join("up")).unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        for link in ["absolute/x", "up/x"] {
            // The link's own target does not exist inside: never made outside instead.
            let _ = InRoot::new(Path::new(link)).unwrap().open_or_create_directory(fd.as_fd());
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(root.path().join("x").is_dir(), "`up/x` is the root's own x");
        InRoot::new(Path::new("m/n/file")).unwrap().open_or_create_file(fd.as_fd()).unwrap();
        assert!(root.path().join("m/n/file").is_file());
    }
}
