//! `kill`: a signal for a container's first process, or for all.

use std::fmt;
use std::os::fd::AsFd;
use std::str::FromStr;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::state::{Container, Process};
use super::{FirstProcess, Runtime, not_running};
use crate::cgroup::processes;
use crate::error::{Attempt, Error, Result};
use crate::sys;

/// A signal, by number or by name with or without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// What ends a process unless it objects.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// What ends a process.
    pub const KILL: Self = Self(libc::SIGKILL);

    /// One that has come here, by its number.
    pub(crate) fn from_number(number: i32) -> Self {
        Self(number)
    }
}

/// The names of signal(7), without `SIG`.
const NAMES: [(&str, i32); 36] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("RTMIN", 34),
    ("RTMAX", LAST_SIGNAL),
];

/// The kernel's last signal.
const LAST_SIGNAL: i32 = 64;

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::Name { what: "signal", input: text.to_owned(), why: "a number from 1 to 64, or a name as in signal(7)" };
        if let Ok(number) = text.parse::<i32>() {
            // 0 sends nothing: it asks whether the process is there.
            return (0..=LAST_SIGNAL).contains(&number).then_some(Self(number)).ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let at = name.find(['+', '-']).unwrap_or(name.len());
        let (base, offset) = name.split_at(at);
        let number = NAMES.iter().find(|(known, _)| *known == base).ok_or_else(bad)?.1;
        let offset = match (base, offset) {
            (_, "") => 0,
            ("RTMIN" | "RTMAX", offset) => offset.parse::<i32>().map_err(|_| bad())?,
            _ => return Err(bad()),
        };
        let number = number.checked_add(offset).ok_or_else(bad)?;
        (1..=LAST_SIGNAL).contains(&number).then_some(Self(number)).ok_or_else(bad)
    }
}

impl Runtime {
    /// Sends a signal to a container's first process, or with `all` to every process in its cgroup
    /// (runtime-spec runtime.md, "Kill").
    pub fn kill(&self, id: &str, signal: Signal, all: bool) -> Result<()> {
        let container = self.look_at(id)?;
        let process = container.process()?;
        if all {
            // Its first process may have ended and others not.
            return processes::signal_all(&container.record.cgroups, signal.0);
        }
        FirstProcess { process: process.ok_or_else(|| not_running(id))?, container }.signal(signal)
    }
}

impl FirstProcess {
    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Self { container, process } = self;
        match sys::pidfd_signal(process.pidfd.as_fd(), signal.0) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Err(not_running(container.id())),
            Err(errno) => as_owner(process, signal.0, errno)?,
        }
        let cgroups = &container.record.cgroups;
        if signal.0 == libc::SIGKILL {
            if !cgroups.is_empty() && !owns_pid_namespace(container) {
                // Nothing else ends the others with it.
                processes::signal_all(cgroups, libc::SIGKILL)?;
            }
            if processes::frozen(cgroups) {
                // A v1 freezer keeps even the killed.
                processes::freeze(cgroups, false)?;
            }
        }
        Ok(())
    }
}

/// A process of an ordinary user's container may run as an id that only its user namespace gives that
/// user power over.
pub(super) fn as_owner(process: &Process, signal: i32, refused: Errno) -> Result<()> {
    let attempted = || format!("send signal {signal} to the container's process");
    if refused != Errno::PERM || move_into_thread_name_spaces(process.pidfd.as_fd(), ThreadNameSpaceType::USER).is_err() {
        return Err(refused).attempt(attempted);
    }
    sys::pidfd_signal(process.pidfd.as_fd(), signal).attempt(attempted)
}

fn owns_pid_namespace(container: &Container) -> bool {
    let spec = container.spec().ok();
    let linux = spec.as_ref().and_then(|spec| spec.linux().as_ref());
    let mut namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default().iter();
    namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names_and_nothing_else() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35), ("RTMAX-2", 62), ("0", 0), ("64", 64)]
        {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal(number), "{text}");
        }
        for text in ["", "SIG", "65", "-1", "KILL+1", "RTMIN-40", "RTMAX+1", "RTMIN+", "9x"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
