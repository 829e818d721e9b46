//! The small documents of an image: manifests and the configuration, from the store where they are there
//! already, else from the source.

use std::io::Read;

use serde::Deserialize;

use super::verify;
use crate::error::{Error, Result};
use crate::files;
use crate::image::{CONFIG_LIMIT_BYTES, Descriptor, Document, Manifest};
use crate::name::{Digest, MANIFEST_LIMIT_BYTES, Platform, Reference};
use crate::parallel::Cancel;
use crate::source::{RawManifest, Resolved, Source};
use crate::store::Store;

/// Where the documents of `reference` are.
pub(super) struct Documents<'a> {
    pub(super) store: &'a Store,
    pub(super) source: &'a dyn Source,
    pub(super) reference: &'a Reference,
}

impl Documents<'_> {
    /// The manifest or index the reference stands for now. Where the store knows the name, the source is
    /// asked for the digest alone: mostly it has not changed.
    pub(super) fn resolve(&self) -> Result<RawManifest> {
        let known = match self.reference.digest() {
            Some(digest) => Some(Resolved { digest: digest.clone(), media_type: String::new() }),
            None if self.store.find(&self.reference.to_string()).is_ok_and(|image| image.is_some()) => {
                self.source.resolve(self.reference)?
            }
            None => None,
        };
        match known.and_then(|known| self.stored(&known.digest, &known.media_type)) {
            Some(raw) => Ok(raw),
            None => self.fetch(self.reference),
        }
    }

    /// The image for `platform`: the document itself, or the one an index names.
    pub(super) fn choose_image(&self, resolved: &RawManifest, platform: &Platform) -> Result<(RawManifest, Manifest)> {
        let reference = self.reference;
        let index = match Document::parse(&resolved.media_type, &resolved.bytes)? {
            Document::Image(manifest) => return Ok((resolved.clone(), manifest)),
            Document::Index(index) => index,
        };
        let entry = index.choose(platform).ok_or_else(|| Error::NotFound {
            what: format!("image {reference} for {platform}"),
            hint: format!("it is made for {}; choose one with --platform", index.platforms()),
        })?;
        let raw = match self.stored(&entry.digest, &entry.media_type) {
            Some(raw) => raw,
            None => self.fetch(&reference.with_digest(entry.digest.clone()))?,
        };
        match Document::parse(&raw.media_type, &raw.bytes)? {
            Document::Image(manifest) => Ok((raw, manifest)),
            Document::Index(_) => Err(Error::invalid(format_args!("image {reference}"), "its index names another index")),
        }
    }

    /// The configuration's bytes, verified.
    pub(super) fn config(&self, config: &Descriptor) -> Result<Vec<u8>> {
        if self.store.has_blob(&config.digest) {
            return files::read_bounded(&self.store.blob_path(&config.digest), CONFIG_LIMIT_BYTES);
        }
        let what = || format!("configuration of {}", self.reference);
        if config.size > CONFIG_LIMIT_BYTES {
            return Err(Error::invalid(what(), "it is longer than 8 MiB"));
        }
        loop {
            let cancel = Cancel::default();
            let mut bytes = Vec::new();
            let reader = self.source.blob(self.reference, config, 0, &cancel)?;
            let read = reader.take(config.size).read_to_end(&mut bytes);
            read.map_err(|e| Error::io(format_args!("fetch {}", what()), e))?;
            match verify_bytes(what, &config.digest, &bytes) {
                Err(_) if self.source.distrust(&config.digest) => {}
                other => return other.map(|()| bytes),
            }
        }
    }

    /// A manifest that is in the store, whose blobs were verified when they were put there. One whose media
    /// type nobody knows is fetched.
    fn stored(&self, digest: &Digest, media_type: &str) -> Option<RawManifest> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Own {
            media_type: String,
        }
        let bytes = files::read_bounded(&self.store.blob_path(digest), MANIFEST_LIMIT_BYTES as u64).ok()?;
        let media_type = match media_type {
            "" => {
                serde_json::from_slice::<Own>(&bytes).ok().map(|own| own.media_type).or_else(|| self.store.media_type(digest))?
            }
            said => said.to_owned(),
        };
        Document::parse(&media_type, &bytes).is_ok().then(|| RawManifest { media_type, digest: digest.clone(), bytes })
    }

    /// A manifest whose own bytes, not a header, match the digest asked for (GHSA-qv35).
    fn fetch(&self, reference: &Reference) -> Result<RawManifest> {
        let raw = self.source.manifest(reference)?;
        if raw.bytes.len() > MANIFEST_LIMIT_BYTES {
            return Err(Error::invalid(format_args!("manifest of {reference}"), "it is longer than 4 MiB"));
        }
        if let Some(expected) = reference.digest() {
            verify_bytes(|| format!("manifest of {reference}"), expected, &raw.bytes)?;
            return Ok(RawManifest { digest: expected.clone(), ..raw });
        }
        Ok(raw)
    }
}

fn verify_bytes(what: impl FnOnce() -> String, expected: &Digest, bytes: &[u8]) -> Result<()> {
    let mut hasher = expected.algorithm().hasher();
    hasher.update(bytes);
    verify(what, expected, hasher.finish())
}
