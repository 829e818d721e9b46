//! `index.json`: which names the store's images have (image-spec image-layout.md#indexjson-file).
//!
//! One entry for each name. A name that moves on leaves its old image behind without a name, as
//! docker does, until it is removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::error::{Attempt, Result};
use crate::files;
use crate::image::parse_own;
use crate::name::{Digest, Reference};
use crate::source::RawManifest;

/// The image's full reference (image-spec annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The digest the name stood for in the registry: an index's, where `digest` is the chosen image's.
const RESOLVED: &str = "io.longshore.resolved";

/// 100,000 entries of 500 bytes.
const INDEX_LIMIT_BYTES: u64 = 50 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexFile {
    schema_version: u8,
    #[serde(default)]
    pub(super) manifests: Vec<Entry>,
}

/// One name of one image; without a name, what a moved name left behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Entry {
    pub(super) fn name(&self) -> Option<Reference> {
        self.annotations.get(REF_NAME)?.parse().ok()
    }

    pub(super) fn resolved(&self) -> Option<Digest> {
        self.annotations.get(RESOLVED)?.parse().ok()
    }

    pub(super) fn rename(&self, name: &Reference) -> Self {
        let mut renamed = self.clone();
        renamed.annotations.insert(REF_NAME.into(), name.to_string());
        renamed
    }

    fn clear_name(&mut self) {
        self.annotations.remove(REF_NAME);
    }
}

impl IndexFile {
    /// Puts `entry` in, taking its name from whatever had it.
    pub(super) fn put(&mut self, entry: Entry) {
        let name = entry.annotations.get(REF_NAME);
        if name.is_none() && self.manifests.iter().any(|other| other.digest == entry.digest) {
            return;
        }
        let digest = entry.digest.clone();
        self.manifests.retain(|other| {
            other.digest != digest || (other.annotations.contains_key(REF_NAME) && other.annotations.get(REF_NAME) != name)
        });
        let mut bereft = None;
        if let Some(at) = self.manifests.iter().position(|other| name.is_some() && other.annotations.get(REF_NAME) == name) {
            bereft = Some(self.manifests.remove(at));
        }
        if let Some(mut old) = bereft.filter(|old| self.manifests.iter().all(|other| other.digest != old.digest)) {
            old.clear_name();
            self.manifests.push(old);
        }
        self.manifests.push(entry);
    }
}

impl Store {
    /// Lists an image of the store, under a name or without one. Its blobs and layers must be there, under a lease.
    ///
    /// `resolved`: the digest the name stood for where it came from.
    pub(crate) fn put_image(&self, name: Option<&Reference>, manifest: &RawManifest, resolved: &Digest) -> Result<()> {
        let named = name.map(|name| (REF_NAME.into(), name.to_string()));
        let entry = Entry {
            media_type: manifest.media_type.clone(),
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            annotations: named.into_iter().chain([(RESOLVED.into(), resolved.to_string())]).collect(),
        };
        let mut locked = self.lock_index()?;
        locked.index.put(entry);
        locked.save()
    }

    /// The media type of an image's manifest, as it was when that was put here.
    pub(crate) fn media_type(&self, manifest: &Digest) -> Option<String> {
        let entries = self.read_index().ok()?.manifests;
        entries.into_iter().find(|entry| entry.digest == *manifest).map(|entry| entry.media_type)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    pub(super) fn read_index(&self) -> Result<IndexFile> {
        let path = self.index_path();
        if !path.exists() {
            return Ok(IndexFile { schema_version: 2, manifests: Vec::new() });
        }
        parse_own("index.json of the image store", &files::read_bounded(&path, INDEX_LIMIT_BYTES)?)
    }

    /// `index.json` under the exclusive lock, to change it. Nothing is changed before
    /// [`LockedIndex::save`].
    pub(super) fn lock_index(&self) -> Result<LockedIndex> {
        let lock = self.lock(FlockOperation::LockExclusive)?;
        Ok(LockedIndex { path: self.index_path(), index: self.read_index()?, _lock: lock })
    }
}

/// `index.json` while nobody else reads or changes it.
pub(super) struct LockedIndex {
    path: PathBuf,
    pub(super) index: IndexFile,
    _lock: File,
}

impl LockedIndex {
    /// Makes the changes durable; the lock stays until the value is dropped, so the name of the new
    /// file is ours.
    pub(super) fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.index).map_err(std::io::Error::from).attempt(|| "write index.json")?;
        files::write_atomically(&self.path, &self.path.with_extension("json.new"), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, name: &str) -> Entry {
        let bare =
            Entry { media_type: String::new(), digest: Digest::of(content.as_bytes()), size: 1, annotations: BTreeMap::new() };
        bare.rename(&name.parse().unwrap())
    }

    #[test]
    fn a_name_that_moves_leaves_its_image_behind_unnamed() {
        let mut index = IndexFile { schema_version: 2, manifests: Vec::new() };
        index.put(entry("one", "a:1"));
        index.put(entry("one", "b:1"));
        index.put(entry("two", "a:1"));
        assert_eq!(index.manifests.len(), 2, "`one` still has a name");
        index.put(entry("two", "b:1"));
        let unnamed: Vec<_> = index.manifests.iter().filter(|e| e.name().is_none()).collect();
        assert_eq!(unnamed.len(), 1);
        assert_eq!(unnamed[0].digest, Digest::of(b"one"));
        index.put(entry("one", "c:1"));
        let unnamed = |content| {
            let mut entry = entry(content, "x");
            entry.clear_name();
            entry
        };
        index.put(unnamed("one"));
        assert!(index.manifests.iter().all(|e| e.name().is_some()), "a named image has no unnamed entry beside");
        index.put(unnamed("three"));
        index.put(unnamed("three"));
        assert_eq!(index.manifests.iter().filter(|e| e.name().is_none()).count(), 1);
    }
}
