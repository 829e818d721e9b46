//! The health of a container: a command run in it from time to time by its monitor, which sleeps meanwhile.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::launching::{null, pipe};
use super::record::{Config, Phase};
use super::store::{Container, Containers, read, save};
use crate::error::{Attempt, Result};
use crate::image::Healthcheck;
use crate::launch::reap;
use crate::lifecycle::{ExecOptions, rfc3339};
use crate::sys;

/// How much of a command's output is kept, as with docker.
const OUTPUT_LIMIT_BYTES: usize = 4096;

/// How many results are kept.
const RESULTS_LIMIT: usize = 5;

/// The file with the results.
const FILE: &str = "health.json";

/// What the last commands said, with docker's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// What they come to.
    pub status: HealthStatus,
    /// How many have failed one after the other.
    pub failing_streak: u32,
    /// The last five, the oldest first.
    pub log: Vec<HealthResult>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No command has succeeded yet, and not enough have failed.
    Starting,
    /// The last ones succeeded, or not enough of them failed.
    Healthy,
    /// Too many have failed.
    Unhealthy,
}

impl HealthStatus {
    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What one command said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it was started, RFC 3339.
    pub start: String,
    /// When it had ended.
    pub end: String,
    /// Its exit code; -1 if it took too long.
    pub exit_code: i32,
    /// The beginning of its output.
    pub output: String,
}

impl Health {
    fn new() -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() }
    }

    /// Takes a result into account; with `early` a failure does not count until a first success.
    fn take(&mut self, check: &Healthcheck, early: bool, result: HealthResult) {
        if result.exit_code == 0 {
            (self.status, self.failing_streak) = (HealthStatus::Healthy, 0);
        } else if !(early && self.status == HealthStatus::Starting) {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= check.retries() {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() >= RESULTS_LIMIT {
            self.log.remove(0);
        }
        self.log.push(result);
    }
}

impl Containers {
    /// How a container is; `None` if nobody looks at that.
    pub fn health(&self, container: &Container) -> Option<Health> {
        container.config.health.as_ref()?;
        match container.status.phase {
            Phase::Created => None,
            _ => Some(read(&self.directory(&container.config.id), FILE).unwrap_or_else(|_| Health::new())),
        }
    }

    /// Before a container is started: what is known is about another run of it.
    pub(super) fn forget_health(&self, config: &Config) {
        if config.health.is_some() {
            let _ = std::fs::remove_file(self.directory(&config.id).join(FILE));
        }
    }
}

/// A monitor's view of its container's health.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    containers: &'a Containers,
    id: &'a str,
    check: &'a Healthcheck,
    began: Instant,
    /// When the next command is run.
    due: Instant,
    run: Option<Run>,
    status: HealthStatus,
}

/// A command that runs.
#[derive(Debug)]
struct Run {
    /// The process that runs it, a copy of the monitor.
    pidfd: OwnedFd,
    out: OwnedFd,
    began: Instant,
    start: String,
    output: Vec<u8>,
    truncated: bool,
}

impl<'a> Probe<'a> {
    /// `None` if nobody looks at the container's health.
    pub(super) fn new(containers: &'a Containers, config: &'a Config) -> Option<Self> {
        let check = config.health.as_ref()?;
        let now = Instant::now();
        let mut probe =
            Self { containers, id: &config.id, check, began: now, due: now, run: None, status: HealthStatus::Starting };
        probe.due = now + probe.interval();
        Some(probe)
    }

    fn is_early(&self) -> bool {
        self.began.elapsed() < self.check.start_period()
    }

    fn interval(&self) -> Duration {
        let early = self.status == HealthStatus::Starting && self.is_early();
        if early { self.check.start_interval() } else { self.check.interval() }
    }

    /// What is to be waited for: the command's output and end.
    pub(super) fn fds<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        if let Some(run) = &self.run {
            fds.push(PollFd::new(&run.pidfd, PollFlags::IN));
            fds.push(PollFd::new(&run.out, PollFlags::IN));
        }
    }

    /// How long nothing is to be done but to wait; `None` while a command runs.
    pub(super) fn left(&self) -> Option<Duration> {
        self.run.is_none().then(|| self.due.saturating_duration_since(Instant::now()))
    }

    /// Does what is to be done now. What goes wrong with it is a command that failed. Gives the new status where
    /// it has become another.
    pub(super) fn step(&mut self) -> Option<HealthStatus> {
        let Some(run) = &mut self.run else {
            if self.left().is_some_and(|left| left.is_zero()) {
                self.begin();
            }
            return None;
        };
        let ended = super::monitor::wait_for(&mut [PollFd::new(&run.pidfd, PollFlags::IN)], Some(Duration::ZERO));
        run.read();
        if ended.is_ok_and(|count| count == 0) {
            return None;
        }
        let result = self.run.take()?.result(self.check);
        self.due = Instant::now() + self.interval();
        // Who is just ending says nothing of its health any more.
        if result.exit_code == NOT_RUN && self.is_ending() { None } else { self.record(result) }
    }

    /// Whether the container's first process has left its namespaces, though it is not gone yet.
    fn is_ending(&self) -> bool {
        let pid = self.containers.status(self.id).map_or(0, |status| status.pid);
        !std::path::Path::new(&format!("/proc/{pid}/ns/mnt")).exists()
    }

    fn begin(&mut self) {
        // Who is frozen cannot answer.
        let paused = self.containers.runtime.state(self.id).is_ok_and(|state| state.status == crate::lifecycle::Status::Paused);
        self.due = Instant::now() + self.interval();
        if !paused {
            self.run = Run::start(self.containers, self.id, self.check).ok();
        }
    }

    fn record(&mut self, result: HealthResult) -> Option<HealthStatus> {
        let directory = self.containers.directory(self.id);
        let mut health: Health = read(&directory, FILE).unwrap_or_else(|_| Health::new());
        health.take(self.check, self.is_early(), result);
        // On a full disk the last one that was written is what is known.
        let _ = save(&directory, FILE, &health);
        let changed = health.status != self.status;
        self.status = health.status;
        changed.then_some(self.status)
    }
}

impl Run {
    fn start(containers: &Containers, id: &str, check: &Healthcheck) -> Result<Self> {
        let (out, input) = pipe()?;
        rustix::fs::fcntl_setfl(&out, OFlags::NONBLOCK).attempt(|| "read a health check's output")?;
        let (_, pidfd) = sys::spawn(0, None, &mut || run(containers, id, check, input.as_fd()).unwrap_or(NOT_RUN as u8))
            .attempt(|| "start a health check")?;
        let start = rfc3339(SystemTime::now());
        Ok(Self { pidfd, out, began: Instant::now(), start, output: Vec::new(), truncated: false })
    }

    /// Reads all there is, and keeps the beginning.
    fn read(&mut self) {
        let mut chunk = [0; 1024];
        loop {
            match rustix::io::read(&self.out, &mut chunk) {
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let room = (OUTPUT_LIMIT_BYTES - self.output.len()).min(length);
                    self.truncated |= room < length;
                    self.output.extend(&chunk[..room]);
                }
            }
        }
    }

    fn result(mut self, check: &Healthcheck) -> HealthResult {
        let code = reap(&self.pidfd).map_or(NOT_RUN, |exit| i32::from(exit.code()));
        let mut output = String::from_utf8_lossy(&self.output).into_owned();
        if self.truncated {
            output.push_str("...");
        }
        let late = code == KILLED && self.began.elapsed() >= check.timeout();
        if late {
            output = format!("Health check exceeded timeout ({:?}): {output}", check.timeout());
        }
        HealthResult {
            start: std::mem::take(&mut self.start),
            end: rfc3339(SystemTime::now()),
            exit_code: if late { -1 } else { code },
            output,
        }
    }
}

/// No process of a check's outlives it, not even as a zombie: the monitor may have a long life before it.
impl Drop for Run {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = sys::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(&self.pidfd);
    }
}

/// The exit code of what could not be run in the container.
const NOT_RUN: i32 = 125;

/// The exit code of a command that took too long.
const KILLED: i32 = super::record::KILLED as i32;

/// Runs the command, in a copy of the monitor: joining a container's namespaces changes a process for good.
fn run(containers: &Containers, id: &str, check: &Healthcheck, out: BorrowedFd<'_>) -> Result<u8> {
    let attempted = || "set up a health check";
    let null = null()?;
    for (fd, number) in [(null.as_fd(), 0), (out, 1), (out, 2)] {
        sys::place_fd(fd, number, false).attempt(attempted)?;
    }
    // Above all the lock: the monitor's alone.
    sys::close_from(3).attempt(attempted)?;
    std::mem::forget(null);
    let options =
        ExecOptions { id: id.to_owned(), args: check.command(), timeout: Some(check.timeout()), ..ExecOptions::default() };
    match containers.runtime.exec(&options) {
        Ok(exit) => Ok(exit.map_or(0, crate::launch::Exit::code)),
        Err(error) => {
            let _ =
                File::from(rustix::io::dup(rustix::stdio::stdout()).attempt(attempted)?).write_all(error.to_string().as_bytes());
            Ok(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> HealthResult {
        HealthResult { start: String::new(), end: String::new(), exit_code, output: String::new() }
    }

    #[test]
    fn so_many_failures_one_after_the_other_are_unhealthy_and_one_success_is_healthy() {
        let check = Healthcheck { retries: 2, ..Healthcheck::default() };
        let mut health = Health::new();
        let mut after = |code, early| {
            health.take(&check, early, result(code));
            (health.status, health.failing_streak, health.log.len())
        };
        assert_eq!(after(1, true), (HealthStatus::Starting, 0, 1), "early failures do not count");
        assert_eq!(after(1, false), (HealthStatus::Starting, 1, 2));
        assert_eq!(after(-1, false), (HealthStatus::Unhealthy, 2, 3));
        assert_eq!(after(0, false), (HealthStatus::Healthy, 0, 4));
        assert_eq!(after(1, true), (HealthStatus::Healthy, 1, 5), "it was well before: an early failure counts");
        assert_eq!(after(0, true), (HealthStatus::Healthy, 0, 5), "five are kept");
    }

    #[test]
    fn what_is_written_has_dockers_keys() {
        let mut health = Health::new();
        health.take(&Healthcheck::default(), false, result(3));
        let text = serde_json::to_value(&health).unwrap();
        assert_eq!((text["Status"].as_str(), text["FailingStreak"].as_u64()), (Some("starting"), Some(1)));
        assert_eq!(text["Log"][0]["ExitCode"], 3);
    }
}
