//! A container's log read back: all of it or its end, and what is added while somebody looks.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::log_file::{self, LogDriver};
use super::store::{Container, Containers};
use crate::error::{Attempt, Error, Result};
use crate::lifecycle::rfc3339;

/// How much of a file is looked through at a time from its end.
const STEP_BYTES: u64 = 64 * 1024;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// At most so many entries from before now.
    pub tail: Option<usize>,
    /// None before this.
    pub since: Option<SystemTime>,
    /// None after this.
    pub until: Option<SystemTime>,
    /// Wait for more, until the container ends.
    pub follow: bool,
}

/// One entry: a line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEntry {
    /// What was written, with its line feed if it had one.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// When, RFC 3339, in UTC.
    pub time: String,
}

impl Containers {
    /// Gives each entry that is wanted to `each`, in order, until that says false.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the container has no log; what `each` fails with.
    pub fn logs(&self, container: &Container, query: &LogQuery, each: &mut dyn FnMut(&LogEntry) -> Result<bool>) -> Result<()> {
        if container.config.direct {
            let why = "its output went to the command that runs it (`rrun --rm`): without --rm, or with --log-driver json-file, it is kept";
            return Err(Error::invalid(format!("container {}", container.config.name), why));
        }
        if container.config.log.driver == LogDriver::None {
            return Err(Error::invalid(
                format!("container {}", container.config.name),
                "its log driver is \"none\": it has no log",
            ));
        }
        let directory = self.directory(&container.config.id);
        let path = log_file::path(&directory, &container.config.id);
        // Before the first look, so that nothing falls between the two.
        let watch = if query.follow { self.watch(container, &directory)? } else { None };
        let mut reader = Reader {
            since: query.since.map(rfc3339),
            until: query.until.map(rfc3339),
            path,
            current: None,
            partial: Vec::new(),
            done: false,
        };
        reader.begin(container.config.log.max_files, query.tail, each)?;
        while let Some(watch) = &watch {
            if reader.done {
                break;
            }
            let ended = watch.wait()?;
            reader.read_on(each)?;
            if ended {
                break;
            }
        }
        Ok(())
    }

    fn watch(&self, container: &Container, directory: &Path) -> Result<Option<Watch>> {
        let Some(monitor) = self.monitor(&container.status) else { return Ok(None) };
        let attempted = || format!("watch {}", directory.display());
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).attempt(attempted)?;
        inotify::add_watch(&events, directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)
            .attempt(attempted)?;
        Ok(Some(Watch { events, monitor }))
    }
}

/// Tells when a log may have grown, and when it will not any more.
struct Watch {
    events: OwnedFd,
    monitor: OwnedFd,
}

impl Watch {
    /// True once the monitor has ended.
    fn wait(&self) -> Result<bool> {
        let mut fds = [PollFd::new(&self.events, PollFlags::IN), PollFd::new(&self.monitor, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).attempt(|| "wait for the container's output"),
        }
        let ended = !fds[1].revents().is_empty();
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.events, &mut buffer).is_ok_and(|length| length > 0) {}
        Ok(ended)
    }
}

struct Reader {
    since: Option<String>,
    until: Option<String>,
    path: PathBuf,
    /// The newest file, read so far.
    current: Option<BufReader<File>>,
    /// The beginning of a line whose rest is not written yet.
    partial: Vec<u8>,
    /// Nobody wants more.
    done: bool,
}

type Each<'a> = &'a mut dyn FnMut(&LogEntry) -> Result<bool>;

impl Reader {
    /// What is there now.
    fn begin(&mut self, max_files: u32, tail: Option<usize>, each: Each<'_>) -> Result<()> {
        let mut files = Vec::new();
        let mut wanted = tail.unwrap_or(usize::MAX);
        for age in 0..max_files {
            let Ok(mut file) = File::open(log_file::older(&self.path, age)) else { continue };
            if let Some(start) = last_lines(&file, &mut wanted).attempt(|| format!("read {}", self.path.display()))? {
                file.seek(SeekFrom::Start(start)).attempt(|| "read a log")?;
            }
            files.push((age, file));
            if wanted == 0 {
                break;
            }
        }
        for (age, file) in files.into_iter().rev() {
            self.current = Some(BufReader::new(file));
            self.read_lines(each)?;
            if age > 0 {
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// What has been added since, in the file that was read and in one that has come after it.
    fn read_on(&mut self, each: Each<'_>) -> Result<()> {
        loop {
            if self.current.as_ref().is_some_and(|current| shrunk(current.get_ref())) {
                // Somebody has emptied it.
                self.current = None;
                self.partial.clear();
            }
            if let Some(current) = &self.current {
                let same = same_file(current.get_ref(), &self.path);
                self.read_lines(each)?;
                if same || self.done {
                    return Ok(());
                }
            }
            let Ok(next) = File::open(&self.path) else { return Ok(()) };
            self.partial.clear();
            self.current = Some(BufReader::new(next));
            if self.done {
                return Ok(());
            }
        }
    }

    fn read_lines(&mut self, each: Each<'_>) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        loop {
            let length = current.read_until(b'\n', &mut self.partial).attempt(|| format!("read {}", self.path.display()))?;
            if length == 0 || self.done {
                return Ok(());
            }
            if self.partial.last() != Some(&b'\n') {
                continue;
            }
            // A line that is none is skipped: the others are worth reading.
            let entry = serde_json::from_slice::<LogEntry>(&self.partial);
            self.partial.clear();
            if let Ok(entry) = entry
                && self.since.as_ref().is_none_or(|since| entry.time >= *since)
                && self.until.as_ref().is_none_or(|until| entry.time <= *until)
            {
                self.done = !each(&entry)?;
            }
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(one), Ok(other)) => one.ino() == other.ino() && one.dev() == other.dev(),
        _ => false,
    }
}

fn shrunk(mut file: &File) -> bool {
    file.stream_position().is_ok_and(|at| file.metadata().is_ok_and(|metadata| metadata.len() < at))
}

/// Where the last `wanted` lines of a file begin, and how many are still wanted then; `None` for its beginning.
fn last_lines(file: &File, wanted: &mut usize) -> std::io::Result<Option<u64>> {
    let mut end = file.metadata()?.len();
    if *wanted == usize::MAX {
        return Ok(None);
    }
    if *wanted == 0 {
        return Ok(Some(end));
    }
    // The line feed at the very end ends the last line: one more is to be found.
    let mut found = 0;
    let mut buffer = vec![0; STEP_BYTES as usize];
    while end > 0 {
        let start = end.saturating_sub(STEP_BYTES);
        let step = &mut buffer[..(end - start) as usize];
        file.read_exact_at(step, start)?;
        for at in (0..step.len()).rev().filter(|at| step[*at] == b'\n') {
            if found == *wanted {
                *wanted = 0;
                return Ok(Some(start + at as u64 + 1));
            }
            found += 1;
        }
        end = start;
    }
    *wanted -= found;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_found_from_the_end_however_long_they_are() {
        let mut file = tempfile::tempfile().unwrap();
        let lines: Vec<String> = (0..50).map(|n| format!("{n}{}\n", "x".repeat(n * 977))).collect();
        file.write_all(lines.concat().as_bytes()).unwrap();
        for tail in [1, 2, 7, 49, 50, 51] {
            let mut wanted = tail;
            let start = last_lines(&file, &mut wanted).unwrap().unwrap_or(0);
            let expected: u64 = lines.iter().rev().take(tail).map(|line| line.len() as u64).sum();
            assert_eq!(file.metadata().unwrap().len() - start, expected, "{tail}");
            assert_eq!(wanted, tail.saturating_sub(50), "{tail}");
        }
        let (mut none, mut all) = (0, usize::MAX);
        assert_eq!(last_lines(&file, &mut none).unwrap(), Some(file.metadata().unwrap().len()));
        assert_eq!(last_lines(&file, &mut all).unwrap(), None);
    }
}
