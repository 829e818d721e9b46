//! Signals, and waiting for the end.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::record::{Config, End, KILLED, Phase};
use super::store::{Container, Containers, not_running};
use crate::error::{Error, Result};
use crate::files;
use crate::lifecycle::{FirstProcess, Signal};

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
    /// Whether nobody has started the container anew since.
    fn is_current(&self) -> bool {
        files::leads_to(&self.containers.lock_path(&self.id), &self.lock).unwrap_or(false)
    }

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

/// A run of a container that is not followed by another, but where somebody starts it.
pub(super) struct Held<'a> {
    container: Container,
    pub(super) waiter: Waiter<'a>,
    /// `None` if it has ended.
    process: Option<FirstProcess>,
}

impl Held<'_> {
    /// Sends it a signal; that it has ended is no error.
    pub(super) fn kill(&self, signal: Signal) -> Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        match self.waiter.containers.signal(&self.container.config, process, signal) {
            Err(_) if process.ends_within(Duration::ZERO)? => Ok(()),
            sent => sent,
        }
    }
}

/// A container that was asked to stop.
pub struct Stop<'a> {
    held: Held<'a>,
    /// When it is killed; `None` for never.
    deadline: Option<Instant>,
}

impl Containers {
    /// Something that waits for a container that runs; `None` if it does not.
    pub fn waiter(&self, container: &Container) -> Result<Option<Waiter<'_>>> {
        Ok(self.live(&container.config.id, true)?.map(|(_, waiter)| waiter))
    }

    /// A container that is live, and what waits for the end of that very run; `None` if it is not. One that is just being
    /// started will do if `starting`, else it is waited for.
    fn live(&self, id: &str, starting: bool) -> Result<Option<(Container, Waiter<'_>)>> {
        let end = Instant::now() + START_LIMIT;
        loop {
            // In this order: if it is still its lock afterwards, it is that of the run that was found.
            let waiter = Waiter { containers: self, lock: self.open_lock(id)?, id: id.to_owned() };
            let now = self.load(id)?;
            if !now.status.is_live() {
                return Ok(None);
            }
            let is_starting = now.status.phase == Phase::Starting;
            // While one is being started it may still be the lock of the run before: that would say how that one ended.
            let is_its = waiter.is_current() && !(is_starting && End::read(&waiter.lock).is_some());
            if is_its && (starting || !is_starting) {
                return Ok(Some((now, waiter)));
            }
            if Instant::now() > end {
                return Err(being_started(&now.config));
            }
            std::thread::sleep(START_POLL);
        }
    }

    /// Sends a signal to the first process of a container.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not run.
    pub fn kill(&self, id: &str, signal: Signal) -> Result<()> {
        let container = self.load(id)?;
        let config = &container.config;
        let ends = signal == Signal::KILL || signal == stop_signal(config);
        match container.status.phase {
            // Before the signal: what ends by it is not to be started again.
            Phase::Running if ends => self.mark_stopped(config, &container.status)?,
            Phase::Running => {}
            // That it is not started again is all there is to do.
            Phase::Restarting if ends => return self.mark_stopped(config, &container.status),
            // Its first process is not what it is to be yet: a signal would be lost on it.
            Phase::Starting => return Err(being_started(config)),
            Phase::Created | Phase::Exited | Phase::Restarting => return Err(not_running(config)),
        }
        self.signal(config, &self.runtime.first_process(id)?.ok_or_else(|| not_running(config))?, signal)
    }

    fn signal(&self, config: &Config, process: &FirstProcess, signal: Signal) -> Result<()> {
        self.privileged("send a signal", &mut || process.signal(signal))?;
        self.tell("kill", config, &[("signal", &signal.to_string())]);
        Ok(())
    }

    /// The run of a container that is live, once nobody is just starting it; `None` if it is not, or has gone. It is not
    /// started again by its policy from here on: one that runs always is one that was stopped, too.
    pub(super) fn hold(&self, container: &Container) -> Result<Option<Held<'_>>> {
        let id = &container.config.id;
        self.mark_stopped(&container.config, &container.status)?;
        let (container, waiter) = match self.live(id, false) {
            Err(Error::NotFound { .. }) | Ok(None) => return Ok(None),
            Err(error) => return Err(error),
            Ok(Some(live)) => live,
        };
        // Who has started it since took the mark away.
        self.mark_stopped(&container.config, &container.status)?;
        let process = self.runtime.first_process(id)?;
        // Asked only now: if it is not another's by then, the process is of the run that is waited for.
        let process = process.filter(|_| waiter.is_current());
        Ok(Some(Held { container, waiter, process }))
    }

    /// Asks a container to stop: by `signal`, else by its own, which is what was chosen when it was made, what its image
    /// says, or SIGTERM. `None` if it does not run. `grace_s` is how many seconds it has, a negative number for
    /// as long as it takes; without it as many as were chosen when it was made, or 10.
    pub fn begin_stop(&self, container: &Container, signal: Option<Signal>, grace_s: Option<i64>) -> Result<Option<Stop<'_>>> {
        self.networks().repair();
        let Some(held) = self.hold(container)? else { return Ok(None) };
        let config = &held.container.config;
        let grace_s = grace_s.or(config.stop_timeout_s.map(i64::from));
        let grace = grace_s.map_or(Some(GRACE), |seconds| u64::try_from(seconds).ok().map(Duration::from_secs));
        held.kill(signal.unwrap_or_else(|| stop_signal(config)))?;
        if self.is_paused(&held.container) {
            // It cannot hear otherwise.
            self.unpause(&held.container)?;
        }
        let deadline = grace.map(|grace| Instant::now() + grace);
        Ok(Some(Stop { held, deadline }))
    }
}

/// What a container is asked to stop by.
fn stop_signal(config: &Config) -> Signal {
    let named = config.stop_signal.as_deref().unwrap_or(&config.image_config.stop_signal);
    // A signal that is none is the image's fault, not a reason to run for ever.
    named.parse().unwrap_or(Signal::TERM)
}

fn being_started(config: &Config) -> Error {
    Error::Busy { what: format!("container {}", config.name), why: "it is just being started; try again".into() }
}

impl Stop<'_> {
    /// Waits until it has stopped, and kills it when its time is over. Gives the exit code.
    pub fn finish(self) -> Result<u8> {
        let Held { container, waiter, process } = &self.held;
        if let (Some(process), Some(deadline)) = (process, self.deadline)
            && !process.ends_within(deadline.saturating_duration_since(Instant::now()))?
        {
            self.held.kill(Signal::KILL)?;
        }
        let code = waiter.wait()?;
        waiter.containers.tell("stop", &container.config, &[]);
        Ok(code)
    }
}
