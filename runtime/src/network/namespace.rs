//! A container's network namespace, made before the container is.
//!
//! This process makes it, does there what needs to be done there, and goes back: so no further process is
//! needed, and nothing but descriptors keeps the namespace until the container has joined it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::error::{Attempt, Result};
use crate::sys;

/// A network namespace that is held open.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

/// Above what a monitor, or a container's first process, gives its own descriptors.
const HIGH_FD: i32 = 64;

/// The same file under a number that nobody else places anything at.
pub(super) fn high(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, HIGH_FD).attempt(|| "duplicate a file descriptor")
}

/// The one this process is in.
const OWN: &str = "/proc/self/ns/net";

impl Namespace {
    /// A new one, and what `work` gives that was done inside. The process must have one thread, and be root.
    pub(super) fn make<T>(work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let before = Self::open(Path::new(OWN))?;
        sys::unshare(libc::CLONE_NEWNET).attempt(|| "make a network namespace")?;
        let made = Self::open(Path::new(OWN)).and_then(|namespace| Ok((namespace, work()?)));
        before.enter()?;
        made
    }

    /// The one a child of this process is in, which is not waited for yet.
    pub(super) fn of_child(pid: Pid) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{}/ns/net", pid.as_raw_nonzero())))
    }

    /// One that is open.
    pub(super) fn hold(namespace: &OwnedFd) -> Result<Self> {
        high(namespace).map(Self)
    }

    /// Does `work` inside. The process must have one thread, and be root.
    pub(super) fn inside<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = Self::open(Path::new(OWN))?;
        self.enter()?;
        let done = work();
        before.enter()?;
        done
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .attempt(|| format!("open network namespace {}", path.display()))
            .and_then(|fd| high(&fd))
            .map(Self)
    }

    fn enter(&self) -> Result<()> {
        sys::join_namespace(self.0.as_fd(), libc::CLONE_NEWNET).attempt(|| "join a network namespace")
    }

    /// The path by which this process, and what it starts as copies of itself, find it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    pub(super) fn fd(&self) -> u32 {
        self.0.as_raw_fd() as u32
    }
}
