//! Looking at what a repository has without pulling it, and deleting it.

use std::io::Read;

use longshore_runtime::image::{Descriptor, Document, media_type};
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::Resolved;
use longshore_runtime::{Error as RuntimeError, RawManifest};

use super::scope::Action;
use super::{Allowance, Repository, Wanted};
use crate::error::Result;

impl Repository {
    /// The digest a reference stands for. A registry that does not say it is asked for the manifest; so is one that
    /// refuses, since the answer to a HEAD has no room for why.
    pub fn head(&self, reference: &Reference) -> Result<Resolved> {
        if let Some(resolved) = self.head_manifest(reference)? {
            return Ok(resolved);
        }
        let raw = self.get_manifest(reference)?;
        Ok(Resolved { digest: raw.digest, media_type: raw.media_type })
    }

    /// Whether the host that is pushed to has a manifest of this digest (end-3, as HEAD).
    pub fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        let attempted = || format!("look for manifest {digest}");
        let host = self.pushed_to();
        let url = format!("{}/manifests/{digest}", host.base);
        let accept = media_type::MANIFESTS.join(", ");
        host.retrying(&self.cancel, || {
            let build = |client: &reqwest::Client| client.head(&url).header("accept", &accept);
            let mut answer = host.send(Action::Push, &self.cancel, attempted, build)?;
            if answer.status() == 404 {
                return Ok(false);
            }
            host.expect(&mut answer, &[200], attempted).map(|()| true)
        })
    }

    /// The image for a platform: what the reference stands for, or what its index names.
    pub fn for_platform(&self, reference: &Reference, platform: &Platform) -> Result<RawManifest> {
        self.choose(reference, &self.pinned_manifest(reference)?, platform)
    }

    /// The same where what the reference stands for is known.
    pub fn choose(&self, reference: &Reference, resolved: &RawManifest, platform: &Platform) -> Result<RawManifest> {
        let Document::Index(index) = Document::parse(&resolved.media_type, &resolved.bytes)? else { return Ok(resolved.clone()) };
        let entry = index.choose(platform).ok_or_else(|| RuntimeError::NotFound {
            what: format!("image {reference} for {platform}"),
            hint: format!("it is made for {}; choose one with --platform", index.platforms()),
        })?;
        self.pinned_manifest(&reference.with_digest(entry.digest.clone()))
    }

    /// What a reference stands for; where that has a digest, the bytes are what it promises.
    pub fn pinned_manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let raw = self.get_manifest(reference)?;
        let expected = reference.digest().unwrap_or(&raw.digest);
        verified(|| format!("manifest {expected}"), expected, &raw.bytes)?;
        Ok(RawManifest { digest: expected.clone(), ..raw })
    }

    /// A blob of at most `limit_bytes`, in memory, verified.
    pub fn small_blob(&self, blob: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>> {
        let what = || format!("blob {}", blob.digest);
        if blob.size > limit_bytes {
            let why = format!("it is {} bytes long, and at most {limit_bytes} are read", blob.size);
            return Err(RuntimeError::invalid(what(), why).into());
        }
        let cancel = Cancel::default();
        let mut bytes = Vec::new();
        if let Some(opened) = self.get_blob(blob, Wanted::From(0), &cancel)? {
            opened.take(blob.size).read_to_end(&mut bytes).map_err(|e| RuntimeError::io(format_args!("fetch {}", what()), e))?;
        }
        verified(what, &blob.digest, &bytes)?;
        Ok(bytes)
    }

    /// Deletes a tag or, by its digest, a manifest with all its tags (end-9).
    pub fn delete(&self, identifier: &str) -> Result<()> {
        let attempted = || format!("delete manifest {identifier}");
        let host = self.registry();
        let url = format!("{}/manifests/{identifier}", host.base);
        host.retrying(&self.cancel, || {
            let mut answer = host.send(Action::Delete, &self.cancel, attempted, |client| client.delete(&url))?;
            host.expect(&mut answer, &[200, 202, 204], attempted)
        })
    }

    /// How many pulls the registry grants, asked by a HEAD of a manifest, which counts as none at Docker Hub.
    pub fn allowance(&self, reference: &Reference) -> Result<Allowance> {
        let host = self.registry();
        let url = format!("{}/manifests/{}", host.base, reference.identifier());
        let accept = media_type::MANIFESTS.join(", ");
        let attempted = || format!("look at manifest {}", reference.identifier());
        let mut answer =
            host.send(Action::Pull, &self.cancel, attempted, |client| client.head(&url).header("accept", &accept))?;
        let allowance = Allowance::of(|name| answer.header(name).map(str::to_owned));
        // One who has used up all of it is told so by an error.
        match answer.status() {
            429 => Ok(allowance),
            _ => host.expect(&mut answer, &[200], attempted).map(|()| allowance),
        }
    }
}

fn verified(what: impl Fn() -> String, expected: &Digest, bytes: &[u8]) -> Result<()> {
    let mut hasher = expected.algorithm().hasher();
    hasher.update(bytes);
    let got = hasher.finish();
    if got == *expected {
        return Ok(());
    }
    Err(RuntimeError::Mismatch { what: what(), expected: expected.clone(), got }.into())
}
