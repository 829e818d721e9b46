//! What has happened to containers, images, networks and volumes: a file in the store, to which whoever does something
//! adds a line.
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

/// To what something happens.
pub(crate) const CONTAINER: &str = "container";
pub(crate) const IMAGE: &str = "image";
pub(crate) const NETWORK: &str = "network";
pub(crate) const VOLUME: &str = "volume";

/// Something that has happened, with docker's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action once more, of containers and images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The actor's ID once more, of the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// A container's image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// To what: `container`, `image`, `network` or `volume`.
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
    pub(crate) fn now<'a>(kind: &str, action: &str, id: &str, attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let attributes: BTreeMap<_, _> =
            attributes.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        // docker's older keys, which newer kinds do not have.
        let older = |text: &str| if [CONTAINER, IMAGE].contains(&kind) { text.to_owned() } else { String::new() };
        let image = attributes.get("image").filter(|_| kind == CONTAINER);
        Self {
            status: older(action),
            id: older(id),
            from: image.cloned().unwrap_or_default(),
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

fn directory(root: &Path) -> PathBuf {
    root.join("events")
}

fn path(root: &Path) -> PathBuf {
    directory(root).join("events.log")
}

/// Adds an event to those of the store at `root`, if that can be done.
pub(crate) fn record(root: &Path, event: &Event) {
    // Nobody is there who could do anything about it.
    let _ = append(root, event);
}

fn append(root: &Path, event: &Event) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    if line.len() > LINE_LIMIT_BYTES {
        let actor = Actor { attributes: BTreeMap::new(), ..event.actor.clone() };
        line = serde_json::to_vec(&Event { actor, ..event.clone() })?;
    }
    line.push(b'\n');
    let path = path(root);
    let open = || std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let file = match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            files::make_private_dir(&directory(root)).map_err(std::io::Error::other)?;
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

impl Store {
    /// Adds to the store's events what has happened to an image, which is called `id` in it, or is that.
    pub fn tell_image(&self, action: &str, id: &str, name: &str, labels: &BTreeMap<String, String>) {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        record(self.root(), &Event::now(IMAGE, action, id, labels.chain([("name", name)])));
    }

    /// Gives each event that is wanted to `each`, in order, until that says false or the time for it is over.
    ///
    /// # Errors
    ///
    /// What `each` fails with.
    pub fn events(&self, query: EventQuery, each: &mut dyn FnMut(Event) -> Result<bool>) -> Result<()> {
        let directory = directory(self.root());
        files::make_private_dir(&directory)?;
        // Before the first look, so that nothing falls between the two.
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).attempt(|| "watch the events")?;
        inotify::add_watch(&watch, &directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)
            .attempt(|| format!("watch {}", directory.display()))?;
        let mut reader = Reader { since: query.since.unwrap_or_else(SystemTime::now), until: query.until, partial: Vec::new() };
        if query.since.is_some()
            && let Ok(older) = File::open(path(self.root()).with_extension("log.1"))
            && !reader.read(&mut BufReader::new(older), each)?
        {
            return Ok(());
        }
        let mut current: Option<BufReader<File>> = None;
        loop {
            if let Some(file) = &mut current {
                let same = same_file(file.get_ref(), &path(self.root()));
                if !reader.read(file, each)? {
                    return Ok(());
                }
                if !same {
                    current = None;
                }
            }
            if current.is_none()
                && let Ok(next) = File::open(path(self.root()))
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
        Event::now(CONTAINER, "start", "id", [("n", number.to_string().as_str()), ("x", &"x".repeat(padding))])
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
            record(store.root(), &event(number, 10_000));
        }
        let read = numbers(&store);
        assert!(read.len() > 100 && read.len() < 250, "{}", read.len());
        assert_eq!(read, (500 - read.len()..500).collect::<Vec<_>>());
        let taken = std::fs::read_dir(directory(store.root())).unwrap().count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn events_of_many_who_write_at_once_are_whole() {
        let (_directory, store) = store();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let store = &store;
                scope.spawn(move || (0..50).for_each(|number| record(store.root(), &event(writer * 50 + number, 5000))));
            }
        });
        let mut read = numbers(&store);
        read.sort_unstable();
        assert_eq!(read, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn lines_that_are_none_are_skipped_and_long_ones_cut() {
        let (_directory, store) = store();
        record(store.root(), &event(1, 100_000));
        let mut file = std::fs::OpenOptions::new().append(true).open(path(store.root())).unwrap();
        file.write_all(b"{\"half\n\xff\xfe\n{}\n").unwrap();
        record(store.root(), &event(2, 0));
        assert_eq!(numbers(&store), [2], "the first has lost its attributes");
        assert!(file.metadata().unwrap().len() < LINE_LIMIT_BYTES as u64);
    }

    #[test]
    fn only_containers_and_images_have_dockers_older_keys() {
        let json = |kind| serde_json::to_value(Event::now(kind, "create", "x", [("image", "a"), ("name", "n")])).unwrap();
        let container = json(CONTAINER);
        assert_eq!(
            (container["status"].as_str(), container["id"].as_str(), container["from"].as_str()),
            (Some("create"), Some("x"), Some("a"))
        );
        assert_eq!((json(IMAGE).get("from"), json(IMAGE)["id"].as_str()), (None, Some("x")));
        let network = json(NETWORK);
        assert_eq!(
            (network.get("status"), network.get("id"), network["Actor"]["Attributes"]["name"].as_str()),
            (None, None, Some("n"))
        );
        assert_eq!(serde_json::from_value::<Event>(network).unwrap().action, "create");
    }
}
