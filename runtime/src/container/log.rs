//! A container's log read back: all of it or its end, and what is added while somebody looks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use serde::Deserialize;

use super::log_lines::Lines;
use super::log_options::LogDriver;
use super::log_rotated::{self, Part, open_all};
use super::store::{Container, Containers};
use crate::error::{Attempt, Error, Result};
use crate::lifecycle::rfc3339;
use crate::warning;

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
    /// What else is said of the container, if that was asked for.
    #[serde(default, rename = "attrs")]
    pub attributes: BTreeMap<String, String>,
}

/// Takes an entry, and says whether more are wanted.
pub(super) type Each<'a> = &'a mut dyn FnMut(&LogEntry) -> Result<bool>;

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
        match container.config.log.driver {
            LogDriver::JsonFile => self.read_files(container, query, each),
            LogDriver::Journald => self.read_journal(container, query, each),
            LogDriver::None => {
                Err(Error::invalid(format!("container {}", container.config.name), "its log driver is \"none\": it has no log"))
            }
        }
    }

    fn read_files(&self, container: &Container, query: &LogQuery, each: Each<'_>) -> Result<()> {
        let directory = self.directory(&container.config.id);
        // Before the first look, so that nothing falls between the two.
        let watch = if query.follow { self.watch(container, &directory)? } else { None };
        let mut reader = Reader {
            since: query.since.map(rfc3339),
            until: query.until.map(rfc3339),
            path: log_rotated::path(&directory, &container.config.id),
            max_files: container.config.log.max_files,
            current: None,
            lines: Lines::default(),
            seen: rfc3339(SystemTime::now()),
            done: false,
        };
        reader.begin(query.tail, each)?;
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
    max_files: u32,
    /// The newest file, read so far.
    current: Option<BufReader<File>>,
    lines: Lines,
    /// The time of the last entry that was read.
    seen: String,
    /// Nobody wants more.
    done: bool,
}

impl Reader {
    /// What is there now.
    fn begin(&mut self, tail: Option<usize>, each: Each<'_>) -> Result<()> {
        let mut wanted = tail.unwrap_or(usize::MAX);
        let mut parts = Vec::new();
        for mut part in open_all(&self.path, self.max_files) {
            if let Err(error) = part.keep_last(&mut wanted) {
                self.damaged(&part, &error);
                continue;
            }
            parts.push(part);
            if wanted == 0 {
                break;
            }
        }
        self.read_parts(parts, "", each)
    }

    /// Reads files, the newest of which is the first, and goes on with that. Of what they have only entries `after` that
    /// time count.
    fn read_parts(&mut self, parts: Vec<Part>, after: &str, each: Each<'_>) -> Result<()> {
        for part in parts.into_iter().rev() {
            self.lines.forget();
            if part.age == 0 {
                let mut newest = BufReader::new(part.into_file());
                self.read_lines(&mut newest, after, each).attempt(|| format!("read {}", self.path.display()))??;
                self.current = Some(newest);
            } else {
                let read = part.reader().and_then(|mut reader| self.read_lines(&mut *reader, after, each));
                match read {
                    Ok(taken) => taken?,
                    Err(error) => self.damaged(&part, &error),
                }
            }
        }
        Ok(())
    }

    /// The others are worth reading.
    fn damaged(&self, part: &Part, error: &std::io::Error) {
        let path = log_rotated::older(&self.path, part.age);
        warning::warn(&format!("a part of the log, {}, cannot be read to its end: {error}", path.display()));
    }

    /// What has been added since, in the file that was read and in those that have come after it.
    fn read_on(&mut self, each: Each<'_>) -> Result<()> {
        if self.current.as_ref().is_some_and(|current| shrunk(current.get_ref())) {
            // Somebody has emptied it.
            self.current = None;
        }
        if let Some(mut current) = self.current.take() {
            // Asked first: what is written between the two is read.
            let same = log_rotated::same_file(current.get_ref(), &self.path);
            self.read_lines(&mut current, "", each).attempt(|| format!("read {}", self.path.display()))??;
            self.current = Some(current);
            if same || self.done {
                return Ok(());
            }
        }
        let mut parts = open_all(&self.path, self.max_files);
        if parts.first().is_none_or(|part| part.age > 0) {
            // It is just being renamed: the next one makes itself heard.
            return Ok(());
        }
        let read = self.current.as_ref().and_then(|current| parts.iter().position(|part| part.is(current.get_ref())));
        if let Some(read) = read {
            parts.truncate(read);
        }
        // One that was compressed meanwhile is another file: only the times of its entries tell.
        let after = if read.is_none() { self.seen.clone() } else { String::new() };
        self.read_parts(parts, &after, each)
    }

    /// Reads to the end of what is there.
    fn read_lines(&mut self, reader: &mut dyn BufRead, after: &str, each: Each<'_>) -> std::io::Result<Result<()>> {
        while !self.done {
            let chunk = reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            let (since, until, seen) = (&self.since, &self.until, &mut self.seen);
            let taken = self.lines.take(chunk, &mut |line| {
                // A line that is none is skipped: the others are worth reading.
                let Ok(entry) = serde_json::from_slice::<LogEntry>(line) else { return Ok(true) };
                seen.clone_from(&entry.time);
                let wanted = entry.time.as_str() > after
                    && since.as_ref().is_none_or(|since| entry.time >= *since)
                    && until.as_ref().is_none_or(|until| entry.time <= *until);
                if wanted { each(&entry) } else { Ok(true) }
            });
            match taken {
                Ok(goes_on) => self.done = !goes_on,
                Err(error) => return Ok(Err(error)),
            }
            let length = chunk.len();
            reader.consume(length);
        }
        Ok(Ok(()))
    }
}

fn shrunk(mut file: &File) -> bool {
    file.stream_position().is_ok_and(|at| file.metadata().is_ok_and(|metadata| metadata.len() < at))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::log_rotated::{compressed, older, shift};
    use super::*;

    const KEPT: u32 = 5;

    fn reader(path: &Path) -> Reader {
        let (since, until, current, lines) = (None, None, None, Lines::default());
        Reader {
            since,
            until,
            path: path.to_owned(),
            max_files: KEPT,
            current,
            lines,
            seen: rfc3339(SystemTime::now()),
            done: false,
        }
    }

    fn write(path: &Path, numbers: std::ops::Range<usize>) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        for number in numbers {
            let time = rfc3339(SystemTime::now());
            writeln!(file, "{{\"log\":\"{number}\",\"stream\":\"stdout\",\"time\":\"{time}\"}}").unwrap();
        }
    }

    fn compress(path: &Path, age: u32) {
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(compressed(path, age)).unwrap(), flate2::Compression::fast());
        std::io::copy(&mut File::open(older(path, age)).unwrap(), &mut encoder).unwrap();
        encoder.finish().unwrap();
        std::fs::remove_file(older(path, age)).unwrap();
    }

    /// What a reader reads by one look.
    fn look(look: impl FnOnce(Each<'_>) -> Result<()>) -> Vec<usize> {
        let mut read = Vec::new();
        look(&mut |entry| {
            read.push(entry.log.parse().unwrap());
            Ok(true)
        })
        .unwrap();
        read
    }

    #[test]
    fn whoever_follows_reads_all_once_however_files_change_their_names_and_forms() {
        let directory = tempfile::tempdir().unwrap();
        let path = log_rotated::path(directory.path(), "x");
        write(&path, 0..5);
        let mut reader = reader(&path);
        assert_eq!(look(|each| reader.begin(None, each)), [0, 1, 2, 3, 4]);
        // One file further.
        write(&path, 5..7);
        shift(&path, KEPT);
        write(&path, 7..9);
        assert_eq!(look(|each| reader.read_on(each)), [5, 6, 7, 8]);
        // Two, of which one is compressed; what was read is not.
        write(&path, 9..10);
        shift(&path, KEPT);
        write(&path, 10..12);
        shift(&path, KEPT);
        compress(&path, 1);
        write(&path, 12..13);
        assert_eq!(look(|each| reader.read_on(each)), [9, 10, 11, 12]);
        // What was read is compressed, too: another file with the same entries.
        write(&path, 13..15);
        shift(&path, KEPT);
        compress(&path, 1);
        write(&path, 15..17);
        assert_eq!(look(|each| reader.read_on(each)), [13, 14, 15, 16]);
        assert_eq!(look(|each| reader.read_on(each)), [0_usize; 0]);
        // Emptied by somebody.
        File::create(&path).unwrap();
        write(&path, 17..18);
        assert_eq!(look(|each| reader.read_on(each)), [17]);
    }

    #[test]
    fn whoever_wants_nothing_of_before_gets_nothing_of_it_later() {
        let directory = tempfile::tempdir().unwrap();
        let path = log_rotated::path(directory.path(), "x");
        write(&path, 0..5);
        let mut reader = reader(&path);
        assert_eq!(look(|each| reader.begin(Some(0), each)), [0_usize; 0]);
        write(&path, 5..6);
        shift(&path, KEPT);
        compress(&path, 1);
        assert_eq!(look(|each| reader.read_on(each)), [5], "the next file is not there yet");
        write(&path, 6..7);
        assert_eq!(look(|each| reader.read_on(each)), [6]);
    }
}
