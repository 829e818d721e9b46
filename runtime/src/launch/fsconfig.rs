//! Filesystems made and changed by the kernel's new calls: `fsopen`, `fspick`, `fsconfig`, `fsmount`.
//!
//! Option by option, so that an error says which one was refused. Making allocates nothing: the
//! container's own process does it.

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};

use super::options::Parameter;
use crate::error::{Attempt, Error, Result};
use crate::sys::{self, MountAttributes};

/// Other options for a mount that is there.
#[derive(Debug)]
pub(super) struct Remount {
    pub(super) own: MountAttributes,
    pub(super) tree: MountAttributes,
    pub(super) parameters: Vec<Parameter>,
}

impl Remount {
    /// Changes the mount `target` is the root of, and its filesystem if that is asked for too.
    pub(super) fn apply(&self, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
        for (attributes, recursive) in [(self.own, false), (self.tree, true)] {
            if attributes.set | attributes.clear != 0 {
                sys::mount_setattr(target, attributes, recursive)?;
            }
        }
        if self.parameters.is_empty() {
            return Ok(());
        }
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let fs = rustix::mount::fspick(target, c"", flags)?;
        configure(&fs, &self.parameters).map_err(|(_, errno)| errno)?;
        rustix::mount::fsconfig_reconfigure(&fs)
    }
}

/// A filesystem to be made by `fsopen`, `fsconfig`, `fsmount`.
#[derive(Debug)]
pub(super) struct Filesystem {
    pub(super) kind: CString,
    pub(super) source: CString,
    pub(super) parameters: Vec<Parameter>,
    pub(super) attributes: MountAttrFlags,
    /// The filesystem, if it is made already and lacks the mount alone.
    pub(super) ready: Option<OwnedFd>,
}

/// The parameter, by its place, at which making a filesystem failed, and why.
pub(super) type Refusal = (Option<usize>, Errno);

impl Filesystem {
    /// Makes the detached mount. Allocates nothing.
    pub(super) fn make(&self) -> std::result::Result<OwnedFd, Refusal> {
        match &self.ready {
            Some(fs) => self.mount(fs),
            None => self.mount(&self.create()?),
        }
    }

    /// Makes the filesystem, by anyone, and leaves to [`make`](Self::make) what remains.
    pub(super) fn prepare(&mut self) -> std::result::Result<(), Refusal> {
        self.ready = Some(self.create()?);
        Ok(())
    }

    fn create(&self) -> std::result::Result<OwnedFd, Refusal> {
        let plain = |errno| (None, errno);
        let fs = rustix::mount::fsopen(self.kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
        rustix::mount::fsconfig_set_string(&fs, c"source", self.source.as_c_str()).map_err(plain)?;
        configure(&fs, &self.parameters)?;
        rustix::mount::fsconfig_create(&fs).map_err(plain)?;
        Ok(fs)
    }

    fn mount(&self, fs: &OwnedFd) -> std::result::Result<OwnedFd, Refusal> {
        rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes).map_err(|errno| (None, errno))
    }

    /// The words of an option, for an error report.
    pub(super) fn option(&self, at: usize) -> String {
        self.parameters.get(at).map_or_else(String::new, |parameter| match &parameter.value {
            Some(value) => format!("{}={}", parameter.key.to_string_lossy(), value.to_string_lossy()),
            None => parameter.key.to_string_lossy().into_owned(),
        })
    }

    /// The error that says what was refused.
    pub(super) fn refused(&self, name: &str, (at, errno): Refusal) -> Error {
        let step = match (at, errno) {
            (Some(at), _) => format!("create mount {name}: the filesystem refuses option {:?}", self.option(at)),
            (None, Errno::NODEV) => format!("create mount {name}: the kernel has no filesystem of that type"),
            (None, _) => format!("create mount {name}"),
        };
        Error::Launch { step, source: errno.into() }
    }
}

fn configure(fs: &OwnedFd, parameters: &[Parameter]) -> std::result::Result<(), Refusal> {
    for (at, parameter) in parameters.iter().enumerate() {
        let done = match &parameter.value {
            Some(value) => rustix::mount::fsconfig_set_string(fs, parameter.key.as_c_str(), value.as_c_str()),
            None => rustix::mount::fsconfig_set_flag(fs, parameter.key.as_c_str()),
        };
        match done {
            Err(Errno::INVAL) if parameter.optional => {}
            other => other.map_err(|errno| (Some(at), errno))?,
        }
    }
    Ok(())
}

/// An empty, read-only directory as a detached mount, for masked directories.
pub(super) fn empty_directory() -> Result<OwnedFd> {
    let parameter = |key: &CStr, value: &CStr| Parameter { key: key.to_owned(), value: Some(value.to_owned()), optional: false };
    let fs = Filesystem {
        kind: c"tmpfs".to_owned(),
        source: c"tmpfs".to_owned(),
        parameters: vec![parameter(c"size", c"0"), parameter(c"nr_inodes", c"1"), parameter(c"mode", c"755")],
        attributes: MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        ready: None,
    };
    fs.make().map_err(|(_, errno)| errno).attempt(|| "create the empty directory for masked paths")
}
