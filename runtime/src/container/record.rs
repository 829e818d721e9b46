//! What is kept of a container on disk: what it was made of, where it stands, how it ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::log_options::LogOptions;
use super::restart::RestartPolicy;
use crate::error::{Attempt, Result};
use crate::image::{ContainerConfig, Healthcheck};
use crate::launch::Exit;
use crate::lifecycle::{boot, rfc3339};
use crate::name::Digest;
use crate::network::{Endpoint, Published};
use crate::spec::RunOptions;

/// What a container was made of (`container.json`). Only its name, its limits and its restart policy ever change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its image as the user named it.
    pub image: String,
    /// Its image's ID.
    pub image_id: Digest,
    /// The image's DiffIDs, bottom first.
    pub layers: Vec<Digest>,
    /// How the image says it is to be run.
    pub image_config: ContainerConfig,
    /// What the user asked for.
    pub options: RunOptions,
    /// Its standard input stays open, though nobody writes to it.
    pub interactive: bool,
    /// It goes when it ends.
    pub auto_remove: bool,
    /// What `stop` sends, in place of what the image says.
    pub stop_signal: Option<String>,
    /// How many seconds `stop` waits, if it is not told itself.
    pub stop_timeout_s: Option<u32>,
    /// What becomes of its output.
    pub log: LogOptions,
    /// Whether it is started again when it has ended.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How its health is looked at, if it is.
    #[serde(default)]
    pub health: Option<Healthcheck>,
    /// What people say of it, beside what they say of its image.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its standard input ends with that of the first who is attached.
    #[serde(default)]
    pub stdin_once: bool,
    /// Its input and output are those of the command that runs it and watches it itself: it has no monitor and no log.
    #[serde(default)]
    pub direct: bool,
}

impl Config {
    /// All its labels: its own before those of its image.
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let all = self.image_config.labels.iter().chain(&self.labels);
        all.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It was never started, or could not be.
    Created,
    /// Its monitor is starting it.
    Starting,
    /// Its monitor watches it.
    Running,
    /// It has ended, and its monitor waits until it may be started again.
    Restarting,
    /// It ran, and does not any more.
    Exited,
}

/// Where a container stands (`status.json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How far it has come.
    pub phase: Phase,
    /// Its first process while it runs, else 0.
    #[serde(default)]
    pub pid: i32,
    /// When it was started last, RFC 3339; empty if never.
    #[serde(default)]
    pub started: String,
    /// When it ended last, RFC 3339; empty if never.
    #[serde(default)]
    pub finished: String,
    /// The exit code it had last.
    #[serde(default)]
    pub exit_code: u8,
    /// The kernel killed a process of it for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why it could not be started, or what happened to its monitor.
    #[serde(default)]
    pub error: String,
    /// Its connections to networks while it runs.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Its ports on this machine while it runs.
    #[serde(default)]
    pub published: Vec<Published>,
    /// How often it was started again because of its policy.
    #[serde(default)]
    pub restart_count: u32,
    /// How long the last restart waited, in milliseconds.
    #[serde(default)]
    pub(super) restart_delay_ms: u64,
    /// Which start of the machine this is about: a process's number means nothing after the next.
    #[serde(default)]
    pub(super) boot: String,
    /// Its monitor, or the command that watches it, and when that began, in clock ticks since the machine did.
    #[serde(default)]
    pub(super) monitor: (i32, u64),
}

impl Status {
    /// A container that was just made.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Created,
            pid: 0,
            started: String::new(),
            finished: String::new(),
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            endpoints: Vec::new(),
            published: Vec::new(),
            restart_count: 0,
            restart_delay_ms: 0,
            boot: String::new(),
            monitor: (0, 0),
        }
    }

    /// Whether it has, or had, a monitor that has not said how it ended.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Restarting)
    }

    /// Whether docker takes it for one that runs.
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Restarting)
    }

    /// One that is being started: because somebody wants it, or again.
    pub(super) fn starting(self, again: bool) -> Self {
        let starting = Self { phase: Phase::Starting, boot: boot(), monitor: (0, 0), error: String::new(), ..self };
        if again {
            Self { restart_count: self.restart_count.saturating_add(1), ..starting }
        } else {
            Self { phase: Phase::Starting, boot: starting.boot, started: starting.started, ..Self::new() }
        }
    }

    /// The end of a container: as its monitor recorded it, else by the kill of that.
    pub(super) fn end(&mut self, end: Option<End>) {
        let killed = || End { code: KILLED, finished: rfc3339(SystemTime::now()), oom_killed: false };
        if end.is_none() {
            self.error = "its monitor was killed, or the machine stopped".into();
        }
        let end = end.unwrap_or_else(killed);
        // One that was being started never ran, if not before.
        let first = self.phase == Phase::Starting && self.started.is_empty();
        self.phase = if first { Phase::Created } else { Phase::Exited };
        self.pid = 0;
        self.exit_code = end.code;
        self.finished = end.finished;
        self.oom_killed = end.oom_killed;
        self.endpoints.clear();
        self.published.clear();
    }
}

/// The exit code of what was ended by SIGKILL.
pub(super) const KILLED: u8 = 137;

/// How a container ended, as its monitor leaves it in the file it has locked.
///
/// It is written over a record that is there already, so that a full disk cannot keep it from being
/// written, and who has opened the file reads it even if the container has been removed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u8,
    /// RFC 3339.
    pub(super) finished: String,
    pub(super) oom_killed: bool,
}

/// The length of a record, padded with spaces.
const END_BYTES: usize = 64;

impl End {
    pub(super) fn new(exit: Exit, oom_killed: bool) -> Self {
        Self { code: exit.code(), finished: rfc3339(SystemTime::now()), oom_killed }
    }

    /// What stands in the lock of a container that was never started: docker's zero.
    pub(super) fn before_the_first() -> Self {
        Self { code: 0, finished: "0001-01-01T00:00:00Z".into(), oom_killed: false }
    }

    /// Writes `end`, or that there was none yet.
    pub(super) fn write(end: Option<&Self>, file: &File) -> Result<()> {
        let text = end.map_or_else(String::new, |end| format!("{} {} {}", end.code, end.finished, end.oom_killed));
        file.write_all_at(format!("{text:<END_BYTES$}").as_bytes(), 0).attempt(|| "write a container's exit code")
    }

    /// Reads what [`End::write`] wrote.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut record = [0; END_BYTES];
        file.read_exact_at(&mut record, 0).ok()?;
        let text = str::from_utf8(&record).ok()?;
        let mut fields = text.split_ascii_whitespace();
        Some(Self {
            code: fields.next()?.parse().ok()?,
            finished: fields.next()?.to_owned(),
            oom_killed: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_back_and_none_is_none() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(End::read(&file), None);
        End::write(None, &file).unwrap();
        assert_eq!(End::read(&file), None);
        let end = End { code: 255, finished: rfc3339(SystemTime::now()), oom_killed: false };
        End::write(Some(&end), &file).unwrap();
        assert_eq!(End::read(&file), Some(end));
        assert_eq!(file.metadata().unwrap().len(), END_BYTES as u64, "it never grows");
        End::write(None, &file).unwrap();
        assert_eq!(End::read(&file), None);
    }
}
