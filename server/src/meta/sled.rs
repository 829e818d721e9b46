//! Metadata in sled, made of the journal.
//!
//! Sled's own durability is not relied on: it is known to lose its tail, or everything, after an
//! abrupt stop. The journal is flushed before a change is acknowledged; a start replays what came
//! after the database's last flush; a database that lost its format mark is refused.

use std::path::Path;
use std::time::{Duration, Instant};

use super::clock::now_ms;
use super::commit::note;
use super::journal::{Journal, Log, Rewriter, Start};
use super::keys;
use super::lease::Leases;
use super::rebuild::mark_unlinked;
use super::record::{Record, decode_number};
use super::runs::Runs;
use super::store::Store;
use super::table::{Lookup, Table, View, failed};
use crate::blob::FsBlobStore;
use crate::data_dir::DataDir;
use crate::error::{Error, Result};
use crate::limits::{Limits, METADATA_CACHE_BYTES};

/// Records of a replay that go to the database in one step.
const REPLAY_STEP: usize = 8192;

/// The tree everything but the mark of the format is in.
const TABLE: &str = "runs";

/// How long a database that was closed may stay locked.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The embedded metadata store.
pub type SledMetadata = Store<Runs>;

impl SledMetadata {
    /// Opens the database of a data directory, creating it in a new one.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the database is empty or unreadable beside stored blobs, or full
    /// beside none: serving would tell clients that what they pushed is gone.
    pub fn open(data: &DataDir, limits: &Limits) -> Result<Self> {
        let has_blobs = FsBlobStore::exists(data.blobs());
        let path = data.metadata();
        let database = open_database(&path).map_err(|e| match e {
            Error::Database { source: sled::Error::Io(_), .. } => e,
            _ => Error::damaged(path.display(), format!("{e}; run `rhub rebuild` to make it anew from the journal")),
        })?;
        let format = database.get(keys::FORMAT).map_err(failed)?;
        let mut table = open_table(&database)?;
        let start = table.get(keys::CHECKPOINT)?.map_or(0, |value| decode_number(&value));
        let first = Journal::first_position(&data.journal())?;
        match format.as_deref() {
            _ if !has_blobs && start.max(first) > 0 => {
                let why = "the metadata knows content, but there is none; is the right file system mounted?";
                return Err(Error::damaged(data.path().join("blobs").display(), why));
            }
            Some(keys::FORMAT_VERSION) => {}
            Some(_) => {
                let why =
                    "another version of rhub wrote it; use that one, or run `rhub rebuild` to make it anew from the journal";
                return Err(Error::damaged(path.display(), why));
            }
            None if has_blobs => {
                let why = "it is empty, but the blob store is not; run `rhub rebuild` to make it anew from the journal";
                return Err(Error::damaged(path.display(), why));
            }
            None => {
                mark(&database)?;
                note(&table, 0)?;
            }
        }
        let journal = if start < first {
            tracing::warn!("the metadata lost more than the journal can add; all of it is made anew from the journal");
            table = empty_table(&database)?;
            let journal = replay(&table, data, Start::Everything)?;
            mark_unlinked(&table, &FsBlobStore::open(data.blobs(), limits)?)?;
            note(&table, journal.end())?;
            journal
        } else {
            let journal = replay(&table, data, Start::Position(start))?;
            if journal.end() > start {
                note(&table, journal.end())?;
            }
            journal
        };
        let rewriter = Rewriter::new(&data.journal(), limits.journal_rewrite_bytes)?;
        Ok(Self::new(table, journal, Some(rewriter), Leases::open(data.leases())?))
    }
}

/// Opens sled, flushed by us alone.
pub(super) fn open_database(path: &Path) -> Result<sled::Db> {
    let config = sled::Config::new().path(path).cache_capacity(METADATA_CACHE_BYTES).flush_every_ms(None);
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open() {
            // The data directory is ours alone: this is a database this process has just closed, whose
            // file sled lets go of on a thread of its own.
            Err(sled::Error::Io(e)) if e.to_string().contains("acquire lock") && Instant::now() < until => {
                std::thread::yield_now();
            }
            other => return other.map_err(|source| Error::Database { attempted: "open the metadata database", source }),
        }
    }
}

/// Everything but the mark of the format.
pub(super) fn open_table(database: &sled::Db) -> Result<Runs> {
    Ok(Runs::new(database.open_tree(TABLE).map_err(failed)?))
}

/// Marks a database as one that was not lost or damaged.
pub(super) fn mark(database: &sled::Db) -> Result<()> {
    database.insert(keys::FORMAT, keys::FORMAT_VERSION).map(drop).map_err(failed)
}

/// The table without anything in it. Begun and broken off, it knows no position, and is emptied again.
fn empty_table(database: &sled::Db) -> Result<Runs> {
    database.drop_tree(TABLE).map_err(failed)?;
    open_table(database)
}

fn replay(table: &Runs, data: &DataDir, start: Start) -> Result<Journal> {
    let mut replay = Replay::new(table);
    let journal = Journal::open(&data.journal(), start, |record| replay.take(&record))?;
    replay.finish()?;
    Ok(journal)
}

/// Records on their way from the journal to the database.
pub(super) struct Replay<'a, T> {
    table: &'a T,
    view: View<'a, T>,
    count: usize,
}

impl<'a, T: Table> Replay<'a, T> {
    pub(super) fn new(table: &'a T) -> Self {
        Self { table, view: View::new(table, now_ms()), count: 0 }
    }

    pub(super) fn take(&mut self, record: &Record) -> Result<()> {
        record.apply(&mut self.view)?;
        self.count += 1;
        if self.count.is_multiple_of(REPLAY_STEP) {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let view = std::mem::replace(&mut self.view, View::new(self.table, now_ms()));
        self.table.apply(&view.into_changes())
    }

    /// Takes what is still on its way.
    pub(super) fn finish(mut self) -> Result<()> {
        self.step()
    }
}

#[cfg(test)]
mod tests {
    use longshore_runtime::name::{Digest, Tag};

    use super::*;
    use crate::blob::BlobStore;
    use crate::meta::contract::every_promise_is_kept;
    use crate::meta::{ManifestEntry, ManifestName, Metadata, PutOptions, References, rebuild};

    fn new_data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        (dir, data)
    }

    /// Opens both stores, in the order `rhub serve` does.
    fn open(data: &DataDir) -> (SledMetadata, FsBlobStore) {
        let metadata = SledMetadata::open(data, &Limits::default()).unwrap();
        (metadata, FsBlobStore::open(data.blobs(), &Limits::default()).unwrap())
    }

    #[tokio::test]
    async fn sled_keeps_the_contract() {
        let (_dir, data) = new_data();
        drop(open(&data));
        every_promise_is_kept(|| SledMetadata::open(&data, &Limits::default()).unwrap()).await;
    }

    #[tokio::test]
    async fn a_database_that_lost_its_tail_is_made_whole_from_the_journal() {
        let (_dir, data) = new_data();
        drop(open(&data));
        let copy = data.path().join("copy");
        copy_files(&data.metadata(), &copy);
        let (repo, digest) = ("a".parse().unwrap(), Digest::of(b"x"));
        SledMetadata::open(&data, &Limits::default()).unwrap().link_blob(&repo, &digest, 1).await.unwrap();
        std::fs::remove_dir_all(data.metadata()).unwrap();
        std::fs::rename(&copy, data.metadata()).unwrap();
        assert_eq!(SledMetadata::open(&data, &Limits::default()).unwrap().blob(&repo, &digest).await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn an_empty_database_over_stored_blobs_is_refused_and_can_be_rebuilt() {
        let (_dir, data) = new_data();
        let (repo, digest, lost) = ("a/b".parse().unwrap(), Digest::of(b"x"), Digest::of(b"never stored"));
        let entry = ManifestEntry { digest: digest.clone(), media_type: "m/t".into(), size: 1 };
        let (metadata, blobs) = open(&data);
        BlobStore::put(&blobs, &digest, "x".into()).await.unwrap();
        metadata.link_blob(&repo, &digest, 1).await.unwrap();
        metadata.link_blob(&repo, &lost, 9).await.unwrap();
        for tag in ["one", "two"] {
            let tags = [tag.parse().unwrap()];
            let options = PutOptions { overwrite: true, sparse: false };
            metadata.put_manifest(&repo, &entry, &References::default(), &tags, options).await.unwrap();
        }
        drop(metadata);
        for _ in 0..2 {
            std::fs::remove_dir_all(data.metadata()).unwrap();
            let error = SledMetadata::open(&data, &Limits::default()).unwrap_err().to_string();
            assert!(error.contains("rhub rebuild"), "{error}");
            let rebuilt = rebuild(&data, &blobs).unwrap();
            assert_eq!((rebuilt.blobs, rebuilt.manifests, rebuilt.tags, rebuilt.damaged_lines), (1, 1, 2, 0));
            let metadata = SledMetadata::open(&data, &Limits::default()).unwrap();
            assert_eq!(metadata.blob(&repo, &digest).await.unwrap(), Some(1));
            assert_eq!(metadata.blob(&repo, &lost).await.unwrap(), None);
            let found = metadata.manifest(&repo, &ManifestName::Tag("two".parse().unwrap())).await.unwrap();
            assert_eq!(found, Some(entry.clone()));
        }
    }

    #[tokio::test]
    async fn metadata_without_its_blobs_or_its_journal_is_refused() {
        let (_dir, data) = new_data();
        let (metadata, _blobs) = open(&data);
        metadata.link_blob(&"a".parse().unwrap(), &Digest::of(b"x"), 1).await.unwrap();
        drop(metadata);
        let journal = std::fs::read(data.journal()).unwrap();
        std::fs::remove_file(data.journal()).unwrap();
        let error = SledMetadata::open(&data, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("restore"), "{error}");
        std::fs::write(data.journal(), journal).unwrap();
        drop(SledMetadata::open(&data, &Limits::default()).unwrap());
        std::fs::rename(data.path().join("blobs"), data.path().join("elsewhere")).unwrap();
        let error = SledMetadata::open(&data, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("mounted"), "{error}");
    }

    #[tokio::test]
    async fn a_journal_mostly_out_of_date_is_written_anew_while_it_grows() {
        let (_dir, data) = new_data();
        let limits = Limits { journal_rewrite_bytes: 1000, ..Limits::default() };
        let (metadata, blobs) = open(&data);
        drop(metadata);
        let old = data.path().join("old");
        copy_files(&data.metadata(), &old);
        let (repo, tag) = ("a".parse().unwrap(), "now".parse::<Tag>().unwrap());
        let metadata = SledMetadata::open(&data, &limits).unwrap();
        let (mut position, mut moved) = (0, 0_u32);
        let is_written_anew = || std::fs::read_to_string(data.journal()).unwrap().contains("\"base\"");
        let deadline = Instant::now() + Duration::from_secs(60);
        // Once more after that, to see it begin in the middle.
        while !is_written_anew() || position < 2 {
            position += u32::from(is_written_anew());
            moved += 1;
            let content = moved.to_string();
            let entry =
                ManifestEntry { digest: Digest::of(content.as_bytes()), media_type: "m/t".into(), size: content.len() as u64 };
            BlobStore::put(&blobs, &entry.digest, content.into()).await.unwrap();
            let options = PutOptions { overwrite: true, sparse: false };
            metadata.put_manifest(&repo, &entry, &References::default(), std::slice::from_ref(&tag), options).await.unwrap();
            metadata.delete_manifest(&repo, &ManifestName::Digest(Digest::of((moved - 1).to_string().as_bytes()))).await.unwrap();
            assert!(Instant::now() < deadline, "{moved} changes and never written anew");
        }
        drop(metadata);
        let length = std::fs::metadata(data.journal()).unwrap().len();
        assert!(length < u64::from(moved) * 100, "{length} bytes after {moved} changes");
        assert!(!data.journal().with_extension("next").exists());
        // As it is; from before the journal's first position, as sled may leave it; without a database.
        for state in ["whole", "old", "lost"] {
            match state {
                "old" => {
                    std::fs::remove_dir_all(data.metadata()).unwrap();
                    std::fs::rename(&old, data.metadata()).unwrap();
                }
                "lost" => {
                    std::fs::remove_dir_all(data.metadata()).unwrap();
                    rebuild(&data, &blobs).unwrap();
                }
                _ => {}
            }
            let metadata = SledMetadata::open(&data, &limits).unwrap();
            let found = metadata.manifest(&repo, &ManifestName::Tag(tag.clone())).await.unwrap().unwrap();
            assert_eq!(found.digest, Digest::of(moved.to_string().as_bytes()));
            assert_eq!(metadata.facts(None, 100).await.unwrap().facts.len(), 2, "a manifest and its tag");
        }
    }

    #[test]
    fn a_start_broken_off_before_the_blob_store_was_made_can_be_repeated() {
        let (_dir, data) = new_data();
        drop(SledMetadata::open(&data, &Limits::default()).unwrap());
        drop(open(&data));
        drop(open(&data));
    }

    #[test]
    fn one_process_at_a_time_has_a_data_directory() {
        let (dir, _data) = new_data();
        assert!(matches!(DataDir::open(dir.path()), Err(Error::InUse(_))));
    }

    fn copy_files(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                copy_files(&entry.path(), &to.join(entry.file_name()));
            } else {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}
