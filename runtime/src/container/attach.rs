//! Being attached to a container that runs: its output here, and what is typed here its input.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::attached::{self, EXIT, INPUT_DATA, INPUT_END, MESSAGE_BYTES, PREFIX, SIZE, STDERR, STDOUT};
use super::keys::{DetachKeys, Typed};
use super::monitor::wait_for;
use super::record::{KILLED, Phase};
use super::store::{Container, Containers, not_running};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::launch::{RawMode, Signals, caller_size};
use crate::lifecycle::Signal;

/// How long a monitor may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How somebody is attached.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// What is typed goes to the container, if that reads anything.
    pub stdin: bool,
    /// Signals are the container's, where it has no terminal.
    pub signals: bool,
    /// The keys that leave it running.
    pub detach_keys: DetachKeys,
}

/// How that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container has ended with this exit code.
    Exited(u8),
    /// The detach keys were typed: it goes on.
    Detached,
}

/// A socket on which somebody waits for a container's monitor. It goes when it is dropped.
#[derive(Debug)]
pub struct Attaching {
    listener: OwnedFd,
    path: PathBuf,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        // The monitor has removed it, too.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Containers {
    /// Prepares to be attached to a container: before it is started, for who wants all of its output.
    pub fn prepare_attach(&self, id: &str) -> Result<Attaching> {
        let attempted = || "make a socket in the container's directory";
        let path = self.directory(id);
        let directory = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.attempt(attempted)?;
        let name = format!("{PREFIX}{}", files::random_hex(8)?);
        let listener = attached::socket()?;
        let attaching = Attaching { listener, path: path.join(&name) };
        rustix::net::bind(&attaching.listener, &attached::address(directory.as_fd(), &name)?).attempt(attempted)?;
        rustix::fs::chmodat(&directory, &*name, Mode::from_raw_mode(0o600), AtFlags::empty()).attempt(attempted)?;
        rustix::net::listen(&attaching.listener, 1).attempt(attempted)?;
        Ok(attaching)
    }

    /// Is attached to a container until that ends or the detach keys are typed. It runs, or was started
    /// [with somebody attached](Containers::start).
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not run, or is paused.
    pub fn attach(&self, container: &Container, attaching: Attaching, options: &AttachOptions) -> Result<AttachEnd> {
        let config = &container.config;
        let refused = |why: &str| Err(Error::Busy { what: format!("container {}", config.name), why: why.into() });
        // It may have ended and gone: who was waiting has been told all the same.
        let now = self.look_up(&config.id)?;
        let monitor = now.as_ref().and_then(|now| self.monitor(&now.status));
        match &now {
            Some(now) if now.status.phase == Phase::Restarting => {
                return refused("it is restarting; attach once it runs");
            }
            Some(now) if self.is_paused(now) => return refused("it is paused; `rbox unpause` lets it go on"),
            Some(now) => self.wake(&now.status),
            None => {}
        }
        let mut fds = vec![PollFd::new(&attaching.listener, PollFlags::IN)];
        fds.extend(monitor.as_ref().map(|monitor| PollFd::new(monitor, PollFlags::IN)));
        wait_for(&mut fds, Some(if monitor.is_some() { ANSWER_LIMIT } else { Duration::ZERO }))?;
        match (fds[0].revents().is_empty(), fds.get(1).is_none_or(|monitor| !monitor.revents().is_empty())) {
            (true, true) => return Err(not_running(config)),
            (true, false) => return refused("its monitor does not answer, perhaps because too many are attached"),
            _ => {}
        }
        let socket = rustix::net::accept_with(&attaching.listener, rustix::net::SocketFlags::CLOEXEC)
            .attempt(|| "be attached to the container")?;
        drop(attaching);
        let tty = config.options.tty;
        let stdin = options.stdin && config.interactive;
        let signals = if options.signals || tty { Some(Signals::catch()?) } else { None };
        let raw = if tty && stdin { RawMode::enter()? } else { None };
        if tty {
            redraw(&socket);
        }
        self.tell("attach", config, &[]);
        let mut relay = Relay { containers: self, container, socket, signals, tty, typed: Typed::new(&options.detach_keys) };
        let end = relay.run(stdin, raw.is_some());
        drop(raw);
        if matches!(end, Ok(AttachEnd::Detached)) {
            self.tell("detach", config, &[]);
        }
        end
    }
}

/// Has what runs there draw its screen anew, by another size and then the right one.
fn redraw(socket: &OwnedFd) {
    if let Some(size) = caller_size() {
        for rows in [size.ws_row.saturating_add(1), size.ws_row] {
            send_size(socket, rows, size.ws_col);
        }
    }
}

fn send_size(socket: &OwnedFd, rows: u16, columns: u16) {
    // One that is lost comes with the next.
    let _ = attached::send(socket, SIZE, &[rows.to_ne_bytes(), columns.to_ne_bytes()].concat());
}

struct Relay<'a> {
    containers: &'a Containers,
    container: &'a Container,
    socket: OwnedFd,
    signals: Option<Signals>,
    tty: bool,
    typed: Typed,
}

impl Relay<'_> {
    fn run(&mut self, mut stdin: bool, keys: bool) -> Result<AttachEnd> {
        let mut message = [0; MESSAGE_BYTES + 1];
        let mut pending: Vec<u8> = Vec::new();
        loop {
            let input = rustix::stdio::stdin();
            let wanted = if pending.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            let mut fds = vec![PollFd::new(&self.socket, wanted)];
            if let Some(signals) = &self.signals {
                fds.push(PollFd::new(signals, PollFlags::IN));
            }
            if stdin && pending.is_empty() {
                fds.push(PollFd::new(&input, PollFlags::IN));
            }
            wait_for(&mut fds, None)?;
            let socket_ready = fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
            let input_ready = stdin && pending.is_empty() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
            drop(fds);
            if socket_ready {
                match rustix::net::recv(&self.socket, &mut message[..], RecvFlags::DONTWAIT) {
                    Ok((_, length @ 1..)) => match (message[0], &message[1..length.min(message.len())]) {
                        (EXIT, &[code]) => return Ok(AttachEnd::Exited(code)),
                        (STDOUT, data) => show(std::io::stdout(), data)?,
                        (STDERR, data) => show(std::io::stderr(), data)?,
                        _ => {}
                    },
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Ok((_, 0)) | Err(_) => return self.left(),
                }
            }
            self.forward()?;
            if !pending.is_empty() && attached::send(&self.socket, INPUT_DATA, &pending).is_ok_and(|sent| sent) {
                pending.clear();
            }
            if input_ready {
                match rustix::io::read(input, &mut message[..MESSAGE_BYTES]) {
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    // Nothing more is typed; the container decides what follows.
                    Ok(0) | Err(_) => {
                        stdin = false;
                        let _ = attached::send(&self.socket, INPUT_END, &[]);
                    }
                    Ok(length) => {
                        let detached = if keys {
                            self.typed.pass(&message[..length], &mut pending)
                        } else {
                            pending.extend(&message[..length]);
                            false
                        };
                        if !pending.is_empty() && attached::send(&self.socket, INPUT_DATA, &pending).is_ok_and(|sent| sent) {
                            pending.clear();
                        }
                        if detached {
                            return Ok(AttachEnd::Detached);
                        }
                    }
                }
            }
        }
    }

    /// The monitor has let go of this: the container has ended, or it was too slow here.
    fn left(&self) -> Result<AttachEnd> {
        let name = &self.container.config.name;
        let Some(now) = self.containers.look_up(&self.container.config.id)? else { return Ok(AttachEnd::Exited(KILLED)) };
        if now.status.phase == Phase::Running && self.containers.runtime.first_process(&now.config.id)?.is_some() {
            return Err(Error::Busy {
                what: format!("container {name}"),
                why: "its output was not taken here in time; `rbox logs -f` has all of it, `rbox attach` what follows".into(),
            });
        }
        let waiter = self.containers.waiter(&now)?;
        Ok(AttachEnd::Exited(waiter.map_or(Ok(now.status.exit_code), |waiter| waiter.wait())?))
    }

    fn forward(&self) -> Result<()> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while let Some(signal) = signals.next()? {
            match (signal, self.tty) {
                (libc::SIGWINCH, true) => {
                    if let Some(size) = caller_size() {
                        send_size(&self.socket, size.ws_row, size.ws_col);
                    }
                }
                (libc::SIGWINCH, false) => {}
                // One that ends meanwhile needs no signal.
                _ => drop(self.containers.kill(&self.container.config.id, Signal::from_number(signal))),
            }
        }
        Ok(())
    }
}

/// Nobody reads any more: the container goes on, and so does who waits for its end.
fn show(mut out: impl Write, data: &[u8]) -> Result<()> {
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).attempt(|| "write the container's output"),
        _ => Ok(()),
    }
}
