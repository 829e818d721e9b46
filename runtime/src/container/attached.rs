//! Who is attached to a container, as its monitor sees them: sockets over which output goes out and input comes in.
//!
//! **Invariant: who is attached gets all of the output**, however slow: what they have not taken waits, and nothing more
//! is read from the container until they have. So who reads nothing holds the container up, as long as they live; and
//! once that has ended, a copy of the monitor, so that nobody else waits for them.
//!
//! Who wants to be attached makes a socket in the container's directory, listens on it and wakes the monitor, which
//! connects to it. So there is none while nobody is attached.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

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
pub(super) const MESSAGE_BYTES: usize = 32 * 1024;

/// How much that was typed waits for a container that does not read it, beside one message.
const TYPED_LIMIT_BYTES: usize = MESSAGE_BYTES;

/// The most who are attached to one container.
const AUDIENCE_LIMIT: usize = 64;

/// The first byte of a message says what it is. From the monitor: output, or the exit code.
pub(super) const STDOUT: u8 = b'o';
pub(super) const STDERR: u8 = b'e';
pub(super) const EXIT: u8 = b'x';
/// To it: input, first of all an empty one; its end; or rows and columns of a terminal (two native `u16`).
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
pub(super) fn send(socket: impl AsFd, kind: u8, data: &[u8]) -> rustix::io::Result<bool> {
    let mut none = SendAncillaryBuffer::new(&mut [] as &mut [MaybeUninit<u8>]);
    let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(data)];
    match rustix::net::sendmsg(socket, &parts, &mut none, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Somebody who is attached.
#[derive(Debug)]
struct Reader {
    socket: OwnedFd,
    /// Messages for which there was no room.
    behind: VecDeque<(u8, Vec<u8>)>,
    /// The container's input is theirs, too.
    types: bool,
}

impl Reader {
    /// Passes a message on, at once or later; false if they have gone.
    fn tell(&mut self, kind: u8, data: &[u8]) -> bool {
        if self.behind.is_empty() {
            match send(&self.socket, kind, data) {
                Ok(false) => {}
                sent => return sent.is_ok(),
            }
        }
        self.behind.push_back((kind, data.to_vec()));
        true
    }

    /// Passes on what waits, as far as there is room; false if they have gone.
    fn catch_up(&mut self) -> bool {
        while let Some((kind, data)) = self.behind.front() {
            match send(&self.socket, *kind, data) {
                Ok(true) => drop(self.behind.pop_front()),
                sent => return sent.is_ok(),
            }
        }
        true
    }

    /// The life of a copy of the monitor that waits until they have taken the rest. It has nothing else of that, so that
    /// it holds no lock and no layer.
    fn finish(&mut self) -> u8 {
        const SOCKET: i32 = 0;
        if self.socket.as_raw_fd() != SOCKET && sys::place_fd(self.socket.as_fd(), SOCKET, true).is_err() {
            return 1;
        }
        let socket = sys::borrow_fd(SOCKET);
        if sys::close_from(SOCKET as u32 + 1).is_err() {
            return 1;
        }
        for (kind, data) in &self.behind {
            while send(socket, *kind, data) == Ok(false) {
                if wait_for(&mut [PollFd::from_borrowed_fd(socket, PollFlags::OUT)], None).is_err() {
                    return 1;
                }
            }
        }
        0
    }
}

/// All who are attached, and what they have typed.
#[derive(Debug)]
pub(super) struct Audience {
    readers: Vec<Reader>,
    /// For one message of theirs, if there is anybody.
    message: Vec<u8>,
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
        let once = config.stdin_once && !terminal;
        Self { readers: Vec::new(), message: Vec::new(), typed: VecDeque::new(), input, terminal, once, ended: false }
    }

    /// Takes in all who wait in the container's directory.
    pub(super) fn admit(&mut self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if let Ok(socket) = connect(directory, name)
                && self.readers.len() < AUDIENCE_LIMIT
            {
                self.readers.push(Reader { socket, behind: VecDeque::new(), types: false });
            }
            // One nobody listens on is what a killed process left.
            let _ = std::fs::remove_file(entry.path());
        }
    }

    /// What is to be waited for.
    pub(super) fn fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let hears = if self.typed.len() < TYPED_LIMIT_BYTES { PollFlags::IN } else { PollFlags::empty() };
        for reader in &self.readers {
            let wanted = if reader.behind.is_empty() { hears } else { hears | PollFlags::OUT };
            // With nothing wanted the end of one who has gone would be told again and again.
            if !wanted.is_empty() {
                fds.push(PollFd::new(&reader.socket, wanted));
            }
        }
        if !self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.input, PollFlags::OUT));
        }
    }

    /// Whether somebody has not taken yet what the container wrote: nothing more is to be read from it then.
    pub(super) fn is_behind(&self) -> bool {
        self.readers.iter().any(|reader| !reader.behind.is_empty())
    }

    /// Passes on what the container wrote.
    pub(super) fn tell(&mut self, stream: Stream, data: &[u8]) {
        let kind = if stream == Stream::Out { STDOUT } else { STDERR };
        self.keep(|reader| reader.tell(kind, data));
    }

    /// Says how the container ended.
    pub(super) fn dismiss(self, code: u8) {
        for mut reader in self.readers {
            if reader.tell(EXIT, &[code]) && !reader.behind.is_empty() {
                // Should that fail, the log has it all.
                let _ = sys::spawn(0, None, &mut || reader.finish());
            }
        }
    }

    /// Passes on what waits, takes what they have typed, and gives the container as much of it as it takes.
    pub(super) fn serve(&mut self) {
        self.keep(Reader::catch_up);
        let mut message = std::mem::take(&mut self.message);
        // Nobody is there most of the time: then it takes no memory.
        message.resize(if self.readers.is_empty() { 0 } else { MESSAGE_BYTES + 1 }, 0);
        message.shrink_to_fit();
        let mut at = 0;
        while at < self.readers.len() && self.typed.len() < TYPED_LIMIT_BYTES {
            match rustix::net::recv(&self.readers[at].socket, &mut message[..], RecvFlags::DONTWAIT) {
                Ok((_, length @ 1..)) => {
                    self.readers[at].types |= message[0] == INPUT_DATA;
                    self.take(message[0], &message[1..length.min(message.len())]);
                }
                Err(Errno::AGAIN) => at += 1,
                Err(Errno::INTR) => {}
                Ok((_, 0)) | Err(_) => {
                    let gone = self.readers.swap_remove(at);
                    self.ended |= self.once && gone.types;
                }
            }
        }
        self.message = message;
        self.write();
    }

    /// Lets go of those who have gone; what they type has then come to its end.
    fn keep(&mut self, mut is_there: impl FnMut(&mut Reader) -> bool) {
        let mut typed = false;
        self.readers.retain_mut(|reader| {
            let stays = is_there(reader);
            typed |= !stays && reader.types;
            stays
        });
        self.ended |= self.once && typed;
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
            if let Ok(null) = super::launching::null() {
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
