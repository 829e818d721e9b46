//! What a registry does, in terms of its blob store and its metadata.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use longshore_runtime::name::{Algorithm, Digest, RepoName, Tag};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::blob::{BlobBody, BlobStore, Upload, UploadId};
use crate::error::{Error, Result};
use crate::limits::{Limits, MANIFESTS_IN_HAND_BYTES, MOUNT_SOURCES_LIMIT, SMALL_MANIFEST_BYTES};
use crate::manifest::Manifest;
use crate::meta::{ManifestEntry, ManifestName, Metadata, Page, PutOptions, References, Referrers};
use crate::pins::Pins;

/// The registry.
#[derive(Debug)]
pub struct Registry<B, M> {
    pub(crate) blobs: B,
    pub(crate) metadata: M,
    pub(crate) pins: Pins,
    limits: Arc<Limits>,
    /// A permit a byte of manifests in hand.
    manifest_room: Semaphore,
}

/// A manifest as it was received.
#[derive(Debug)]
pub struct NewManifest<'a> {
    /// All of it.
    pub bytes: Bytes,
    /// What the request says it is, without parameters.
    pub content_type: Option<&'a str>,
    /// Tags it is to have beside the one it is put by.
    pub tags: Vec<Tag>,
}

/// A manifest that was stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of its bytes.
    pub digest: Digest,
    /// What it is a referrer of.
    pub subject: Option<Digest>,
    /// The tags that are on it now by this.
    pub tags: Vec<Tag>,
    /// How much of what it refers to the repository lacks: nothing, unless that is allowed.
    pub missing: usize,
}

impl<B: BlobStore, M: Metadata> Registry<B, M> {
    /// A registry over its two stores.
    pub fn new(blobs: B, metadata: M, limits: Arc<Limits>) -> Self {
        Self { blobs, metadata, pins: Pins::default(), limits, manifest_room: Semaphore::new(MANIFESTS_IN_HAND_BYTES) }
    }

    /// What it is limited by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until there is room in memory for a manifest of so many bytes; the room is taken as long
    /// as the returned value lives.
    pub async fn manifest_room(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        if bytes <= SMALL_MANIFEST_BYTES {
            return None;
        }
        let permits = u32::try_from(bytes.min(MANIFESTS_IN_HAND_BYTES)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        self.manifest_room.acquire_many(permits).await.ok()
    }

    /// The size in bytes of a blob of a repository.
    pub async fn blob_size(&self, repo: &RepoName, digest: &Digest) -> Result<u64> {
        self.metadata.blob(repo, digest).await?.ok_or_else(|| Error::BlobUnknown(digest.clone()))
    }

    /// Bytes `range` of a blob whose size [`Self::blob_size`] gave.
    pub async fn read_blob(&self, repo: &RepoName, digest: &Digest, size: u64, range: Range<u64>) -> Result<BlobBody> {
        match self.blobs.read(digest, size, range).await {
            // Deleted and collected since the metadata was asked.
            Err(Error::Damaged { .. }) if self.metadata.blob(repo, digest).await?.is_none() => {
                Err(Error::BlobUnknown(digest.clone()))
            }
            other => other,
        }
    }

    /// Takes a blob out of a repository; its content stays for others.
    pub async fn delete_blob(&self, repo: &RepoName, digest: &Digest) -> Result<()> {
        let deleted = self.metadata.unlink_blob(repo, digest).await?;
        deleted.then_some(()).ok_or_else(|| Error::BlobUnknown(digest.clone()))
    }

    /// Starts an upload whose content will be hashed by `algorithm`.
    pub async fn start_upload(&self, repo: &RepoName, algorithm: Algorithm) -> Result<UploadId> {
        self.blobs.start_upload(repo, algorithm).await
    }

    /// Takes hold of an upload of this repository.
    pub async fn open_upload(&self, repo: &RepoName, id: UploadId) -> Result<B::Upload> {
        self.blobs.open_upload(repo, id).await
    }

    /// Ends an upload: its content becomes a blob of the repository.
    pub async fn finish_upload(&self, repo: &RepoName, upload: B::Upload, digest: &Digest) -> Result<()> {
        let _pin = self.pins.hold(digest).await;
        let size = upload.finish(digest).await?;
        self.metadata.link_blob(repo, digest, size).await
    }

    /// Upload sessions that are open.
    pub fn uploads_open(&self) -> usize {
        self.blobs.uploads().len()
    }

    /// Puts a blob of repository `from` into `to`; `false` when `from` does not have it.
    pub async fn mount_blob(&self, from: &RepoName, to: &RepoName, digest: &Digest) -> Result<bool> {
        self.metadata.mount_blob(from, to, digest).await
    }

    /// Puts a blob into `to` from any repository that has it and `is_open` to the caller; `false` when
    /// there is none among the first [`MOUNT_SOURCES_LIMIT`].
    pub async fn mount_blob_from_any(
        &self,
        to: &RepoName,
        digest: &Digest,
        is_open: impl Fn(&RepoName) -> bool + Send,
    ) -> Result<bool> {
        for from in self.metadata.holders(digest, None, MOUNT_SOURCES_LIMIT).await? {
            // It may be there as a manifest, or gone since.
            if is_open(&from) && self.metadata.mount_blob(&from, to, digest).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A manifest's entry.
    pub async fn manifest(&self, repo: &RepoName, name: &ManifestName) -> Result<ManifestEntry> {
        self.metadata.manifest(repo, name).await?.ok_or_else(|| unknown(name))
    }

    /// The bytes of a manifest, as they were received.
    pub async fn read_manifest(&self, repo: &RepoName, entry: &ManifestEntry) -> Result<BlobBody> {
        let name = ManifestName::Digest(entry.digest.clone());
        match self.blobs.read(&entry.digest, entry.size, 0..entry.size).await {
            // Deleted and collected since the metadata was asked.
            Err(Error::Damaged { .. }) if self.metadata.manifest(repo, &name).await?.is_none() => Err(unknown(&name)),
            other => other,
        }
    }

    /// Stores a manifest under its digest, and tags it with the tag it was put by and with `tags`.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`], [`Error::ManifestBlobUnknown`], [`Error::TagExists`].
    pub async fn put_manifest(
        &self,
        repo: &RepoName,
        name: &ManifestName,
        manifest: NewManifest<'_>,
        options: PutOptions,
    ) -> Result<Stored> {
        let NewManifest { bytes, content_type, mut tags } = manifest;
        let Manifest { media_type, references } = Manifest::parse(&bytes, content_type, self.limits.manifest_descriptors)?;
        let digest = match name {
            ManifestName::Digest(digest) => digest.clone(),
            ManifestName::Tag(tag) => {
                tags.insert(0, tag.clone());
                Digest::of(&bytes)
            }
        };
        let entry = ManifestEntry { digest, media_type, size: bytes.len() as u64 };
        let pin = self.pins.hold(&entry.digest).await;
        self.blobs.put(&entry.digest, bytes).await?;
        let put = self.metadata.put_manifest(repo, &entry, &references, &tags, options).await;
        drop(pin);
        // Refused, it must not stay where nobody would ever look for it. Where nobody knows whether the
        // journal has it, it stays for the next start to find.
        if put.as_ref().is_err_and(|e| !matches!(e, Error::Stopped(_))) {
            self.remove_unlinked(&entry.digest).await?;
        }
        put?;
        let missing = if options.sparse { self.missing(repo, &references).await?.len() } else { 0 };
        Ok(Stored { digest: entry.digest, subject: references.referrer.map(|referrer| referrer.subject), tags, missing })
    }

    /// What a manifest refers to and its repository lacks: deleted since, or never there (sparse).
    pub(crate) async fn missing(&self, repo: &RepoName, references: &References) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for digest in &references.blobs {
            if self.metadata.blob(repo, digest).await?.is_none() {
                missing.push(digest.clone());
            }
        }
        for digest in &references.manifests {
            if self.metadata.manifest(repo, &ManifestName::Digest(digest.clone())).await?.is_none() {
                missing.push(digest.clone());
            }
        }
        Ok(missing)
    }

    /// Takes a tag, or a manifest and every tag on it, out of a repository.
    pub async fn delete_manifest(&self, repo: &RepoName, name: &ManifestName) -> Result<()> {
        let deleted = self.metadata.delete_manifest(repo, name).await?;
        deleted.then_some(()).ok_or_else(|| unknown(name))
    }

    /// At most `limit` of a repository's tags, those after `after`.
    pub async fn tags(&self, repo: &RepoName, after: Option<&str>, limit: usize) -> Result<Page> {
        let page = self.metadata.tags(repo, after, limit).await?;
        page.ok_or_else(|| Error::RepositoryUnknown(repo.to_string()))
    }

    /// Manifests whose subject is `subject`; see [`Metadata::referrers`].
    pub async fn referrers(
        &self,
        repo: &RepoName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Referrers> {
        self.metadata.referrers(repo, subject, artifact_type, after, limit).await
    }

    /// At most `limit` repositories that have a digest, those after `after`.
    pub async fn holders(&self, digest: &Digest, after: Option<&RepoName>, limit: usize) -> Result<Vec<RepoName>> {
        self.metadata.holders(digest, after, limit).await
    }

    /// At most `limit` repositories, those after `after`.
    pub async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Page> {
        self.metadata.repositories(after, limit).await
    }
}

fn unknown(name: &ManifestName) -> Error {
    Error::ManifestUnknown(match name {
        ManifestName::Tag(tag) => tag.to_string(),
        ManifestName::Digest(digest) => digest.to_string(),
    })
}
