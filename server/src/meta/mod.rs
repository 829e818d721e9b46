//! What is in which repository: the trait every metadata store implements. It speaks of
//! repositories, blobs, manifests, tags and referrers; each method is one transaction.
//!
//! The methods are futures because databases behind a network are as much meant as the embedded
//! one, which hands its calls to threads of its own.
//!
//! # What is kept, and for how long
//! A blob that no manifest of its repository refers to, and a manifest without tag that no other
//! refers to, are *unreferenced* from the moment that became so. They may be collected a grace
//! period later. Whoever is told that such a thing exists renews its lease: the grace period starts
//! anew. So a client that was told "exists" has that long to push what refers to it.

mod cached;
mod change;
mod clock;
mod commit;
#[cfg(test)]
mod contract;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod keys;
mod lease;
#[cfg(test)]
mod memory;
mod read;
mod rebuild;
mod record;
mod runs;
mod sled;
mod store;
mod table;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

pub use self::clock::now_ms;
#[cfg(test)]
pub(crate) use self::memory::MemoryLog;
pub use self::rebuild::{Rebuilt, export_lines, import, rebuild};
pub use self::sled::SledMetadata;
use crate::error::Result;

/// Which manifest: by tag or by digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ManifestName {
    /// Whatever the tag points at.
    Tag(Tag),
    /// Exactly this one.
    Digest(Digest),
}

/// A manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Of its bytes.
    pub digest: Digest,
    /// What it is served with.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
}

/// What a manifest refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// The config and the layers of an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// The children of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Digest>,
    /// What it says of another manifest, if it is a referrer of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer: Option<Referrer>,
}

/// What is listed of a manifest that has a subject (distribution-spec, "Listing Referrers").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referrer {
    /// The manifest it refers to, which need not exist.
    pub subject: Digest,
    /// Its `artifactType`, or else its config's media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What may be done with a manifest that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOptions {
    /// Whether a tag may be moved from another manifest.
    pub overwrite: bool,
    /// Whether it may lack what it refers to (distribution-spec, "sparse" images and indexes).
    pub sparse: bool,
}

/// One page of a list, in the order of bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub entries: Vec<String>,
    /// Whether there is at least one more.
    pub more: bool,
}

/// One page of a manifest's referrers.
#[derive(Debug, PartialEq, Eq)]
pub struct Referrers {
    /// Their descriptors, each a JSON object.
    pub descriptors: Vec<String>,
    /// What the next page starts after, if there is one.
    pub next: Option<String>,
}

/// What is so, as opposed to what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A repository has a blob of this size in bytes.
    Blob {
        /// The repository.
        repo: RepoName,
        /// Of the blob's bytes.
        digest: Digest,
        /// In bytes.
        size: u64,
    },
    /// A repository has a manifest.
    Manifest {
        /// The repository.
        repo: RepoName,
        /// Which.
        entry: ManifestEntry,
        /// What it refers to.
        references: References,
    },
    /// A tag is on a manifest.
    Tag {
        /// The repository.
        repo: RepoName,
        /// The tag.
        tag: Tag,
        /// The manifest.
        digest: Digest,
    },
}

/// Some of the facts.
#[derive(Debug)]
pub struct Facts {
    /// Blobs first, then manifests, then tags.
    pub facts: Vec<Fact>,
    /// Where to go on, if there are more.
    pub next: Option<Vec<u8>>,
}

/// Something that may be collected unless somebody comes to need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreferenced {
    /// Where.
    pub repo: RepoName,
    /// Of its bytes.
    pub digest: Digest,
    /// What it is.
    pub kind: Kind,
    /// In milliseconds since the epoch.
    pub since_ms: u64,
}

/// A blob or a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Config, layer, or anything else uploaded.
    Blob,
    /// Image manifest or index.
    Manifest,
}

/// What keeps content in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A tag on the manifest.
    Tag(Tag),
    /// A manifest that refers to it.
    Manifest(Digest),
    /// The manifest it is a referrer of, which is there.
    Subject(Digest),
    /// Nothing; it may be collected, the grace period counted from here.
    Unreferenced {
        /// In milliseconds since the epoch.
        since_ms: u64,
    },
}

/// Where it is kept what repositories hold. What a method changed is on stable storage when it
/// returns.
pub trait Metadata: Send + Sync + 'static {
    /// Puts a stored blob into a repository. The repository need not exist.
    fn link_blob(&self, repo: &RepoName, digest: &Digest, size: u64) -> impl Future<Output = Result<()>> + Send;

    /// Puts a blob of one repository into another; `false` when the first does not have it.
    fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// The size in bytes of a blob of a repository. Its lease is renewed.
    fn blob(&self, repo: &RepoName, digest: &Digest) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// Takes a blob out of a repository; `false` when it is not in it. The content stays.
    fn unlink_blob(&self, repo: &RepoName, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Puts a stored manifest into a repository, and tags on it.
    ///
    /// # Errors
    /// [`crate::Error::ManifestBlobUnknown`] when the repository lacks what it refers to, its
    /// subject excepted; [`crate::Error::TagExists`]. Nothing is changed then.
    fn put_manifest(
        &self,
        repo: &RepoName,
        entry: &ManifestEntry,
        references: &References,
        tags: &[Tag],
        options: PutOptions,
    ) -> impl Future<Output = Result<()>> + Send;

    /// A manifest of a repository. Its lease is renewed.
    fn manifest(&self, repo: &RepoName, name: &ManifestName) -> impl Future<Output = Result<Option<ManifestEntry>>> + Send;

    /// Takes a tag, or a manifest and every tag on it, out of a repository; `false` when it is not
    /// in it. The content stays.
    fn delete_manifest(&self, repo: &RepoName, name: &ManifestName) -> impl Future<Output = Result<bool>> + Send;

    /// At most `limit` tags after `after`, which need not exist; `None` when the repository is not
    /// known. Costs what the page costs.
    fn tags(&self, repo: &RepoName, after: Option<&str>, limit: usize) -> impl Future<Output = Result<Option<Page>>> + Send;

    /// At most `limit` repositories after `after`, which need not exist.
    fn repositories(&self, after: Option<&str>, limit: usize) -> impl Future<Output = Result<Page>> + Send;

    /// Manifests whose subject is `subject`, of one artifact type or any: at most `limit` after the
    /// cursor `after`, which is an earlier page's [`Referrers::next`].
    fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Referrers>> + Send;

    /// At most `limit` repositories that have the digest as a blob or a manifest, after `after`.
    fn holders(
        &self,
        digest: &Digest,
        after: Option<&RepoName>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RepoName>>> + Send;

    /// What keeps a digest in a repository: at most `limit` reasons. Costs what the repository holds.
    fn keepers(&self, repo: &RepoName, digest: &Digest, limit: usize) -> impl Future<Output = Result<Vec<Keeper>>> + Send;

    /// At most `limit` of what has been unreferenced for `grace` and its lease not renewed within it,
    /// after `after`. A referrer of a manifest that is there is not among them.
    fn unreferenced(
        &self,
        kind: Kind,
        grace: Duration,
        after: Option<&Unreferenced>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Unreferenced>>> + Send;

    /// Takes something unreferenced out of its repository; `false` when it is needed by now, or
    /// its lease was renewed within `grace`.
    fn collect(&self, candidate: &Unreferenced, grace: Duration) -> impl Future<Output = Result<bool>> + Send;

    /// At most `limit` facts after the cursor `after`, which is an earlier [`Facts::next`]. What is
    /// changed meanwhile may be among them or not.
    fn facts(&self, after: Option<&[u8]>, limit: usize) -> impl Future<Output = Result<Facts>> + Send;

    /// At most `limit` digests that were in a repository once and are in none, after `after`.
    fn unlinked(&self, after: Option<&Digest>, limit: usize) -> impl Future<Output = Result<Vec<Digest>>> + Send;

    /// The content of an unlinked digest is gone.
    fn forget(&self, digest: &Digest) -> impl Future<Output = Result<()>> + Send;
}
