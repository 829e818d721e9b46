//! Owner, extended attributes, mode and times, set through a file descriptor or a parent's.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Result};

use super::archive::Entry;
use super::{Options, Owners};

/// The prefix of POSIX access lists, which change the mode.
const ACCESS_LIST: &[u8] = b"system.posix_acl_";

/// What an entry says about itself beside its type and content.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<Entry> for Metadata {
    fn from(entry: Entry) -> Self {
        Self { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs: entry.xattrs }
    }
}

impl Metadata {
    /// What a directory gets that the archive does not list: root's, 0755, and a fixed time, so that
    /// unpacking twice gives the same.
    pub(super) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timespec { tv_sec: 0, tv_nsec: 0 }, xattrs: Vec::new() }
    }

    pub(super) fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }
}

/// Writes metadata as the options say, with as few system calls as the process' own identity and
/// file mode creation mask allow.
pub(super) struct Writer<'a> {
    options: &'a Options,
    uid: u32,
    gid: u32,
    umask: u32,
    pub(super) dropped_xattrs: u64,
}

impl<'a> Writer<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { options, uid, gid, umask: umask(), dropped_xattrs: 0 }
    }

    /// The mode to create something with that shall end up with `metadata`. Set-id and sticky bits come
    /// last: writing and changing the owner clear them.
    pub(super) fn creation_mode(metadata: &Metadata) -> Mode {
        // The kernel wants a writable file for user.* attributes.
        let writable = if metadata.xattrs.is_empty() { 0 } else { 0o600 };
        Mode::from_raw_mode((metadata.mode & 0o777) | writable)
    }

    /// Everything, through `fd`: for a file or directory created with the mode `created`.
    pub(super) fn write(&mut self, fd: BorrowedFd<'_>, metadata: &Metadata, created: Mode, path: &[u8]) -> Result<()> {
        if let Some((uid, gid)) = self.owner(metadata) {
            rustix::fs::fchown(fd, uid, gid).attempt(|| attempted("change the owner of", path))?;
        }
        let mut lists = false;
        for (name, value) in &metadata.xattrs {
            lists |= name.starts_with(ACCESS_LIST);
            self.xattr(name, path, || rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()))?;
        }
        let created = created.as_raw_mode() & !self.umask;
        if created != metadata.mode || lists {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(metadata.mode)).attempt(|| attempted("change the mode of", path))?;
        }
        rustix::fs::futimens(fd, &metadata.times()).attempt(|| attempted("change the times of", path))
    }

    /// Everything, for what cannot be opened: `name` in `parent`, a symbolic link, device or FIFO that
    /// was created with the mode `created` (`None`: it has no mode of its own).
    pub(super) fn write_at(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        metadata: &Metadata,
        created: Option<Mode>,
        path: &[u8],
    ) -> Result<()> {
        if let Some((uid, gid)) = self.owner(metadata) {
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .attempt(|| attempted("change the owner of", path))?;
        }
        let lists = metadata.xattrs.iter().any(|(name, _)| name.starts_with(ACCESS_LIST));
        if !metadata.xattrs.is_empty() {
            // Before Linux 6.13 attributes are set by path only; this one goes through the descriptor.
            let through = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), name].concat();
            for (name, value) in &metadata.xattrs {
                self.xattr(name, path, || rustix::fs::lsetxattr(&through[..], &name[..], value, XattrFlags::empty()))?;
            }
        }
        if created.is_some_and(|created| lists || created.as_raw_mode() & !self.umask != metadata.mode) {
            chmod_at(parent, name, metadata.mode, path)?;
        }
        rustix::fs::utimensat(parent, name, &metadata.times(), AtFlags::SYMLINK_NOFOLLOW)
            .attempt(|| attempted("change the times of", path))
    }

    /// The owner to set, unless it is the one that creation gave.
    fn owner(&self, metadata: &Metadata) -> Option<(Option<Uid>, Option<Gid>)> {
        if self.options.owners == Owners::Squash || (metadata.uid, metadata.gid) == (self.uid, self.gid) {
            return None;
        }
        Some((Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid))))
    }

    /// Sets one attribute, or drops it where [`super::Unpacked::dropped_xattrs`] says so.
    fn xattr(&mut self, name: &[u8], path: &[u8], set: impl FnOnce() -> Result<(), Errno>) -> Result<()> {
        if is_foreign(name) {
            self.dropped_xattrs += 1;
            return Ok(());
        }
        match set() {
            Err(Errno::OPNOTSUPP) => self.dropped_xattrs += 1,
            Err(Errno::PERM) if self.options.userxattr => self.dropped_xattrs += 1,
            // An access list names owners, which are squashed too.
            Err(Errno::INVAL) if self.options.owners == Owners::Squash && name.starts_with(ACCESS_LIST) => {
                self.dropped_xattrs += 1;
            }
            result => result.attempt(|| format!("{} {:?}", attempted("set on", path), String::from_utf8_lossy(name)))?,
        }
        Ok(())
    }
}

fn chmod_at(parent: BorrowedFd<'_>, name: &[u8], mode: u32, path: &[u8]) -> Result<()> {
    // fchmod refuses O_PATH descriptors and fchmodat follows links: so by the descriptor's own name.
    let fd = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| attempted("open", path))?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode))
        .attempt(|| attempted("change the mode of", path))
}

/// Whether an attribute speaks to overlayfs or of the host that made the archive: an archive that
/// could set these could make directories opaque, redirect them or relabel files.
pub(super) fn is_foreign(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || matches!(name, b"security.selinux" | b"system.nfs4_acl" | b"trusted.overlay" | b"user.overlay")
}

/// An attempt on an entry, its path shown escaped.
pub(super) fn attempted(verb: &str, path: &[u8]) -> String {
    format!("{verb} archive entry {:?}", String::from_utf8_lossy(path))
}

/// The process' file mode creation mask, read without changing it; where it cannot be read, one that
/// makes every mode be set explicitly.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
