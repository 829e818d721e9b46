//! A container's log read back from systemd's journal, by `journalctl`, which knows the journal's files.
//!
//! Only entries of the user whose container it is count: anybody on the machine may write to the journal what looks like
//! a container's, but not as somebody else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use serde::Deserialize;

use super::log::{Each, LogEntry, LogQuery};
use super::log_journal::{OWN_FIELDS, PRIORITY_ERR};
use super::log_lines::Lines;
use super::monitor::wait_for;
use super::store::{Container, Containers};
use crate::error::{Attempt, Error, Result};
use crate::lifecycle::rfc3339;

/// How much of what `journalctl` complains of is passed on.
const COMPLAINT_LIMIT_BYTES: u64 = 1024;

impl Containers {
    /// As [`Containers::logs`], of a container whose log is in the journal.
    pub(super) fn read_journal(&self, container: &Container, query: &LogQuery, each: Each<'_>) -> Result<()> {
        let id = &container.config.id;
        let directory = self.directory(id);
        let owner = std::fs::metadata(&directory).attempt(|| format!("inspect {}", directory.display()))?.uid();
        let monitor = if query.follow { self.monitor(&container.status) } else { None };
        let matches = [format!("CONTAINER_ID_FULL={id}"), format!("_UID={owner}")];
        let mut reader = Reader { query: query.clone(), matches, cursor: None, lines: Lines::default(), done: false };
        write_all();
        let Some(monitor) = monitor else { return reader.read(None, each) };
        let began = SystemTime::now();
        reader.read(Some(&monitor), each)?;
        if reader.done {
            return Ok(());
        }
        // What its last words came after.
        if reader.cursor.is_none() && query.tail.is_some() {
            reader.query = LogQuery { tail: None, since: query.since.max(Some(began)), ..reader.query };
        }
        write_all();
        reader.lines.forget();
        reader.read(None, each)
    }
}

/// Has the journal write what it has been sent. For an ordinary user, who may not ask for that, it does so by itself.
fn write_all() {
    let _ = Command::new("journalctl").arg("--sync").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

struct Reader {
    query: LogQuery,
    matches: [String; 2],
    /// The last entry that was read, as the journal calls it.
    cursor: Option<String>,
    lines: Lines,
    /// Nobody wants more.
    done: bool,
}

impl Reader {
    /// Reads all there is, with `monitor` also what comes until that ends.
    fn read(&mut self, monitor: Option<&OwnedFd>, each: Each<'_>) -> Result<()> {
        let mut journal = Journalctl::start(self.arguments(monitor.is_some()))?;
        let mut chunk = [0; 8192];
        while !self.done {
            if let Some(monitor) = monitor {
                let mut fds = [PollFd::new(&journal.out, PollFlags::IN), PollFd::new(monitor, PollFlags::IN)];
                wait_for(&mut fds, None)?;
                if fds[0].revents().is_empty() && !fds[1].revents().is_empty() {
                    return Ok(());
                }
                if fds[0].revents().is_empty() {
                    continue;
                }
            }
            let length = match journal.out.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.attempt(|| "read the journal")?,
            };
            if length == 0 {
                return journal.finish();
            }
            let (query, cursor) = (&self.query, &mut self.cursor);
            self.done = !self.lines.take(&chunk[..length], &mut |line| {
                // A line that is none is skipped: the others are worth reading.
                let Ok(line) = serde_json::from_slice::<Line>(line) else { return Ok(true) };
                *cursor = Some(line.cursor.clone());
                let entry = line.entry();
                let since = query.since.is_none_or(|since| entry.time >= rfc3339(since));
                if query.until.is_some_and(|until| entry.time > rfc3339(until)) {
                    return Ok(false);
                }
                if since { each(&entry) } else { Ok(true) }
            })?;
        }
        Ok(())
    }

    fn arguments(&self, follow: bool) -> Vec<String> {
        let mut arguments: Vec<String> = ["--output=json", "--all", "--no-pager"].map(str::to_owned).into();
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("@{}.{:06}", since.as_secs(), since.subsec_micros())
        };
        match (&self.cursor, self.query.tail) {
            (Some(cursor), _) => arguments.push(format!("--after-cursor={cursor}")),
            (None, Some(tail)) => arguments.push(format!("--lines={tail}")),
            // Following it is the last ten otherwise.
            (None, None) => arguments.push("--lines=all".into()),
        }
        if let (None, Some(since)) = (&self.cursor, self.query.since) {
            arguments.push(format!("--since={}", seconds(since)));
        }
        match (follow, self.query.until) {
            (true, _) => arguments.push("--follow".into()),
            (false, Some(until)) => arguments.push(format!("--until={}", seconds(until))),
            (false, None) => {}
        }
        arguments.extend_from_slice(&self.matches);
        arguments
    }
}

/// The program that reads the journal; it goes with this.
struct Journalctl {
    child: Child,
    out: ChildStdout,
    /// What it complains of: a file in memory, which never holds it up.
    complaints: File,
}

impl Journalctl {
    fn start(arguments: Vec<String>) -> Result<Self> {
        let attempted = || "run journalctl, which reads the container's log from the journal: install systemd";
        let complaints: File = rustix::fs::memfd_create(c"journalctl", MemfdFlags::CLOEXEC).attempt(attempted)?.into();
        let stderr = complaints.try_clone().attempt(attempted)?;
        let mut command = Command::new("journalctl");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().attempt(attempted)?;
        let out = child.stdout.take().ok_or_else(|| Error::io(attempted(), io::ErrorKind::BrokenPipe))?;
        Ok(Self { child, out, complaints })
    }

    fn finish(mut self) -> Result<()> {
        let status = self.child.wait().attempt(|| "wait for journalctl")?;
        if status.success() {
            return Ok(());
        }
        let mut complaints = Vec::new();
        // Without its words its status is all there is.
        let _ = self.complaints.rewind();
        let _ = (&self.complaints).take(COMPLAINT_LIMIT_BYTES).read_to_end(&mut complaints);
        let complaints = String::from_utf8_lossy(&complaints);
        let hint = "an ordinary user reads the journal as a member of the group systemd-journal";
        Err(Error::Told(format!("read the container's log from the journal: {status}: {} ({hint})", complaints.trim())))
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An entry as `journalctl` shows it in JSON.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(flatten)]
    fields: BTreeMap<String, Value>,
}

/// What a field may be: text, bytes that are none, or several of these.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Several(Vec<Value>),
    Other(serde::de::IgnoredAny),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Several(values) => values.first().map(Self::text).unwrap_or_default(),
            Self::Other(_) => String::new(),
        }
    }
}

impl Line {
    fn entry(self) -> LogEntry {
        let text = |name: &str| self.fields.get(name).map(Value::text);
        let mut log = text("MESSAGE").unwrap_or_default();
        if text("CONTAINER_PARTIAL_MESSAGE").is_none() {
            log.push('\n');
        }
        let is_error = text("PRIORITY").is_some_and(|priority| priority == PRIORITY_ERR);
        let is_attribute = |name: &str| !name.starts_with('_') && !OWN_FIELDS.contains(&name);
        LogEntry {
            log,
            stream: if is_error { "stderr" } else { "stdout" }.into(),
            time: text("SYSLOG_TIMESTAMP").unwrap_or_default(),
            attributes: self.fields.iter().filter(|(name, _)| is_attribute(name)).map(|(n, v)| (n.clone(), v.text())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(text: &str) -> LogEntry {
        serde_json::from_str::<Line>(text).unwrap().entry()
    }

    #[test]
    fn entries_are_text_or_bytes_whole_or_parts() {
        let read = entry(
            r#"{"__CURSOR":"s=1","MESSAGE":"a","PRIORITY":"3","SYSLOG_TIMESTAMP":"2026-01-01T00:00:00.000000001Z","_UID":"0","TIER":"web"}"#,
        );
        assert_eq!((read.log.as_str(), read.stream.as_str()), ("a\n", "stderr"));
        assert_eq!(read.time, "2026-01-01T00:00:00.000000001Z");
        assert_eq!(read.attributes, BTreeMap::from([("TIER".to_owned(), "web".to_owned())]));
        let read = entry(r#"{"__CURSOR":"s=1","MESSAGE":[97,255,98],"PRIORITY":"6","CONTAINER_PARTIAL_MESSAGE":"true"}"#);
        assert_eq!((read.log.as_str(), read.stream.as_str()), ("a\u{fffd}b", "stdout"));
        assert_eq!(entry(r#"{"__CURSOR":"s=1","MESSAGE":["x","y"]}"#).log, "x\n");
        assert_eq!(entry(r#"{"__CURSOR":"s=1","MESSAGE":null}"#).log, "\n");
        assert!(serde_json::from_str::<Line>("{}").is_err());
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(value in "[\\[\\]{}0-9\",:null]{0,40}") {
            if let Ok(line) = serde_json::from_str::<Line>(&format!(r#"{{"__CURSOR":"c","MESSAGE":{value}}}"#)) {
                line.entry();
            }
        }
    }
}
