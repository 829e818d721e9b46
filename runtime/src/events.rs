//! What has happened to containers: a file in the store, to which whoever does something adds a line.
//!
//! ```text
//! ROOT/events/events.log events.log.1       docker's JSON documents, one a line, the older ones behind `.1`
//! ```
//!
//! The file is bounded: past [`FILE_LIMIT_BYTES`] it takes the place of the older one. **Invariant: an event that cannot
//! be written, most of the time because the disk is full, is left out:** nothing fails because of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Attempt, Result};
use crate::files;
use crate::store::Store;

/// How long the file becomes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The longest line; one that would be longer goes without its attributes.
const LINE_LIMIT_BYTES: usize = 64 * 1024;

/// Something that has happened, with docker's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action once more.
    pub status: String,
    /// The actor's ID once more.
    pub id: String,
    /// A container's image.
    #[serde(default)]
    pub from: String,
    /// To what: `container`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What: `start`, `die`, ...
    #[serde(rename = "Action")]
    pub action: String,
    /// To which one.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local`.
    pub scope: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The same in nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_ns: u64,
}

/// To what something has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// What else is known of it, and of what has happened.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// What happens to a `kind` of thing at this moment.
    pub fn now(kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            status: action.to_owned(),
            id: id.to_owned(),
            from: attributes.get("image").cloned().unwrap_or_default(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor { id: id.to_owned(), attributes },
            scope: "local".into(),
            time: since.as_secs(),
            time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// When it happened.
    pub fn when(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time_ns)
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventQuery {
    /// Those since then, else only what happens from now on.
    pub since: Option<SystemTime>,
    /// None after then, else without an end.
    pub until: Option<SystemTime>,
}

fn directory(store: &Store) -> PathBuf {
    store.root().join("events")
}

fn path(store: &Store) -> PathBuf {
    directory(store).join("events.log")
}

impl Store {
    /// Adds an event, if that can be done.
    pub fn record(&self, event: &Event) {
        // Nobody is there who could do anything about it.
        let _ = self.append(event);
    }

    fn append(&self, event: &Event) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        if line.len() > LINE_LIMIT_BYTES {
            let actor = Actor { attributes: BTreeMap::new(), ..event.actor.clone() };
            line = serde_json::to_vec(&Event { actor, ..event.clone() })?;
        }
        line.push(b'\n');
        let path = path(self);
        let open = || std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                files::make_private_dir(&directory(self)).map_err(std::io::Error::other)?;
                open()?
            }
            other => other?,
        };
        (&file).write_all(&line)?;
        if file.metadata()?.len() > FILE_LIMIT_BYTES
            && files::try_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok_and(|locked| locked)
            // Whoever was first has done it.
            && same_file(&file, &path)
        {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        Ok(())
    }

    /// Gives each event that is wanted to `each`, in order, until that says false or the time for it is over.
    ///
    /// # Errors
    ///
    /// What `each` fails with.
    pub fn events(&self, query: EventQuery, each: &mut dyn FnMut(Event) -> Result<bool>) -> Result<()> {
        let directory = directory(self);
        files::make_private_dir(&directory)?;
        // Before the first look, so that nothing falls between the two.
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).attempt(|| "watch the events")?;
        inotify::add_watch(&watch, &directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)
            .attempt(|| format!("watch {}", directory.display()))?;
        let mut reader = Reader { since: query.since.unwrap_or_else(SystemTime::now), until: query.until, partial: Vec::new() };
        if query.since.is_some()
            && let Ok(older) = File::open(path(self).with_extension("log.1"))
            && !reader.read(&mut BufReader::new(older), each)?
        {
            return Ok(());
        }
        let mut current: Option<BufReader<File>> = None;
        loop {
            if let Some(file) = &mut current {
                let same = same_file(file.get_ref(), &path(self));
                if !reader.read(file, each)? {
                    return Ok(());
                }
                if !same {
                    current = None;
                }
            }
            if current.is_none()
                && let Ok(next) = File::open(path(self))
            {
                reader.partial.clear();
                current = Some(BufReader::new(next));
                continue;
            }
            let left = query.until.map(|until| until.duration_since(SystemTime::now()).unwrap_or_default());
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            let limit = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut [PollFd::new(&watch, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).attempt(|| "wait for events"),
            }
            let mut buffer = [0; 4096];
            while rustix::io::read(&watch, &mut buffer).is_ok_and(|length| length > 0) {}
        }
    }
}

struct Reader {
    since: SystemTime,
    until: Option<SystemTime>,
    /// The beginning of a line whose rest is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    /// Reads to the end of what is there; false if nothing more is wanted.
    fn read(&mut self, file: &mut BufReader<File>, each: &mut dyn FnMut(Event) -> Result<bool>) -> Result<bool> {
        loop {
            let length = file.read_until(b'\n', &mut self.partial).attempt(|| "read the events")?;
            if length == 0 {
                return Ok(true);
            }
            if self.partial.last() != Some(&b'\n') {
                continue;
            }
            // A line that is none is skipped: the others are worth reading.
            let event = serde_json::from_slice::<Event>(&self.partial);
            self.partial.clear();
            if let Ok(event) = event
                && event.when() >= self.since
                && self.until.is_none_or(|until| event.when() <= until)
                && !each(event)?
            {
                return Ok(false);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    fn event(number: usize, padding: usize) -> Event {
        let attributes = BTreeMap::from([("n".to_owned(), number.to_string()), ("x".to_owned(), "x".repeat(padding))]);
        Event::now("container", "start", "id", attributes)
    }

    fn numbers(store: &Store) -> Vec<usize> {
        let mut numbers = Vec::new();
        let query = EventQuery { since: Some(SystemTime::UNIX_EPOCH), until: Some(SystemTime::now()) };
        let mut each = |event: Event| {
            numbers.extend(event.actor.attributes.get("n").map(|number| number.parse::<usize>().unwrap()));
            Ok(true)
        };
        store.events(query, &mut each).unwrap();
        numbers
    }

    #[test]
    fn the_file_is_bounded_and_its_end_is_kept() {
        let (_directory, store) = store();
        for number in 0..500 {
            store.record(&event(number, 10_000));
        }
        let read = numbers(&store);
        assert!(read.len() > 100 && read.len() < 250, "{}", read.len());
        assert_eq!(read, (500 - read.len()..500).collect::<Vec<_>>());
        let taken = std::fs::read_dir(directory(&store)).unwrap().count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn events_of_many_who_write_at_once_are_whole() {
        let (_directory, store) = store();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || (0..50).for_each(|number| store.record(&event(writer * 50 + number, 5000))));
            }
        });
        let mut read = numbers(&store);
        read.sort_unstable();
        assert_eq!(read, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn lines_that_are_none_are_skipped_and_long_ones_cut() {
        let (_directory, store) = store();
        store.record(&event(1, 100_000));
        let mut file = std::fs::OpenOptions::new().append(true).open(path(&store)).unwrap();
        file.write_all(b"{\"half\n\xff\xfe\n{}\n").unwrap();
        store.record(&event(2, 0));
        assert_eq!(numbers(&store), [2], "the first has lost its attributes");
        assert!(file.metadata().unwrap().len() < LINE_LIMIT_BYTES as u64);
    }
}
