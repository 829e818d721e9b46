//! The journal: every change of metadata, one a line, in the order they happened. It stands beside
//! the blobs and is the truth about what content cannot tell; the database is made of it.
//!
//! A line reads `checksum json`: twelve hexadecimal digits of the JSON's SHA-256, a space, the
//! JSON. What a crash tore off at the end was acknowledged to nobody and is dropped.
//!
//! **Positions.** A place in the journal is the number of bytes of all that was ever appended before it.
//! The database notes how far it has come as such a position.
//!
//! **Written anew.** Once more of it is out of date than not (and than is worth the work), a new journal is
//! made beside it while it grows: what the database says is so ([`Rewriter`]), then what was appended since
//! that began, then it takes the old one's place ([`Journal::adopt`]). What the database says is not of one
//! moment, but nothing in it is older than the position it stands for. So replaying all that was appended
//! after that position comes to the same end: the last word on every fact is among it, or there is none.
//! The first line of such a journal, [`Record::Base`], says where in the file which position is.

mod rewrite;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use longshore_runtime::name::Digest;

pub(super) use self::rewrite::{Rewriter, Rewritten};
use super::record::Record;
use crate::data_dir::sync_directory;
use crate::error::{Attempt, Error, Result};
use crate::limits::JOURNAL_LINE_LIMIT_BYTES;

/// Hexadecimal digits before the space.
const CHECKSUM_DIGITS: usize = 12;

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    base: Base,
    /// Where in the file the last whole, durable line ends.
    end_bytes: u64,
}

/// Where to begin reading a journal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// Over nothing: what it was written anew with, and what followed.
    Everything,
    /// Over what was so at a position.
    Position(u64),
}

/// Which position is where in a file: so many bytes of it stand for everything before `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Base {
    position: u64,
    bytes: u64,
}

impl Base {
    /// What the first line of a file says.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not whole although more follows: nobody knows where what is then.
    fn read(path: &Path, file: &mut File) -> Result<Self> {
        let attempted = || format!("read {}", path.display());
        file.rewind().attempt(attempted)?;
        let (mut line, mut reader) = (Vec::new(), BufReader::new(file));
        reader.by_ref().take(JOURNAL_LINE_LIMIT_BYTES as u64).read_until(b'\n', &mut line).attempt(attempted)?;
        match decode(&line) {
            Some(Record::Base { position, bytes }) => Ok(Self { position, bytes }),
            None if !reader.fill_buf().attempt(attempted)?.is_empty() => Err(damaged_at(path, 0)),
            _ => Ok(Self::default()),
        }
    }

    fn position(self, bytes: u64) -> u64 {
        self.position + (bytes - self.bytes)
    }

    /// Where in the file a position is; nowhere, if it is before those that are there.
    fn bytes(self, position: u64) -> Option<u64> {
        Some(self.bytes + position.checked_sub(self.position)?)
    }
}

impl Journal {
    /// Opens the journal at `path`, creating it when it is not there, and hands every record from
    /// `start` on to `take`. A torn end is cut off.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a line before the torn end is not what its checksum says, or `start` is
    /// not in the journal.
    pub(super) fn open(path: &Path, start: Start, take: impl FnMut(Record) -> Result<()>) -> Result<Self> {
        let attempted = || format!("open {}", path.display());
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path).attempt(attempted)?;
        path.parent().map_or(Ok(()), sync_directory)?;
        let (base, length) = (Base::read(path, &mut file)?, file.metadata().attempt(attempted)?.len());
        let start_bytes = match start {
            Start::Everything => Some(0),
            Start::Position(position) => base.bytes(position).filter(|bytes| *bytes <= length),
        };
        let Some(start_bytes) = start_bytes else {
            let (from, to) = (base.position, base.position + length.saturating_sub(base.bytes));
            let why = format!("it goes from {from} to {to}, the metadata has seen {start:?}; restore it from a backup");
            return Err(Error::damaged(path.display(), why));
        };
        let read = read(path, &mut file, start_bytes, take)?;
        if let Some(at) = read.first_damage_at {
            return Err(damaged_at(path, at));
        }
        if read.end < length {
            file.set_len(read.end).attempt(|| format!("cut {} to {} bytes", path.display(), read.end))?;
            file.sync_all().attempt(|| format!("sync {}", path.display()))?;
        }
        file.seek(SeekFrom::Start(read.end)).attempt(attempted)?;
        Ok(Self { path: path.to_owned(), file, base, end_bytes: read.end })
    }

    /// The first position of the journal at `path` from which on every record is there by itself; 0 where
    /// there is none.
    pub(super) fn first_position(path: &Path) -> Result<u64> {
        match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
            opened => Ok(Base::read(path, &mut opened.attempt(|| format!("open {}", path.display()))?)?.position),
        }
    }

    /// Hands every whole record of the journal at `path` to `take`, and gives the number of damaged
    /// lines passed over. A journal that is not there is empty.
    pub(super) fn salvage(path: &Path, take: impl FnMut(Record) -> Result<()>) -> Result<u64> {
        match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
            opened => Ok(read(path, &mut opened.attempt(|| format!("open {}", path.display()))?, 0, take)?.damaged_lines),
        }
    }

    /// Writes a journal of `records` to a new file at `path`, durably, and gives its length.
    pub(super) fn create(path: &Path, records: impl Iterator<Item = Result<Record>>) -> Result<u64> {
        let attempted = || format!("write {}", path.display());
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path).attempt(attempted)?;
        let (mut writer, mut line, mut length) = (BufWriter::new(file), Vec::new(), 0);
        for record in records {
            line.clear();
            encode(&record?, &mut line)?;
            length += line.len() as u64;
            writer.write_all(&line).attempt(attempted)?;
        }
        let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).attempt(attempted)?;
        file.sync_all().attempt(attempted)?;
        Ok(length)
    }
}

/// Where records are kept, in the order they happened.
pub(super) trait Log: Send + 'static {
    /// The position at which the last line ends.
    fn end(&self) -> u64;

    /// Appends lines; they are on stable storage when this returns.
    ///
    /// # Errors
    /// After [`AppendError::Refused`] the log is as before; after [`AppendError::Unknown`] nobody
    /// knows what of the records is stored, and nothing may be appended any more.
    fn append(&mut self, lines: &[u8]) -> Result<(), AppendError>;

    /// Goes on in a file that says the same in fewer words.
    ///
    /// # Errors
    /// As those of [`Self::append`].
    fn adopt(&mut self, rewritten: Rewritten) -> Result<(), AppendError>;
}

impl Log for Journal {
    fn end(&self) -> u64 {
        self.base.position(self.end_bytes)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), AppendError> {
        let attempted = || format!("append to {}", self.path.display());
        if let Err(e) = self.file.write_all(lines).attempt(attempted) {
            let undo = self.file.set_len(self.end_bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.end_bytes)));
            return Err(if undo.is_ok() { AppendError::Refused(e.into()) } else { AppendError::Unknown(e.into()) });
        }
        self.file.sync_data().attempt(|| format!("sync {}", self.path.display())).map_err(|e| AppendError::Unknown(e.into()))?;
        self.end_bytes += lines.len() as u64;
        Ok(())
    }

    fn adopt(&mut self, rewritten: Rewritten) -> Result<(), AppendError> {
        let (file, base, end_bytes) = rewritten.take_place_of(self)?;
        (self.file, self.base, self.end_bytes) = (file, base, end_bytes);
        Ok(())
    }
}

fn damaged_at(path: &Path, at: u64) -> Error {
    let why = format!(
        "the line at byte {at} does not match its checksum; restore the file from a backup, \
         or stop rhub and run `rhub rebuild`, which leaves that line out"
    );
    Error::damaged(path.display(), why)
}

/// How an append failed.
#[derive(Debug)]
pub(super) enum AppendError {
    Refused(Error),
    Unknown(Error),
}

/// What reading a journal found.
pub(super) struct Found {
    /// Where the last whole line ends.
    pub(super) end: u64,
    /// The first line that is not whole although a whole one follows: not a torn end, but damage.
    pub(super) first_damage_at: Option<u64>,
    damaged_lines: u64,
}

/// Hands every whole record of `source`, which is called `path`, to `take`, from byte `start` on.
pub(super) fn read(
    path: &Path,
    source: &mut (impl Read + Seek),
    start: u64,
    mut take: impl FnMut(Record) -> Result<()>,
) -> Result<Found> {
    let attempted = || format!("read {}", path.display());
    source.seek(SeekFrom::Start(start)).attempt(attempted)?;
    let mut reader = BufReader::with_capacity(1 << 20, source);
    let mut found = Found { end: start, first_damage_at: None, damaged_lines: 0 };
    let (mut at, mut line) = (start, Vec::new());
    // Lines that are not whole, after the last whole one.
    let mut torn: Option<(u64, u64)> = None;
    loop {
        line.clear();
        let limit = JOURNAL_LINE_LIMIT_BYTES as u64;
        let taken = reader.by_ref().take(limit).read_until(b'\n', &mut line).attempt(attempted)? as u64;
        if taken == 0 {
            return Ok(found);
        }
        if let Some(record) = decode(&line) {
            take(record)?;
            if let Some((torn_at, lines)) = torn.take() {
                found.first_damage_at.get_or_insert(torn_at);
                found.damaged_lines += lines;
            }
            found.end = at + taken;
        } else {
            let (torn_at, lines) = torn.unwrap_or((at, 0));
            torn = Some((torn_at, lines + 1));
        }
        at += taken;
    }
}

/// A record as a line.
pub(super) fn encode(record: &Record, lines: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_vec(record).attempt(|| "write a journal record")?;
    lines.extend_from_slice(Digest::of(&json).short().as_bytes());
    lines.push(b' ');
    lines.extend_from_slice(&json);
    lines.push(b'\n');
    Ok(())
}

fn decode(line: &[u8]) -> Option<Record> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    if Digest::of(json).short().as_bytes() != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64) -> Record {
        Record::LinkBlob { repo: "a/b".parse().unwrap(), digest: Digest::of(&n.to_be_bytes()), size: n }
    }

    fn lines(range: std::ops::Range<u64>) -> Vec<u8> {
        let mut lines = Vec::new();
        range.for_each(|n| encode(&record(n), &mut lines).unwrap());
        lines
    }

    fn read_from(path: &Path, start: u64) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        Journal::open(path, Start::Position(start), |record| {
            records.push(record);
            Ok(())
        })?;
        Ok(records)
    }

    #[test]
    fn what_was_appended_is_read_again_from_any_line_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, Start::Everything, |_| Ok(())).unwrap();
        journal.append(&lines(0..2)).unwrap();
        let middle = journal.end();
        journal.append(&lines(2..3)).unwrap();
        assert_eq!(read_from(&path, 0).unwrap(), [record(0), record(1), record(2)]);
        assert_eq!(read_from(&path, middle).unwrap(), [record(2)]);
    }

    #[test]
    fn a_tail_cut_at_any_byte_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (whole, first) = (lines(0..2), lines(0..1));
        for cut in first.len()..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path, Start::Everything, |_| Ok(())).unwrap();
            assert_eq!(journal.end(), first.len() as u64);
            journal.append(&lines(7..8)).unwrap();
            assert_eq!(read_from(&path, 0).unwrap(), [record(0), record(7)]);
        }
    }

    #[test]
    fn a_position_before_those_that_are_there_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let base = Base { position: 1000, bytes: rewrite::BASE_LINE_BYTES };
        std::fs::write(&path, [base.line(), lines(0..2)].concat()).unwrap();
        assert_eq!(read_from(&path, 1000).unwrap(), [record(0), record(1)]);
        assert_eq!(read_from(&path, 1000 + lines(0..1).len() as u64).unwrap(), [record(1)]);
        for missing in [0, 999, 1001 + lines(0..2).len() as u64] {
            assert!(matches!(read_from(&path, missing), Err(Error::Damaged { .. })), "{missing}");
        }
    }

    #[test]
    fn a_first_line_that_is_damaged_is_refused_and_what_follows_can_be_salvaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        // Taken for places in the file, positions would be in the middle of its lines.
        let base = Base { position: 60, bytes: rewrite::BASE_LINE_BYTES };
        let whole = [base.line(), lines(0..3)].concat();
        for at in 0..base.line().len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            for start in [60, 60 + lines(0..3).len() as u64] {
                assert!(matches!(read_from(&path, start), Err(Error::Damaged { .. })), "byte {at}, from {start}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is cut off");
        }
        let mut salvaged = Vec::new();
        let take = |record| {
            salvaged.push(record);
            Ok(())
        };
        assert_eq!((Journal::salvage(&path, take).unwrap(), salvaged.len()), (1, 2), "the last byte joined two lines");
    }

    #[test]
    fn damage_before_the_tail_is_an_error_not_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut bytes = lines(0..3);
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read_from(&path, 0), Err(Error::Damaged { .. })));
        assert!(matches!(read_from(&path, bytes.len() as u64 + 1), Err(Error::Damaged { .. })));
        let mut salvaged = Vec::new();
        let damaged = Journal::salvage(&path, |record| {
            salvaged.push(record);
            Ok(())
        });
        assert_eq!((damaged.unwrap(), salvaged), (1, vec![record(1), record(2)]));
    }
}
