//! The first process of a container, by something that leads to no other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::state::{Container, Process};
use crate::error::{Attempt, Result};
use crate::hooks::ends_within;

/// The first process of one run of a container: whatever becomes of that, this is no other's.
#[derive(Debug)]
pub(crate) struct FirstProcess {
    pub(super) container: Container,
    pub(super) process: Process,
}

impl FirstProcess {
    /// Whether it ends within `limit`.
    pub(crate) fn ends_within(&self, limit: Duration) -> Result<bool> {
        ends_within(&self.process.pidfd, limit).attempt(|| "wait for the container's end")
    }

    /// Opens a file below its `/proc/PID`; `None` if it has ended.
    pub(crate) fn open(&self, name: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
        let path = format!("/proc/{}/{name}", self.process.pid.as_raw_nonzero());
        let opened = rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        // Only now: as long as it lives its number is no other's.
        if self.ends_within(Duration::ZERO)? {
            return Ok(None);
        }
        opened.attempt(|| format!("open {path}")).map(Some)
    }
}

impl AsFd for FirstProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }
}
