//! A console socket: where a runtime sends the terminal of a container.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::finding::{Finding, Outcome, here, require};
use crate::limits::{CONTAINER_TIMEOUT, OUTPUT_LIMIT_BYTES};

/// A socket that waits for a terminal.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl Console {
    /// Listens at `path`.
    pub(super) fn listen(path: &Path) -> Outcome<Self> {
        let listener = here(UnixListener::bind(path), "make a console socket")?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The terminal's own side, as the runtime sent it.
    pub(super) fn receive(&self) -> Outcome<File> {
        let ready = here(wait_readable(&self.listener, Instant::now() + CONTAINER_TIMEOUT), "wait for a connection")?;
        require(ready, "a connection to the console socket")?;
        let (stream, _) = here(self.listener.accept(), "accept a connection")?;
        let ready = here(wait_readable(&stream, Instant::now() + CONTAINER_TIMEOUT), "wait for a message")?;
        require(ready, "a message with a terminal on the console socket")?;
        let received = here(receive_file(&stream), "receive a message")?;
        received.ok_or_else(|| Finding::Fail("a file descriptor on the console socket".into()))
    }
}

fn wait_readable(file: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<bool> {
    let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left))? > 0)
}

fn receive_file(stream: &UnixStream) -> io::Result<Option<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.next().and_then(|mut files| files.next()).map(File::from))
}

/// What is written to a terminal until nobody has it open any more.
pub(super) fn read_terminal(mut terminal: File) -> Outcome<String> {
    let deadline = Instant::now() + CONTAINER_TIMEOUT;
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    while (text.len() as u64) < OUTPUT_LIMIT_BYTES && here(wait_readable(&terminal, deadline), "wait for a terminal")? {
        match terminal.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&piece[..count]),
            // Nobody has the other side open any more.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => break,
            Err(error) => return here(Err(error), "read a terminal"),
        }
    }
    Ok(String::from_utf8_lossy(&text).replace('\r', ""))
}
