//! What a monitor does while its container runs: the log, who is attached, the container's health.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::attached::{Audience, MESSAGE_BYTES};
use super::health::Probe;
use super::log_file::{ENTRY_LIMIT_BYTES, Stream};
use super::log_sink::Log;
use super::monitor::{ERR, OUT, PIDFD, WAKE, wait_for};
use super::record::Config;
use super::store::Containers;
use crate::error::{Attempt, Result};
use crate::network::dns::Server;
use crate::sys;

/// How long nothing has happened when nothing more is expected soon: the monitor lets go of memory once then,
/// and waits for as long as it takes.
const QUIET: Duration = Duration::from_secs(1);

/// Does all there is to do until the container's first process has ended, answering its questions for names, too.
/// Gives those who are attached then.
pub(super) fn watch(config: &Config, containers: &Containers, mut names: Option<&mut Server>) -> Result<Audience> {
    let mut log = Log::open(containers, config);
    let mut outputs = vec![Output::new(OUT, Stream::Out)];
    if !config.options.tty {
        outputs.push(Output::new(ERR, Stream::Err));
    }
    let wakes = sys::signalfd(&[WAKE]).attempt(|| "create a signalfd")?;
    let mut audience = Audience::new(config);
    let mut probe = Probe::new(containers, config);
    let mut chunk = Vec::new();
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(sys::borrow_fd(PIDFD), PollFlags::IN), PollFd::new(&wakes, PollFlags::IN)];
        if !audience.is_behind() {
            fds.extend(outputs.iter().map(|output| PollFd::from_borrowed_fd(output.fd, PollFlags::IN)));
        }
        let others = fds.len();
        fds.extend(log.fd());
        audience.fds(&mut fds);
        if let Some(probe) = &probe {
            probe.fds(&mut fds);
        }
        fds.extend(names.as_deref().map(|names| PollFd::new(names, PollFlags::IN)));
        let due = probe.as_ref().and_then(Probe::left);
        let quiet = due.map_or(QUIET, |due| QUIET.min(due / 2));
        if wait_for(&mut fds, Some(quiet))? == 0 {
            // What was needed for what has been done is not needed for waiting; what is done between here and
            // there would be.
            chunk = Vec::new();
            sys::forget_program();
            wait_for(&mut fds, due.map(|due| due.saturating_sub(quiet)))?;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let ended = ready[0];
        if ready[1] {
            while sys::read_signal(wakes.as_fd()).attempt(|| "read a signal")?.is_some() {}
            // Before the output is read: who asked before the start gets all of it.
            audience.admit(&containers.directory(&config.id));
        }
        if let (Some(names), Some(true)) = (names.as_deref_mut(), ready.last()) {
            names.serve();
        }
        // Who has ended writes no more: what is there then is all.
        let mut its = ready[2..others].iter();
        outputs.retain_mut(|output| {
            let ready = its.next() == Some(&true);
            while (ready || ended) && output.open {
                if !output.read(&mut chunk, &mut log, &mut audience) || !ended {
                    break;
                }
            }
            output.open
        });
        log.flush();
        if ended {
            outputs.iter_mut().for_each(|output| output.end(&mut log));
            log.flush();
            return Ok(audience);
        }
        log.step();
        audience.serve();
        if let Some(status) = probe.as_mut().and_then(Probe::step) {
            containers.tell(&format!("health_status: {}", status.name()), config, &[]);
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

    /// Reads once, into `chunk`; false if there was nothing.
    fn read(&mut self, chunk: &mut Vec<u8>, log: &mut Log, audience: &mut Audience) -> bool {
        chunk.resize(MESSAGE_BYTES, 0);
        match rustix::io::read(self.fd, &mut chunk[..]) {
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
                // What somebody has seen is in the log.
                log.flush();
                audience.tell(self.stream, &chunk[..length]);
                true
            }
        }
    }

    fn take(&mut self, part: &[u8], log: &mut Log) {
        if self.line.is_empty() && part.len() <= ENTRY_LIMIT_BYTES && part.last() == Some(&b'\n') {
            return log.add(self.stream, part);
        }
        let mut rest = part;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(ENTRY_LIMIT_BYTES - self.line.len()));
            self.line.extend(now);
            rest = later;
            if self.line.len() == ENTRY_LIMIT_BYTES || self.line.last() == Some(&b'\n') {
                self.end(log);
            }
        }
    }

    /// A line that has no end.
    fn end(&mut self, log: &mut Log) {
        if !self.line.is_empty() {
            log.add(self.stream, &self.line);
            self.line = Vec::new();
        }
    }
}
