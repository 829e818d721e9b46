//! The monitor of a detached container: the one process that stays beside it.
//!
//! It [starts](super::start) the container as a copy of the command, with all that takes, and then executes
//! this program anew as this: with a heap of its own, which stays small, and few descriptors, which is all it
//! has of its caller. Executing a program keeps a process's number, its children and their tie to it.
//!
//! It reads the container's output and waits for the container's end, both at once, and sleeps while neither
//! comes; then it says how the container ended, removes the cgroup, and ends. Its lock tells the others.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::log_file::{self, ENTRY_LIMIT_BYTES, LogFile, Stream};
use super::record::{Config, End, Phase};
use super::store::Containers;
use crate::cgroup::{Cgroup, processes};
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::launch::reap;
use crate::network::attach::Attached;
use crate::network::dns::{Server, Sockets};
use crate::store::Store;
use crate::sys::{self, CStringArray};

/// How long nothing has happened when nothing more is expected soon: the monitor lets go of memory once then,
/// and waits without a limit.
const QUIET: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What the program calls itself as a monitor; its argument is the container's ID.
const NAME: &str = "longshore-monitor";

/// Where the store is; others find the process by it.
const ROOT_VARIABLE: &str = "LONGSHORE_ROOT";

/// The descriptors it is executed with.
const PIDFD: i32 = 3;
const LOCK: i32 = 4;
/// The read ends of the container's output, or the terminal's two sides.
const OUT: i32 = 5;
const ERR: i32 = 6;
/// Nobody writes on it; while it is open the container's input has no end.
const INPUT: i32 = 7;
/// Where the container asks for names, if it is in a network that has some.
const NAMES_UDP: i32 = 8;
const NAMES_TCP: i32 = 9;
/// This program; closed when it is executed. Far above it the layers, for others to take, and what holds the
/// container's network.
const PROGRAM: i32 = 10;

/// Above all of them, and what else a monitor has open while it starts its container.
pub(super) const HIGH_FD: i32 = 32;

/// The program and its container's descriptors, to become a monitor.
pub(super) struct Becoming<'a> {
    pub(super) store: &'a Store,
    pub(super) id: &'a str,
    pub(super) pidfd: BorrowedFd<'a>,
    pub(super) lock: BorrowedFd<'a>,
    pub(super) out: BorrowedFd<'a>,
    pub(super) err: BorrowedFd<'a>,
    pub(super) input: BorrowedFd<'a>,
    pub(super) layers: Shared,
    pub(super) attached: Attached,
}

impl Becoming<'_> {
    /// Executes this program as a monitor. Every descriptor but those it needs is closed then; returns only on
    /// failure.
    pub(super) fn execute(self) -> Result<std::convert::Infallible> {
        let attempted = || "execute this program (/proc/self/exe) as the container's monitor";
        let program = std::fs::File::open("/proc/self/exe").attempt(attempted)?;
        let program = program.as_fd();
        let mut places = vec![
            (self.pidfd, PIDFD),
            (self.lock, LOCK),
            (self.out, OUT),
            (self.err, ERR),
            (self.input, INPUT),
            (program, PROGRAM),
        ];
        if let Some(sockets) = &self.attached.dns {
            places.extend([(sockets.udp.as_fd(), NAMES_UDP), (sockets.tcp.as_fd(), NAMES_TCP)]);
        }
        // First out of the way, then in their places.
        let duplicate = |(fd, number)| Ok((rustix::io::fcntl_dupfd_cloexec(fd, HIGH_FD).attempt(attempted)?, number));
        let high = places.into_iter().map(duplicate).collect::<Result<Vec<_>>>()?;
        for (fd, number) in &high {
            sys::place_fd(fd.as_fd(), *number, false).attempt(attempted)?;
        }
        let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(std::io::Error::from).attempt(attempted);
        let root = [ROOT_VARIABLE.as_bytes(), b"=", self.store.root().as_os_str().as_bytes()].concat();
        let arguments = CStringArray::new(vec![c_string(NAME.into())?, c_string(self.id.into())?]);
        let environment = CStringArray::new(vec![c_string(root)?]);
        // What comes from who called the command, and was not meant for others, goes no further.
        let first = if self.attached.dns.is_some() { PROGRAM } else { NAMES_UDP };
        sys::close_on_exec_from(first as u32).attempt(attempted)?;
        self.layers.leave_to_program();
        self.attached.leave_to_program();
        Err(sys::exec_fd(sys::borrow_fd(PROGRAM), &arguments, &environment)).attempt(attempted)
    }
}

/// Whether this program was executed as a container's monitor: then it is one, for as long as that lives.
/// For the first line of a program that starts containers; `Some` is its exit code.
pub fn enter() -> Option<u8> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let _ = rustix::thread::set_name(c"longshore-mon");
    let (id, root) = (arguments.next()?.into_string().ok()?, PathBuf::from(std::env::var_os(ROOT_VARIABLE)?));
    // There is nobody to be told: what could not be done the next command finds undone.
    Some(u8::from(run(&root, &id).is_err()))
}

fn run(root: &std::path::Path, id: &str) -> Result<()> {
    let containers = Containers::open(&Store::open(root)?)?;
    let config = containers.config(id)?;
    let mut names = name_server(&config, &containers);
    watch(&config, &containers, names.as_mut())?;
    drop(names);
    let exit = reap(sys::borrow_fd(PIDFD))?;
    let cgroups = containers.runtime.cgroups(id).unwrap_or_default();
    let oom_killed = Cgroup::open(cgroups.clone()).is_ok_and(|cgroup| {
        let kills = cgroup.oom_kills();
        cgroup.keep();
        kills > 0
    });
    let lock = rustix::io::dup(sys::borrow_fd(LOCK)).attempt(|| "duplicate a file descriptor")?;
    let end = End::new(exit, oom_killed);
    End::write(Some(&end), &lock.into())?;
    Shared::withdraw(config.layers.iter().map(|layer| containers.store.layer_path(layer)));
    // Each part whatever becomes of the others.
    let cleared = processes::destroy(&cgroups);
    // What stays is found by who wants it next.
    let status = containers.status(id);
    let _ = containers.release_network(&config, status.as_ref().map_or(&[], |status| &status.endpoints));
    let _ = std::fs::remove_file(containers.directory(id).join("state.json"));
    let finished = status.and_then(|mut status| {
        status.end(Some(end));
        debug_assert_eq!(status.phase, Phase::Exited, "only what runs has a monitor");
        if let Err(error) = &cleared {
            status.error = error.to_string();
        }
        containers.save_status(id, &status)
    });
    if config.auto_remove {
        return containers.discard(&config);
    }
    cleared.and(finished)
}

/// What answers the container's questions for names, if it was given sockets for that.
fn name_server(config: &Config, containers: &Containers) -> Option<Server> {
    let socket = |number| rustix::io::fcntl_dupfd_cloexec(sys::borrow_fd(number), HIGH_FD).ok();
    let (udp, tcp) = (socket(NAMES_UDP)?, socket(NAMES_TCP)?);
    for number in [NAMES_UDP, NAMES_TCP] {
        sys::close(sys::borrow_fd(number));
    }
    let mut server =
        Server::new(Sockets { udp, tcp }, containers.store.root(), Vec::new(), config.options.networking.dns.clone()).ok()?;
    server.follow(containers.directory(&config.id).join("status.json"));
    Some(server)
}

/// Writes the container's output to its log until its first process has ended, and answers its questions.
fn watch(config: &Config, containers: &Containers, mut names: Option<&mut Server>) -> Result<()> {
    let path = log_file::path(&containers.directory(&config.id), &config.id);
    let mut log = LogFile::open(path, config.log.clone());
    let mut outputs = vec![Output::new(OUT, Stream::Out)];
    if !config.options.tty {
        outputs.push(Output::new(ERR, Stream::Err));
    }
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(sys::borrow_fd(PIDFD), PollFlags::IN)];
        fds.extend(outputs.iter().map(|output| PollFd::from_borrowed_fd(output.fd, PollFlags::IN)));
        fds.extend(names.as_deref().map(|names| PollFd::new(names, PollFlags::IN)));
        let mut polled = poll(&mut fds, Some(&QUIET));
        if polled == Ok(0) {
            // What was needed for what has been done is not needed for waiting; what is done between here and
            // there would be.
            sys::forget_program();
            polled = poll(&mut fds, None);
        }
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("wait for the container", errno)),
        }
        let ended = !fds[0].revents().is_empty();
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if let (Some(names), Some(true)) = (names.as_deref_mut(), ready.last()) {
            names.serve();
        }
        let mut ready = ready.into_iter();
        // Who has ended writes no more: what is there then is all.
        outputs.retain_mut(|output| {
            let ready = ready.next() == Some(true);
            while (ready || ended) && output.open {
                if !output.read(&mut log) || !ended {
                    break;
                }
            }
            output.open
        });
        log.flush();
        if ended {
            outputs.iter_mut().for_each(|output| output.end(&mut log));
            log.flush();
            return Ok(());
        }
    }
}

/// One of the container's outputs.
struct Output {
    fd: BorrowedFd<'static>,
    stream: Stream,
    /// The beginning of a line.
    line: Vec<u8>,
    open: bool,
}

impl Output {
    fn new(fd: i32, stream: Stream) -> Self {
        Self { fd: sys::borrow_fd(fd), stream, line: Vec::new(), open: true }
    }

    /// Reads once; false if there was nothing.
    fn read(&mut self, log: &mut LogFile) -> bool {
        /// What is on the stack is touched once and stays: a page will do.
        const CHUNK_BYTES: usize = 4096;
        let mut chunk = [0; CHUNK_BYTES];
        match rustix::io::read(self.fd, &mut chunk) {
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // The last writer is gone.
            Ok(0) | Err(_) => {
                self.end(log);
                self.open = false;
                false
            }
            Ok(length) => {
                for part in chunk[..length].split_inclusive(|byte| *byte == b'\n') {
                    self.take(part, log);
                }
                true
            }
        }
    }

    fn take(&mut self, part: &[u8], log: &mut LogFile) {
        if self.line.is_empty() && part.last() == Some(&b'\n') {
            return log.add(self.stream, part);
        }
        // A chunk is shorter than an entry: so is what is left.
        let (now, later) = part.split_at(part.len().min(ENTRY_LIMIT_BYTES - self.line.len()));
        self.line.extend(now);
        if self.line.len() == ENTRY_LIMIT_BYTES || self.line.last() == Some(&b'\n') {
            log.add(self.stream, &self.line);
            self.line.clear();
        }
        self.line.extend(later);
        if later.last() == Some(&b'\n') {
            self.end(log);
        }
    }

    /// A line that has no end.
    fn end(&mut self, log: &mut LogFile) {
        if !self.line.is_empty() {
            log.add(self.stream, &self.line);
            self.line = Vec::new();
        }
    }
}
