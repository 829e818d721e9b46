//! A connection to systemd: to its own socket, or else by the message bus. For a few calls, one after the
//! other; a whole D-Bus library, asynchronous or linked with C, would be more than the launch path.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::message::{Call, Kind, Message, PREFIX_BYTES, Writer, length};
use crate::error::{Attempt, Error, Result};
use crate::userns;

/// How long systemd may take to answer, as its own tools have it.
const TIMEOUT: Duration = Duration::from_secs(25);

/// The longest line of the authentication.
const LINE_LIMIT_BYTES: usize = 512;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// What a call came to.
#[derive(Debug)]
pub(super) enum Answer {
    Return(Message),
    /// The error's name and text.
    Error(String, String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    serial: u32,
    /// Whose methods are called, on a bus.
    destination: Option<&'static str>,
    /// What came while something else was waited for.
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects to the systemd of the system, or to the one of the user who calls.
    pub(super) fn open(user: bool) -> Result<Self> {
        let (direct, bus) = sockets(user)?;
        let (socket, destination) = match UnixStream::connect(&direct) {
            Ok(socket) => (socket, None),
            Err(_) => {
                let advice = "is systemd running here? Otherwise leave out --systemd-cgroup";
                (
                    UnixStream::connect(&bus).attempt(|| format!("connect to systemd by {direct:?} or {bus:?} ({advice})"))?,
                    Some(SYSTEMD),
                )
            }
        };
        socket
            .set_read_timeout(Some(TIMEOUT))
            .and(socket.set_write_timeout(Some(TIMEOUT)))
            .attempt(|| "set up the connection to systemd")?;
        let mut connection = Self { socket, serial: 0, destination, signals: VecDeque::new() };
        connection.authenticate()?;
        if destination.is_some() {
            connection.bus_call("Hello", "", Writer::default())?;
            let mut rule = Writer::default();
            rule.text("type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
            connection.bus_call("AddMatch", "s", rule)?;
        }
        Ok(connection)
    }

    /// EXTERNAL: the socket says who this is. In a user namespace this process does not know its own number
    /// outside, so it claims none; systemd before version 246 wants one claimed.
    ///
    /// BEGIN goes along, as from systemd's own tools: a first call that systemd reads together with it would lie
    /// there until the next comes.
    fn authenticate(&mut self) -> Result<()> {
        let claim = if userns::in_first()? {
            let number = rustix::process::geteuid().as_raw().to_string();
            format!("AUTH EXTERNAL {}", number.bytes().map(|digit| format!("{digit:x}")).collect::<String>())
        } else {
            "AUTH EXTERNAL\r\nDATA".into()
        };
        self.socket.write_all(format!("\0{claim}\r\nBEGIN\r\n").as_bytes()).attempt(|| "log in to systemd")?;
        for expected in ["DATA", "OK"].iter().skip(usize::from(!claim.contains("DATA"))) {
            let line = self.line()?;
            if !line.starts_with(expected) {
                return Err(Error::io(format!("log in to systemd (it says {line:?})"), ErrorKind::PermissionDenied));
            }
        }
        Ok(())
    }

    /// A byte at a time: what follows is not text any more.
    fn line(&mut self) -> Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") && line.len() < LINE_LIMIT_BYTES {
            self.socket.read_exact(&mut byte).attempt(|| "log in to systemd")?;
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
    }

    /// Calls a method of systemd's manager.
    pub(super) fn call(&mut self, member: &str, signature: &str, body: Writer) -> Result<Answer> {
        let destination = self.destination;
        self.send(Call { destination, path: "/org/freedesktop/systemd1", interface: MANAGER, member, signature, body })
    }

    /// A property of systemd's manager that is text.
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        let mut body = Writer::default();
        body.text(MANAGER);
        body.text(name);
        let (destination, path) = (self.destination, "/org/freedesktop/systemd1");
        let interface = "org.freedesktop.DBus.Properties";
        let answer = self.send(Call { destination, path, interface, member: "Get", signature: "ss", body })?;
        let attempted = format!("ask systemd for {name}");
        let message = answer.or_error(&attempted)?;
        let mut arguments = message.arguments();
        let text = arguments.signature().filter(|signature| *signature == "s").and_then(|_| arguments.text());
        text.map(str::to_owned).ok_or_else(|| malformed(&attempted))
    }

    fn bus_call(&mut self, member: &str, signature: &str, body: Writer) -> Result<()> {
        let call = Call { destination: Some(BUS), path: "/org/freedesktop/DBus", interface: BUS, member, signature, body };
        self.send(call)?.or_error(&format!("call {member} of the message bus")).map(drop)
    }

    /// Waits for the end of a job; how it ended.
    pub(super) fn job(&mut self, answer: &Message, attempted: &str) -> Result<String> {
        let job = answer.arguments().text().ok_or_else(|| malformed(attempted))?.to_owned();
        loop {
            let signal = match self.signals.pop_front() {
                Some(signal) => signal,
                None => self.receive(attempted)?,
            };
            if signal.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            // Number, path, unit, result.
            let mut arguments = signal.arguments();
            let (_, path, _, result) = (arguments.u32(), arguments.text(), arguments.text(), arguments.text());
            if path == Some(job.as_str()) {
                return result.map(str::to_owned).ok_or_else(|| malformed(attempted));
            }
        }
    }

    fn send(&mut self, call: Call<'_>) -> Result<Answer> {
        self.serial += 1;
        let attempted = format!("call {} of systemd", call.member);
        let bytes = call.encode(self.serial);
        self.socket.write_all(&bytes).attempt(|| &attempted)?;
        loop {
            let message = self.receive(&attempted)?;
            match message.kind {
                Kind::Return if message.answers == Some(self.serial) => return Ok(Answer::Return(message)),
                Kind::Error if message.answers == Some(self.serial) => {
                    let text = message.arguments().text().unwrap_or("no reason given").to_owned();
                    return Ok(Answer::Error(message.error.unwrap_or_default(), text));
                }
                Kind::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    fn receive(&mut self, attempted: &str) -> Result<Message> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock => Error::io(format!("{attempted}: no answer in {} s", TIMEOUT.as_secs()), ErrorKind::TimedOut),
            _ => Error::io(attempted, error),
        };
        let mut prefix = [0; PREFIX_BYTES];
        self.socket.read_exact(&mut prefix).map_err(failed)?;
        let mut bytes = vec![0; length(&prefix).ok_or_else(|| malformed(attempted))?];
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix);
        self.socket.read_exact(&mut bytes[PREFIX_BYTES..]).map_err(failed)?;
        Message::decode(&bytes).ok_or_else(|| malformed(attempted))
    }
}

impl Answer {
    pub(super) fn or_error(self, attempted: &str) -> Result<Message> {
        match self {
            Self::Return(message) => Ok(message),
            Self::Error(name, text) => Err(Error::io(attempted, std::io::Error::other(format!("systemd says: {text} ({name})")))),
        }
    }
}

fn malformed(attempted: &str) -> Error {
    Error::io(attempted, std::io::Error::new(ErrorKind::InvalidData, "the answer is not what D-Bus says it should be"))
}

/// systemd's own socket, and that of the message bus.
fn sockets(user: bool) -> Result<(PathBuf, PathBuf)> {
    if !user {
        return Ok(("/run/systemd/private".into(), "/run/dbus/system_bus_socket".into()));
    }
    let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Err(Error::invalid("--systemd-cgroup", "XDG_RUNTIME_DIR is not set, so the user's systemd cannot be found"));
    };
    Ok((directory.join("systemd/private"), directory.join("bus")))
}
