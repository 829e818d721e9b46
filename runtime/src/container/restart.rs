//! Restart policies: whether a container that has ended is started again, and when.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Config, Phase, Status};
use super::store::Containers;
use crate::error::{Attempt, Error, Result};
use crate::sys;

/// How long the first restart waits, and any after a container has run for [`SETTLED`]; docker's.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest a restart waits.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Who has run for so long has not failed at once.
const SETTLED: Duration = Duration::from_secs(10);

/// Whether a container is started again when it has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// It is not.
    #[default]
    No,
    /// If its exit code is not 0, and at most so many times; 0 for any number.
    OnFailure(u32),
    /// Always but after `stop` or `kill`; also when the machine starts.
    Always,
    /// The same, but when the machine starts only if it was not stopped before.
    UnlessStopped,
}

impl RestartPolicy {
    /// docker's word, without the number of times.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How many times at most; 0 for any number.
    pub fn max_retries(self) -> u32 {
        if let Self::OnFailure(max) = self { max } else { 0 }
    }

    /// Whether one that ended with `code`, after `count` restarts, is started again; nobody has stopped it.
    pub(super) fn wants(self, code: u8, count: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(max) => code != 0 && (max == 0 || count < max),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max_retries() {
            0 => f.write_str(self.name()),
            max => write!(f, "{}:{max}", self.name()),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why| Error::Name { what: "restart policy", input: text.to_owned(), why };
        match text.split_once(':') {
            None => match text {
                "no" | "" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure(0)),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(bad("it is no, on-failure[:NUMBER], always or unless-stopped")),
            },
            Some(("on-failure", number)) => {
                number.parse().map(Self::OnFailure).map_err(|_| bad("how many times is a number, 0 for any"))
            }
            Some(_) => Err(bad("only on-failure has a number of times")),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

/// How long the next restart waits, after one that waited for `last` and a run of `ran`.
pub(super) fn delay(last: Duration, ran: Duration) -> Duration {
    if last.is_zero() || ran >= SETTLED { FIRST_DELAY } else { (last * 2).min(LONGEST_DELAY) }
}

impl Containers {
    /// The file that says that somebody has stopped a container, until it is started again.
    fn stopped_path(&self, id: &str) -> PathBuf {
        self.directory(id).join("stopped")
    }

    /// Whether somebody has stopped a container since it was started last.
    pub fn is_stopped(&self, id: &str) -> bool {
        self.stopped_path(id).exists()
    }

    /// A container is not started again by its policy from now on, also where that is just being done.
    pub(super) fn mark_stopped(&self, config: &Config, status: &Status) -> Result<()> {
        let path = self.stopped_path(&config.id);
        let marked = std::fs::File::create(&path).attempt(|| format!("say that container {} is stopped", config.name));
        if config.restart != RestartPolicy::No && self.directory(&config.id).exists() {
            // A full disk is no reason not to stop what is not started again anyway.
            marked?;
        }
        self.wake(config, status);
        Ok(())
    }

    /// Before a container is started because somebody wants it.
    pub(super) fn unmark_stopped(&self, id: &str) {
        // Most of the time there is none.
        let _ = std::fs::remove_file(self.stopped_path(id));
    }

    /// Has a container's monitor look for what others have left for it. A command in the foreground looks for nothing;
    /// but it may have been stopped by its terminal, and could not see the end.
    pub(super) fn wake(&self, config: &Config, status: &Status) {
        let signal = if config.direct { libc::SIGCONT } else { super::monitor::WAKE };
        if let Some(monitor) = self.monitor(status) {
            // One that has ended needs no waking.
            let _ = sys::pidfd_signal(std::os::fd::AsFd::as_fd(&monitor), signal);
        }
    }

    /// The containers that should run because of their restart policies and do not, the oldest first: what the machine
    /// starts when it starts. Damaged ones are left out.
    pub fn to_be_started(&self) -> Result<Vec<Config>> {
        let mut found = self.list()?;
        found.reverse();
        let wanted = found.into_iter().flatten().filter(|one| {
            let stopped = self.is_stopped(&one.config.id);
            let code = one.status.exit_code;
            one.status.phase == Phase::Exited
                && match one.config.restart {
                    RestartPolicy::Always => true,
                    policy => !stopped && policy.wants(code, one.status.restart_count),
                }
        });
        Ok(wanted.map(|one| one.config).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn policies_read_and_are_written_as_dockers() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        assert_eq!("".parse::<RestartPolicy>().unwrap(), RestartPolicy::No);
        for bad in ["yes", "always:3", "on-failure:", "on-failure:-1", "on-failure:x", "no:1", "Always"] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failure_is_retried_so_many_times_and_a_success_is_none() {
        let policy = RestartPolicy::OnFailure(2);
        assert!(policy.wants(1, 0) && policy.wants(1, 1) && !policy.wants(1, 2) && !policy.wants(0, 0));
        assert!(RestartPolicy::OnFailure(0).wants(1, 1000));
        assert!(RestartPolicy::Always.wants(0, 1000) && !RestartPolicy::No.wants(1, 0));
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew_after_ten_seconds() {
        let mut last = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..12 {
            last = delay(last, Duration::from_secs(1));
            delays.push(last.as_millis());
        }
        assert_eq!(delays[..4], [100, 200, 400, 800]);
        assert_eq!(delays[10..], [60_000, 60_000]);
        assert_eq!(delay(last, Duration::from_secs(10)), FIRST_DELAY);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,24}") {
            let _ = text.parse::<RestartPolicy>();
        }
    }
}
