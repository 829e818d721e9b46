//! The monitor of a detached container: the one process that stays beside it.
//!
//! It [starts](super::start) the container as a copy of the command, with all that takes, and then executes
//! this program anew as this: with a heap of its own, which stays small, and few descriptors, which is all it
//! has of its caller. Executing a program keeps a process's number, its children and their tie to it.
//!
//! It reads the container's output and waits for the container's end, both at once, and sleeps while neither
//! comes; then it says how the container ended, removes the cgroup, and ends. Its lock tells the others.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::attached::Audience;
use super::ending::Ended;
use super::record::{Config, Phase, Status};
use super::restart;
use super::start::start_again;
use super::store::Containers;
use super::watch::watch;
use crate::erofs::Shared;
use crate::error::{Attempt, Result};
use crate::launch::reap;
use crate::network::attach::Attached;
use crate::network::dns::{Server, Sockets};
use crate::store::Store;
use crate::sys::{self, CStringArray};
use crate::userns::{self, Mapping};

/// What the program calls itself as a monitor; its argument is the container's ID.
const NAME: &str = "longshore-monitor";

/// Its further argument where the container is to be started again first.
const AGAIN: &str = "again";

/// Where the store is; others find the process by it.
const ROOT_VARIABLE: &str = "LONGSHORE_ROOT";

/// The ids of the user namespace it is in, if that is not the machine's first.
const MAPPING_VARIABLE: &str = "LONGSHORE_IDS";

/// What has it look for what others have left: that the container is stopped. Blocked since it left its caller.
pub(super) const WAKE: i32 = libc::SIGUSR1;

/// The descriptors it is executed with.
pub(super) const PIDFD: i32 = 3;
const LOCK: i32 = 4;
/// The read ends of the container's output, or the terminal's two sides.
pub(super) const OUT: i32 = 5;
pub(super) const ERR: i32 = 6;
/// Nobody writes on it; while it is open the container's input has no end.
pub(super) const INPUT: i32 = 7;
/// Where the container asks for names, if it is in a network that has some.
const NAMES_UDP: i32 = 8;
const NAMES_TCP: i32 = 9;
/// The first of those it has not. Far above it the layers, for others to take, and what holds the container's network.
const FIRST_OTHER: i32 = 10;

/// Above all of them, and what else a monitor has open while it starts its container.
pub(super) const HIGH_FD: i32 = 32;

/// The program and its container's descriptors, to become a monitor.
pub(super) struct Becoming<'a> {
    pub(super) store: &'a Store,
    pub(super) id: &'a str,
    pub(super) rootless: Option<Mapping>,
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
    pub(super) fn execute(self) -> Result<Infallible> {
        let attempted = || "set up the descriptors of the container's monitor";
        let mut places = vec![(self.pidfd, PIDFD), (self.lock, LOCK), (self.out, OUT), (self.err, ERR), (self.input, INPUT)];
        if let Some(sockets) = &self.attached.dns {
            places.extend([(sockets.udp.as_fd(), NAMES_UDP), (sockets.tcp.as_fd(), NAMES_TCP)]);
        }
        // First out of the way, then in their places.
        let duplicate = |(fd, number)| Ok((rustix::io::fcntl_dupfd_cloexec(fd, HIGH_FD).attempt(attempted)?, number));
        let high = places.into_iter().map(duplicate).collect::<Result<Vec<_>>>()?;
        for (fd, number) in &high {
            sys::place_fd(fd.as_fd(), *number, false).attempt(attempted)?;
        }
        // What comes from who called the command, and was not meant for others, goes no further.
        let first = if self.attached.dns.is_some() { FIRST_OTHER } else { NAMES_UDP };
        sys::close_on_exec_from(first as u32).attempt(attempted)?;
        self.layers.leave_to_program();
        self.attached.leave_to_program();
        execute_anew(self.store.root(), self.rootless, &[NAME, self.id])
    }
}

/// Executes this program with these words, and with the descriptors that are left open to it.
fn execute_anew(root: &Path, rootless: Option<Mapping>, words: &[&str]) -> Result<Infallible> {
    let attempted = || "execute this program (/proc/self/exe) as the container's monitor";
    let program = std::fs::File::open("/proc/self/exe").attempt(attempted)?;
    let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(std::io::Error::from).attempt(attempted);
    let variable = |name: &str, value: &[u8]| c_string([name.as_bytes(), b"=", value].concat());
    let words = words.iter().map(|word| c_string((*word).into())).collect::<Result<_>>()?;
    let mut environment = vec![variable(ROOT_VARIABLE, root.as_os_str().as_bytes())?];
    if let Some(mapping) = rootless {
        environment.push(variable(MAPPING_VARIABLE, mapping.to_string().as_bytes())?);
    }
    Err(sys::exec_fd(program.as_fd(), &CStringArray::new(words), &CStringArray::new(environment))).attempt(attempted)
}

/// Whether this program was executed as a container's monitor, or as the first process of one: then it is that, for as
/// long as the container lives. For the first line of a program that starts containers; `Some` is its exit code.
pub fn enter() -> Option<u8> {
    if let Some(code) = super::init::enter() {
        return Some(code);
    }
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let _ = rustix::thread::set_name(c"longshore-mon");
    let (id, root) = (arguments.next()?.into_string().ok()?, PathBuf::from(std::env::var_os(ROOT_VARIABLE)?));
    let rootless = std::env::var(MAPPING_VARIABLE).ok().map(|text| text.parse()).transpose().ok()?;
    let again = arguments.next().is_some_and(|word| word == AGAIN);
    // There is nobody to be told: what could not be done the next command finds undone.
    Some(u8::from(run(&root, &id, rootless, again).is_err()))
}

fn run(root: &Path, id: &str, rootless: Option<Mapping>, again: bool) -> Result<()> {
    let containers = Containers::open(&Store::open(root)?)?;
    let config = containers.config(id)?;
    if again {
        let status = containers.status(id)?;
        containers.save_status(id, &status.clone().starting(true))?;
        // Only now: who stops it marks it first, and then waits for the end of its start.
        if containers.is_stopped(id) {
            containers.save_status(id, &Status { phase: Phase::Exited, ..status })?;
            if rootless.is_some() {
                userns::leave_store(root);
            }
            return Ok(());
        }
        return start_again(&containers, &config, rootless, sys::borrow_fd(LOCK)).map(|never| match never {});
    }
    let began = Instant::now();
    let mut names = name_server(&config, &containers);
    let mut audience = Some(watch(&config, &containers, names.as_mut())?);
    drop(names);
    let exit = reap(sys::borrow_fd(PIDFD))?;
    let lock = rustix::io::dup(sys::borrow_fd(LOCK)).attempt(|| "duplicate a file descriptor")?;
    Shared::withdraw(config.layers.iter().map(|layer| containers.store.layer_path(layer)));
    let Ended { end, status, cleared } = containers.clear_away(&config, exit, &lock.into())?;
    let code = end.code;
    let finished = status.and_then(|mut status| {
        status.end(Some(end));
        debug_assert_eq!(status.phase, Phase::Exited, "only what runs has a monitor");
        if let Err(error) = &cleared {
            status.error = error.to_string();
        } else if restarts(&containers, &mut status, &mut audience, id, began.elapsed())? {
            // What it had started has ended, too, and would stay undead with the program that comes.
            while rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_ok_and(|ended| ended.is_some()) {}
            return execute_anew(root, rootless, &[NAME, id, AGAIN]).map(|never| match never {});
        }
        // Of one that goes it stays as it was: should this be killed now, the next command removes it.
        if config.auto_remove { Ok(()) } else { containers.save_status(id, &status) }
    });
    // Its name and its policy may be other ones by now.
    let config = containers.config(id)?;
    let done = if config.auto_remove { containers.discard(&config, true) } else { cleared.and(finished) };
    if rootless.is_some() {
        userns::leave_store(root);
    }
    // Last: who is told that it has ended finds it ended.
    audience.into_iter().for_each(|audience| audience.dismiss(code));
    done
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

/// Whether a container that has ended is to be started again, after a wait. Who stops it meanwhile ends that.
fn restarts(
    containers: &Containers,
    status: &mut Status,
    audience: &mut Option<Audience>,
    id: &str,
    ran: Duration,
) -> Result<bool> {
    // What it was made with may have been changed since.
    let policy = containers.config(id)?.restart;
    if !policy.wants(status.exit_code, status.restart_count) || containers.is_stopped(id) {
        return Ok(false);
    }
    let delay = restart::delay(Duration::from_millis(status.restart_delay_ms), ran);
    status.restart_delay_ms = delay.as_millis().try_into().unwrap_or(u64::MAX);
    status.phase = Phase::Restarting;
    containers.save_status(id, status)?;
    if let Some(audience) = audience.take() {
        audience.dismiss(status.exit_code);
    }
    // Nobody is on their other sides any more; and of the layers, that the next start takes or mounts anew.
    for number in [PIDFD, OUT, ERR, INPUT] {
        sys::close(sys::borrow_fd(number));
    }
    sys::close_from(NAMES_UDP as u32).attempt(|| "close files")?;
    let wakes = sys::signalfd(&[WAKE]).attempt(|| "create a signalfd")?;
    sys::forget_program();
    let due = Instant::now() + delay;
    while !containers.is_stopped(id) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        wait_for(&mut [PollFd::new(&wakes, PollFlags::IN)], Some(left))?;
        while sys::read_signal(wakes.as_fd()).attempt(|| "read a signal")?.is_some() {}
    }
    status.phase = Phase::Exited;
    Ok(false)
}

/// Waits for one of `fds`, for `limit` at most. 0 if that is over.
pub(super) fn wait_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<usize> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(fds, limit.as_ref()) {
        Err(Errno::INTR) => Ok(1),
        other => other.attempt(|| "wait for the container"),
    }
}
