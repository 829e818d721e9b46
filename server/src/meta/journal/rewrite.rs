//! A journal written anew while it grows: what is out of date is left out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use longshore_runtime::name::Digest;

use super::{AppendError, Base, CHECKSUM_DIGITS, Journal, encode};
use crate::data_dir::{remove_if_there, sync_directory};
use crate::error::{Attempt, Error, Result};
use crate::meta::rebuild::facts;
use crate::meta::record::Record;
use crate::meta::table::Table;

/// The length of the first line, which is written last.
pub(super) const BASE_LINE_BYTES: u64 = (CHECKSUM_DIGITS + " \n".len() + BASE_JSON_BYTES) as u64;
/// Room for two numbers of 20 digits.
const BASE_JSON_BYTES: usize = r#"{"do":"base","position":,"bytes":}"#.len() + 2 * 20;

/// Makes new journals beside the one that is in use.
#[derive(Debug)]
pub(in crate::meta) struct Rewriter {
    path: PathBuf,
    /// What of it has to be out of date, in bytes, before it is written anew.
    worth_bytes: u64,
}

/// A new journal that is there but for the last few lines.
#[derive(Debug)]
pub(in crate::meta) struct Rewritten {
    /// Removed if this never takes its place.
    path: Option<PathBuf>,
    file: File,
    base: Base,
}

impl Rewriter {
    /// For the journal at `path`. What an earlier process left half done is removed.
    pub(in crate::meta) fn new(path: &Path, worth_bytes: u64) -> Result<Self> {
        let rewriter = Self { path: path.to_owned(), worth_bytes };
        remove_if_there(&rewriter.next())?;
        Ok(rewriter)
    }

    fn next(&self) -> PathBuf {
        self.path.with_extension("next")
    }

    /// Writes the journal anew, if that is worth it and none waits to be adopted. What `table` has must be
    /// on stable storage, and not older than `position`.
    pub(in crate::meta) fn rewrite(&self, table: &impl Table, position: u64) -> Result<Option<Rewritten>> {
        let attempted = || format!("read {}", self.path.display());
        let mut old = File::open(&self.path).attempt(attempted)?;
        let (base, length) = (Base::read(&self.path, &mut old)?, old.metadata().attempt(attempted)?.len());
        // What was appended since it was written anew puts at most as much out of date.
        let is_worth_it = length.saturating_sub(base.bytes) >= self.worth_bytes.max(base.bytes);
        if !is_worth_it || self.next().exists() {
            return Ok(None);
        }
        let mut rewritten = Rewritten::create(self.next())?;
        rewritten.write_facts(table, position)?;
        Ok(Some(rewritten))
    }
}

impl Rewritten {
    fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path);
        let file = file.attempt(|| format!("create {}", path.display()))?;
        Ok(Self { path: Some(path), file, base: Base::default() })
    }

    fn attempted(&self) -> impl Fn() -> String + use<> {
        let path = self.path.clone().unwrap_or_default();
        move || format!("write {}", path.display())
    }

    /// What is so, and where in the file it ends.
    fn write_facts(&mut self, table: &impl Table, position: u64) -> Result<()> {
        let attempted = self.attempted();
        let mut writer = BufWriter::with_capacity(1 << 20, &self.file);
        writer.write_all(&[b' '; BASE_LINE_BYTES as usize]).attempt(&attempted)?;
        let (mut line, mut bytes) = (Vec::new(), BASE_LINE_BYTES);
        for fact in facts(table, None) {
            line.clear();
            encode(&Record::from(fact?.1), &mut line)?;
            bytes += line.len() as u64;
            writer.write_all(&line).attempt(&attempted)?;
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error).attempt(&attempted)?;
        self.base = Base { position, bytes };
        self.file.write_all_at(&self.base.line(), 0).attempt(&attempted)?;
        // Not while everybody waits for the rest.
        self.file.sync_all().attempt(&attempted)?;
        Ok(())
    }

    /// Appends what `old` has from its position on, and takes its place: the new file, and where it ends.
    pub(super) fn take_place_of(mut self, old: &Journal) -> Result<(File, Base, u64), AppendError> {
        self.append_from(old).map_err(AppendError::Refused)?;
        let (attempted, path) = (self.attempted(), self.path.clone().unwrap_or_default());
        let file = self.file.try_clone().attempt(attempted).map_err(|e| AppendError::Refused(e.into()))?;
        let renamed = fs::rename(&path, &old.path).attempt(|| format!("rename {} to {}", path.display(), old.path.display()));
        renamed.map_err(|e| AppendError::Refused(e.into()))?;
        self.path = None;
        // Nobody knows which of the two a crash would leave.
        old.path.parent().map_or(Ok(()), sync_directory).map_err(AppendError::Unknown)?;
        let length = self.file.metadata().attempt(|| format!("look up {}", old.path.display()));
        Ok((file, self.base, length.map_err(|e| AppendError::Unknown(e.into()))?.len()))
    }

    fn append_from(&mut self, old: &Journal) -> Result<()> {
        let missing = old.base.bytes(self.base.position).and_then(|from| Some((from, old.end_bytes.checked_sub(from)?)));
        let (from, length) = missing.ok_or_else(|| Error::damaged(old.path.display(), "it was written anew twice at once"))?;
        let mut append = || {
            let mut source = File::open(&old.path)?;
            source.seek(SeekFrom::Start(from))?;
            self.file.seek(SeekFrom::End(0))?;
            let copied = io::copy(&mut source.take(length), &mut self.file)?;
            if copied < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { self.file.sync_data() }
        };
        Ok(append().attempt(self.attempted())?)
    }
}

impl Drop for Rewritten {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(e) = remove_if_there(path)
        {
            tracing::warn!("{e}");
        }
    }
}

impl Base {
    /// As the first line of a journal.
    pub(super) fn line(self) -> Vec<u8> {
        let json = format!(r#"{{"do":"base","position":{:>20},"bytes":{:>20}}}"#, self.position, self.bytes);
        format!("{} {json}\n", Digest::of(json.as_bytes()).short()).into_bytes()
    }
}
