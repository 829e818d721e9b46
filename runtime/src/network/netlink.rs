//! Requests to the kernel by netlink: a handful of message kinds, many in one system call.
//!
//! rtnetlink(7); the numbers are the kernel's (`linux/rtnetlink.h`, `linux/if_link.h`, `linux/netlink.h`).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Attempt, Error, Result};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// Only make it anew.
pub(super) const CREATE: u16 = 0x400 | 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;

/// The largest answer the kernel gives in one piece (`NLMSG_GOODSIZE` and to spare).
const ANSWER_BYTES: usize = 32 * 1024;

/// A socket; it belongs to the network namespace it was opened in, whoever uses it.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// A message of an answer: its kind, and what is behind its header.
pub(super) type Answer = (u16, Vec<u8>);

impl Socket {
    /// For links, addresses and routes.
    pub(super) fn route() -> Result<Self> {
        Self::open(None)
    }

    /// For nftables.
    pub(super) fn netfilter() -> Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self> {
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .attempt(|| "open a netlink socket")
            .map(Self)
    }

    /// Has all `messages` carried out, in order and in one call; `Err` is the first that was refused.
    pub(super) fn request(&self, messages: Vec<Message>) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        let count = messages.len();
        for (index, message) in messages.into_iter().enumerate() {
            bytes.extend(message.finish(ACK, index as u32));
        }
        rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        let (mut answered, mut refused) = (0, None);
        while answered < count {
            for (kind, body) in self.receive()? {
                if kind == ERROR {
                    answered += 1;
                    let errno = i32::from_ne_bytes(body.first_chunk().copied().unwrap_or_default());
                    if errno != 0 && refused.is_none() {
                        refused = Some(Errno::from_raw_os_error(-errno));
                    }
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// All that a request for a list gives.
    pub(super) fn dump(&self, message: Message) -> Result<Vec<Answer>> {
        let attempted = || "ask the kernel about its network";
        rustix::net::send(&self.0, &message.finish(DUMP, 0), SendFlags::empty()).attempt(attempted)?;
        let mut answers = Vec::new();
        loop {
            for (kind, body) in self.receive().attempt(attempted)? {
                match kind {
                    DONE => return Ok(answers),
                    ERROR => {
                        let errno = i32::from_ne_bytes(body.first_chunk().copied().unwrap_or_default());
                        return Err(Error::io(attempted(), Errno::from_raw_os_error(-errno)));
                    }
                    _ => answers.push((kind, body)),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<Answer>, Errno> {
        let mut buffer = vec![MaybeUninit::uninit(); ANSWER_BYTES];
        let received = loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(((bytes, _), _)) => break bytes,
            }
        };
        Ok(split(received))
    }

    /// The index of an interface of this socket's namespace; `None` if it has none of that name.
    pub(super) fn index(&self, name: &str) -> Option<u32> {
        rustix::net::netdevice::name_to_index(&self.0, name).ok()
    }
}

/// Kind and body of each message; what is cut off is left out.
fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut messages = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = bytes.get(HEADER_BYTES..length) else { break };
        messages.push((kind, body.to_vec()));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    messages
}

/// Kind and value of each attribute; what is cut off is left out.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut list = Vec::new();
    while let Some(header) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(value) = bytes.get(4..length) else { break };
        list.push((u16::from_ne_bytes([header[2], header[3]]) & !NESTED, value));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    list
}

fn aligned(length: usize) -> usize {
    length.div_ceil(4) * 4
}

/// A message on its way to the kernel.
#[derive(Debug)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `header` is the structure that the kind of message begins with.
    pub(super) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        Self { kind, flags, body: header.to_vec() }
    }

    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.body.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(aligned(self.body.len()), 0);
        self
    }

    pub(super) fn with_name(self, kind: u16, name: &str) -> Self {
        self.with(kind, &[name.as_bytes(), b"\0"].concat())
    }

    pub(super) fn with_text(self, kind: u16, text: &CStr) -> Self {
        self.with(kind, text.to_bytes_with_nul())
    }

    pub(super) fn with_number(self, kind: u16, number: u32) -> Self {
        self.with(kind, &number.to_ne_bytes())
    }

    /// An attribute that holds attributes, behind `header`.
    pub(super) fn with_nested(self, kind: u16, header: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let inner = fill(Self::new(0, 0, header));
        self.with(kind | NESTED, &inner.body)
    }

    fn finish(self, flags: u16, sequence: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend(((HEADER_BYTES + self.body.len()) as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((self.flags | flags | REQUEST).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = Message::new(16, CREATE, &[7; 4])
            .with_name(3, "eth0")
            .with_nested(18, &[], |inner| inner.with_text(1, c"veth").with_number(2, 5));
        let bytes = [message.finish(ACK, 9), Message::new(20, 0, &[]).finish(ACK, 10)].concat();
        let messages = split(&bytes);
        assert_eq!(messages.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [16, 20]);
        let list = attributes(&messages[0].1[4..]);
        assert_eq!(list[0], (3, &b"eth0\0"[..]));
        assert_eq!(attributes(list[1].1), [(1, &b"veth\0"[..]), (2, &5_u32.to_ne_bytes()[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, body) in split(&bytes) {
                attributes(&body);
            }
            attributes(&bytes);
        }
    }
}
