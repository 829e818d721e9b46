//! The launcher while the container runs: forwards signals, relays the terminal, waits.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::Exit;
use super::terminal::{RawMode, copy_size};
use crate::error::{Attempt, Error, Result};
use crate::network::dns::Server;
use crate::sys::{self, SignalMask};

/// Signals that are the container's: asked of the launcher, delivered to the container's init.
pub(super) const FORWARDED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// How much is read at once, and how much typed input waits for a container that does not read it.
const BUFFER_BYTES: usize = 16 * 1024;

/// Signals kept for the container from before it exists until it is gone.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: OwnedFd,
    before: SignalMask,
}

impl Signals {
    /// Blocks the forwarded signals; they arrive on a descriptor from now on.
    pub(crate) fn catch() -> Result<Self> {
        Self::catch_these(&FORWARDED)
    }

    /// The same for changes of the terminal's size alone.
    pub(crate) fn catch_sizes() -> Result<Self> {
        Self::catch_these(&[libc::SIGWINCH])
    }

    fn catch_these(signals: &[libc::c_int]) -> Result<Self> {
        let before = sys::block_signals(signals).attempt(|| "block signals")?;
        let fd = sys::signalfd(signals).attempt(|| "create a signalfd")?;
        Ok(Self { fd, before })
    }
}

impl Signals {
    /// The next that has come, if there is one.
    pub(crate) fn next(&self) -> Result<Option<i32>> {
        sys::read_signal(self.fd.as_fd()).attempt(|| "read a signal")
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        sys::restore_signals(&self.before);
    }
}

/// Waits for the container's first process, doing what the caller's terminal and signals ask for; without a terminal
/// also what `service` does for the container.
pub(crate) fn wait(pidfd: &OwnedFd, signals: &Signals, master: Option<&OwnedFd>, service: Option<&mut Server>) -> Result<Exit> {
    match master {
        None => wait_without_terminal(pidfd, signals, service)?,
        Some(master) => {
            let raw = RawMode::enter()?;
            let relayed = Relay::new(master).run(pidfd, signals);
            drop(raw);
            relayed?;
        }
    }
    reap(pidfd)
}

/// The exit status of a process that has ended or is about to.
pub(crate) fn reap(pidfd: impl AsFd) -> Result<Exit> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other.attempt(|| "wait for the container")?,
        }
    };
    let status = status.ok_or_else(|| Error::io("wait for the container", Errno::CHILD))?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code as u8),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL) as u8),
    })
}

fn wait_without_terminal(pidfd: &OwnedFd, signals: &Signals, mut service: Option<&mut Server>) -> Result<()> {
    loop {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        fds.extend(service.as_deref().map(|service| PollFd::new(service, PollFlags::IN)));
        wait_for(&mut fds)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return Ok(());
        }
        if let (Some(true), Some(service)) = (ready.get(2), service.as_deref_mut()) {
            service.serve();
        }
        forward(pidfd, signals, None)?;
    }
}

fn wait_for(fds: &mut [PollFd<'_>]) -> Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno).attempt(|| "wait for the container"),
    }
}

fn forward(pidfd: &OwnedFd, signals: &Signals, master: Option<BorrowedFd<'_>>) -> Result<()> {
    while let Some(signal) = signals.next()? {
        match (signal, master) {
            (libc::SIGWINCH, Some(master)) => copy_size(master),
            _ => match sys::pidfd_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).attempt(|| format!("forward signal {signal} to the container")),
            },
        }
    }
    Ok(())
}

/// Bytes between the caller's standard input and output and the container's terminal.
struct Relay<'a> {
    master: BorrowedFd<'a>,
    typed: VecDeque<u8>,
    input_open: bool,
    output_open: bool,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Self {
        Self { master: master.as_fd(), typed: VecDeque::new(), input_open: true, output_open: true }
    }

    fn run(mut self, pidfd: &OwnedFd, signals: &Signals) -> Result<()> {
        loop {
            let stdin = rustix::stdio::stdin();
            let mut wanted = PollFlags::IN;
            if !self.typed.is_empty() {
                wanted |= PollFlags::OUT;
            }
            let mut fds = vec![
                PollFd::new(pidfd, PollFlags::IN),
                PollFd::new(signals, PollFlags::IN),
                PollFd::from_borrowed_fd(self.master, wanted),
            ];
            if self.input_open && self.typed.len() < BUFFER_BYTES {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
            wait_for(&mut fds)?;
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready.get(3) == Some(&true) {
                self.read_input();
            }
            if ready[2] {
                self.write_input();
                self.copy_output()?;
            }
            if ready[1] {
                forward(pidfd, signals, Some(self.master))?;
            }
            if ready[0] {
                // Nobody is left to write: what is in the terminal now is all there will be.
                while self.copy_output()? {}
                return Ok(());
            }
        }
    }

    fn read_input(&mut self) {
        let mut buffer = [0; BUFFER_BYTES];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => self.input_open = false,
            Ok(length) => self.typed.extend(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A vanished terminal is the end of input; the container decides what follows.
            Err(_) => self.input_open = false,
        }
    }

    fn write_input(&mut self) {
        while !self.typed.is_empty() {
            match rustix::io::write(self.master, self.typed.as_slices().0) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // No process has the terminal open: the input has no reader.
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Copies what the terminal has; false if it has nothing (any more).
    fn copy_output(&mut self) -> Result<bool> {
        let mut buffer = [0; BUFFER_BYTES];
        let length = match rustix::io::read(self.master, &mut buffer) {
            Ok(length) => length,
            Err(Errno::INTR) => return Ok(true),
            // EIO: no process has the terminal open. Another may open it again.
            Err(_) => 0,
        };
        if length > 0 && self.output_open {
            self.output_open = write_all(rustix::stdio::stdout(), &buffer[..length])?;
        }
        Ok(length > 0)
    }
}

/// False if nobody reads any more: the container goes on without an audience.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<bool> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)])?,
            Err(Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(errno).attempt(|| "write the container's output"),
        }
    }
    Ok(true)
}
