//! The files of one log: the one that is written, and the full ones before it, compressed or not.
//!
//! While a file is being compressed, and where that was interrupted, it is there in its plain form, which counts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

/// How much of a file is looked through at a time from its end.
const STEP_BYTES: u64 = 64 * 1024;

/// How often all files are opened anew because they were renamed meanwhile. Who is outrun even then reads some twice.
const TRIES: usize = 16;

/// Where a container's log is.
pub(super) fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}-json.log"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The log's file before the current one, the one before that, and so on.
pub(super) fn older(path: &Path, age: u32) -> PathBuf {
    if age == 0 { path.to_owned() } else { with_suffix(path, &format!(".{age}")) }
}

/// The same, compressed.
pub(super) fn compressed(path: &Path, age: u32) -> PathBuf {
    with_suffix(&older(path, age), ".gz")
}

/// One that is not compressed to its end yet.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    with_suffix(path, ".gz.tmp")
}

/// Makes each file one older; of `kept` the oldest goes.
pub(super) fn shift(path: &Path, kept: u32) {
    for age in (1..kept).rev() {
        for name in [older, compressed] {
            let to = name(path, age);
            if std::fs::rename(name(path, age - 1), &to).is_err() {
                // There is none: then none is to be one older.
                let _ = std::fs::remove_file(to);
            }
        }
    }
    if kept == 1 {
        let _ = std::fs::remove_file(path);
    }
}

/// A file of a log, open to be read.
#[derive(Debug)]
pub(super) struct Part {
    /// 0 for the one that is written.
    pub(super) age: u32,
    file: File,
    compressed: bool,
    /// How many lines of a compressed one are not wanted.
    skip: usize,
}

/// All files of a log as they were at one moment, the newest first.
pub(super) fn open_all(path: &Path, max_files: u32) -> Vec<Part> {
    let mut parts = Vec::new();
    for _ in 0..TRIES {
        parts = (0..max_files).filter_map(|age| Part::open(path, age)).collect();
        // Whenever names change, this one becomes another file's.
        if parts.first().is_none_or(|part| part.age > 0 || same_file(&part.file, path)) {
            break;
        }
    }
    parts
}

impl Part {
    fn open(path: &Path, age: u32) -> Option<Self> {
        let plain = File::open(older(path, age)).ok().map(|file| Self { age, file, compressed: false, skip: 0 });
        plain.or_else(|| Some(Self { age, file: File::open(compressed(path, age)).ok()?, compressed: true, skip: 0 }))
    }

    /// Whether it is this file.
    pub(super) fn is(&self, other: &File) -> bool {
        same(&self.file, other.metadata())
    }

    /// Leaves out all but its last `wanted` lines, and counts how many more are wanted then.
    pub(super) fn keep_last(&mut self, wanted: &mut usize) -> io::Result<()> {
        if *wanted == usize::MAX {
            return Ok(());
        }
        if !self.compressed {
            if let Some(start) = last_lines(&self.file, wanted)? {
                self.file.seek(SeekFrom::Start(start))?;
            }
            return Ok(());
        }
        let lines = count_lines(&mut *self.decoder())?;
        self.file.rewind()?;
        self.skip = lines.saturating_sub(*wanted);
        *wanted = wanted.saturating_sub(lines);
        Ok(())
    }

    fn decoder(&self) -> Box<dyn BufRead + '_> {
        Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(&self.file))))
    }

    /// What is wanted of it.
    pub(super) fn reader(&self) -> io::Result<Box<dyn BufRead + '_>> {
        if !self.compressed {
            return Ok(Box::new(BufReader::new(&self.file)));
        }
        let mut reader = self.decoder();
        for _ in 0..self.skip {
            reader.skip_until(b'\n')?;
        }
        Ok(reader)
    }

    /// The plain file behind it, to be followed.
    pub(super) fn into_file(self) -> File {
        self.file
    }
}

/// Whether a path leads to a file.
pub(super) fn same_file(file: &File, path: &Path) -> bool {
    same(file, std::fs::metadata(path))
}

fn same(file: &File, other: io::Result<std::fs::Metadata>) -> bool {
    matches!((file.metadata(), other), (Ok(one), Ok(other)) if one.ino() == other.ino() && one.dev() == other.dev())
}

fn count_lines(reader: &mut dyn BufRead) -> io::Result<usize> {
    let mut lines = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count();
        let length = chunk.len();
        reader.consume(length);
    }
}

/// Where the last `wanted` lines of a file begin, and how many are still wanted then; `None` for its beginning.
fn last_lines(file: &File, wanted: &mut usize) -> io::Result<Option<u64>> {
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

    #[test]
    fn the_last_lines_of_a_compressed_file_are_found_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        let lines: String = (0..50).map(|n| format!("{n}\n")).collect();
        let mut encoder = flate2::write::GzEncoder::new(File::create(compressed(&path, 1)).unwrap(), flate2::Compression::fast());
        encoder.write_all(lines.as_bytes()).unwrap();
        encoder.finish().unwrap();
        for tail in [0, 1, 49, 50, 51, usize::MAX] {
            let mut parts = open_all(&path, 3);
            let [part] = &mut parts[..] else { panic!("there is one file") };
            let mut wanted = tail;
            part.keep_last(&mut wanted).unwrap();
            let mut read = String::new();
            io::Read::read_to_string(&mut part.reader().unwrap(), &mut read).unwrap();
            assert_eq!((part.age, read.lines().count()), (1, tail.min(50)), "{tail}");
            assert_eq!(wanted, if tail == usize::MAX { tail } else { tail.saturating_sub(50) });
        }
    }
}
