//! The container's terminal, and the caller's terminal while it is connected to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::error::{Attempt, Result};

/// Both ends of a pseudo-terminal in the container's own devpts instance.
#[derive(Debug)]
pub(super) struct Pty {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

impl Pty {
    /// Opens a pair in a devpts mount that need not be attached anywhere yet. A master that is handed
    /// to somebody else must be one that blocks.
    pub(super) fn open(devpts: BorrowedFd<'_>, nonblocking: bool) -> Result<Self> {
        let mut flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        if nonblocking {
            flags |= OFlags::NONBLOCK;
        }
        let master = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty()).attempt(|| "open the container's ptmx")?;
        rustix::pty::unlockpt(&master).attempt(|| "unlock the container's terminal")?;
        // By ioctl and not by path: nobody can have put another node there (CVE-2025-52565).
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .attempt(|| "open the container's terminal")?;
        Ok(Self { master, slave })
    }
}

/// Gives the container's terminal the size of the caller's, if the caller has one.
pub(super) fn copy_size(master: BorrowedFd<'_>) {
    if let Some(size) = caller_size() {
        // A terminal that cannot be resized is still usable.
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// Sets a size the configuration asks for.
pub(super) fn set_size(master: BorrowedFd<'_>, rows: u16, columns: u16) {
    let _ = rustix::termios::tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
}

/// The size of the caller's terminal, if there is one.
pub(crate) fn caller_size() -> Option<Winsize> {
    let size = |fd: BorrowedFd<'_>| rustix::termios::tcgetwinsize(fd).ok();
    size(rustix::stdio::stdin()).or_else(|| size(rustix::stdio::stdout()))
}

/// The caller's terminal settings from before, for the panic hook.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The caller's terminal in raw mode; restored when dropped, and when the process panics.
pub(crate) struct RawMode(());

impl RawMode {
    /// Raw mode for standard input, if that is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else { return Ok(None) };
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut slot) = BEFORE.lock() {
            *slot = Some(before);
        }
        // Release builds abort on panic, without running destructors.
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).attempt(|| "set the terminal to raw mode")?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Ok(mut slot) = BEFORE.try_lock()
        && let Some(before) = slot.take()
    {
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin().as_fd(), OptionalActions::Now, &before);
    }
}
