//! What a command gives to, and takes from, its caller beside standard input and output: pid files,
//! terminals and pidfds over sockets, inherited descriptors.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Attempt, Error, Result};
use crate::sys;

/// The most descriptors that are passed on.
const PRESERVED_LIMIT: u32 = 512;

/// Writes a process's number to `path`: complete or not at all.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("pid file {path:?}"), "it has no name"))?;
    let mut scratch = std::ffi::OsString::from(".");
    scratch.push(name);
    scratch.push(format!(".{}", std::process::id()));
    let scratch = path.with_file_name(scratch);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&scratch)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&scratch, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&scratch);
    }
    written.attempt(|| format!("write pid file {path:?}"))
}

/// What this process has as standard input, output and error, as links of `/proc/PID/fd` name it.
pub(super) fn standard_descriptors() -> Vec<String> {
    let link = |number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
    (0..3).map(|number| link(number).to_string_lossy().into_owned()).collect()
}

/// A connection to somebody who waits for a descriptor.
#[derive(Debug)]
pub(super) struct Receiver(OwnedFd);

impl Receiver {
    /// Connects to the socket at `path`, however long that is.
    pub(super) fn connect(path: &Path) -> Result<Self> {
        let attempted = || format!("connect to socket {path:?}");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().ok_or_else(|| Error::invalid(format!("socket {path:?}"), "it has no name"))?;
        let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.attempt(attempted)?;
        // An address holds 108 bytes.
        let short = Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .attempt(|| "create a socket")?;
        let address = SocketAddrUnix::new(short).attempt(attempted)?;
        rustix::net::connect(&socket, &address).attempt(attempted)?;
        Ok(Self(socket))
    }

    /// Sends one descriptor, and a word for what it is.
    pub(super) fn send(&self, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&self.0, &[IoSlice::new(name.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
            .attempt(|| format!("send {name}"))
            .map(drop)
    }
}

/// The sockets a caller names for a new process.
#[derive(Debug)]
pub(super) struct Receivers {
    console: Option<Receiver>,
    pidfd: Option<Receiver>,
}

impl Receivers {
    pub(super) fn connect(console: Option<&Path>, pidfd: Option<&Path>) -> Result<Self> {
        let connect = |path: Option<&Path>| path.map(Receiver::connect).transpose();
        Ok(Self { console: connect(console)?, pidfd: connect(pidfd)? })
    }

    /// Gives the terminal to who asked for it.
    pub(super) fn send_master(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.console.as_ref().map_or(Ok(()), |receiver| receiver.send(master, "/dev/pts/0"))
    }

    /// Gives the terminal and the process to who asked for them.
    pub(super) fn send(&self, master: Option<BorrowedFd<'_>>, pidfd: BorrowedFd<'_>) -> Result<()> {
        master.map_or(Ok(()), |master| self.send_master(master))?;
        self.pidfd.as_ref().map_or(Ok(()), |receiver| receiver.send(pidfd, "pidfd"))
    }
}

/// Whether a terminal is asked for, and somebody is there to take it, or neither.
pub(super) fn check_terminal(terminal: bool, detached: bool, console: Option<&Path>) -> Result<()> {
    match (terminal, detached, console) {
        (true, true, None) => Err(Error::invalid(
            "process.terminal",
            "nobody would have the terminal's other side: give --console-socket, or stay in the foreground",
        )),
        (false, _, Some(path)) => {
            Err(Error::invalid(format!("--console-socket {path:?}"), "the process has no terminal: process.terminal is false"))
        }
        (true, false, Some(path)) => Err(Error::invalid(
            format!("--console-socket {path:?}"),
            "in the foreground the terminal is relayed here; add --detach to hand it over",
        )),
        _ => Ok(()),
    }
}

/// Descriptors the caller passes on: from 3 up, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inherited {
    pub(super) count: u32,
    /// How many of them are sockets a service manager has opened (`LISTEN_FDS`).
    pub(super) listening: u32,
}

impl Inherited {
    /// `preserved` descriptors behind those of `LISTEN_FDS`. They must be open: a number that is not
    /// would become that of a file of this program's own. So call it before any is opened.
    pub(super) fn take(preserved: u32) -> Result<Self> {
        let listening = listening(std::env::var("LISTEN_PID").ok().as_deref(), std::env::var("LISTEN_FDS").ok().as_deref());
        let count = preserved.saturating_add(listening);
        if count > PRESERVED_LIMIT {
            return Err(Error::invalid(
                "--preserve-fds",
                format!("{count} descriptors; at most {PRESERVED_LIMIT} are passed on"),
            ));
        }
        for number in 3..3 + count as i32 {
            rustix::io::fcntl_getfd(sys::borrow_fd(number))
                .attempt(|| format!("pass on descriptor {number} (--preserve-fds)"))?;
        }
        Ok(Self { count, listening })
    }

    /// The variables that tell a service of its sockets.
    pub(super) fn variables(self) -> Vec<String> {
        if self.listening == 0 {
            return Vec::new();
        }
        vec![format!("LISTEN_FDS={}", self.listening), "LISTEN_PID=1".into()]
    }
}

/// How many sockets were passed to this very process.
fn listening(pid: Option<&str>, fds: Option<&str>) -> u32 {
    let ours = pid.and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    fds.filter(|_| ours).and_then(|fds| fds.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_passed_to_this_process_are_passed_on() {
        let own = std::process::id().to_string();
        assert_eq!(listening(Some(&own), Some("2")), 2);
        assert_eq!(listening(Some("1"), Some("2")), 0);
        assert_eq!(listening(None, Some("2")), 0);
        assert_eq!(listening(Some(&own), Some("-1")), 0);
    }
}
