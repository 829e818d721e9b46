//! A container's output written to its log: docker's json-file format, one line an entry, rotated by size.
//!
//! **Invariant: nothing that goes wrong with the log stops the container.** What cannot be written, most of the
//! time because the disk is full, is left out; an entry is there whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::event::PollFd;

use super::log_compress::Compression;
use super::log_options::LogOptions;
use super::log_rotated;
use crate::lifecycle::rfc3339;

/// The longest part of a line in one entry, as with docker: a longer line is several, the last of which ends it.
pub(super) const ENTRY_LIMIT_BYTES: usize = 16 * 1024;

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
    max_bytes: Option<u64>,
    max_files: u32,
    compress: bool,
    /// What each entry says beside the output, in JSON, if anything.
    attributes: String,
    file: Option<File>,
    bytes: u64,
    /// Entries on their way to the file.
    pending: Vec<u8>,
    /// A full file on its way to a smaller one.
    compression: Option<Compression>,
}

impl LogFile {
    /// Continues the log at `path`.
    pub(super) fn open(path: PathBuf, options: &LogOptions, attributes: &BTreeMap<String, String>) -> Self {
        let mut log = Self {
            path,
            max_bytes: options.max_bytes,
            max_files: options.max_files,
            compress: options.compress,
            attributes: String::new(),
            file: None,
            bytes: 0,
            pending: Vec::new(),
            compression: None,
        };
        if !attributes.is_empty() {
            // Strings alone can always be written.
            log.attributes = format!(",\"attrs\":{}", serde_json::to_string(attributes).unwrap_or_default());
        }
        log.reopen();
        log.compress_next();
        log
    }

    fn reopen(&mut self) {
        // Appending: who makes room by truncating the file, as people do, gets it.
        self.file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).ok();
        self.bytes = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
    }

    /// Adds an entry. It is written by [`LogFile::flush`].
    pub(super) fn add(&mut self, stream: Stream, text: &[u8]) {
        let before = self.pending.len();
        self.pending.extend(b"{\"log\":\"");
        escape(text, &mut self.pending);
        let name = if stream == Stream::Out { "stdout" } else { "stderr" };
        let rest = format!("\",\"stream\":\"{name}\"{},\"time\":\"{}\"}}\n", self.attributes, rfc3339(SystemTime::now()));
        self.pending.extend(rest.as_bytes());
        let full = self.max_bytes.is_some_and(|max| self.bytes + self.pending.len() as u64 > max);
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
        log_rotated::shift(&self.path, self.max_files);
        self.compression = self.compression.take().and_then(|compression| compression.shifted(self.max_files));
        self.reopen();
        self.compress_next();
    }

    /// One after the other: who is outrun by its container keeps plain files.
    fn compress_next(&mut self) {
        if self.compress && self.compression.is_none() {
            self.compression = Compression::begin(&self.path, self.max_files);
        }
    }

    /// What is to be waited for beside the container's output.
    pub(super) fn fd(&self) -> Option<PollFd<'_>> {
        self.compression.as_ref().map(Compression::fd)
    }

    /// Does what is to be done now.
    pub(super) fn step(&mut self) {
        if let Some(compression) = self.compression.take_if(|compression| compression.has_ended())
            // What failed, most of the time because the disk is full, is tried again after the next rotation.
            && compression.finish()
        {
            self.compress_next();
        }
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
    use std::path::Path;

    use super::super::log_options::LogDriver;
    use super::super::log_rotated::{older, path};
    use super::*;

    fn open(path: &Path, options: &LogOptions) -> LogFile {
        LogFile::open(path.to_owned(), options, &BTreeMap::new())
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn any_bytes_come_back_from_a_line_of_json() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(&path(directory.path(), "x"), &LogOptions::default());
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
        let options = LogOptions::parse(LogDriver::JsonFile, &["max-size=1k".into(), "max-file=3".into()]).unwrap();
        let mut log = open(&path, &options);
        for number in 0..100 {
            log.add(Stream::Out, format!("line {number}\n").as_bytes());
        }
        log.flush();
        // Continued by another.
        open(&path, &options).flush();
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
    fn attributes_are_in_each_entry_where_docker_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        let attributes = BTreeMap::from([("a\"b".to_owned(), "c\n".to_owned())]);
        let mut log = LogFile::open(path.clone(), &LogOptions::default(), &attributes);
        log.add(Stream::Out, b"x\n");
        log.flush();
        assert_eq!(lines(&path)[0]["attrs"], serde_json::json!({ "a\"b": "c\n" }));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{"));
    }
}
