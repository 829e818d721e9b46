//! `rhub rebuild`: the metadata database made anew from the journal and the blobs.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use longshore_runtime::name::{Digest, RepoName, Tag};

use super::commit::note;
use super::journal::Journal;
use super::keys;
use super::record::{Record, decode_digest, decode_manifest, decode_size, failed};
use super::sled::{Replay, open_database};
use crate::blob::FsBlobStore;
use crate::data_dir::{DataDir, sync_directory};
use crate::error::{Attempt, Error, Result};

/// What a rebuild found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Blobs in repositories, each repository counted.
    pub blobs: u64,
    /// Manifests in repositories.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs and manifests the journal knows and the blob store does not have, left out.
    pub lost: u64,
    /// Journal lines that were damaged, left out.
    pub damaged_lines: u64,
}

/// Makes the metadata of `data` anew. The journal is rewritten to what then is. Whatever moment it
/// is interrupted at, `rhub serve` refuses until it was run to its end.
pub fn rebuild(data: &DataDir, blobs: &FsBlobStore) -> Result<Rebuilt> {
    let (new, new_journal) = (data.path().join("metadata.new"), data.path().join("journal.new"));
    remove_directory(&new)?;
    let mut rebuilt = Rebuilt::default();
    {
        let database = open_database(&new)?;
        let mut replay = Replay::new(&database);
        rebuilt.damaged_lines = Journal::salvage(&data.journal(), |record| replay.take(&record))?;
        replay.finish()?;
        drop_lost(&database, blobs, &mut rebuilt)?;
        let length = Journal::create(&new_journal, records(&database, &mut rebuilt))?;
        database.insert(keys::FORMAT, keys::FORMAT_VERSION).map_err(failed)?;
        note(&database, length)?;
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

/// Takes out what the blob store does not have in the size that was acknowledged.
fn drop_lost(tree: &sled::Tree, blobs: &FsBlobStore, rebuilt: &mut Rebuilt) -> Result<()> {
    let mut lost = Vec::new();
    for kind in [b"b\0", b"m\0"] {
        for entry in tree.scan_prefix(kind) {
            let (key, value) = entry.map_err(failed)?;
            let (repo, digest) = repo_and_digest(&key)?;
            if blobs.size_blocking(&digest)? != Some(decode_size(&value)) {
                lost.push(if kind == b"b\0" {
                    Record::UnlinkBlob { repo, digest }
                } else {
                    Record::DeleteManifest { repo, digest }
                });
            }
        }
    }
    rebuilt.lost = lost.len() as u64;
    let mut replay = Replay::new(tree);
    lost.iter().try_for_each(|record| replay.take(record))?;
    replay.finish().map(drop)
}

/// Everything in the database as the shortest journal that leads to it, counted on the way.
fn records<'a>(tree: &'a sled::Tree, rebuilt: &'a mut Rebuilt) -> impl Iterator<Item = Result<Record>> + 'a {
    let kinds = tree.scan_prefix(b"b\0").chain(tree.scan_prefix(b"m\0")).chain(tree.scan_prefix(b"t\0"));
    kinds.map(move |entry| {
        let (key, value) = entry.map_err(failed)?;
        match key.first() {
            Some(b'b') => {
                rebuilt.blobs += 1;
                let (repo, digest) = repo_and_digest(&key)?;
                Ok(Record::LinkBlob { repo, digest, size: decode_size(&value) })
            }
            Some(b'm') => {
                rebuilt.manifests += 1;
                let (repo, digest) = repo_and_digest(&key)?;
                let (size, media_type) = decode_manifest(&value);
                Ok(Record::PutManifest { repo, digest, size, media_type, tag: None })
            }
            _ => {
                rebuilt.tags += 1;
                let (repo, tag): (RepoName, Tag) = names(&key)?;
                let digest = decode_digest(&value)?;
                let manifest = tree.get(keys::manifest(&repo, &digest)).map_err(failed)?;
                let (size, media_type) = decode_manifest(&manifest.ok_or_else(|| unreadable(&key))?);
                Ok(Record::PutManifest { repo, digest, size, media_type, tag: Some(tag) })
            }
        }
    })
}

fn repo_and_digest(key: &[u8]) -> Result<(RepoName, Digest)> {
    names(key)
}

/// The two names of a key.
fn names<A: std::str::FromStr, B: std::str::FromStr>(key: &[u8]) -> Result<(A, B)> {
    let mut parts = std::str::from_utf8(key).unwrap_or_default().split('\0').skip(1);
    let (first, second) = (parts.next().and_then(|s| s.parse().ok()), parts.next().and_then(|s| s.parse().ok()));
    first.zip(second).ok_or_else(|| unreadable(key))
}

fn unreadable(key: &[u8]) -> Error {
    Error::damaged(format!("metadata key {:?}", String::from_utf8_lossy(key)), "it is of no known form")
}
