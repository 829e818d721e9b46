//! Where a monitor puts its container's output: what the chosen driver makes of it.

use rustix::event::PollFd;

use super::log_attributes::{attributes, tag};
use super::log_file::{LogFile, Stream};
use super::log_journal::Journal;
use super::log_options::LogDriver;
use super::log_rotated;
use super::record::Config;
use super::store::Containers;

/// A log that is written.
#[derive(Debug)]
pub(super) enum Log {
    File(LogFile),
    Journal(Journal),
    None,
}

impl Log {
    /// Begins, or continues, a container's log.
    pub(super) fn open(containers: &Containers, config: &Config) -> Self {
        match config.log.driver {
            LogDriver::JsonFile => {
                let mut attributes = attributes(config);
                attributes.extend(tag(config).map(|tag| ("tag".to_owned(), tag)));
                let path = log_rotated::path(&containers.directory(&config.id), &config.id);
                Self::File(LogFile::open(path, &config.log, &attributes))
            }
            LogDriver::Journald => Self::Journal(Journal::open(config)),
            LogDriver::None => Self::None,
        }
    }

    /// Adds an entry. It is written by [`Log::flush`] at the latest.
    pub(super) fn add(&mut self, stream: Stream, text: &[u8]) {
        match self {
            Self::File(file) => file.add(stream, text),
            Self::Journal(journal) => journal.add(stream, text),
            Self::None => {}
        }
    }

    pub(super) fn flush(&mut self) {
        if let Self::File(file) = self {
            file.flush();
        }
    }

    /// What is to be waited for beside the container's output.
    pub(super) fn fd(&self) -> Option<PollFd<'_>> {
        if let Self::File(file) = self { file.fd() } else { None }
    }

    /// Does what is to be done now.
    pub(super) fn step(&mut self) {
        if let Self::File(file) = self {
            file.step();
        }
    }
}
