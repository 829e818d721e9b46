//! What a container's process has as standard input, output and error.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags};

use super::terminal::{self, Pty};
use crate::error::{Attempt, Error, Result};

/// Standard input, output and error, where they are not the caller's own.
#[derive(Debug)]
pub(super) struct Stdio {
    pty: Option<Pty>,
    input: Option<OwnedFd>,
}

impl Stdio {
    /// A terminal in the devpts instance `devpts`. `relayed`: its master side is read here, by polling.
    pub(super) fn terminal(devpts: Option<BorrowedFd<'_>>, process: &Process, relayed: bool, floor: i32) -> Result<Self> {
        let devpts = devpts.ok_or_else(|| Error::invalid("configuration", "a terminal needs a devpts mount on /dev/pts"))?;
        let mut pty = Pty::open(devpts, relayed)?;
        pty.slave = high(&pty.slave, floor)?;
        match process.console_size() {
            Some(size) => terminal::set_size(pty.master.as_fd(), size.height() as u16, size.width() as u16),
            None if relayed => terminal::copy_size(pty.master.as_fd()),
            None => {}
        }
        Ok(Self { pty: Some(pty), input: None })
    }

    /// The caller's own, or with `/dev/null` as input.
    pub(super) fn plain(stdin: bool, floor: i32) -> Result<Self> {
        if stdin {
            return Ok(Self { pty: None, input: None });
        }
        let null =
            rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")?;
        Self::with_input(&null, floor)
    }

    /// The caller's own, with `input` as input.
    pub(super) fn with_input(input: &OwnedFd, floor: i32) -> Result<Self> {
        Ok(Self { pty: None, input: Some(high(input, floor)?) })
    }

    /// The three descriptors.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let inherited = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        match (&self.pty, &self.input) {
            (Some(pty), _) => [pty.slave.as_fd(); 3],
            (None, Some(input)) => [input.as_fd(), inherited[1], inherited[2]],
            (None, None) => inherited,
        }
    }

    /// The process's side of the terminal, if there is one.
    pub(super) fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.pty.as_ref().map(|pty| pty.slave.as_fd())
    }

    /// Keeps the master side of the terminal, if there is one.
    pub(super) fn release(self) -> Option<OwnedFd> {
        self.pty.map(|pty| pty.master)
    }
}

/// Gives a terminal to a user, by the id outside. Who opened it is nobody in another user namespace.
pub(super) fn give(slave: BorrowedFd<'_>, uid: Option<u32>) -> Result<()> {
    let owner = uid.map(rustix::fs::Uid::from_raw);
    rustix::fs::fchown(slave, owner, None).attempt(|| "give the terminal to the container's user")
}

/// The same file under a number from `floor` up.
pub(super) fn high(fd: impl AsFd, floor: i32) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, floor).attempt(|| "duplicate a file descriptor")
}
