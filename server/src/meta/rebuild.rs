//! `rhub rebuild`, `export` and `import`: the metadata database made anew from a journal and the
//! blobs, and the journal written from what is in the database.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use longshore_runtime::name::{Digest, RepoName, Tag};

use super::clock::now_ms;
use super::commit::note;
use super::journal::{Journal, encode};
use super::keys;
use super::record::{Record, decode_digest, decode_manifest, decode_number, decode_references};
use super::sled::{Replay, mark, open_database, open_table};
use super::table::{Table, View};
use super::{Fact, ManifestEntry};
use crate::blob::FsBlobStore;
use crate::data_dir::{DataDir, sync_directory};
use crate::error::{Attempt, Error, Result};

/// What was written, or found by a rebuild.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rebuilt {
    /// Blobs in repositories, each repository counted.
    pub blobs: u64,
    /// Manifests in repositories.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs, manifests and tags on them the journal knows and the blob store does not have, left out.
    pub lost: u64,
    /// Journal lines that were damaged, left out.
    pub damaged_lines: u64,
    /// Blobs that are in no repository; they will be collected.
    pub unlinked: u64,
}

/// Makes the metadata of `data` anew from its journal. The journal is rewritten to what then is.
/// Whatever moment it is interrupted at, `rhub serve` refuses until it was run to its end.
///
/// # Errors
/// Those of reading and writing; nothing is changed then.
pub fn rebuild(data: &DataDir, blobs: &FsBlobStore) -> Result<Rebuilt> {
    replace(data, blobs, &data.journal())
}

/// Makes the metadata of `data` anew from a file of [`export_lines`]. What was there is replaced.
///
/// # Errors
/// [`Error::Damaged`] when a line of the file is damaged; nothing is changed then.
pub fn import(data: &DataDir, blobs: &FsBlobStore, source: &Path) -> Result<Rebuilt> {
    fs::metadata(source).attempt(|| format!("open {}", source.display()))?;
    let damaged_lines = Journal::salvage(source, |_| Ok(()))?;
    if damaged_lines > 0 {
        let why = format!("{damaged_lines} of its lines do not match their checksums; take another export");
        return Err(Error::damaged(source.display(), why));
    }
    replace(data, blobs, source)
}

fn replace(data: &DataDir, blobs: &FsBlobStore, source: &Path) -> Result<Rebuilt> {
    let (new, new_journal) = (data.path().join("metadata.new"), data.path().join("journal.new"));
    remove_directory(&new)?;
    let mut rebuilt = Rebuilt::default();
    {
        let database = open_database(&new)?;
        let table = &open_table(&database)?;
        let mut replay = Replay::new(table);
        rebuilt.damaged_lines = Journal::salvage(source, |record| replay.take(&record))?;
        replay.finish()?;
        drop_lost(table, blobs, &mut rebuilt)?;
        rebuilt.unlinked = mark_unlinked(table, blobs)?;
        let counted =
            facts(table, None).map(|fact| fact.map(|(_, fact)| fact).inspect(|fact| rebuilt.count(fact)).map(Record::from));
        let length = Journal::create(&new_journal, counted)?;
        mark(&database)?;
        note(table, length)?;
    }
    // From here until the last step there is no database, and serving is refused.
    remove_directory(&data.metadata())?;
    sync_directory(data.path())?;
    for (from, to) in [(new_journal, data.journal()), (new, data.metadata())] {
        fs::rename(&from, &to).attempt(|| format!("rename {} to {}", from.display(), to.display()))?;
        sync_directory(data.path())?;
    }
    Ok(rebuilt)
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Ok(Err(e).attempt(|| format!("remove {}", path.display()))?),
        _ => Ok(()),
    }
}

/// Takes out what the blob store does not have in the size that was acknowledged, and tags on
/// manifests that are not there.
fn drop_lost(table: &impl Table, blobs: &FsBlobStore, rebuilt: &mut Rebuilt) -> Result<()> {
    let mut lost = Vec::new();
    for kind in [b'b', b'm'] {
        for entry in table.scan(&keys::all(kind, None), None) {
            let (key, value) = entry?;
            let (repo, digest): (RepoName, Digest) = names(&key)?;
            if blobs.size_blocking(&digest)? != Some(decode_number(&value)) {
                let blob = kind == b'b';
                lost.push(if blob { Record::UnlinkBlob { repo, digest } } else { Record::DeleteManifest { repo, digest } });
            }
        }
    }
    for entry in table.scan(&keys::all(b't', None), None) {
        let (key, value) = entry?;
        let (repo, tag): (RepoName, Tag) = names(&key)?;
        if !table.has(&keys::manifest(&repo, &decode_digest(&value)?))? {
            lost.push(Record::DeleteTag { repo, tag });
        }
    }
    rebuilt.lost = lost.len() as u64;
    let mut replay = Replay::new(table);
    lost.iter().try_for_each(|record| replay.take(record))?;
    replay.finish()
}

/// Marks what the blob store has and no repository does; how much that is.
pub(super) fn mark_unlinked(table: &impl Table, blobs: &FsBlobStore) -> Result<u64> {
    let (mut view, mut unlinked) = (View::new(table, now_ms()), 0);
    for shard in FsBlobStore::shards() {
        for (digest, _) in blobs.shard_blocking(shard)? {
            if !view.has_any(&keys::holder(&digest, ""))? {
                unlinked += 1;
                view.put(keys::unlinked(&digest), view.now_ms.to_be_bytes());
            }
        }
    }
    table.apply(&view.into_changes())?;
    Ok(unlinked)
}

/// Facts as lines of a journal; all of them together are what [`import`] takes.
pub fn export_lines(facts: Vec<Fact>, lines: &mut Vec<u8>) -> Result<()> {
    facts.into_iter().try_for_each(|fact| encode(&fact.into(), lines))
}

/// The facts of a table after the key `after`, in order.
pub(super) fn facts<'t, T: Table>(
    table: &'t T,
    after: Option<&[u8]>,
) -> impl Iterator<Item = Result<(Vec<u8>, Fact)>> + use<'t, T> {
    let after = after.map(<[u8]>::to_vec);
    let first = after.as_ref().and_then(|after| after.first().copied()).unwrap_or_default();
    let kinds = [b'b', b'm', b't'].into_iter().filter(move |kind| *kind >= first);
    kinds.flat_map(move |kind| table.scan(&keys::all(kind, None), after.as_deref())).map(move |entry| {
        let (key, value) = entry?;
        let fact = fact(table, &key, &value)?;
        Ok((key, fact))
    })
}

fn fact(table: &impl Table, key: &[u8], value: &[u8]) -> Result<Fact> {
    match key.first() {
        Some(b'b') => {
            let (repo, digest) = names(key)?;
            Ok(Fact::Blob { repo, digest, size: decode_number(value) })
        }
        Some(b'm') => {
            let (repo, digest) = names(key)?;
            // Deleted since the scan came by, it refers to nothing any more.
            let references = table.get(&keys::references(&repo, &digest))?.unwrap_or_else(|| b"{}".to_vec());
            let (references, (size, media_type)) = (decode_references(&references)?, decode_manifest(value));
            Ok(Fact::Manifest { repo, entry: ManifestEntry { digest, media_type, size }, references })
        }
        _ => {
            let (repo, tag) = names(key)?;
            Ok(Fact::Tag { repo, tag, digest: decode_digest(value)? })
        }
    }
}

impl Rebuilt {
    fn count(&mut self, fact: &Fact) {
        match fact {
            Fact::Blob { .. } => self.blobs += 1,
            Fact::Manifest { .. } => self.manifests += 1,
            Fact::Tag { .. } => self.tags += 1,
        }
    }
}

/// The two names of a key.
fn names<A: std::str::FromStr, B: std::str::FromStr>(key: &[u8]) -> Result<(A, B)> {
    let unreadable = || format!("metadata key {:?}", String::from_utf8_lossy(key));
    keys::names(key).ok_or_else(|| Error::damaged(unreadable(), "it is of no known form"))
}
