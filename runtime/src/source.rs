//! Where images come from, as this crate sees it.

use std::io::Read;
use std::ops::Range;

use crate::error::Result;
use crate::image::Descriptor;
use crate::name::{Digest, Reference, Tag};
use crate::parallel::Cancel;

/// A manifest's bytes exactly as received, with the media type they were served under.
#[derive(Debug, Clone)]
pub struct RawManifest {
    /// The `Content-Type` (or the descriptor's media type) without parameters.
    pub media_type: String,
    /// The digest of `bytes`, computed here, never taken from a header.
    pub digest: Digest,
    /// The document, never re-serialised.
    pub bytes: Vec<u8>,
}

/// What a name stands for, as the source says: not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its media type, empty if the source does not say.
    pub media_type: String,
}

/// What refers to a manifest.
#[derive(Debug, Clone)]
pub struct Referring {
    /// Its own manifest.
    pub manifest: RawManifest,
    /// The tag by which it is found, where it does not name its subject itself, as cosign's signatures.
    pub tag: Option<Tag>,
}

/// The tags, made of a digest, under which cosign keeps signatures, attestations and SBOMs of what has that digest.
pub fn referring_tags(subject: &Digest) -> Vec<Tag> {
    let tag = |kind: &str| format!("{}-{}.{kind}", subject.algorithm().as_str(), subject.hex()).parse();
    // A sha512 is too long for a tag.
    ["sig", "att", "sbom"].into_iter().filter_map(|kind| tag(kind).ok()).collect()
}

/// What such a tag is made of; `None` of any other tag.
pub fn subject_of_tag(tag: &Tag) -> Option<Digest> {
    let (digest, _) = tag.as_str().rsplit_once('.')?;
    let subject = digest.replacen('-', ":", 1).parse().ok()?;
    referring_tags(&subject).contains(tag).then_some(subject)
}

/// The bytes of a blob as they come.
pub type BlobReader<'a> = Box<dyn Read + Send + 'a>;

/// Something that holds manifests and blobs: a registry, an image layout, an archive.
///
/// This crate never learns what a URL is: a command hands it a `Source`. **What may pass a source
/// tries again by itself**, also in the middle of a blob; an error of a source is final.
pub trait Source: Sync {
    /// The manifest or index a reference stands for, at most [`crate::name::MANIFEST_LIMIT_BYTES`] long.
    fn manifest(&self, reference: &Reference) -> Result<RawManifest>;

    /// The digest a reference stands for, where that costs less than the manifest; `None` if it does not.
    fn resolve(&self, _reference: &Reference) -> Result<Option<Resolved>> {
        Ok(None)
    }

    /// A blob's bytes from `offset` (in bytes) to its end. A source that cannot seek may start at 0
    /// and skip. Nothing is verified here: the reader is untrusted. It fails soon after `cancel` is set.
    fn blob<'a>(
        &'a self,
        reference: &Reference,
        blob: &Descriptor,
        offset: u64,
        cancel: &'a Cancel<'a>,
    ) -> Result<BlobReader<'a>>;

    /// Some of a blob's bytes, in addition to those that are read already; `None` if the source has no
    /// way to give them without those before.
    fn blob_range<'a>(
        &'a self,
        _reference: &Reference,
        _blob: &Descriptor,
        _range: Range<u64>,
        _cancel: &'a Cancel<'a>,
    ) -> Result<Option<BlobReader<'a>>> {
        Ok(None)
    }

    /// What refers to a manifest: signatures, SBOMs.
    fn referrers(&self, _reference: &Reference, _subject: &Digest) -> Result<Vec<Referring>> {
        Ok(Vec::new())
    }

    /// Is told that what it gave for a blob was wrong. Whether it will give something else.
    fn distrust(&self, _blob: &Digest) -> bool {
        false
    }
}
