//! SCMP_ACT_NOTIFY: system calls that an agent outside decides about.
//!
//! The filter's listener is sent to the agent's socket with the state of the container (runtime-spec
//! config-linux.md, "The Container Process State"). The container's process cannot do that itself: it does
//! not know its process id outside.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::json;

use super::Filter;
use crate::error::{Attempt, Error, Result};

/// Where the agent listens and what it is told besides the state.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    metadata: Option<String>,
}

impl Listener {
    /// The agent of a profile, if its filter asks one.
    pub(crate) fn new(seccomp: &LinuxSeccomp, filter: &Filter) -> Result<Option<Self>> {
        let path = seccomp.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
        let metadata = seccomp.listener_metadata().clone().filter(|text| !text.is_empty());
        match (path, metadata, filter.notifies()) {
            (None, Some(_), _) => Err(super::invalid("listenerMetadata", "it needs listenerPath")),
            (None, None, true) => {
                Err(super::invalid("listenerPath", "SCMP_ACT_NOTIFY needs one: the socket of the agent that decides"))
            }
            (Some(path), _, true) if !path.is_absolute() => {
                Err(super::invalid("listenerPath", format!("{path:?} is not absolute")))
            }
            (Some(path), metadata, true) => Ok(Some(Self { path, metadata })),
            _ => Ok(None),
        }
    }

    /// Connects to the agent, before anything else is made.
    pub(crate) fn connect(&self) -> Result<Connection<'_>> {
        let attempt = || format!("connect to the seccomp agent at {:?} (linux.seccomp.listenerPath)", self.path);
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).attempt(attempt)?;
        let address = SocketAddrUnix::new(&self.path).attempt(attempt)?;
        rustix::net::connect(&socket, &address).attempt(attempt)?;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .attempt(|| "create the socket the seccomp listener comes by")?;
        Ok(Connection { listener: self, socket, ours, theirs: Some(theirs) })
    }
}

/// A connection to the agent, and one to the container's process that will send the listener.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    listener: &'a Listener,
    socket: OwnedFd,
    ours: OwnedFd,
    theirs: Option<OwnedFd>,
}

impl Connection<'_> {
    /// The end the container's process sends to, by [`send`].
    pub(crate) fn for_child(&self) -> Option<BorrowedFd<'_>> {
        self.theirs.as_ref().map(AsFd::as_fd)
    }

    /// Waits for the listener and passes it on. A container that failed before has none to send.
    pub(crate) fn pass_on(mut self, id: &str, pid: i32, bundle: &Path, spec: &oci_spec::runtime::Spec) -> Result<()> {
        self.theirs = None;
        let Some(listener) = receive(&self.ours)? else { return Ok(()) };
        let mut state = json!({ "ociVersion": spec.version(), "id": id, "status": "creating", "pid": pid, "bundle": bundle });
        if let Some(annotations) = spec.annotations().as_ref().filter(|map| !map.is_empty()) {
            state["annotations"] = json!(annotations);
        }
        let mut message = json!({ "ociVersion": spec.version(), "fds": ["seccompFd"], "pid": pid, "state": state });
        if let Some(metadata) = &self.listener.metadata {
            message["metadata"] = json!(metadata);
        }
        let text = message.to_string();
        let attempt = || format!("send the container's state to the seccomp agent at {:?}", self.listener.path);
        // The descriptor goes with the first byte; the rest may take several calls.
        let mut sent = send(self.socket.as_fd(), text.as_bytes(), listener.as_fd()).attempt(attempt)?;
        while sent < text.len() {
            sent += rustix::net::send(&self.socket, &text.as_bytes()[sent..], SendFlags::NOSIGNAL).attempt(attempt)?;
        }
        Ok(())
    }
}

/// Sends a descriptor with some bytes. Allocates nothing.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}

fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut slices = [std::io::IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::io("receive the seccomp listener", errno)),
            Ok(_) => break,
        }
    }
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(fds.flatten().next())
}
