//! The process that cleans up when the launcher cannot: after `kill -9`.
//!
//! It is forked before anything is made, leaves the session, holds no descriptor but its end of one
//! socket, and sleeps until the launcher has closed the other. Then it reads what it was told: that all
//! is well, or else what to do: it kills the container, removes its cgroup, and does what it was started for.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType,
};
use rustix::process::{Pid, WaitIdOptions, WaitOptions};

use super::rootfs::HostMount;
use crate::error::{Attempt, Error, Result};
use crate::{cgroup, sys};

/// The longest message: one letter and the paths of a cgroup's directories, one in each hierarchy.
const MESSAGE_LIMIT_BYTES: usize = 16 * libc::PATH_MAX as usize;

/// How long the container's first process may take to die.
const KILL_TIMEOUT_S: i64 = 10;

/// The launcher's hold on its guard. Dropped without [`Guard::dismiss`], the guard cleans up.
#[derive(Debug)]
pub struct Guard {
    socket: OwnedFd,
    pid: Pid,
    ready: Cell<bool>,
}

impl Guard {
    /// Starts a guard that does `last`, when all else is cleaned up, if this process ends without dismissing it. What
    /// that gives is whether it could.
    ///
    /// Call it early and while the process is single-threaded: the guard is a fork.
    pub fn start(last: &mut dyn FnMut() -> bool) -> Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .attempt(|| "create the guard's socket")?;
        let (pid, _) = sys::spawn(0, None, &mut || watch(&theirs, last)).attempt(|| "start the guard process")?;
        drop(theirs);
        Ok(Self { socket: ours, pid, ready: Cell::new(false) })
    }

    /// Waits for its answer, which means that it has left this session and can survive what kills this process:
    /// before the first thing it has to look after, not while there is something else to do.
    fn expect_ready(&self) -> Result<()> {
        if !self.ready.replace(true) {
            let mut answer = [0; 1];
            rustix::io::read(&self.socket, &mut answer).attempt(|| "wait for the guard process")?;
        }
        Ok(())
    }

    /// Says that the directories of the cgroup are about to be made: the guard would remove those that are empty.
    pub(super) fn expect_cgroup<'a>(&self, directories: impl Iterator<Item = &'a Path>) -> Result<()> {
        let directories: Vec<_> = directories.map(|path| path.as_os_str().as_bytes()).collect();
        self.tell(b"e", &directories.join(&0))
    }

    /// Says that these directories are this launcher's own: the guard would kill what is in them.
    pub(super) fn watch_cgroup(&self) -> Result<()> {
        self.tell(b"c", b"")
    }

    /// Says that the cgroup is gone: its name may be another container's from now on.
    pub(super) fn forget_cgroup(&self) -> Result<()> {
        self.tell(b"f", b"")
    }

    /// Says that the container's root filesystem is about to be attached at `path` in the host's mount namespace.
    pub(super) fn watch_mount(&self, mount: HostMount, path: &Path) -> Result<()> {
        self.tell(b"m", &[&mount.0.to_ne_bytes()[..], path.as_os_str().as_bytes()].concat())
    }

    fn tell(&self, what: &[u8], of: &[u8]) -> Result<()> {
        self.expect_ready()?;
        let message = [what, of].concat();
        if message.len() > MESSAGE_LIMIT_BYTES {
            return Err(Error::invalid("linux.cgroupsPath", "it is too long"));
        }
        rustix::net::send(&self.socket, &message, SendFlags::NOSIGNAL).attempt(|| "tell the guard what to clean up").map(drop)
    }

    /// Has the guard kill this process too, and all in its pid namespace with it.
    pub(super) fn watch_process(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.expect_ready()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [pidfd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(b"p")], &mut ancillary, SendFlags::NOSIGNAL)
            .attempt(|| "tell the guard of the container's process")
            .map(drop)
    }

    /// All is cleaned up: ends the guard.
    pub fn dismiss(self) {
        // If the guard is gone already there is nothing to dismiss; either way it is waited for.
        let _ = rustix::net::send(&self.socket, b"d", SendFlags::NOSIGNAL);
        drop(self.socket);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// What the guard was told to end and to remove.
#[derive(Default)]
struct Watched {
    process: Option<OwnedFd>,
    /// Where the cgroup's directories are or will be.
    cgroups: Vec<PathBuf>,
    /// They are known to be ours.
    has_cgroups: bool,
    mount: Option<(HostMount, PathBuf)>,
}

/// The guard's whole life; what it returns is its exit code.
fn watch(socket: &OwnedFd, last: &mut dyn FnMut() -> bool) -> u8 {
    const SOCKET_FD: i32 = 0;
    // Not to be reached by ^C, a hang-up or the end of the launcher's process group.
    let _ = rustix::process::setsid();
    let _ = sys::block_signals(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE]);
    let _ = rustix::process::chdir(c"/");
    // No end of anybody's pipe may stay open here.
    if socket.as_raw_fd() != SOCKET_FD && sys::place_fd(socket.as_fd(), SOCKET_FD, true).is_err()
        || sys::close_from(SOCKET_FD as u32 + 1).is_err()
    {
        return 1;
    }
    let socket = sys::borrow_fd(SOCKET_FD);
    if rustix::net::send(socket, b"r", SendFlags::NOSIGNAL).is_err() {
        return 1;
    }
    let mut watched = Watched::default();
    match listen(socket, &mut watched) {
        Ending::Dismissed => 0,
        Ending::Alone => clean_up(&watched, last),
    }
}

enum Ending {
    Dismissed,
    Alone,
}

fn listen(socket: BorrowedFd<'_>, watched: &mut Watched) -> Ending {
    // What it is told matters only once nobody can tell it more: to wake for each word would cost the launcher time.
    while poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::empty())], None) == Err(rustix::io::Errno::INTR) {}
    loop {
        let mut message = [0; MESSAGE_LIMIT_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let length = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => 0,
        };
        match message[..length].split_first() {
            None => return Ending::Alone,
            Some((b'd', _)) => return Ending::Dismissed,
            Some((b'e', paths)) => {
                watched.cgroups = paths.split(|byte| *byte == 0).map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
                watched.has_cgroups = false;
            }
            Some((b'c', _)) => watched.has_cgroups = true,
            Some((b'f', _)) => watched.cgroups.clear(),
            Some((b'm', rest)) => {
                watched.mount = rest
                    .split_first_chunk()
                    .map(|(number, path)| (HostMount(u64::from_ne_bytes(*number)), PathBuf::from(OsStr::from_bytes(path))));
            }
            Some((b'p', _)) => {
                let fds = ancillary.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                    _ => None,
                });
                watched.process = fds.flatten().next();
            }
            Some(_) => {}
        }
    }
}

/// Each part is tried whatever became of the others; the code says whether all went well.
fn clean_up(watched: &Watched, last: &mut dyn FnMut() -> bool) -> u8 {
    if let Some(pidfd) = &watched.process {
        let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        let timeout = rustix::event::Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout));
        // Only a parent can wait; where this process has become that, nothing stays behind.
        let _ =
            rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    let cgroups = watched
        .cgroups
        .iter()
        .map(|path| if watched.has_cgroups { cgroup::destroy(path).is_ok() } else { rustix::fs::rmdir(path).is_ok() });
    let mounts = watched.mount.iter().map(|(mount, path)| mount.detach(path).is_ok());
    let all = cgroups.chain(mounts).fold(true, |all, done| all & done);
    u8::from(!(last() & all))
}
