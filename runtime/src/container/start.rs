//! Starting a container: a copy of this process becomes its monitor, launches it, and stays.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::WaitOptions;
use serde::{Deserialize, Serialize};

use super::launching::{Launched, Launching, null, pipe};
use super::monitor::{Becoming, HIGH_FD};
use super::record::{Config, End};
use super::store::Containers;
use crate::error::{Attempt, Error, Result};
use crate::sys;
use crate::userns::Mapping;
use crate::warning;

/// The caller's standard error in the monitor, as long as there is something to be said to the caller.
const CALLER_FD: i32 = 9;

/// What a monitor that has started its container says.
const STARTED: &[u8] = b"+";

/// The longest thing a monitor has to say.
const ANSWER_LIMIT_BYTES: u64 = 64 * 1024;

/// Why a container could not be started, on its way from its monitor to the command.
#[derive(Serialize, Deserialize)]
struct Refusal {
    /// The command that could not be executed, and the errno, if it was that.
    exec: Option<(String, i32)>,
    text: String,
}

impl Refusal {
    fn new(error: &Error) -> Self {
        let exec = match error {
            Error::Exec { command, source } => Some((command.clone(), source.raw_os_error().unwrap_or(libc::ENOEXEC))),
            _ => None,
        };
        Self { exec, text: error.to_string() }
    }

    fn into_error(self) -> Error {
        match self.exec {
            Some((command, errno)) => Error::Exec { command, source: std::io::Error::from_raw_os_error(errno) },
            None => Error::Told(self.text),
        }
    }
}

impl Containers {
    /// Starts a container that does not run, and comes back once its command is executed. One that runs is left
    /// alone. `rootless` is the user namespace this process is in, if it is not root's.
    ///
    /// With `attached` its monitor looks for who [wants to be attached](Self::prepare_attach) before it reads anything.
    ///
    /// Call it while this process has one thread.
    ///
    /// # Errors
    ///
    /// [`Error::Exec`] says that the command cannot be executed. Should the container be one that goes when it
    /// ends, it has gone.
    pub fn start(&self, id: &str, rootless: Option<Mapping>, attached: bool) -> Result<()> {
        let lock = loop {
            let container = self.load(id)?;
            if container.status.is_live() {
                return Ok(());
            }
            if container.config.direct {
                let why = "it is run by the command that makes it, and by nobody else".into();
                return Err(Error::Busy { what: format!("container {}", container.config.name), why });
            }
            container.config.log.check_taker()?;
            // Else somebody else has started it, or was killed when that had just begun.
            if let Some(lock) = self.lock_to_start(id)? {
                break lock;
            }
        };
        // Only now: it may have been changed while that was waited for.
        let config = self.config(id)?;
        let (answer, answer_in) = pipe()?;
        let (pid, _) = sys::spawn(0, None, &mut || self.become_monitor(&config, rootless, attached, &lock, &answer_in))
            .attempt(|| "start the container's monitor")?;
        drop((answer_in, lock));
        let mut text = Vec::new();
        File::from(answer).take(ANSWER_LIMIT_BYTES).read_to_end(&mut text).attempt(|| "hear from the container's monitor")?;
        if text == STARTED {
            self.tell("start", &config, &[]);
            return Ok(());
        }
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        let text = text.strip_prefix(STARTED).unwrap_or(&text);
        let refusal = serde_json::from_slice::<Refusal>(text);
        Err(refusal
            .map_or_else(|_| Error::Told("the container's monitor was killed while it started it".into()), Refusal::into_error))
    }

    /// The monitor's life until it is the monitor's own program. Ends only if it comes to nothing.
    fn become_monitor(&self, config: &Config, rootless: Option<Mapping>, attached: bool, lock: &File, answer: &OwnedFd) -> u8 {
        let Ok((lock, answer)) = leave_caller(lock.as_fd(), answer.as_fd()) else { return 1 };
        if attached {
            // Blocked, it waits for the monitor that this process becomes.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1);
        }
        let launching = Launching { containers: self, config, lock: lock.as_fd(), rootless, again: false, guard: None };
        let Err(error) = run(&launching, answer.as_fd());
        let refusal = serde_json::to_vec(&Refusal::new(&error)).unwrap_or_default();
        // Should nobody hear it any more, the status says it.
        let _ = File::from(answer).write_all(&refusal);
        1
    }
}

/// Leaves the session, the working directory and the signals of who called the command; its standard error is
/// kept for as long as the container is being started. Gives the two descriptors out of the way of others.
fn leave_caller(lock: BorrowedFd<'_>, answer: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let attempted = || "detach from the caller";
    let high = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, HIGH_FD).attempt(attempted);
    let (lock, answer) = (high(lock)?, high(answer)?);
    let stderr = high(rustix::stdio::stderr())?;
    sys::place_fd(stderr.as_fd(), CALLER_FD, true).attempt(attempted)?;
    warning::send_to(|text| {
        let _ = rustix::io::write(sys::borrow_fd(CALLER_FD), format!("warning: {text}\n").as_bytes());
    });
    rustix::process::setsid().attempt(attempted)?;
    let signals = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2];
    sys::block_signals(&signals).attempt(attempted)?;
    rustix::process::chdir(c"/").attempt(attempted)?;
    Ok((lock, answer))
}

/// Starts a container again, in the process that was its monitor and holds its `lock`. Ends only if it comes to
/// nothing.
pub(super) fn start_again(
    containers: &Containers,
    config: &Config,
    rootless: Option<Mapping>,
    lock: BorrowedFd<'_>,
) -> Result<Infallible> {
    let file = rustix::io::dup(lock).attempt(|| "duplicate a file descriptor")?;
    End::write(None, &file.into())?;
    // There is nobody to be warned.
    warning::send_to(|_| {});
    let lock = rustix::io::fcntl_dupfd_cloexec(lock, HIGH_FD).attempt(|| "keep a container's lock")?;
    let launching = Launching { containers, config, lock: lock.as_fd(), rootless, again: true, guard: None };
    run(&launching, null()?.as_fd())
}

/// Launches a container and becomes its monitor. Ends only if it comes to nothing.
fn run(launching: &Launching<'_>, answer: BorrowedFd<'_>) -> Result<Infallible> {
    launching.launch().and_then(|launched| stay(launching, launched, answer)).inspect_err(|error| launching.failed(error))
}

/// Lets go of the caller, and executes this program as the monitor of what it has launched.
fn stay(launching: &Launching<'_>, launched: Launched, answer: BorrowedFd<'_>) -> Result<Infallible> {
    let Launched { pidfd, ends, layers, attached } = launched;
    let ends = ends.ok_or_else(|| Error::invalid("container", "its input and output are those of who launched it"))?;
    // The container has its own; the caller's are let go.
    let null = null()?;
    for number in 0..3 {
        sys::place_fd(null.as_fd(), number, false).attempt(|| "let go of the caller's standard output")?;
    }
    rustix::io::write(answer, STARTED).attempt(|| "say that the container has started").map(drop).or_else(|error| {
        // Who asked for it is gone; it runs all the same.
        if matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe) {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    let &Launching { containers, config, lock, rootless, again, .. } = launching;
    if again {
        containers.tell("start", config, &[]);
    }
    let (out, err, input) = (ends.out.as_fd(), ends.err.as_fd(), ends.input.as_fd());
    let (store, id, pidfd) = (&containers.store, &*config.id, pidfd.as_fd());
    Becoming { store, id, rootless, pidfd, lock, out, err, input, layers, attached }.execute()
}
