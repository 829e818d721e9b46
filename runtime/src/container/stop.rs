//! Signals, and waiting for the end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::record::{Config, End, KILLED, Phase};
use super::store::{Container, Containers, not_running};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::hooks::ends_within;
use crate::lifecycle::Signal;

/// How long `stop` waits before it kills, if nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

/// How long a container that is being started is waited for before it is stopped.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How often one that is being started is looked at: that takes some milliseconds, and nothing of it can be waited for.
const START_POLL: Duration = Duration::from_millis(2);

/// Waits for a container's end, however that comes: from before a signal is sent on, so that nothing is missed.
#[derive(Debug)]
pub struct Waiter<'a> {
    containers: &'a Containers,
    id: String,
    lock: File,
}

impl Waiter<'_> {
    /// Waits until the container has ended and its monitor has cleared up. Gives the exit code.
    pub fn wait(&self) -> Result<u8> {
        files::try_lock(&self.lock, FlockOperation::LockShared)?;
        if let Some(end) = End::read(&self.lock) {
            return Ok(end.code);
        }
        // Its monitor was killed: what that left is put right by who looks first.
        match self.containers.load(&self.id) {
            Err(Error::NotFound { .. }) => Ok(KILLED),
            now => Ok(now.map(|now| if now.status.is_live() { KILLED } else { now.status.exit_code })?),
        }
    }
}

/// A container that was asked to stop.
#[derive(Debug)]
pub struct Stop<'a> {
    containers: &'a Containers,
    container: Container,
    waiter: Waiter<'a>,
    pidfd: Option<OwnedFd>,
    /// When it is killed; `None` for never.
    deadline: Option<Instant>,
}

impl Containers {
    /// Something that waits for a container that runs; `None` if it does not.
    pub fn waiter(&self, container: &Container) -> Result<Option<Waiter<'_>>> {
        let id = container.config.id.clone();
        let mut status = container.status.clone();
        while status.is_live() {
            let lock = self.open_lock(&id)?;
            // While one is being started it may still be the lock of the run before: that would say how that one ended.
            if status.phase != Phase::Starting || End::read(&lock).is_none() {
                return Ok(Some(Waiter { containers: self, lock, id }));
            }
            std::thread::sleep(START_POLL);
            status = self.load(&id)?.status;
        }
        Ok(None)
    }

    /// Sends a signal to the first process of a container.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not run.
    pub fn kill(&self, id: &str, signal: Signal) -> Result<()> {
        let container = self.load(id)?;
        let ends = signal == Signal::KILL || signal == stop_signal(&container.config);
        match container.status.phase {
            // Before the signal: what ends by it is not to be started again.
            Phase::Running if ends => self.mark_stopped(&container.config, &container.status)?,
            Phase::Running => {}
            // That it is not started again is all there is to do.
            Phase::Restarting if ends => return self.mark_stopped(&container.config, &container.status),
            // Its first process is not what it is to be yet: a signal would be lost on it.
            Phase::Starting => {
                let why = "it is just being started; try again".into();
                return Err(Error::Busy { what: format!("container {}", container.config.name), why });
            }
            Phase::Created | Phase::Exited | Phase::Restarting => return Err(not_running(&container.config)),
        }
        self.privileged("send a signal", &mut || self.runtime.kill(id, signal, false))?;
        self.tell("kill", &container.config, &[("signal", &signal.to_string())]);
        Ok(())
    }

    /// The same to one that ran a moment ago; that it has ended since is no error.
    pub(super) fn kill_living(&self, container: &Container, signal: Signal) -> Result<()> {
        let id = &container.config.id;
        let Err(error) = self.kill(id, signal) else { return Ok(()) };
        let is_there = match self.load(id).map(|now| now.status.phase) {
            Ok(Phase::Starting) => true,
            // What its monitor writes comes a moment after its end.
            Ok(Phase::Running) => self.runtime.first_process(id).is_ok_and(|process| process.is_some()),
            _ => false,
        };
        if is_there { Err(error) } else { Ok(()) }
    }

    /// The container once nobody is just starting it, `None` if it has gone. It is not started again by its policy from
    /// here on: one that runs always is one that was stopped, too.
    pub(super) fn hold(&self, container: &Container) -> Result<Option<Container>> {
        self.mark_stopped(&container.config, &container.status)?;
        let end = Instant::now() + START_LIMIT;
        loop {
            let now = match self.load(&container.config.id) {
                Err(Error::NotFound { .. }) => return Ok(None),
                now => now?,
            };
            if now.status.phase != Phase::Starting || Instant::now() > end {
                return Ok(Some(now));
            }
            std::thread::sleep(START_POLL);
        }
    }

    /// Asks a container to stop: by `signal`, else by its own, which is what was chosen when it was made, what its image
    /// says, or SIGTERM. `None` if it does not run. `grace_s` is how many seconds it has, a negative number for
    /// as long as it takes; without it as many as were chosen when it was made, or 10.
    pub fn begin_stop(&self, container: &Container, signal: Option<Signal>, grace_s: Option<i64>) -> Result<Option<Stop<'_>>> {
        self.networks().repair();
        let Some(container) = self.hold(container)? else { return Ok(None) };
        let Some(waiter) = self.waiter(&container)? else { return Ok(None) };
        let config = &container.config;
        let signal = signal.unwrap_or_else(|| stop_signal(config));
        let grace_s = grace_s.or(config.stop_timeout_s.map(i64::from));
        let grace = grace_s.map_or(Some(GRACE), |seconds| u64::try_from(seconds).ok().map(Duration::from_secs));
        let pidfd = self.runtime.first_process(&config.id)?;
        self.kill_living(&container, signal)?;
        if self.is_paused(&container) {
            // It cannot hear otherwise.
            self.unpause(&container)?;
        }
        let deadline = grace.map(|grace| Instant::now() + grace);
        Ok(Some(Stop { containers: self, container, waiter, pidfd, deadline }))
    }
}

/// What a container is asked to stop by.
fn stop_signal(config: &Config) -> Signal {
    let named = config.stop_signal.as_deref().unwrap_or(&config.image_config.stop_signal);
    // A signal that is none is the image's fault, not a reason to run for ever.
    named.parse().unwrap_or(Signal::TERM)
}

impl Stop<'_> {
    /// Waits until it has stopped, and kills it when its time is over. Gives the exit code.
    pub fn finish(self) -> Result<u8> {
        if let (Some(pidfd), Some(deadline)) = (&self.pidfd, self.deadline) {
            let left = deadline.saturating_duration_since(Instant::now());
            if !ends_within(pidfd, left).attempt(|| "wait for the container's end")? {
                self.containers.kill_living(&self.container, Signal::KILL)?;
            }
        }
        let code = self.waiter.wait()?;
        self.containers.tell("stop", &self.container.config, &[]);
        Ok(code)
    }
}
