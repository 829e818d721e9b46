//! Garbage collection, while the registry serves.
//!
//! Three steps, each in transactions of its own: what is unreferenced leaves its repository once its
//! grace period is over; untagged manifests do, if that is wished; content that is in no repository
//! any more is removed from the blob store. The cost is that of what is unreferenced.

use std::collections::HashMap;
use std::time::Duration;

use longshore_runtime::name::Digest;
use serde::{Deserialize, Serialize};

use crate::blob::BlobStore;
use crate::config::Config;
use crate::error::Result;
use crate::meta::{Kind, Metadata, Unreferenced};
use crate::registry::Registry;

/// Entries looked at in one go.
const PAGE: usize = 256;

/// What is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long something unreferenced is kept.
    pub grace: Duration,
    /// How long a manifest that lost its last tag is kept; forever if there is none.
    pub untagged: Option<Duration>,
    /// How long an upload nothing was written to is kept.
    pub upload_expiry: Duration,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Blobs taken out of repositories, each repository counted.
    pub blobs: u64,
    /// Manifests taken out of repositories.
    pub manifests: u64,
    /// Upload sessions ended.
    pub uploads: u64,
    /// Blobs and manifests removed from the blob store.
    pub contents: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl<B: BlobStore, M: Metadata> Registry<B, M> {
    /// Collects what is garbage by `policy`.
    pub async fn collect(&self, policy: &Policy) -> Result<Collected> {
        let mut collected = Collected { uploads: self.blobs.expire_uploads(policy.upload_expiry).await?, ..Collected::default() };
        for (kind, grace) in policy.kinds() {
            let count = self.collect_kind(kind, grace).await?;
            match kind {
                Kind::Blob => collected.blobs += count,
                Kind::Manifest => collected.manifests += count,
            }
        }
        let mut after = None;
        loop {
            let page = self.metadata.unlinked(after.as_ref(), PAGE).await?;
            for digest in &page {
                if let Some(bytes) = self.remove_unlinked(digest).await? {
                    collected.contents += 1;
                    collected.bytes += bytes;
                }
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                return Ok(collected);
            }
        }
    }

    async fn collect_kind(&self, kind: Kind, grace: Duration) -> Result<u64> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.metadata.unreferenced(kind, grace, after.as_ref(), PAGE).await?;
            // Together, so that they share the flushes.
            let collected = page.iter().map(|candidate| self.metadata.collect(candidate, grace));
            for collected in futures_util::future::join_all(collected).await {
                count += u64::from(collected?);
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                return Ok(count);
            }
        }
    }

    /// Removes content that no repository has and nobody is about to put into one. Gives its size
    /// in bytes, if it was removed.
    pub(crate) async fn remove_unlinked(&self, digest: &Digest) -> Result<Option<u64>> {
        let Some(_removing) = self.pins.remove(digest) else { return Ok(None) };
        if !self.metadata.holders(digest, None, 1).await?.is_empty() {
            return Ok(None);
        }
        let size = self.blobs.size(digest).await?;
        // The metadata first: it refuses when it does not know what of its journal is stored, and then
        // somebody may have been about to get this back. A crash in between leaves it to a check.
        self.metadata.forget(digest).await?;
        self.blobs.delete(digest).await?;
        Ok(size)
    }

    /// What [`Self::collect`] would remove now, stale uploads apart.
    pub async fn collectable(&self, policy: &Policy) -> Result<Collected> {
        let mut would = Collected::default();
        // In how many repositories each digest is unreferenced.
        let mut leaving: HashMap<Digest, usize> = HashMap::new();
        for (kind, grace) in policy.kinds() {
            let mut after: Option<Unreferenced> = None;
            loop {
                let page = self.metadata.unreferenced(kind, grace, after.as_ref(), PAGE).await?;
                for candidate in &page {
                    *leaving.entry(candidate.digest.clone()).or_default() += 1;
                }
                match kind {
                    Kind::Blob => would.blobs += page.len() as u64,
                    Kind::Manifest => would.manifests += page.len() as u64,
                }
                after = page.last().cloned();
                if page.len() < PAGE {
                    break;
                }
            }
        }
        let mut contents = Vec::new();
        for (digest, repositories) in leaving {
            if self.metadata.holders(&digest, None, repositories + 1).await?.len() == repositories {
                contents.push(digest);
            }
        }
        let mut after = None;
        loop {
            let page = self.metadata.unlinked(after.as_ref(), PAGE).await?;
            after = page.last().cloned();
            let is_last = page.len() < PAGE;
            contents.extend(page);
            if is_last {
                break;
            }
        }
        for digest in contents {
            if let Some(bytes) = self.blobs.size(&digest).await? {
                would.contents += 1;
                would.bytes += bytes;
            }
        }
        Ok(would)
    }
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Self {
        Self {
            grace: Duration::from_secs(config.gc.grace_s),
            untagged: config.gc.untagged_after_s.map(Duration::from_secs),
            upload_expiry: config.limits.upload_expiry(),
        }
    }
}

impl Policy {
    /// What is collected, manifests first: a blob only they refer to has its own grace period then.
    fn kinds(&self) -> impl Iterator<Item = (Kind, Duration)> {
        let manifests = self.untagged.map(|after| (Kind::Manifest, after));
        manifests.into_iter().chain([(Kind::Blob, self.grace)])
    }
}
