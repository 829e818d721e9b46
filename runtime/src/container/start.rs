//! Starting a container: a copy of this process becomes its monitor, launches it, and stays.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;
use rustix::pty::OpenptFlags;
use serde::{Deserialize, Serialize};

use super::monitor::{Becoming, HIGH_FD};
use super::prepare;
use super::record::{Config, End, Phase, Status};
use super::store::Containers;
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::launch::{Begin, Born, Channel, begin};
use crate::lifecycle::{Directory, Record, process_start_ticks, rfc3339};
use crate::network::attach::{Request, attach};
use crate::spec::default_spec;
use crate::sys;
use crate::userns::{self, Mapping};
use crate::volume::{Mounting, Volumes};
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
        let container = self.load(id)?;
        if container.status.is_live() {
            return Ok(());
        }
        let lock_path = self.directory(id).join("lock");
        let lock = File::options().read(true).write(true).open(&lock_path).attempt(|| format!("open {}", lock_path.display()))?;
        // Held by a monitor that is about to end, by somebody who looks, or by who starts it at the same time.
        files::try_lock(&lock, FlockOperation::LockExclusive)?;
        if self.status(id)?.is_live() {
            return Ok(());
        }
        self.unmark_stopped(id);
        let (answer, answer_in) = pipe()?;
        let (pid, _) = sys::spawn(0, None, &mut || self.become_monitor(&container.config, rootless, attached, &lock, &answer_in))
            .attempt(|| "start the container's monitor")?;
        drop((answer_in, lock));
        let mut text = Vec::new();
        File::from(answer).take(ANSWER_LIMIT_BYTES).read_to_end(&mut text).attempt(|| "hear from the container's monitor")?;
        if text == STARTED {
            self.tell("start", &container.config, &[]);
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
        let launching =
            Launching { containers: self, config, lock: lock.as_fd(), answer: answer.as_fd(), rootless, again: false };
        let Err(error) = launching.launch();
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
) -> Result<std::convert::Infallible> {
    // There is nobody to be warned.
    warning::send_to(|_| {});
    let lock = rustix::io::fcntl_dupfd_cloexec(lock, HIGH_FD).attempt(|| "keep a container's lock")?;
    let answer = null()?;
    Launching { containers, config, lock: lock.as_fd(), answer: answer.as_fd(), rootless, again: true }.launch()
}

struct Launching<'a> {
    containers: &'a Containers,
    config: &'a Config,
    lock: BorrowedFd<'a>,
    answer: BorrowedFd<'a>,
    rootless: Option<Mapping>,
    /// Because of its restart policy.
    again: bool,
}

/// The monitor's sides of the container's input and output.
struct Ends {
    out: OwnedFd,
    err: OwnedFd,
    /// What keeps the container's input open; if nothing does, `/dev/null`.
    input: OwnedFd,
}

impl Launching<'_> {
    fn launch(&self) -> Result<std::convert::Infallible> {
        let Err(error) = self.start();
        self.failed(&error);
        Err(error)
    }

    /// Nothing of the container runs any more, or ever did.
    fn failed(&self, error: &Error) {
        let id = &self.config.id;
        // Each part whatever becomes of the others: what could not be done, the next command does.
        let _ = self.containers.runtime.end(id);
        let _ = self.containers.release_network(self.config, &[]);
        let _ = std::fs::remove_file(self.containers.directory(id).join("state.json"));
        let before = self.containers.status(id).unwrap_or_else(|_| Status::new());
        let phase = if self.again { Phase::Exited } else { Phase::Created };
        let status = Status { phase, exit_code: error.exit_code(), error: error.to_string(), pid: 0, ..before };
        let _ = self.containers.save_status(id, &status);
        if self.config.auto_remove {
            let _ = self.containers.discard(self.config, true);
        }
    }

    fn start(&self) -> Result<std::convert::Infallible> {
        let (containers, config, id, rootless) = (self.containers, self.config, &self.config.id, self.rootless);
        if rootless.is_some() {
            userns::stay(containers.store.root())?;
        }
        let has_volumes = !config.options.volumes.is_empty();
        let mut status = containers.status(id)?;
        let is_first = has_volumes && status.started.is_empty();
        status = status.starting(self.again);
        containers.save_status(id, &status)?;
        let lock = rustix::io::dup(self.lock).attempt(|| "duplicate a file descriptor")?;
        End::write(None, &lock.into())?;

        containers.forget_health(config);
        let dir = containers.directory(id);
        let mut options = config.options.clone();
        options.id.clone_from(id);
        options.rootless = rootless;
        let name = &config.name;
        let exposed = &config.image_config.exposed_ports;
        let namespaces = prepare::find_namespaces(&containers.store, &mut options)?;
        let attached = attach(&Request { store: &containers.store, id, name, directory: &dir, options: &options, exposed })?;
        prepare::enter_network(&dir.join("etc"), &attached, &mut options)?;
        let overlay = prepare::overlay(&containers.store, &dir, &config.layers, rootless.is_some(), config.auto_remove);
        let mut layers = Shared::new();
        let root = overlay.mount_by(&mut |path| layers.open(path))?;
        if has_volumes {
            let mounting = Mounting { root: root.as_fd(), private: None, fill: is_first, rootless };
            Volumes::of(&containers.store).mount(&mut options.volumes, &mounting)?;
        }
        let spec = default_spec(&config.image_config, root.as_fd(), &options)?;
        let directory = Directory::open(containers.store.root().join("containers").as_path(), id)?;
        let text = serde_json::to_vec(&spec).map_err(std::io::Error::from).attempt(|| "describe a container")?;
        directory.write("config.json", &text)?;
        let mut ends = connect(config)?;
        let record = |Born { pid, cgroups, mount }: Born| Record {
            id: id.clone(),
            pid: pid.as_raw_nonzero().get(),
            start_time_ticks: process_start_ticks(pid.as_raw_nonzero().get()).unwrap_or(0),
            bundle: dir.clone(),
            rootfs: dir.join("rootfs"),
            created: config.created.clone(),
            owner: rustix::process::getuid().as_raw(),
            annotations: std::collections::HashMap::new(),
            cgroups,
            unit: None,
            mount,
            descriptors: Vec::new(),
        };
        let running = begin(Begin {
            id,
            bundle: Path::new(""),
            rootfs: Path::new(""),
            spec: &spec,
            root,
            stdin: true,
            guard: None,
            tied: true,
            new_keyring: true,
            pivot: true,
            preserved: 0,
            relayed: config.options.tty,
            channel: Channel::pipe()?,
            // Known before it is complete: should this process be killed, the next command can end it.
            unit: None,
            born: &mut |born| directory.save(&record(born)),
            hooks: None,
        })?;
        drop(namespaces);
        let (pid, pidfd, master) = running.into_parts();
        if let Some(master) = master {
            // While one process has it open, a terminal that nobody uses is no terminal that is gone.
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            ends.err = rustix::pty::ioctl_tiocgptpeer(&master, flags).attempt(|| "open the container's terminal")?;
            ends.out = master;
        }
        let own = rustix::process::getpid().as_raw_nonzero().get();
        status.phase = Phase::Running;
        status.pid = pid.as_raw_nonzero().get();
        status.started = rfc3339(SystemTime::now());
        status.monitor = (own, process_start_ticks(own).unwrap_or(0));
        status.endpoints.clone_from(&attached.endpoints);
        status.published.clone_from(&attached.published);
        containers.save_status(id, &status)?;
        // The container has its own; the caller's are let go.
        let null = null()?;
        for number in 0..3 {
            sys::place_fd(null.as_fd(), number, false).attempt(|| "let go of the caller's standard output")?;
        }
        rustix::io::write(self.answer, STARTED).attempt(|| "say that the container has started").map(drop).or_else(|error| {
            // Who asked for it is gone; it runs all the same.
            if matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe) {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        if self.again {
            containers.tell("start", config, &[]);
        }
        let (out, err, input) = (ends.out.as_fd(), ends.err.as_fd(), ends.input.as_fd());
        let (pidfd, lock) = (pidfd.as_fd(), self.lock);
        Becoming { store: &containers.store, id, rootless, pidfd, lock, out, err, input, layers, attached }.execute()
    }
}

/// Makes what the container gets as standard input, output and error this process's own, and gives the other
/// ends.
fn connect(config: &Config) -> Result<Ends> {
    let attempted = || "connect the container's input and output";
    let (input, input_end) = if config.interactive && !config.options.tty { pipe()? } else { (null()?, null()?) };
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    for end in [&out, &err, &input_end] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK).attempt(attempted)?;
    }
    for (fd, number) in [(&input, 0), (&out_end, 1), (&err_end, 2)] {
        sys::place_fd(fd.as_fd(), number, false).attempt(attempted)?;
    }
    Ok(Ends { out, err, input: input_end })
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")
}

pub(super) fn null() -> Result<OwnedFd> {
    rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")
}
