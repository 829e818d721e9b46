//! A container's output written to its log: docker's json-file format, one line an entry, rotated by size.
//!
//! **Invariant: nothing that goes wrong with the log stops the container.** What cannot be written, most of the
//! time because the disk is full, is left out; an entry is there whole or not at all.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lifecycle::rfc3339;
use crate::spec::parse_size;

/// The longest part of a line in one entry, as with docker: a longer line is several, the last of which ends it.
pub(super) const ENTRY_LIMIT_BYTES: usize = 16 * 1024;

/// The most files of one log.
const FILES_LIMIT: u32 = 1000;

/// What becomes of a container's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    /// A file of JSON lines.
    #[default]
    #[serde(rename = "json-file")]
    JsonFile,
    /// It is thrown away.
    #[serde(rename = "none")]
    None,
}

/// What becomes of a container's output, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Where it goes.
    pub driver: LogDriver,
    /// How long a file becomes before the next is begun.
    pub max_bytes: Option<u64>,
    /// How many files are kept.
    pub max_files: u32,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { driver: LogDriver::default(), max_bytes: None, max_files: 1 }
    }
}

impl LogOptions {
    /// Takes one `NAME=VALUE` as docker's json-file log driver has them: `max-size` (a number with b, k, m or g
    /// behind it) and `max-file`.
    pub fn set(&mut self, option: &str) -> Result<()> {
        let bad = |why| Error::Name { what: "log option", input: option.to_owned(), why };
        match option.split_once('=') {
            Some(("max-size", size)) => {
                let bytes = parse_size(size)
                    .filter(|bytes| *bytes > 0)
                    .ok_or_else(|| bad("a size is a number above 0 with b, k, m or g behind it"))?;
                self.max_bytes = Some(bytes);
            }
            Some(("max-file", count)) => {
                let count = u32::from_str(count).ok().filter(|count| (1..=FILES_LIMIT).contains(count));
                self.max_files = count.ok_or_else(|| bad("the number of files is from 1 to 1000"))?;
            }
            _ => return Err(bad("the options are max-size=SIZE and max-file=NUMBER")),
        }
        Ok(())
    }
}

/// Where a container's log is.
pub(super) fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}-json.log"))
}

/// The log's file before the current one, the one before that, and so on.
pub(super) fn older(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if age > 0 {
        name.push(format!(".{age}"));
    }
    name.into()
}

/// Which of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// A log, open to be written.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    options: LogOptions,
    file: Option<File>,
    bytes: u64,
    /// Entries on their way to the file.
    pending: Vec<u8>,
}

impl LogFile {
    /// Continues the log at `path`.
    pub(super) fn open(path: PathBuf, options: LogOptions) -> Self {
        let mut log = Self { path, options, file: None, bytes: 0, pending: Vec::new() };
        log.reopen();
        log
    }

    fn reopen(&mut self) {
        if self.options.driver == LogDriver::None {
            return;
        }
        // Appending: who makes room by truncating the file, as people do, gets it.
        self.file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).ok();
        self.bytes = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }

    /// Adds an entry. It is written by [`LogFile::flush`].
    pub(super) fn add(&mut self, stream: Stream, text: &[u8]) {
        if self.options.driver == LogDriver::None {
            return;
        }
        let before = self.pending.len();
        self.pending.extend(b"{\"log\":\"");
        escape(text, &mut self.pending);
        let name = if stream == Stream::Out { "stdout" } else { "stderr" };
        let rest = format!("\",\"stream\":\"{name}\",\"time\":\"{}\"}}\n", rfc3339(SystemTime::now()));
        self.pending.extend(rest.as_bytes());
        let full = self.options.max_bytes.is_some_and(|max| self.bytes + self.pending.len() as u64 > max);
        if full && self.bytes + before as u64 > 0 {
            // The entry belongs to the next file.
            let entry = self.pending.split_off(before);
            self.flush();
            self.rotate();
            self.pending = entry;
        }
        if self.pending.len() > ENTRY_LIMIT_BYTES {
            self.flush();
        }
    }

    /// Writes what was added. Entries for which there is no room are lost.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file {
            let length = file.metadata().map_or(self.bytes, |metadata| metadata.len());
            match file.write_all(&self.pending) {
                Ok(()) => self.bytes = length + self.pending.len() as u64,
                Err(_) => {
                    // What is there of it may end in half a line.
                    let _ = file.set_len(length);
                    self.bytes = length;
                }
            }
        }
        self.pending.clear();
        // A burst is no reason to be large for the rest of a life.
        self.pending.shrink_to(ENTRY_LIMIT_BYTES);
    }

    fn rotate(&mut self) {
        self.file = None;
        let kept = self.options.max_files;
        for age in (1..kept).rev() {
            // One that is not there is no error; one that cannot be moved is overwritten.
            let _ = std::fs::rename(older(&self.path, age - 1), older(&self.path, age));
        }
        if kept == 1 {
            let _ = std::fs::remove_file(&self.path);
        }
        self.reopen();
    }
}

/// Text in a JSON string, as docker writes it: what is no UTF-8 becomes U+FFFD.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend([b'\\', c as u8]),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '\t' => out.extend(b"\\t"),
                // Read by browsers, too.
                '\0'..=' ' | '<' | '>' | '&' | '\u{7f}' if c != ' ' => {
                    let byte = c as u8;
                    out.extend(b"\\u00");
                    out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                '\u{2028}' => out.extend(b"\\u2028"),
                '\u{2029}' => out.extend(b"\\u2029"),
                c => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn any_bytes_come_back_from_a_line_of_json() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(path(directory.path(), "x"), LogOptions::default());
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        log.add(Stream::Out, all.as_bytes());
        log.add(Stream::Err, b"a\xffb\n");
        log.flush();
        let read = lines(&path(directory.path(), "x"));
        assert_eq!((read[0]["log"].as_str(), read[0]["stream"].as_str()), (Some(&*all), Some("stdout")));
        assert_eq!((read[1]["log"].as_str(), read[1]["stream"].as_str()), (Some("a\u{fffd}b\n"), Some("stderr")));
        assert!(read[1]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn files_stay_below_their_size_and_number_and_hold_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        let mut options = LogOptions::default();
        options.set("max-size=1k").unwrap();
        options.set("max-file=3").unwrap();
        let mut log = LogFile::open(path.clone(), options.clone());
        for number in 0..100 {
            log.add(Stream::Out, format!("line {number}\n").as_bytes());
        }
        log.flush();
        // Continued by another.
        LogFile::open(path.clone(), options).flush();
        let mut numbers = Vec::new();
        for age in (0..3).rev() {
            let file = older(&path, age);
            assert!(std::fs::metadata(&file).unwrap().len() <= 1024);
            numbers.extend(lines(&file).iter().map(|line| line["log"].as_str().unwrap().to_owned()));
        }
        assert!(!older(&path, 3).exists());
        assert_eq!(numbers.last().unwrap(), "line 99\n");
        let first: usize = 100 - numbers.len();
        assert_eq!(numbers, (first..100).map(|number| format!("line {number}\n")).collect::<Vec<_>>());
    }

    #[test]
    fn log_options_read_as_dockers() {
        let mut options = LogOptions::default();
        for (text, bytes) in [("max-size=10", 10), ("max-size=2k", 2048), ("max-size=3M", 3 << 20), ("max-size=1g", 1 << 30)] {
            options.set(text).unwrap();
            assert_eq!(options.max_bytes, Some(bytes));
        }
        for bad in ["max-size=", "max-size=0", "max-size=-1", "max-size=1x", "max-file=0", "max-file=x", "labels=a", "max-size"] {
            assert!(options.set(bad).is_err(), "{bad}");
        }
    }
}
