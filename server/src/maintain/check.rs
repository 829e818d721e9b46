//! `rhub check`: every blob hashed again, every link followed.
//!
//! What can be repaired is, when that is wished: content that is not what its digest says is put
//! aside, and a blob without content is taken out of its repositories, so that the next push is told
//! it is missing and sends it again. A manifest without content keeps its tags: pushing it again
//! brings it back.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use longshore_runtime::name::{Digest, RepoName};
use serde::{Deserialize, Serialize};

use super::{Out, say};
use crate::blob::{BlobBody, BlobStore};
use crate::error::{Attempt, Error, Result};
use crate::manifest::Manifest;
use crate::meta::{Fact, ManifestEntry, ManifestName, Metadata, References};
use crate::registry::Registry;

/// Blobs, or facts, looked at between two looks at the metadata.
const PAGE: usize = 1000;

/// How to check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Repair what can be repaired.
    pub repair: bool,
    /// Read at most so many bytes a second; as fast as the disk gives them, if not set.
    pub bytes_per_s: Option<u64>,
}

/// What was looked at, and found.
#[derive(Debug, Default)]
struct Tally {
    blobs: u64,
    bytes: u64,
    links: u64,
    problems: u64,
}

/// Checks everything. Gives whether everything was well.
pub(super) async fn check<B: BlobStore, M: Metadata>(registry: &Registry<B, M>, options: &Options, out: Out<'_>) -> Result<bool> {
    let mut check = Check { registry, options, out, tally: Tally::default(), start: Instant::now() };
    check.contents().await?;
    check.links().await?;
    let Tally { blobs, bytes, links, problems } = check.tally;
    let done = if options.repair { "dealt with" } else { "found; `rhub check --repair` deals with what can be" };
    let outcome = if problems == 0 { "everything is well".into() } else { format!("{problems} problems {done}") };
    say(check.out, &format!("{blobs} blobs of {bytes} bytes and {links} links checked: {outcome}")).await?;
    Ok(problems == 0)
}

struct Check<'a, B, M> {
    registry: &'a Registry<B, M>,
    options: &'a Options,
    out: Out<'a>,
    tally: Tally,
    start: Instant,
}

impl<B: BlobStore, M: Metadata> Check<'_, B, M> {
    async fn problem(&mut self, what: &str, repair: &str) -> Result<()> {
        self.tally.problems += 1;
        let repaired = if self.options.repair { repair } else { "" };
        say(self.out, &format!("{what}{}{repaired}", if repaired.is_empty() { "" } else { "; " })).await
    }

    /// Hashes everything that is stored.
    async fn contents(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.registry.blobs.list(after.as_ref(), PAGE).await?;
            for (digest, size) in &page {
                self.content(digest, *size).await?;
            }
            after = page.last().map(|(digest, _)| digest.clone());
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn content(&mut self, digest: &Digest, size: u64) -> Result<()> {
        match self.registry.blobs.read_stored(digest, size).await {
            Ok(body) => {
                if self.hash(digest, body).await? != *digest {
                    self.problem(&format!("{digest} is damaged: its content has another digest"), "put aside in quarantine/")
                        .await?;
                    if self.options.repair {
                        self.registry.blobs.quarantine(digest).await?;
                    }
                    return Ok(());
                }
            }
            // Removed since it was listed.
            Err(Error::Damaged { .. }) if self.registry.blobs.size(digest).await?.is_none() => return Ok(()),
            Err(e) => return Err(e),
        }
        self.tally.blobs += 1;
        if self.registry.metadata.holders(digest, None, 1).await?.is_empty() {
            self.orphan(digest).await?;
        }
        Ok(())
    }

    /// Content in no repository is no problem, if the metadata means to have it removed.
    async fn orphan(&mut self, digest: &Digest) -> Result<()> {
        if !self.options.repair {
            return Ok(());
        }
        if let Some(bytes) = self.registry.remove_unlinked(digest).await? {
            say(self.out, &format!("{digest}, {bytes} bytes, was in no repository and is removed")).await?;
        }
        Ok(())
    }

    async fn hash(&mut self, digest: &Digest, mut body: BlobBody) -> Result<Digest> {
        let mut hasher = digest.algorithm().hasher();
        while let Some(frame) = body.frame().await {
            let frame = frame.attempt(|| format!("read {digest}"))?;
            if let Ok(bytes) = frame.into_data() {
                self.tally.bytes += bytes.len() as u64;
                hasher.update(&bytes);
                self.pace().await;
            }
        }
        Ok(hasher.finish())
    }

    /// Waits until so many bytes may have been read.
    async fn pace(&self) {
        if let Some(rate) = self.options.bytes_per_s {
            let due_ms = self.tally.bytes.saturating_mul(1000) / rate.max(1);
            let due = Duration::from_millis(due_ms);
            tokio::time::sleep(due.saturating_sub(self.start.elapsed())).await;
        }
    }

    /// Follows every link of every repository.
    async fn links(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.registry.metadata.facts(after.as_deref(), PAGE).await?;
            for fact in page.facts {
                self.tally.links += 1;
                match fact {
                    Fact::Blob { repo, digest, size } => self.blob(&repo, &digest, size).await?,
                    Fact::Manifest { repo, entry, references } => self.manifest(&repo, &entry, &references).await?,
                    Fact::Tag { repo, tag, digest } => {
                        if self.registry.metadata.manifest(&repo, &ManifestName::Digest(digest.clone())).await?.is_none()
                            && self.still(&repo, &ManifestName::Tag(tag.clone())).await?
                        {
                            self.problem(&format!("{repo}:{tag} is on {digest}, which is not there"), "").await?;
                        }
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn still(&self, repo: &RepoName, name: &ManifestName) -> Result<bool> {
        Ok(self.registry.metadata.manifest(repo, name).await?.is_some())
    }

    async fn blob(&mut self, repo: &RepoName, digest: &Digest, size: u64) -> Result<()> {
        let stored = self.registry.blobs.size(digest).await?;
        // It may have been deleted and collected meanwhile.
        if stored == Some(size) || self.registry.metadata.blob(repo, digest).await?.is_none() {
            return Ok(());
        }
        let what = format!("{repo}@{digest} of {size} bytes has {}", found(stored));
        self.problem(&what, "taken out of the repository, to be pushed again").await?;
        if self.options.repair {
            self.registry.metadata.unlink_blob(repo, digest).await?;
        }
        Ok(())
    }

    async fn manifest(&mut self, repo: &RepoName, entry: &ManifestEntry, references: &References) -> Result<()> {
        let name = ManifestName::Digest(entry.digest.clone());
        let stored = self.registry.blobs.size(&entry.digest).await?;
        if stored != Some(entry.size) {
            if self.still(repo, &name).await? {
                let what = format!("{repo}@{} of {} bytes has {}", entry.digest, entry.size, found(stored));
                self.problem(&what, "its tags stay: push it again, or delete it").await?;
            }
            return Ok(());
        }
        let body = match self.registry.blobs.read_stored(&entry.digest, entry.size).await {
            Err(_) if !self.still(repo, &name).await? => return Ok(()),
            body => body?,
        };
        let bytes = body.collect().await.attempt(|| format!("read {}", entry.digest))?.to_bytes();
        if entry.digest.algorithm().digest(&bytes) != entry.digest {
            // Said when it was hashed.
            return Ok(());
        }
        let parsed = Manifest::parse(&bytes, Some(&entry.media_type), usize::MAX);
        if !parsed.is_ok_and(|manifest| manifest.references == *references) && self.still(repo, &name).await? {
            let what = format!("{repo}@{} is recorded to refer to other things than it does", entry.digest);
            self.problem(&what, "delete it and push it again").await?;
        }
        for missing in self.registry.missing(repo, references).await? {
            say(self.out, &format!("{repo}@{} refers to {missing}, which the repository does not have", entry.digest)).await?;
        }
        Ok(())
    }
}

fn found(stored: Option<u64>) -> String {
    stored.map_or_else(|| "no content".into(), |bytes| format!("content of {bytes} bytes"))
}
