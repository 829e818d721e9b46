//! Whether two trees are the same: every name, all that is known of it, every byte.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories deeper than that are not looked into.
const DEPTH_LIMIT: usize = 512;

/// The longest list of attribute names, and the longest value, the kernel gives.
const XATTR_BYTES: usize = 64 << 10;

/// Bytes compared at a time.
const READ_BYTES: usize = 128 << 10;

/// Where the trees differ first, below their roots, which must be directories; `None` if nowhere. What is hard-linked
/// with what is not compared.
pub(super) fn difference(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> rustix::io::Result<Option<PathBuf>> {
    // A descriptor that only names a directory cannot be read.
    let [one, other] = [open(one, c".", OFlags::DIRECTORY)?, open(other, c".", OFlags::DIRECTORY)?];
    match directories(one.as_fd(), other.as_fd(), Path::new(""), 0)? {
        None => Ok((!alike(one.as_fd(), other.as_fd(), c".")?).then(PathBuf::new)),
        found => Ok(found),
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn directories(one: BorrowedFd<'_>, other: BorrowedFd<'_>, path: &Path, depth: usize) -> rustix::io::Result<Option<PathBuf>> {
    let (names, others) = (names(one)?, names(other)?);
    let mut differing = names.iter().zip(&others).filter(|(name, other)| name != other).map(|(name, other)| name.min(other));
    let longer = names.get(others.len()).or_else(|| others.get(names.len()));
    if let Some(name) = differing.next().or(longer) {
        return Ok(Some(below(path, name)));
    }
    for name in &names {
        let path = below(path, name);
        let kind = |directory| {
            Ok::<_, Errno>(FileType::from_raw_mode(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
        };
        let found = match (kind(one)?, kind(other)?) {
            // What differs in a directory says more than that its time does.
            (FileType::Directory, FileType::Directory) if depth < DEPTH_LIMIT => {
                let [one, other] = [open(one, name, OFlags::DIRECTORY)?, open(other, name, OFlags::DIRECTORY)?];
                directories(one.as_fd(), other.as_fd(), &path, depth + 1)?
            }
            (FileType::RegularFile, FileType::RegularFile) if alike(one, other, name)? => {
                let [one, other] = [open(one, name, OFlags::empty())?, open(other, name, OFlags::empty())?];
                (!same_bytes(one.into(), other.into())?).then(|| path.clone())
            }
            _ => None,
        };
        let found = if found.is_none() && !alike(one, other, name)? { Some(path) } else { found };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn below(path: &Path, name: &CStr) -> PathBuf {
    path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// All that is known of two names of files but what is in them.
fn alike(one: BorrowedFd<'_>, other: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<bool> {
    let look = |directory: BorrowedFd<'_>| {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let target = match kind {
            FileType::Symlink => Some(rustix::fs::readlinkat(directory, name, Vec::new())?),
            _ => None,
        };
        // How long a directory is depends on what was in it once.
        let size = if kind == FileType::RegularFile { stat.st_size } else { 0 };
        // A whiteout has no time of its own.
        let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        let times = if is_whiteout { (0, 0) } else { (stat.st_mtime, stat.st_mtime_nsec) };
        Ok::<_, Errno>((stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, size, times, target, xattrs(directory, name)?))
    };
    Ok(look(one)? == look(other)?)
}

fn xattrs(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.to_bytes()].concat();
    let mut buffer = vec![0; XATTR_BYTES];
    let length = match rustix::fs::llistxattr(&path[..], &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut xattrs = Vec::new();
    let mut value = vec![0; XATTR_BYTES];
    for name in buffer[..length].split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let length = rustix::fs::lgetxattr(&path[..], name, &mut value[..])?;
        xattrs.push((name.to_owned(), value[..length].to_vec()));
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Of files that are equally long.
fn same_bytes(mut one: File, mut other: File) -> rustix::io::Result<bool> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let (mut bytes, mut others) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    loop {
        let length = one.read(&mut bytes).map_err(failed)?;
        match other.read_exact(&mut others[..length]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(failed)?,
        }
        if bytes[..length] != others[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), vec![7; READ_BYTES + 1]).unwrap();
        symlink("target", dir.path().join("link")).unwrap();
        for path in ["a/b/file", "a/b", "a", ""] {
            File::open(dir.path().join(path)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let past = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: past, last_modification: past };
        rustix::fs::utimensat(rustix::fs::CWD, dir.path().join("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        dir
    }

    #[test]
    fn whatever_differs_is_found() {
        let one = tree();
        let keep_time = |path: &Path| File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let roots = |other: &tempfile::TempDir| [one.path(), other.path()].map(|path| File::open(path).unwrap());
        let differ = |change: &dyn Fn(&Path)| {
            let other = tree();
            change(other.path());
            keep_time(other.path());
            let [one, other] = roots(&other);
            difference(one.as_fd(), other.as_fd()).unwrap()
        };
        assert_eq!(differ(&|_| {}), None);
        type Change<'a> = (&'a dyn Fn(&Path), &'a str);
        let changes: [Change<'_>; 8] = [
            (&|dir| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap(), ""),
            (&|dir| std::fs::write(dir.join("more"), "").unwrap(), "more"),
            (&|dir| std::fs::remove_file(dir.join("link")).unwrap(), "link"),
            (&|dir| drop(File::open(dir.join("a/b")).unwrap().set_modified(std::time::SystemTime::now())), "a/b"),
            (&|dir| std::fs::set_permissions(dir.join("a"), std::fs::Permissions::from_mode(0o711)).unwrap(), "a"),
            (
                &|dir| {
                    let mut bytes = vec![7; READ_BYTES + 1];
                    bytes[READ_BYTES] = 8;
                    std::fs::write(dir.join("a/b/file"), bytes).unwrap();
                    keep_time(&dir.join("a/b/file"));
                },
                "a/b/file",
            ),
            (
                &|dir| {
                    std::fs::write(dir.join("a/b/file"), "short").unwrap();
                    keep_time(&dir.join("a/b/file"));
                },
                "a/b/file",
            ),
            (
                &|dir| {
                    std::fs::remove_file(dir.join("link")).unwrap();
                    std::fs::write(dir.join("link"), "").unwrap();
                },
                "link",
            ),
        ];
        for (change, found) in changes {
            assert_eq!(differ(change), Some(PathBuf::from(found)));
        }
    }
}
