//! An ordinary user's container and the outside: a program passes its connections on as the user's own, and those
//! to published ports to it.
//!
//! It runs beside the container as a child of the process that launches it, so that the kernel ends it with that.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use super::namespace::Namespace;
use super::netlink::Socket;
use super::options::NetworkOptions;
use super::publish::Published;
use super::{firewall, link, pasta, slirp};
use crate::error::{Attempt, Error, Result};
use crate::hooks::ends_within;
use crate::sys::{self, CStringArray};

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often that is looked at.
const POLL: Duration = Duration::from_millis(2);

/// Where its number stands, in the container's directory.
pub(super) const PID_FILE: &str = "outside.pid";

/// Where it finds the container's namespace while it starts, in the same directory.
const NAMESPACE_FILE: &str = "netns";

/// What it says.
const LOG_FILE: &str = "outside.log";

/// Its interface in a container that is in networks, too.
pub(super) const INTERFACE: &str = "tap0";

/// A program that does it.
#[derive(Debug, Clone, Copy)]
enum Program {
    Pasta,
    Slirp,
}

impl Program {
    /// The first that is installed, and where.
    fn find() -> Option<(Self, PathBuf)> {
        let all = [(Self::Pasta, "pasta"), (Self::Slirp, "slirp4netns")];
        all.into_iter().find_map(|(program, name)| Some((program, firewall::find(name)?)))
    }
}

/// Whether there is a program for it.
pub(super) fn is_installed() -> bool {
    Program::find().is_some()
}

/// What is to be done for a container.
pub(super) struct Way<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) published: &'a [Published],
    /// A directory of the container's own.
    pub(super) directory: &'a Path,
    /// What its interface is to be called, if that matters.
    pub(super) interface: Option<&'static str>,
}

/// Makes a namespace with nothing but a way to the outside. The process must be in its user's namespace already.
pub(super) fn attach(published: &[Published], options: &NetworkOptions, directory: &Path) -> Result<(Namespace, Vec<Published>)> {
    check(options)?;
    let namespace = Namespace::make_apart(|| link::loopback_up(&Socket::route()?))?;
    let published = Way { namespace: &namespace, published, directory, interface: None }.open()?;
    Ok((namespace, published))
}

/// What no container of an ordinary user can have.
pub(super) fn check(options: &NetworkOptions) -> Result<()> {
    if options.added_hosts.iter().any(|host| host.address.is_none()) {
        let why = "an ordinary user's containers do not reach this machine itself; publish a port, or name another address";
        return Err(Error::invalid("--add-host with host-gateway", why));
    }
    Ok(())
}

impl Way<'_> {
    /// Has a program open it, which ends when this process, and whatever that becomes, does. Which ports of this machine
    /// it has is the answer.
    pub(super) fn open(self) -> Result<Vec<Published>> {
        let missing =
            || Error::NotFound { what: "program pasta".into(), hint: "install the package passt, or slirp4netns".into() };
        let (kind, program) = Program::find().ok_or_else(missing)?;
        // Which are free is found out now; that the program gets them is between it and the kernel.
        let (published, held) = Published::take(self.published, false)?;
        drop(held);
        let way = Way { published: &published, ..self };
        let attempted = || format!("run {}", program.display());
        // The program closes what it inherits, and may not look at this process's descriptors: a mount shows it the
        // namespace.
        let place = way.directory.join(NAMESPACE_FILE);
        std::fs::write(&place, "")
            .and_then(|()| Ok(rustix::mount::mount_bind(way.namespace.path(), &place)?))
            .attempt(attempted)?;
        let opened = match kind {
            Program::Pasta => pasta::open(&way, &program, &place),
            Program::Slirp => slirp::open(&way, &program, &place),
        };
        let unmounted = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).attempt(attempted);
        let removed = std::fs::remove_file(&place).attempt(attempted);
        opened?;
        unmounted.and(removed)?;
        Ok(published)
    }

    /// Starts the program as a child that the kernel ends with this process, and waits until `ready` gives something.
    pub(super) fn start<T>(&self, program: &Path, words: &[OsString], mut ready: impl FnMut(Pid) -> Option<T>) -> Result<T> {
        let attempted = || format!("run {}", program.display());
        let (pid, pidfd) = self.spawn(program, words)?;
        let began = Instant::now();
        loop {
            if let Some(ready) = ready(pid) {
                return Ok(ready);
            }
            if ends_within(&pidfd, POLL).attempt(attempted)? {
                let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Error::invalid("the container's network", format!("{name} refused it: {}", self.last_words())));
            }
            if began.elapsed() > PATIENCE {
                let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
                return Err(Error::io(attempted(), rustix::io::Errno::TIMEDOUT));
            }
        }
    }

    /// The last line the program wrote.
    pub(super) fn last_words(&self) -> String {
        let said = std::fs::read_to_string(self.directory.join(LOG_FILE)).unwrap_or_default();
        said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
    }

    fn spawn(&self, program: &Path, words: &[OsString]) -> Result<(Pid, OwnedFd)> {
        let attempted = || format!("run {}", program.display());
        let _ = std::fs::remove_file(self.directory.join(PID_FILE));
        let c_string = |word: &OsString| CString::new(word.as_encoded_bytes()).map_err(std::io::Error::from).attempt(attempted);
        let arguments = CStringArray::new(words.iter().map(c_string).collect::<Result<_>>()?);
        let environment = CStringArray::new(Vec::new());
        let null = File::open("/dev/null").attempt(attempted)?;
        let output = File::create(self.directory.join(LOG_FILE)).attempt(attempted)?;
        let program_file = File::open(program).attempt(attempted)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(self.directory, flags, Mode::empty()).attempt(attempted)?;
        let parent = rustix::process::getpid();
        sys::spawn(0, None, &mut || {
            let place = |fd: &File, number| sys::place_fd(fd.as_fd(), number, false);
            let ready = sys::die_with_parent()
                .and_then(|()| rustix::process::fchdir(&directory))
                .and_then(|()| place(&null, 0))
                .and_then(|()| place(&output, 1))
                .and_then(|()| place(&output, 2))
                .and_then(|()| sys::close_on_exec_from(3));
            // An ignored signal pasta takes for a failure.
            sys::reset_signals();
            // Who was killed before the tie was there has nobody ended.
            if ready.is_ok() && rustix::process::getppid() == Some(parent) {
                sys::exec_fd(program_file.as_fd(), &arguments, &environment);
            }
            1
        })
        .attempt(attempted)
    }
}

/// Ends the program of the container whose directory this is, if it has one that still runs.
pub(crate) fn end(directory: &Path) {
    let path = directory.join(PID_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        other => other.unwrap_or_default(),
    };
    // The number may be another's by now: whose it is is looked at while it cannot change.
    if let Some(pid) = text.trim().parse().ok().filter(|number| *number > 0).and_then(Pid::from_raw)
        && let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        && is_for(directory, pid)
    {
        // Gone already is as good.
        let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGTERM);
    }
    let _ = std::fs::remove_file(path);
}

/// Whether a process was started with something in this directory as one of its words.
fn is_for(directory: &Path, pid: Pid) -> bool {
    let words = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let place = directory.join(NAMESPACE_FILE);
    words.split(|byte| *byte == 0).any(|word| word == place.as_os_str().as_encoded_bytes())
}
