//! Being attached to a container that runs: its output here, and what is typed here its input.
//!
//! **Invariant: nothing here waits but in one place**, for whatever comes first: so a signal is passed on while nobody
//! reads the output.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::attached::{self, EXIT, INPUT_DATA, INPUT_END, MESSAGE_BYTES, PREFIX, SIZE, STDERR, STDOUT};
use super::keys::{DetachKeys, Typed};
use super::monitor::wait_for;
use super::record::{Config, KILLED, Phase};
use super::store::{Containers, not_running};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::launch::{RawMode, Signals, caller_size};
use crate::lifecycle::Signal;

/// What a pipe that can be written to takes without waiting (`PIPE_BUF`).
const PIPE_BYTES: usize = 4096;

/// How long a monitor may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How somebody is attached.
#[derive(Debug, Clone)]
pub struct AttachOptions {
    /// What is typed goes to the container, if that reads anything.
    pub stdin: bool,
    /// Its output is shown.
    pub stdout: bool,
    /// Its errors are shown.
    pub stderr: bool,
    /// Signals are the container's.
    pub signals: bool,
    /// The keys that leave it running.
    pub detach_keys: DetachKeys,
    /// It is about to be started: nothing is on its screen yet.
    pub starts: bool,
}

/// How that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container has ended with this exit code.
    Exited(u8),
    /// The detach keys were typed: it goes on.
    Detached,
    /// Nobody reads its output here any more: it goes on.
    Unread,
}

/// A socket on which somebody waits for a container's monitor. It goes when it is dropped.
#[derive(Debug)]
pub struct Attaching {
    listener: OwnedFd,
    path: PathBuf,
    options: AttachOptions,
    signals: Option<Signals>,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        // The monitor has removed it, too.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Containers {
    /// Prepares to be attached to a container: before it is started, for who wants all of its output. Signals are kept
    /// for it from here on.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when its output is that of a command.
    pub fn prepare_attach(&self, config: &Config, options: AttachOptions) -> Result<Attaching> {
        if config.direct {
            let why = "its input and output are those of the command that runs it (`rrun --rm`); `rbox exec` runs another";
            return Err(Error::Busy { what: format!("container {}", config.name), why: why.into() });
        }
        let attempted = || "make a socket in the container's directory";
        let path = self.directory(&config.id);
        let directory = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = directory.attempt(attempted)?;
        let name = format!("{PREFIX}{}", files::random_hex(8)?);
        let listener = attached::socket()?;
        let signals = match (options.signals, config.options.tty) {
            (true, _) => Some(Signals::catch()?),
            (false, true) => Some(Signals::catch_sizes()?),
            (false, false) => None,
        };
        let attaching = Attaching { listener, path: path.join(&name), options, signals };
        // Under its own name only once somebody listens: one nobody listens on is taken for what a killed process left.
        let new = format!("new.{name}");
        rustix::net::bind(&attaching.listener, &attached::address(directory.as_fd(), &new)?).attempt(attempted)?;
        rustix::fs::chmodat(&directory, &*new, Mode::from_raw_mode(0o600), AtFlags::empty()).attempt(attempted)?;
        rustix::net::listen(&attaching.listener, 1).attempt(attempted)?;
        rustix::fs::renameat(&directory, &*new, &directory, &*name).attempt(attempted)?;
        Ok(attaching)
    }

    /// Is attached to a container until that ends or the detach keys are typed. It runs, or was started
    /// [with somebody attached](Containers::start).
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not run, or is paused.
    pub fn attach(&self, config: &Config, mut attaching: Attaching) -> Result<AttachEnd> {
        // Who was attached from the start is connected, whatever has become of the container since; also if that came about
        // just when it was asked.
        let is_connected =
            || wait_for(&mut [PollFd::new(&attaching.listener, PollFlags::IN)], Some(Duration::ZERO)).map(|ready| ready > 0);
        if !is_connected()?
            && let Err(refused) = self.ask(config, &attaching)
            && !is_connected()?
        {
            return Err(refused);
        }
        let socket = rustix::net::accept_with(&attaching.listener, rustix::net::SocketFlags::CLOEXEC)
            .attempt(|| "be attached to the container")?;
        let (signals, options) = (attaching.signals.take(), attaching.options.clone());
        drop(attaching);
        let (tty, stdin) = (config.options.tty, options.stdin && config.interactive);
        let raw = if tty && stdin { RawMode::enter()? } else { None };
        if tty {
            draw(&socket, options.starts);
        }
        self.tell("attach", config, &[]);
        let mut relay = Relay {
            containers: self,
            config,
            socket,
            signals,
            input: Input { open: stdin, keys: raw.is_some().then(|| Typed::new(&options.detach_keys)), bytes: Vec::new() },
            output: Output::new(&options),
        };
        let end = relay.run();
        drop(raw);
        if matches!(end, Ok(AttachEnd::Detached)) {
            self.tell("detach", config, &[]);
        }
        end
    }

    /// Has a container's monitor connect to who waits.
    fn ask(&self, config: &Config, attaching: &Attaching) -> Result<()> {
        let refused = |why: &str| Err(Error::Busy { what: format!("container {}", config.name), why: why.into() });
        let Some(now) = self.look_up(&config.id)? else { return Err(not_running(config)) };
        if now.status.phase == Phase::Restarting {
            return refused("it is restarting; attach once it runs");
        }
        if self.is_paused(&now) {
            return refused("it is paused; `rbox unpause` lets it go on");
        }
        let Some(monitor) = self.monitor(&now.status) else { return Err(not_running(config)) };
        self.wake(&now.config, &now.status);
        let mut fds = [PollFd::new(&attaching.listener, PollFlags::IN), PollFd::new(&monitor, PollFlags::IN)];
        wait_for(&mut fds, Some(ANSWER_LIMIT))?;
        match (fds[0].revents().is_empty(), fds[1].revents().is_empty()) {
            (false, _) => Ok(()),
            (true, false) => Err(not_running(config)),
            (true, true) => refused("its monitor does not answer, perhaps because too many are attached"),
        }
    }
}

/// Gives its terminal the size of this one, and has what runs there draw its screen anew by another size before.
fn draw(socket: &OwnedFd, empty: bool) {
    if let Some(size) = caller_size() {
        if !empty {
            send_size(socket, size.ws_row.saturating_add(1), size.ws_col);
        }
        send_size(socket, size.ws_row, size.ws_col);
    }
}

fn send_size(socket: &OwnedFd, rows: u16, columns: u16) {
    // One that is lost comes with the next.
    let _ = attached::send(socket, SIZE, &[rows.to_ne_bytes(), columns.to_ne_bytes()].concat());
}

/// What is typed here, on its way to the container.
struct Input {
    open: bool,
    /// What leaves the container, if this is a terminal.
    keys: Option<Typed>,
    bytes: Vec<u8>,
}

impl Input {
    /// Sends what waits, as far as there is room.
    fn send(&mut self, socket: &OwnedFd) {
        if !self.bytes.is_empty() && !matches!(attached::send(socket, INPUT_DATA, &self.bytes), Ok(false)) {
            self.bytes.clear();
        }
    }

    /// Reads once; true if that leaves the container.
    fn read(&mut self, socket: &OwnedFd) -> bool {
        let mut typed = [0; MESSAGE_BYTES];
        match rustix::io::read(rustix::stdio::stdin(), &mut typed) {
            Err(Errno::INTR | Errno::AGAIN) => false,
            // Nothing more is typed; the container decides what follows.
            Ok(0) | Err(_) => {
                self.open = false;
                let _ = attached::send(socket, INPUT_END, &[]);
                false
            }
            Ok(length) => {
                let detached = match &mut self.keys {
                    Some(keys) => keys.pass(&typed[..length], &mut self.bytes),
                    None => {
                        self.bytes.extend(&typed[..length]);
                        false
                    }
                };
                self.send(socket);
                detached
            }
        }
    }
}

/// What the container says, on its way to who reads it here.
struct Output {
    message: Vec<u8>,
    /// Which part of that is still to be shown.
    from: usize,
    to: usize,
    /// Which are shown.
    shown: [bool; 2],
    /// How much each of them takes at once without waiting.
    takes: [usize; 2],
}

impl Output {
    fn new(options: &AttachOptions) -> Self {
        let takes = [takes(rustix::stdio::stdout()), takes(rustix::stdio::stderr())];
        let shown = [options.stdout, options.stderr];
        Self { message: vec![0; MESSAGE_BYTES + 1], from: 0, to: 0, shown, takes }
    }

    /// Where what is to be shown goes, if there is anything.
    fn target(&self) -> Option<BorrowedFd<'static>> {
        match (self.from < self.to, self.message[0]) {
            (false, _) => None,
            (true, STDERR) => Some(rustix::stdio::stderr()),
            (true, _) => Some(rustix::stdio::stdout()),
        }
    }

    /// Takes one message, if there is one: how it ended, if it says that.
    fn take(&mut self, socket: &OwnedFd) -> rustix::io::Result<Option<u8>> {
        let (_, length) = rustix::net::recv(socket, &mut self.message[..], RecvFlags::DONTWAIT)?;
        let length = length.min(self.message.len());
        match (self.message[0], &self.message[1..length.max(1)]) {
            _ if length == 0 => return Err(Errno::PIPE),
            (EXIT, &[code]) => return Ok(Some(code)),
            (STDOUT, _) if self.shown[0] => (self.from, self.to) = (1, length),
            (STDERR, _) if self.shown[1] => (self.from, self.to) = (1, length),
            _ => {}
        }
        Ok(None)
    }

    /// Shows as much as is taken at once; false if nobody reads any more.
    fn show(&mut self) -> Result<bool> {
        let Some(target) = self.target() else { return Ok(true) };
        let limit = self.takes[usize::from(self.message[0] == STDERR)];
        match rustix::io::write(target, &self.message[self.from..self.to.min(self.from.saturating_add(limit))]) {
            Ok(length) => self.from += length,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE) => return Ok(false),
            Err(errno) => return Err(errno).attempt(|| "write the container's output"),
        }
        Ok(true)
    }
}

/// How much can be written at once where something can be written, so that nothing waits.
fn takes(fd: BorrowedFd<'_>) -> usize {
    let kind = rustix::fs::fstat(fd).map(|status| FileType::from_raw_mode(status.st_mode));
    let waits = rustix::termios::isatty(fd) || matches!(kind, Ok(FileType::Fifo | FileType::Socket));
    if waits { PIPE_BYTES } else { usize::MAX }
}

struct Relay<'a> {
    containers: &'a Containers,
    config: &'a Config,
    socket: OwnedFd,
    signals: Option<Signals>,
    input: Input,
    output: Output,
}

impl Relay<'_> {
    fn run(&mut self) -> Result<AttachEnd> {
        if self.input.open {
            // With its end, or that of this process, the container's input may end.
            let _ = attached::send(&self.socket, INPUT_DATA, &[]);
        }
        loop {
            let [typed, taken] = self.wait()?;
            self.forward()?;
            if taken && !self.output.show()? {
                return Ok(AttachEnd::Unread);
            }
            if self.output.target().is_none() {
                match self.output.take(&self.socket) {
                    Ok(Some(code)) => return Ok(AttachEnd::Exited(code)),
                    Ok(None) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) => return self.left(),
                }
            }
            self.input.send(&self.socket);
            if typed && self.input.read(&self.socket) {
                return Ok(AttachEnd::Detached);
            }
        }
    }

    /// Waits until there is something to be done: whether something was typed, and whether output is taken.
    fn wait(&self) -> Result<[bool; 2]> {
        let (stdin, target) = (rustix::stdio::stdin(), self.output.target());
        let mut fds = Vec::with_capacity(4);
        let reads = self.input.open && self.input.bytes.is_empty();
        if reads {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        fds.extend(target.map(|target| PollFd::from_borrowed_fd(target, PollFlags::OUT)));
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, target.is_none());
        wanted.set(PollFlags::OUT, !self.input.bytes.is_empty());
        if !wanted.is_empty() {
            fds.push(PollFd::new(&self.socket, wanted));
        }
        fds.extend(self.signals.as_ref().map(|signals| PollFd::new(signals, PollFlags::IN)));
        wait_for(&mut fds, None)?;
        let ready = |at: usize| !fds[at].revents().is_empty();
        Ok([reads && ready(0), target.is_some() && ready(usize::from(reads))])
    }

    /// The monitor has gone without a word: it was killed, and the container with it.
    fn left(&self) -> Result<AttachEnd> {
        let Some(now) = self.containers.look_up(&self.config.id)? else { return Ok(AttachEnd::Exited(KILLED)) };
        let waiter = self.containers.waiter(&now)?;
        Ok(AttachEnd::Exited(waiter.map_or(Ok(now.status.exit_code), |waiter| waiter.wait())?))
    }

    fn forward(&self) -> Result<()> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while let Some(signal) = signals.next()? {
            match (signal, self.config.options.tty) {
                (libc::SIGWINCH, true) => {
                    if let Some(size) = caller_size() {
                        send_size(&self.socket, size.ws_row, size.ws_col);
                    }
                }
                (libc::SIGWINCH, false) => {}
                // One that ends meanwhile needs no signal.
                _ => drop(self.containers.kill(&self.config.id, Signal::from_number(signal))),
            }
        }
        Ok(())
    }
}
