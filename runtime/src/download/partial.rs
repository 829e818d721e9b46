//! The file of a download that is not complete, and what of it is good.
//!
//! Fetched from its beginning, the file is as long as what is here. Once several ranges of a blob are
//! fetched at a time, the file is longer than the blob: behind it lies a journal, a byte for each chunk
//! that is here whole. A chunk's byte is set after the chunk is on stable storage.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::CHUNK_BYTES;
use crate::error::{Attempt, Result};
use crate::files::write_behind;

/// What a journal begins with.
const MAGIC: &[u8; 16] = b"longshore chunks";

/// A blob of more chunks is fetched from its beginning only: 512 GiB.
const CHUNKS_LIMIT: u64 = 1 << 16;

/// A partial download, locked by its opener.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    file: &'a File,
    path: &'a Path,
    size: u64,
    /// Whether the journal exists.
    journaled: AtomicBool,
}

impl<'a> Partial<'a> {
    /// A download of a blob of `size` bytes.
    pub(crate) fn new(file: &'a File, path: &'a Path, size: u64) -> Self {
        Self { file, path, size, journaled: AtomicBool::new(false) }
    }

    /// What is here, in bytes. A file that makes no sense is emptied.
    pub(crate) fn load(&self) -> Result<Vec<Range<u64>>> {
        let attempted = || format!("read the partial download {}", self.path.display());
        let length = self.file.metadata().attempt(attempted)?.len();
        if length <= self.size {
            return Ok(if length == 0 { vec![] } else { std::iter::once(0..length).collect() });
        }
        if self.can_journal() && length == self.size + self.journal_bytes() {
            let mut journal = vec![0; self.journal_bytes() as usize];
            self.file.read_exact_at(&mut journal, self.size).attempt(attempted)?;
            if let Some(chunks) = parse(&journal) {
                self.journaled.store(true, Ordering::Relaxed);
                let range = |chunk: u64| chunk * CHUNK_BYTES..((chunk + 1) * CHUNK_BYTES).min(self.size);
                return Ok(chunks.into_iter().map(range).collect());
            }
        }
        self.clear()?;
        Ok(vec![])
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) -> Result<()> {
        self.journaled.store(false, Ordering::Relaxed);
        self.file.set_len(0).attempt(|| format!("empty the partial download {}", self.path.display()))
    }

    /// Whether ranges may be fetched out of order.
    pub(super) fn can_journal(&self) -> bool {
        self.chunks() <= CHUNKS_LIMIT
    }

    /// Begins the journal, with these chunks in it. Before this, nothing may be written out of order.
    pub(super) fn start_journal(&self, chunks: impl IntoIterator<Item = u64>) -> Result<()> {
        if self.journaled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut journal = vec![0; self.journal_bytes() as usize];
        journal[..MAGIC.len()].copy_from_slice(MAGIC);
        for chunk in chunks {
            journal[MAGIC.len() + chunk as usize] = 1;
        }
        let written = self.file.sync_data().and_then(|()| self.file.write_all_at(&journal, self.size));
        written.attempt(|| format!("keep a journal in {}", self.path.display()))?;
        self.journaled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes chunks that are written whole, if there is a journal.
    pub(super) fn note(&self, chunks: &[u64]) -> Result<()> {
        if chunks.is_empty() || !self.journaled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let place = |chunk: &u64| self.size + MAGIC.len() as u64 + chunk;
        let mut noted = self.file.sync_data();
        for chunk in chunks {
            noted = noted.and_then(|()| self.file.write_all_at(&[1], place(chunk)));
        }
        noted.attempt(|| format!("keep a journal in {}", self.path.display()))
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_behind(self.file, bytes, offset).attempt(|| format!("keep a download in {}", self.path.display()))
    }

    /// Reads some of the bytes at `offset`, which are here.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset).attempt(|| format!("read the partial download {}", self.path.display()))
    }

    /// Puts the file, which is complete and verified, where the blob belongs.
    pub(crate) fn place(&self, blob: &Path) -> Result<()> {
        self.file
            .set_len(self.size)
            .and_then(|()| std::fs::rename(self.path, blob))
            .attempt(|| format!("put {} in place", blob.display()))
    }

    fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK_BYTES)
    }

    fn journal_bytes(&self) -> u64 {
        MAGIC.len() as u64 + self.chunks()
    }
}

/// The chunks a journal lists; `None` if it is none.
fn parse(journal: &[u8]) -> Option<Vec<u64>> {
    let states = journal.strip_prefix(MAGIC)?;
    states
        .iter()
        .all(|&state| state <= 1)
        .then(|| (0..).zip(states).filter(|(_, state)| **state == 1).map(|(at, _)| at).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 2 * CHUNK_BYTES + 100;

    fn loaded(file: &File, size: u64) -> Vec<Range<u64>> {
        Partial::new(file, Path::new("partial"), size).load().unwrap()
    }

    #[test]
    fn without_a_journal_the_length_counts_and_with_one_the_chunks() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(loaded(&file, SIZE), []);
        let partial = Partial::new(&file, Path::new("partial"), SIZE);
        partial.write_at(b"four", 0).unwrap();
        partial.note(&[0]).unwrap();
        assert_eq!(loaded(&file, SIZE), std::iter::once(0..4).collect::<Vec<_>>());
        partial.start_journal([0]).unwrap();
        partial.write_at(&[1; 100], 2 * CHUNK_BYTES).unwrap();
        partial.write_at(&[1; 100], CHUNK_BYTES).unwrap();
        partial.note(&[2]).unwrap();
        assert_eq!(loaded(&file, SIZE), [0..CHUNK_BYTES, 2 * CHUNK_BYTES..SIZE]);
        assert_eq!(loaded(&file, SIZE - 1), [], "of another blob it would be: it is emptied");
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_blob_whose_manifest_says_it_is_immense_gets_no_journal() {
        let file = tempfile::tempfile().unwrap();
        let partial = Partial::new(&file, Path::new("partial"), u64::MAX - 1);
        assert!(!partial.can_journal());
        assert_eq!(partial.load().unwrap(), []);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_emptied(tail in proptest::collection::vec(any::<u8>(), 0..30), magic in any::<bool>()) {
            let file = tempfile::tempfile().unwrap();
            let journal = if magic { [&MAGIC[..], &tail].concat() } else { tail };
            file.write_all_at(&journal, SIZE).unwrap();
            prop_assert!(loaded(&file, SIZE).iter().all(|range| range.start < range.end && range.end <= SIZE));
        }
    }
}
