//! A container's output sent to systemd's journal, in its native protocol, with docker's fields.
//!
//! One datagram is one entry (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). **Invariant: the journal neither stops the
//! container nor holds it up** for longer than [`PATIENCE`], once: until it takes entries again they are left out, and
//! their numbers (`CONTAINER_LOG_ORDINAL`) say how many.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::log_attributes::{attributes, short, tag};
use super::log_file::{ENTRY_LIMIT_BYTES, Stream};
use super::monitor::wait_for;
use super::record::Config;
use crate::error::{Attempt, Result};
use crate::files;
use crate::lifecycle::rfc3339;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// How long a journal whose queue is full is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest name of a field.
const NAME_LIMIT_BYTES: usize = 64;

/// Syslog's numbers for what is said to standard output and to standard error.
pub(super) const PRIORITY_OUT: &str = "6";
pub(super) const PRIORITY_ERR: &str = "3";

/// The fields an entry has of its own, beside those of the journal itself, which begin with `_`. No label can be one.
pub(super) const OWN_FIELDS: [&str; 15] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_TIMESTAMP",
    "CONTAINER_ID",
    "CONTAINER_ID_FULL",
    "CONTAINER_NAME",
    "CONTAINER_TAG",
    "IMAGE_NAME",
    "CONTAINER_LOG_EPOCH",
    "CONTAINER_LOG_ORDINAL",
    "CONTAINER_PARTIAL_MESSAGE",
    "CONTAINER_PARTIAL_ID",
    "CONTAINER_PARTIAL_ORDINAL",
    "CONTAINER_PARTIAL_LAST",
];

/// Whether there is a journal, for who is about to need it.
pub(super) fn check() -> Result<()> {
    connect(Path::new(SOCKET)).map(drop).attempt(|| {
        format!("connect to the journal at {SOCKET}, which the log driver journald needs: start systemd-journald, or choose another driver")
    })
}

fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A line that is longer than an entry, so far.
#[derive(Debug)]
struct Long {
    id: String,
    parts: u64,
}

/// The journal, as it takes a container's output.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: Option<OwnedFd>,
    /// It has not taken an entry in time.
    stuck: bool,
    /// The fields all entries have.
    fields: Vec<u8>,
    ordinal: u64,
    /// The long lines of standard output and error.
    long: [Option<Long>; 2],
}

impl Journal {
    /// Begins, or continues, a container's entries.
    pub(super) fn open(config: &Config) -> Self {
        let tag = tag(config).unwrap_or_else(|| short(&config.id).to_owned());
        let mut fields = Vec::new();
        // Says which numbers are of one count: a new one begins with each start.
        let epoch = files::random_hex(16).unwrap_or_default();
        let own = [
            ("CONTAINER_ID", short(&config.id)),
            ("CONTAINER_ID_FULL", &config.id),
            ("CONTAINER_NAME", &config.name),
            ("CONTAINER_TAG", &tag),
            ("IMAGE_NAME", &config.image),
            ("SYSLOG_IDENTIFIER", &tag),
            ("CONTAINER_LOG_EPOCH", &epoch),
        ];
        own.iter().for_each(|(name, value)| field(&mut fields, name, value.as_bytes()));
        for (name, value) in attributes(config) {
            if let Some(name) = field_name(&name) {
                field(&mut fields, &name, value.as_bytes());
            }
        }
        Self { path: SOCKET.into(), socket: None, stuck: false, fields, ordinal: 0, long: [None, None] }
    }

    /// Sends an entry: a line with its line feed, a part of a longer one without, or the last, which has none.
    pub(super) fn add(&mut self, stream: Stream, text: &[u8]) {
        let entry = self.entry(stream, text);
        self.send(&entry);
    }

    fn entry(&mut self, stream: Stream, text: &[u8]) -> Vec<u8> {
        let (message, ends) = text.strip_suffix(b"\n").map_or((text, text.len() < ENTRY_LIMIT_BYTES), |line| (line, true));
        let (priority, long) = match stream {
            Stream::Out => (PRIORITY_OUT, &mut self.long[0]),
            Stream::Err => (PRIORITY_ERR, &mut self.long[1]),
        };
        self.ordinal += 1;
        let mut entry = self.fields.clone();
        let mut say = |name, value: &str| field(&mut entry, name, value.as_bytes());
        say("PRIORITY", priority);
        say("SYSLOG_TIMESTAMP", &rfc3339(SystemTime::now()));
        say("CONTAINER_LOG_ORDINAL", &self.ordinal.to_string());
        if !ends || long.is_some() {
            let part = long.get_or_insert_with(|| Long { id: files::random_hex(32).unwrap_or_default(), parts: 0 });
            part.parts += 1;
            say("CONTAINER_PARTIAL_ID", &part.id);
            say("CONTAINER_PARTIAL_ORDINAL", &part.parts.to_string());
            say("CONTAINER_PARTIAL_LAST", if ends { "true" } else { "false" });
            if ends {
                *long = None;
            } else {
                say("CONTAINER_PARTIAL_MESSAGE", "true");
            }
        }
        field(&mut entry, "MESSAGE", message);
        entry
    }

    fn send(&mut self, entry: &[u8]) {
        // Once more where the journal was started anew since.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = connect(&self.path).ok();
            }
            let Some(socket) = &self.socket else { return };
            match send(socket, entry, if self.stuck { Duration::ZERO } else { PATIENCE }) {
                Ok(taken) => {
                    self.stuck = !taken;
                    return;
                }
                Err(_) => self.socket = None,
            }
        }
    }
}

/// Sends one entry; false if there is no room for it in time.
fn send(socket: &OwnedFd, entry: &[u8], patience: Duration) -> io::Result<bool> {
    let mut sent = send_datagram(socket, entry, None);
    if sent == Err(Errno::AGAIN) && !patience.is_zero() {
        let _ = wait_for(&mut [PollFd::new(socket, PollFlags::OUT)], Some(patience));
        sent = send_datagram(socket, entry, None);
    }
    match sent {
        Err(Errno::AGAIN) => Ok(false),
        // Too long for a datagram: the protocol's other way.
        Err(Errno::MSGSIZE | Errno::NOBUFS) => match send_datagram(socket, &[], Some(&sealed(entry)?)) {
            Err(Errno::AGAIN) => Ok(false),
            other => other.map(|()| true).map_err(io::Error::from),
        },
        other => other.map(|()| true).map_err(io::Error::from),
    }
}

fn send_datagram(socket: &OwnedFd, data: &[u8], file: Option<&File>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = file.map(|file| [file.as_fd()]);
    if let Some(fds) = &fds {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let parts = [IoSlice::new(data)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, if data.is_empty() { &[] } else { &parts[..] }, &mut ancillary, flags).map(drop)
}

/// A file in memory that nobody can change any more.
fn sealed(entry: &[u8]) -> io::Result<File> {
    let mut file: File = rustix::fs::memfd_create(c"journal-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into();
    file.write_all(entry)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

/// Adds a field: `NAME=VALUE` in a line of its own, or with its length where the value has line feeds.
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value);
    entry.push(b'\n');
}

/// The field for a label or variable, as docker names it; `None` where that would be one of [`OWN_FIELDS`].
fn field_name(text: &str) -> Option<String> {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = letters.skip_while(|c| !c.is_ascii_uppercase()).take(NAME_LIMIT_BYTES).collect();
    (!name.is_empty() && !OWN_FIELDS.contains(&name.as_str())).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    use super::*;

    fn journal(path: &Path) -> Journal {
        let (path, long) = (path.to_owned(), [None, None]);
        Journal { path, socket: None, stuck: false, fields: b"CONTAINER_NAME=web\n".to_vec(), ordinal: 0, long }
    }

    /// An entry taken apart as the journal does it.
    fn parse(mut entry: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
            let (line, rest) = (&entry[..end], &entry[end + 1..]);
            let (name, value) = match line.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    entry = rest;
                    (&line[..at], &line[at + 1..])
                }
                None => {
                    let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                    assert_eq!(rest[8 + length], b'\n');
                    entry = &rest[8 + length + 1..];
                    (line, &rest[8..8 + length])
                }
            };
            let before = fields.insert(String::from_utf8(name.to_vec()).unwrap(), value.to_vec());
            assert!(before.is_none(), "{name:?} is there twice");
        }
        fields
    }

    fn received(socket: &UnixDatagram) -> BTreeMap<String, Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer).unwrap();
        parse(&buffer[..length])
    }

    #[test]
    fn a_line_is_an_entry_and_a_long_one_several_that_say_so() {
        let mut journal = journal(Path::new("/nonexistent"));
        let line = parse(&journal.entry(Stream::Err, b"a=b\xff\n"));
        assert_eq!((&line["MESSAGE"][..], &line["PRIORITY"][..]), (&b"a=b\xff"[..], &b"3"[..]));
        assert_eq!((&line["CONTAINER_NAME"][..], &line["CONTAINER_LOG_ORDINAL"][..]), (&b"web"[..], &b"1"[..]));
        assert!(!line.contains_key("CONTAINER_PARTIAL_ID"));
        let part = vec![b'x'; ENTRY_LIMIT_BYTES];
        let parts = [&part[..], &part, b"end\n"].map(|text| parse(&journal.entry(Stream::Out, text)));
        let of = |at: usize, name: &str| parts[at].get(name).map(|value| String::from_utf8(value.clone()).unwrap());
        assert_eq!(of(0, "CONTAINER_PARTIAL_MESSAGE").as_deref(), Some("true"));
        assert_eq!((of(2, "CONTAINER_PARTIAL_MESSAGE"), of(2, "CONTAINER_PARTIAL_LAST").as_deref()), (None, Some("true")));
        assert_eq!(of(1, "CONTAINER_PARTIAL_ORDINAL").as_deref(), Some("2"));
        assert_eq!(of(0, "CONTAINER_PARTIAL_ID"), of(2, "CONTAINER_PARTIAL_ID"));
        assert!(!parse(&journal.entry(Stream::Out, b"no end")).contains_key("CONTAINER_PARTIAL_ID"));
    }

    #[test]
    fn no_label_can_stand_for_another_container_s_entry() {
        for forged in ["CONTAINER_ID_FULL", "container.id.full", "_message", "9priority", "__", ""] {
            assert_eq!(field_name(forged), None, "{forged:?}");
        }
        assert_eq!(field_name("_com.example/Tier").as_deref(), Some("COM_EXAMPLE_TIER"));
        assert_eq!(field_name(&"a".repeat(100)).unwrap().len(), NAME_LIMIT_BYTES);
    }

    #[test]
    fn what_is_too_long_for_a_datagram_goes_in_a_sealed_file() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let ours = OwnedFd::from(ours);
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let entry = vec![b'x'; 1 << 20];
        assert!(send(&ours, &entry, PATIENCE).unwrap());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = rustix::net::recvmsg(&theirs, &mut [], &mut ancillary, RecvFlags::empty()).unwrap();
        assert_eq!(message.bytes, 0);
        let Some(RecvAncillaryMessage::ScmRights(mut fds)) = ancillary.drain().next() else { panic!("no file") };
        let file = File::from(fds.next().unwrap());
        let mut read = vec![0; entry.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == entry && file.metadata().unwrap().len() == entry.len() as u64);
        assert!(file.set_len(0).is_err() && (&file).write_all(b"x").is_err());
    }

    #[test]
    fn a_journal_that_takes_nothing_costs_one_wait_and_one_that_comes_back_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let mut journal = journal(&path);
        journal.add(Stream::Out, b"nobody is there\n");
        let listener = UnixDatagram::bind(&path).unwrap();
        journal.add(Stream::Out, b"first\n");
        assert_eq!(received(&listener)["MESSAGE"], b"first");
        // Waiting each time would take hours.
        for _ in 0..5000 {
            journal.add(Stream::Out, b"unread\n");
        }
        assert!(journal.stuck);
        listener.set_nonblocking(true).unwrap();
        while listener.recv(&mut [0; 1024]).is_ok() {}
        listener.set_nonblocking(false).unwrap();
        journal.add(Stream::Out, b"again\n");
        assert!(!journal.stuck);
        assert_eq!((&received(&listener)["MESSAGE"][..], journal.ordinal), (&b"again"[..], 5003));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        journal.add(Stream::Out, b"lost\n");
        let listener = UnixDatagram::bind(&path).unwrap();
        journal.add(Stream::Out, b"back\n");
        assert_eq!(received(&listener)["MESSAGE"], b"back");
    }

    proptest! {
        #[test]
        fn any_value_comes_back_from_an_entry(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let mut entry = Vec::new();
            values.iter().enumerate().for_each(|(at, value)| field(&mut entry, &format!("F{at}"), value));
            let parsed = parse(&entry);
            prop_assert_eq!(parsed.len(), values.len());
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(&parsed[&format!("F{at}")], value);
            }
        }

        #[test]
        fn any_label_is_a_field_the_journal_takes_or_none(name in ".{0,80}") {
            if let Some(name) = field_name(&name) {
                prop_assert!(name.len() <= NAME_LIMIT_BYTES && name.starts_with(|c: char| c.is_ascii_uppercase()));
                prop_assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'));
            }
        }
    }
}
