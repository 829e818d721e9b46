//! One command of a runtime: started with a time limit, its output kept.
//!
//! Output goes to files, not pipes: the process of a container that `create` leaves behind holds them
//! open, and what it writes later is read from the same place.

use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::finding::{Finding, Outcome, require};
use crate::limits::{OUTPUT_LIMIT_BYTES, SHOWN_OUTPUT_LIMIT_CHARS};

/// Set in the environment of every command: no container may see it.
pub(super) const HOST_VARIABLE: &str = "RCONFORM_HOST_VARIABLE";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It took longer than it may and was killed.
    TimedOut,
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("killed: it took too long"),
        }
    }
}

/// A command line with what came of it.
#[derive(Debug, Clone)]
pub struct Step {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// What was written to standard output.
    pub stdout: String,
    /// What was written to standard error.
    pub stderr: String,
}

/// Where a command's output goes.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) stdout: PathBuf,
    pub(super) stderr: PathBuf,
}

impl Output {
    /// Two files beside each other.
    pub(super) fn at(prefix: &Path) -> Self {
        Self { stdout: prefix.with_extension("out"), stderr: prefix.with_extension("err") }
    }
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Started {
    line: String,
    child: Child,
    since: Instant,
    output: Output,
}

/// Starts `command` in a process group of its own with nothing, or `stdin`, to read.
pub(super) fn start(mut command: Command, stdin: Option<&[u8]>, output: Output) -> io::Result<Started> {
    let line = line_of(&command);
    let input = match stdin {
        Some(bytes) => {
            let path = output.stdout.with_extension("in");
            fs::write(&path, bytes)?;
            Stdio::from(File::open(path)?)
        }
        None => Stdio::null(),
    };
    command.stdin(input).stdout(File::create(&output.stdout)?).stderr(File::create(&output.stderr)?);
    let since = Instant::now();
    let child = command.process_group(0).env(HOST_VARIABLE, "1").spawn()?;
    Ok(Started { line, child, since, output })
}

impl Started {
    /// Waits until it ends, or kills it with its group.
    pub(super) fn finish(mut self, timeout: Duration) -> io::Result<Step> {
        let status = wait(&mut self.child, timeout)?;
        let took = self.since.elapsed();
        if status.is_none() {
            self.kill();
        }
        let end = match status {
            None => End::TimedOut,
            Some(status) => status.code().map_or_else(|| End::Signal(status.signal().unwrap_or_default()), End::Code),
        };
        let (stdout, stderr) = (text_of(&self.output.stdout)?, text_of(&self.output.stderr)?);
        Ok(Step { line: self.line, end, took, stdout, stderr })
    }

    /// Ends it with all of its group.
    pub(super) fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may be over.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn line(&self) -> &str {
        &self.line
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }
}

/// Waits for a child without taking processor time; `None` when the time is up.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    if !wait_for_end(child.id(), timeout)? {
        return Ok(None);
    }
    child.wait().map(Some)
}

/// Waits until process `pid` is over, its own child or not; whether it is.
pub(super) fn wait_for_end(pid: u32, timeout: Duration) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The text of a file, up to a limit; what is no UTF-8 is replaced.
pub(super) fn text_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(OUTPUT_LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Not offered if a runtime says on standard error that it does not support what it was asked for
/// (runtime-spec runtime.md, Create: it must generate an error). The kernel's EOPNOTSUPP is no such word.
pub(super) fn refusal(stderr: &str) -> Outcome {
    let says = |line: &&str| line.contains("not supported") && !line.contains("Operation not supported");
    let line = stderr.lines().find(says);
    line.map_or(Ok(()), |line| Err(Finding::NotOffered(line.chars().take(SHOWN_OUTPUT_LIMIT_CHARS).collect())))
}

/// The command as one could type it.
fn line_of(command: &Command) -> String {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-=:,@+".contains(&b));
    let quoted = |word: &OsStr| {
        let text = word.to_string_lossy();
        if plain(&text) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
    };
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    words.join(" ")
}

/// Text of strangers, fit for a terminal: control characters but line ends and tabs are written out.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

impl Step {
    /// Fails unless it ended with exit code 0.
    pub(super) fn must_succeed(&self) -> Outcome<&Self> {
        self.must_exit(0)
    }

    /// Fails unless it ended with this exit code; a refusal of what was asked for is no failure.
    pub(super) fn must_exit(&self, code: i32) -> Outcome<&Self> {
        if self.end != End::Code(code) {
            refusal(&self.stderr)?;
        }
        require(self.end == End::Code(code), format_args!("exit code {code} of: {}", self.line)).map(|()| self)
    }

    /// Fails unless it ended by itself, with an exit code other than 0.
    pub(super) fn must_fail(&self, why: &str) -> Outcome<&Self> {
        let refused = matches!(self.end, End::Code(code) if code != 0);
        require(refused, format_args!("an exit code other than 0, since {why}, of: {}", self.line)).map(|()| self)
    }

    /// Fails unless standard output is exactly these lines.
    pub(super) fn must_print(&self, expected: &[&str]) -> Outcome<&Self> {
        require(self.stdout.lines().eq(expected.iter().copied()), format_args!("standard output {expected:?}")).map(|()| self)
    }

    /// Not offered, with the reason given, unless it ended with exit code 0.
    pub(super) fn or_not_offered(&self, what: &str) -> Outcome<&Self> {
        if self.end == End::Code(0) { Ok(self) } else { Err(Finding::NotOffered(format!("{what}: {}", self.reason()))) }
    }

    /// What it said last on standard error, or how it ended.
    fn reason(&self) -> String {
        let line = self.stderr.lines().rfind(|line| !line.trim().is_empty());
        line.map_or_else(|| self.end.to_string(), |line| line.chars().take(SHOWN_OUTPUT_LIMIT_CHARS).collect())
    }

    /// The value of a line `name: value` of standard output, as `/proc/self/status` has them.
    pub(super) fn field(&self, name: &str) -> Outcome<&str> {
        let value = self.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).ok_or_else(|| Finding::Fail(format!("a line {name}: ... on standard output")))
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", escaped(&self.line).replace('\n', "\n    "))?;
        for (mark, text) in [('|', &self.stdout), ('!', &self.stderr)] {
            let shown: String = escaped(text).chars().take(SHOWN_OUTPUT_LIMIT_CHARS).collect();
            shown.lines().try_for_each(|line| writeln!(f, "{mark} {line}"))?;
            if text.chars().count() > SHOWN_OUTPUT_LIMIT_CHARS {
                writeln!(f, "{mark} ...")?;
            }
        }
        writeln!(f, "= {} after {} ms", self.end, self.took.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Step {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        start(command, None, Output::at(&directory.path().join("step"))).unwrap().finish(timeout).unwrap()
    }

    #[test]
    fn output_and_end_of_a_command_are_kept() {
        let step = shell("echo out; echo err >&2; exit 3", Duration::from_secs(20));
        assert_eq!((step.end, step.stdout.as_str(), step.stderr.as_str()), (End::Code(3), "out\n", "err\n"));
        assert_eq!(shell("kill -9 $$", Duration::from_secs(20)).end, End::Signal(9));
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
        let step = shell("sleep 600 & echo $!; wait", Duration::from_millis(300));
        assert_eq!(step.end, End::TimedOut);
        let child: u32 = step.stdout.trim().parse().unwrap();
        assert!(wait_for_end(child, Duration::from_secs(20)).unwrap());
    }

    #[test]
    fn a_printed_step_moves_no_cursor() {
        let step = shell(r"printf 'a\033[2Jb\n'", Duration::from_secs(20));
        assert!(step.to_string().contains(r"| a\u{1b}[2Jb"), "{step}");
    }
}
