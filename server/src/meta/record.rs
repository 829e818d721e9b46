//! Changes of metadata: what is asked for, what the journal keeps of it, and what it does to the
//! database. The live path and the replay of the journal share [`Record::apply`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use longshore_runtime::name::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

use super::{ManifestEntry, ManifestName, keys};
use crate::error::{Error, Result};

/// Missing digests an error lists at most.
const MISSING_LISTED_LIMIT: usize = 16;

/// A change as asked for; it may turn out to be impossible, or nothing.
#[derive(Debug)]
pub(super) enum Change {
    Record(Record),
    MountBlob { from: RepoName, to: RepoName, digest: Digest },
    PutManifest { record: Record, repo: RepoName, blobs: Vec<Digest>, manifests: Vec<Digest> },
}

/// A change that happened. Each says what is, not what is different, so that replaying a stretch
/// of the journal twice ends where replaying it once ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Record {
    LinkBlob {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
        size: u64,
    },
    UnlinkBlob {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
    },
    PutManifest {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
        size: u64,
        media_type: String,
        #[serde(with = "optional_text", default, skip_serializing_if = "Option::is_none")]
        tag: Option<Tag>,
    },
    DeleteManifest {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
    },
    DeleteTag {
        #[serde(with = "text")]
        repo: RepoName,
        #[serde(with = "text")]
        tag: Tag,
    },
}

/// The database, with changes on top that it does not have yet.
pub(super) struct View<'a> {
    tree: &'a sled::Tree,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> View<'a> {
    pub(super) fn new(tree: &'a sled::Tree) -> Self {
        Self { tree, pending: BTreeMap::new() }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.tree.get(key).map_err(failed)?.map(|value| value.to_vec())),
        }
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        match self.pending.get(key) {
            Some(value) => Ok(value.is_some()),
            None => self.tree.contains_key(key).map_err(failed),
        }
    }

    fn keys_from(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut keys = std::collections::BTreeSet::new();
        for key in self.tree.scan_prefix(prefix).keys() {
            keys.insert(key.map_err(failed)?.to_vec());
        }
        for (key, value) in self.pending.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if value.is_some() {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        Ok(keys.into_iter().collect())
    }

    fn put(&mut self, key: Vec<u8>, value: impl Into<Vec<u8>>) {
        self.pending.insert(key, Some(value.into()));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.pending.insert(key, None);
    }

    /// The changes, as one atomic step for the database.
    pub(super) fn into_batch(self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}

impl Change {
    /// What this change comes to, in view of what is there; `None` when it is nothing.
    ///
    /// # Errors
    /// [`Error::ManifestBlobUnknown`].
    pub(super) fn resolve(self, view: &View<'_>) -> Result<Option<Record>> {
        match self {
            Self::MountBlob { from, to, digest } => {
                let size = view.get(&keys::blob(&from, &digest))?;
                Ok(size.map(|size| Record::LinkBlob { repo: to, digest, size: decode_size(&size) }))
            }
            Self::PutManifest { record, repo, blobs, manifests } => {
                let mut missing = Vec::new();
                for digest in blobs {
                    if !view.has(&keys::blob(&repo, &digest))? {
                        missing.push(digest);
                    }
                }
                for digest in manifests {
                    if !view.has(&keys::manifest(&repo, &digest))? {
                        missing.push(digest);
                    }
                }
                missing.truncate(MISSING_LISTED_LIMIT);
                if missing.is_empty() { Ok(Some(record)) } else { Err(Error::ManifestBlobUnknown(missing)) }
            }
            Self::Record(record) => Ok(record.is_needed(view)?.then_some(record)),
        }
    }
}

impl Record {
    fn is_needed(&self, view: &View<'_>) -> Result<bool> {
        match self {
            Self::LinkBlob { repo, digest, size } => {
                Ok(view.get(&keys::blob(repo, digest))?.is_none_or(|value| decode_size(&value) != *size))
            }
            Self::UnlinkBlob { repo, digest } => view.has(&keys::blob(repo, digest)),
            Self::DeleteManifest { repo, digest } => view.has(&keys::manifest(repo, digest)),
            Self::DeleteTag { repo, tag } => view.has(&keys::tag(repo, tag.as_str())),
            Self::PutManifest { .. } => Ok(true),
        }
    }

    /// Does it.
    pub(super) fn apply(&self, view: &mut View<'_>) -> Result<()> {
        match self {
            Self::LinkBlob { repo, digest, size } => {
                view.put(keys::repository(repo.as_str()), []);
                view.put(keys::blob(repo, digest), size.to_be_bytes());
            }
            Self::UnlinkBlob { repo, digest } => view.remove(keys::blob(repo, digest)),
            Self::PutManifest { repo, digest, size, media_type, tag } => {
                view.put(keys::repository(repo.as_str()), []);
                view.put(keys::manifest(repo, digest), encode_manifest(*size, media_type));
                if let Some(tag) = tag {
                    remove_tag(view, repo, tag)?;
                    view.put(keys::tag(repo, tag.as_str()), digest.as_str());
                    view.put(keys::tag_of(repo, digest, tag), []);
                }
            }
            Self::DeleteManifest { repo, digest } => {
                let prefix = keys::tags_of(repo, digest);
                for key in view.keys_from(&prefix)? {
                    let tag = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
                    view.remove(keys::tag(repo, &tag));
                    view.remove(key);
                }
                view.remove(keys::manifest(repo, digest));
            }
            Self::DeleteTag { repo, tag } => remove_tag(view, repo, tag)?,
        }
        Ok(())
    }
}

fn remove_tag(view: &mut View<'_>, repo: &RepoName, tag: &Tag) -> Result<()> {
    let key = keys::tag(repo, tag.as_str());
    if let Some(value) = view.get(&key)? {
        view.remove(keys::tag_of(repo, &decode_digest(&value)?, tag));
        view.remove(key);
    }
    Ok(())
}

impl From<(&RepoName, &ManifestEntry, Option<&Tag>)> for Record {
    fn from((repo, entry, tag): (&RepoName, &ManifestEntry, Option<&Tag>)) -> Self {
        let ManifestEntry { digest, media_type, size } = entry.clone();
        Self::PutManifest { repo: repo.clone(), digest, size, media_type, tag: tag.cloned() }
    }
}

impl From<(&RepoName, &ManifestName)> for Record {
    fn from((repo, name): (&RepoName, &ManifestName)) -> Self {
        let repo = repo.clone();
        match name.clone() {
            ManifestName::Tag(tag) => Self::DeleteTag { repo, tag },
            ManifestName::Digest(digest) => Self::DeleteManifest { repo, digest },
        }
    }
}

pub(super) fn failed(source: sled::Error) -> Error {
    Error::Database { attempted: "use the metadata database", source }
}

/// A size as stored; a value of another length can only be damage, and no blob has the size it
/// then gives.
pub(super) fn decode_size(value: &[u8]) -> u64 {
    value.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn decode_digest(value: &[u8]) -> Result<Digest> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Error::damaged("a tag in the metadata", "it is no digest; stop rhub and run `rhub rebuild`"))
}

fn encode_manifest(size: u64, media_type: &str) -> Vec<u8> {
    [&size.to_be_bytes(), media_type.as_bytes()].concat()
}

/// The size and media type of a manifest as stored.
pub(super) fn decode_manifest(value: &[u8]) -> (u64, String) {
    let media_type = value.get(8..).unwrap_or_default();
    (decode_size(value), String::from_utf8_lossy(media_type).into_owned())
}

/// Names as the text they are parsed from.
mod text {
    use super::{Deserialize, Display, FromStr};

    pub(super) fn serialize<T: Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The same where there may be none.
mod optional_text {
    use super::{Display, FromStr, text};

    pub(super) fn serialize<T: Display, S: serde::Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        text::deserialize(deserializer).map(Some)
    }
}
