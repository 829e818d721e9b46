//! A container's network namespace, made before the container is.
//!
//! This process makes it, does there what needs to be done there, and goes back: so no further process is
//! needed, and nothing but descriptors keeps the namespace until the container has joined it. An ordinary user's
//! has no way back to this machine's network, which is another's: a thread goes in, and ends there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

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

/// The one this thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

impl Namespace {
    /// A new one, and what `work` gives that was done inside. This thread must be able to come back: root's, or one in a
    /// namespace that belongs to its user namespace.
    pub(super) fn make<T>(work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let before = Self::open(Path::new(OWN))?;
        sys::unshare(libc::CLONE_NEWNET).attempt(|| "make a network namespace")?;
        let made = Self::open(Path::new(OWN)).and_then(|namespace| Ok((namespace, work()?)));
        before.enter()?;
        made
    }

    /// A new one that belongs to the user namespace of this process, after `work` was done inside.
    pub(super) fn make_apart(work: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        in_thread(|| {
            sys::unshare(libc::CLONE_NEWNET).attempt(|| "make a network namespace")?;
            work()?;
            Self::open(Path::new(OWN))
        })
    }

    /// One that is open.
    pub(super) fn hold(namespace: &OwnedFd) -> Result<Self> {
        high(namespace).map(Self)
    }

    /// Does `work` inside, from where there is no way back.
    pub(super) fn apart<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Does `work` inside. This thread must be able to come back.
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

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// Does `work` in a thread of its own and waits for it: afterwards this process has as many as before.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work).attempt(|| "start a thread")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
