//! Driving the `criu` program, which writes processes to disk and makes them anew from there.
//!
//! criu is spoken to by the protocol it has for runtimes (`criu swrk`, `images/rpc.proto` of its source): one
//! request over a socket, then notifications, each of which waits for an answer, and the result. Its command
//! line could do without terminals only: a restored terminal's master side comes over that socket.
//!
//! At a restore criu has a mount namespace of its own, in which the root filesystem is a mount point, as it
//! wants it: **nothing is mounted on the host**, and nothing is left of it however criu ends. criu looks for the
//! descriptors a request names in the process that made its socket, and mounts things in the directories
//! they are of: so it is criu's own process, before it is that, that makes the socket and opens the directories.

mod externals;
mod images;
mod message;
mod request;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType,
};

use crate::cgroup::Cgroup;
use crate::error::{Attempt, Error, Result};
use crate::{launch, sys};

pub(super) use externals::{Externals, Outside, check, make_targets, name_namespaces};
pub(super) use images::Images;
use message::{Message, Value, fields};
pub use request::{CriuOptions, ManageCgroups, Switch};
pub(super) use request::{Request, Task};

/// The longest message from criu.
const MESSAGE_LIMIT_BYTES: usize = 64 << 10;

/// How much of a log is looked through for errors, and how many are told.
const LOG_LIMIT_BYTES: u64 = 8 << 20;
const ERRORS_LIMIT: usize = 3;

/// What is told of a criu that told nothing.
const SILENCE: &str = "it ended without an answer";

/// The program, found.
#[derive(Debug)]
pub(super) struct Criu {
    program: PathBuf,
}

/// A notification from criu.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) what: String,
    /// The container's first process, where it is about that.
    pub(super) pid: Option<i32>,
    /// A terminal's master side.
    pub(super) descriptor: Option<OwnedFd>,
}

impl Criu {
    /// Looks for the program.
    pub(super) fn find(program: Option<&Path>) -> Result<Self> {
        let name = program.unwrap_or(Path::new("criu"));
        let executable = |path: &Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        let found = if name.components().count() > 1 {
            Some(name.to_owned()).filter(|path| executable(path))
        } else {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths).map(|directory| directory.join(name)).find(|path| executable(path))
        };
        found.map(|program| Self { program }).ok_or_else(|| Error::NotFound {
            what: format!("program {name:?}"),
            hint: "it is what checkpoints and restores containers; install it (Debian: apt install criu iptables), \
                   or say where it is with --criu"
                .into(),
        })
    }

    /// Has criu do what `request` says. `heard` is called for each notification; should it fail, so does criu.
    pub(super) fn call(&self, request: &Request<'_>, heard: &mut dyn FnMut(Notice) -> Result<()>) -> Result<()> {
        let (socket, pidfd) = self.start(request)?;
        let done = converse(request, &socket, heard);
        drop(socket);
        // What counts is what it has said.
        let _ = launch::reap(&pidfd);
        done.map_err(|failure| match failure {
            Failure::Own(error) => error,
            Failure::Criu(told) => {
                let words = errors(&request.log).or(told).unwrap_or_else(|| "it does not say why".into());
                let log = if request.log.exists() { format!("; its log is {:?}", request.log) } else { String::new() };
                let attempted = match request.task {
                    Task::Dump | Task::PreDump => "checkpoint the container",
                    Task::Restore => "restore the container",
                };
                Error::io(format!("{attempted} by {:?}", self.program), std::io::Error::other(format!("{words}{log}")))
            }
        })
    }

    /// Gives its socket and its process.
    fn start(&self, request: &Request<'_>) -> Result<(OwnedFd, OwnedFd)> {
        let attempted = || format!("start {:?}", self.program);
        let (out, input) = socketpair().attempt(attempted)?;
        let flags = if request.root.is_some() { libc::CLONE_NEWNS } else { 0 };
        let born_in = request.cgroup.and_then(Cgroup::born_in);
        let started = sys::spawn(flags, born_in, &mut || {
            let error = match prepare(request, &input) {
                Ok(socket) => {
                    let error = Command::new(&self.program).arg("swrk").arg(socket.as_raw_fd().to_string()).exec();
                    Error::io(format!("execute {:?}", self.program), error)
                }
                Err(error) => error,
            };
            // Should nobody hear it, criu's silence says that it failed.
            let _ = rustix::net::send(&input, error.to_string().as_bytes(), SendFlags::NOSIGNAL);
            127
        });
        let (_, pidfd) = started.attempt(attempted)?;
        drop(input);
        let mut socket = None;
        loop {
            match receive(&out).attempt(attempted)? {
                (bytes, _) if bytes.is_empty() => break,
                (_, Some(descriptor)) => socket = Some(descriptor),
                (error, None) => return Err(Error::Told(String::from_utf8_lossy(&error).into_owned())),
            }
        }
        // The other end was closed by the execution of criu, or by its death before.
        socket.map(|socket| (socket, pidfd)).ok_or(Errno::CHILD).attempt(attempted)
    }
}

fn socketpair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// In the process that becomes criu. Gives criu's socket, whose other end goes through `parent`.
fn prepare(request: &Request<'_>, parent: &OwnedFd) -> Result<OwnedFd> {
    // Nobody else would end it should it wait for something.
    sys::die_with_parent().attempt(|| "tie criu to this process")?;
    for tasks in request.cgroup.into_iter().flat_map(Cgroup::tasks) {
        rustix::io::write(tasks, b"0").attempt(|| "put criu in the container's cgroup")?;
    }
    if let Some((rootfs, point)) = request.root {
        let private = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).attempt(|| "give criu mounts of its own")?;
        rustix::mount::mount(rootfs, point, "", MountFlags::BIND | MountFlags::REC, None)
            .attempt(|| format!("mount {rootfs:?} on {point:?} for criu"))?;
    }
    let (socket, theirs) = socketpair().attempt(|| "create criu's socket")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [theirs.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(parent, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::NOSIGNAL).attempt(|| "send criu's socket")?;
    // Nothing else of the caller's is to be found in a container.
    sys::close_on_exec_from(3).attempt(|| "close descriptors for criu")?;
    for directory in [Some(request.images), request.work.as_ref()].into_iter().flatten() {
        let own = File::open(&directory.path).attempt(|| format!("open directory {:?}", directory.path))?;
        sys::place_fd(own.as_fd(), directory.directory.as_raw_fd(), false).attempt(|| "pass a directory to criu")?;
    }
    for fd in request.inherited.iter().map(AsFd::as_fd).chain([socket.as_fd()]) {
        rustix::io::fcntl_setfd(fd, FdFlags::empty()).attempt(|| "pass a descriptor to criu")?;
    }
    Ok(socket)
}

/// Why a request was not done.
enum Failure {
    /// Not by criu's fault.
    Own(Error),
    /// What criu says of it, if it does.
    Criu(Option<String>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// An answer of criu's.
#[derive(Debug, Default)]
struct Answer {
    success: bool,
    error: Option<String>,
    notice: Option<(String, Option<i32>)>,
}

/// The number of notifications among criu's messages.
const NOTIFY: u64 = 6;

fn converse(
    request: &Request<'_>,
    socket: &OwnedFd,
    heard: &mut dyn FnMut(Notice) -> Result<()>,
) -> std::result::Result<(), Failure> {
    let mut message = Message::default();
    message.number(1, request.task as u64).message(2, &request.options);
    send(socket, &message)?;
    let mut own = None;
    loop {
        let (bytes, descriptor) = receive(socket).attempt(|| "hear from criu")?;
        if bytes.is_empty() {
            return Err(own.map_or_else(|| Failure::Criu(Some(SILENCE.into())), Failure::Own));
        }
        let answer = answer(&bytes).ok_or_else(|| Error::invalid("criu's answer", "it is malformed"))?;
        let Some((what, pid)) = answer.notice else {
            return match (answer.success, own) {
                (true, _) => Ok(()),
                (false, Some(error)) => Err(Failure::Own(error)),
                (false, None) => Err(Failure::Criu(answer.error)),
            };
        };
        let done = heard(Notice { what, pid, descriptor });
        let mut reply = Message::default();
        reply.number(1, NOTIFY).number(3, u64::from(done.is_ok()));
        if let Err(error) = done {
            own.get_or_insert(error);
        }
        // If it is gone, that is heard next.
        let _ = send(socket, &reply);
    }
}

fn send(socket: &OwnedFd, message: &Message) -> std::result::Result<(), Failure> {
    match rustix::net::send(socket, message.as_bytes(), SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE) => Err(Failure::Criu(Some(SILENCE.into()))),
        Err(errno) => Err(Error::io("talk to criu", errno).into()),
    }
}

/// A message and what came with it; an empty one if there is nobody to send any more.
fn receive(socket: &OwnedFd) -> rustix::io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_LIMIT_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // It ended with a message of ours unread.
            Err(Errno::CONNRESET) => return Ok((Vec::new(), None)),
            other => break other?,
        }
    };
    bytes.truncate(received.bytes);
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((bytes, descriptors.flatten().next()))
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut answer = Answer::default();
    for field in fields(bytes)? {
        match (field.number, field.value) {
            (1, Value::Number(NOTIFY)) => drop(answer.notice.get_or_insert_default()),
            (2, Value::Number(success)) => answer.success = success != 0,
            (5, Value::Bytes(notice)) => {
                let (what, pid) = answer.notice.get_or_insert_default();
                for field in fields(notice)? {
                    match (field.number, field.value) {
                        (1, Value::Bytes(script)) => *what = text(script),
                        (2, Value::Number(number)) => *pid = number.try_into().ok(),
                        _ => {}
                    }
                }
            }
            (9, Value::Bytes(error)) => answer.error = Some(text(error)).filter(|error| !error.trim().is_empty()),
            _ => {}
        }
    }
    Some(answer)
}

/// The errors in a log.
fn errors(log: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(log).ok()?.take(LOG_LIMIT_BYTES).read_to_end(&mut text).ok()?;
    errors_in(&String::from_utf8_lossy(&text))
}

/// The first is what was wrong, as a rule, and the last where that led to; not that it was `FAILED.`, which is
/// always the last of all.
fn errors_in(text: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.find("Error (").map(|start| line[start..].trim_end()));
    let (mut told, failed): (Vec<_>, Vec<_>) = lines.partition(|line| !line.ends_with("FAILED."));
    told.dedup();
    if told.len() > ERRORS_LIMIT {
        told.drain(ERRORS_LIMIT - 1..told.len() - 1);
    }
    if told.is_empty() {
        told.extend(failed.last());
    }
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_errors_are_told_that_say_something() {
        let log = "(00.001) Dumping\n(00.002) Error (criu/a.c:1): first\n(00.003)     7: Error (criu/b.c:2): second \n\
                   (00.004) Unlock\n(00.005) Error (criu/cr-dump.c:3): Dumping FAILED.\n";
        assert_eq!(errors_in(log).as_deref(), Some("Error (criu/a.c:1): first; Error (criu/b.c:2): second"));
        let many: String = (1..=9).map(|number| format!("Error (x.c:{number}): no\n")).collect();
        assert_eq!(errors_in(&many).as_deref(), Some("Error (x.c:1): no; Error (x.c:2): no; Error (x.c:9): no"));
        assert_eq!(errors_in("Error (x.c:1): Dumping FAILED.").as_deref(), Some("Error (x.c:1): Dumping FAILED."));
        assert_eq!(errors_in("Warn  (x.c:1): odd\n"), None);
    }

    #[test]
    fn a_notification_and_an_error_are_told_apart() {
        let mut notice = Message::default();
        notice.bytes(1, b"post-restore").number(2, 77);
        let mut message = Message::default();
        message.number(1, NOTIFY).number(2, 1).message(5, &notice);
        let heard = answer(message.as_bytes()).unwrap();
        assert_eq!(heard.notice, Some(("post-restore".into(), Some(77))));
        let mut message = Message::default();
        message.number(1, 2).number(2, 0).bytes(9, b"no such file");
        let heard = answer(message.as_bytes()).unwrap();
        assert!(heard.notice.is_none() && !heard.success && heard.error.as_deref() == Some("no such file"));
    }
}
