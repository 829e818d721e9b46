//! Who is attached to a container, as its monitor sees them: sockets over which output goes out and input comes in.
//!
//! **Invariant: nobody who is attached holds up the container or its log** for longer than [`PATIENCE`], once: who
//! does not take its output in that time is let go.
//!
//! Who wants to be attached makes a socket in the container's directory, listens on it and wakes the monitor, which
//! connects to it. So there is none while nobody is attached.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::termios::Winsize;

use super::log_file::Stream;
use super::monitor::{INPUT, OUT, wait_for};
use super::record::Config;
use crate::error::{Attempt, Result};
use crate::sys;

/// The beginning of such a socket's name.
pub(super) const PREFIX: &str = "attach.";

/// The most of a message, beside its first byte.
pub(super) const MESSAGE_BYTES: usize = 4096;

/// How long somebody may read nothing at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much that was typed waits for a container that does not read it.
const TYPED_LIMIT_BYTES: usize = 16 * 1024;

/// The most who are attached to one container.
const AUDIENCE_LIMIT: usize = 64;

/// The first byte of a message says what it is. From the monitor: output, or the exit code.
pub(super) const STDOUT: u8 = b'o';
pub(super) const STDERR: u8 = b'e';
pub(super) const EXIT: u8 = b'x';
/// To it: input, its end, or rows and columns of a terminal (two native `u16`).
pub(super) const INPUT_DATA: u8 = b'i';
pub(super) const INPUT_END: u8 = b'.';
pub(super) const SIZE: u8 = b's';

/// A socket that keeps messages apart.
pub(super) fn socket() -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).attempt(|| "create a socket")
}

/// The address of a socket in a directory, however long the path of that is.
pub(super) fn address(directory: BorrowedFd<'_>, name: &str) -> Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    SocketAddrUnix::new(path).attempt(|| format!("address socket {name}"))
}

/// Sends one message; false if there is no room for it now.
pub(super) fn send(socket: &OwnedFd, kind: u8, data: &[u8]) -> rustix::io::Result<bool> {
    let mut none = SendAncillaryBuffer::new(&mut [] as &mut [MaybeUninit<u8>]);
    let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(data)];
    match rustix::net::sendmsg(socket, &parts, &mut none, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// All who are attached, and what they have typed.
#[derive(Debug)]
pub(super) struct Audience {
    sockets: Vec<OwnedFd>,
    typed: VecDeque<u8>,
    /// What reads it: the container's standard input, or its terminal.
    input: BorrowedFd<'static>,
    terminal: bool,
    /// Its input ends with that of who is attached.
    once: bool,
    ended: bool,
}

impl Audience {
    pub(super) fn new(config: &Config) -> Self {
        let terminal = config.options.tty;
        let input = sys::borrow_fd(if terminal { OUT } else { INPUT });
        Self { sockets: Vec::new(), typed: VecDeque::new(), input, terminal, once: config.stdin_once && !terminal, ended: false }
    }

    /// Takes in all who wait in the container's directory.
    pub(super) fn admit(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if let Ok(socket) = connect(directory, name)
                && self.sockets.len() < AUDIENCE_LIMIT
            {
                self.sockets.push(socket);
            }
            // One nobody listens on is what a killed process left.
            let _ = std::fs::remove_file(entry.path());
        }
    }

    /// What is to be waited for.
    pub(super) fn fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.typed.len() < TYPED_LIMIT_BYTES {
            fds.extend(self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        }
        if !self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.input, PollFlags::OUT));
        }
    }

    /// Passes on what the container wrote.
    pub(super) fn tell(&mut self, stream: Stream, data: &[u8]) {
        let kind = if stream == Stream::Out { STDOUT } else { STDERR };
        self.sockets.retain(|socket| match send(socket, kind, data) {
            Ok(false) => {
                let in_time = wait_for(&mut [PollFd::new(socket, PollFlags::OUT)], Some(PATIENCE));
                in_time.is_ok_and(|count| count > 0) && send(socket, kind, data) == Ok(true)
            }
            sent => sent.is_ok(),
        });
    }

    /// Says how the container ended.
    pub(super) fn dismiss(self, code: u8) {
        for socket in self.sockets {
            let _ = send(&socket, EXIT, &[code]);
        }
    }

    /// Takes what they have typed, and gives the container as much of it as it takes.
    pub(super) fn hear(&mut self) {
        let mut message = [0; MESSAGE_BYTES + 1];
        let mut at = 0;
        while at < self.sockets.len() && self.typed.len() < TYPED_LIMIT_BYTES {
            match rustix::net::recv(&self.sockets[at], &mut message[..], RecvFlags::DONTWAIT) {
                Ok((_, length @ 1..)) => self.take(message[0], &message[1..length.min(message.len())]),
                Err(Errno::AGAIN) => at += 1,
                Err(Errno::INTR) => {}
                // It has gone.
                Ok((_, 0)) | Err(_) => drop(self.sockets.swap_remove(at)),
            }
        }
        self.write();
    }

    fn take(&mut self, kind: u8, data: &[u8]) {
        match (kind, data) {
            (INPUT_DATA, data) if !self.ended => self.typed.extend(data),
            (INPUT_END, _) => self.ended |= self.once,
            (SIZE, &[a, b, c, d]) if self.terminal => {
                let (ws_row, ws_col) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
                // A terminal that cannot be resized is still usable.
                let _ = rustix::termios::tcsetwinsize(self.input, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
            }
            _ => {}
        }
    }

    fn write(&mut self) {
        while !self.typed.is_empty() {
            match rustix::io::write(self.input, self.typed.as_slices().0) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody reads it any more.
                Err(_) => self.typed.clear(),
            }
        }
        self.typed = VecDeque::new();
        if self.ended && self.once {
            self.once = false;
            // Its number stays taken.
            if let Ok(null) = super::start::null() {
                let _ = sys::place_fd(null.as_fd(), INPUT, true);
            }
        }
    }
}

fn connect(directory: &Path, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).attempt(|| format!("open {}", directory.display()))?;
    let socket = socket()?;
    rustix::net::connect(&socket, &address(directory.as_fd(), name)?).attempt(|| format!("connect to socket {name}"))?;
    Ok(socket)
}
