//! What is in which repository: the trait every metadata store implements. It speaks of
//! repositories, blobs, manifests and tags; each method is one transaction.
//!
//! The methods are futures because databases behind a network are as much meant as the embedded
//! one, which hands its calls to threads of its own.

mod commit;
#[cfg(test)]
mod contract;
mod journal;
mod keys;
mod rebuild;
mod record;
mod sled;

use std::future::Future;

use longshore_runtime::name::{Digest, RepoName, Tag};

pub use self::rebuild::{Rebuilt, rebuild};
pub use self::sled::SledMetadata;
use crate::error::Result;

/// Which manifest: by tag or by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// One page of a list, in the order of bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub entries: Vec<String>,
    /// Whether there is at least one more.
    pub more: bool,
}

/// Where it is kept what repositories hold. What a method changed is on stable storage when it
/// returns.
pub trait Metadata: Send + Sync + 'static {
    /// Puts a stored blob into a repository. The repository need not exist.
    fn link_blob(&self, repo: &RepoName, digest: &Digest, size: u64) -> impl Future<Output = Result<()>> + Send;

    /// Puts a blob of one repository into another; `false` when the first does not have it.
    fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// The size in bytes of a blob of a repository.
    fn blob(&self, repo: &RepoName, digest: &Digest) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// Takes a blob out of a repository; `false` when it is not in it. The content stays.
    fn unlink_blob(&self, repo: &RepoName, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Puts a stored manifest into a repository, and a tag on it.
    ///
    /// # Errors
    /// [`crate::Error::ManifestBlobUnknown`] when the repository lacks one of `blobs` or
    /// `manifests`; nothing is changed then.
    fn put_manifest(
        &self,
        repo: &RepoName,
        entry: &ManifestEntry,
        tag: Option<&Tag>,
        blobs: &[Digest],
        manifests: &[Digest],
    ) -> impl Future<Output = Result<()>> + Send;

    /// A manifest of a repository.
    fn manifest(&self, repo: &RepoName, name: &ManifestName) -> impl Future<Output = Result<Option<ManifestEntry>>> + Send;

    /// Takes a tag, or a manifest and every tag on it, out of a repository; `false` when it is not
    /// in it. The content stays.
    fn delete_manifest(&self, repo: &RepoName, name: &ManifestName) -> impl Future<Output = Result<bool>> + Send;

    /// At most `limit` tags after `after`, which need not exist; `None` when the repository is not
    /// known. Costs what the page costs.
    fn tags(&self, repo: &RepoName, after: Option<&str>, limit: usize) -> impl Future<Output = Result<Option<Page>>> + Send;

    /// At most `limit` repositories after `after`, which need not exist.
    fn repositories(&self, after: Option<&str>, limit: usize) -> impl Future<Output = Result<Page>> + Send;
}
