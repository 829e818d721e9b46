//! Where images come from, as this crate sees it.

use std::fs::File;
use std::io::{self, Cursor, Empty, Read, Take};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
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

/// All manifests of an image and of what refers to it, held at a time, in bytes: some 50,000 of usual ones, or 64 of the longest.
pub const MANIFESTS_LIMIT_BYTES: usize = 256 << 20;

/// Counts manifests that are held.
#[derive(Debug, Default)]
pub struct HeldBytes(usize);

impl HeldBytes {
    /// One more of so many bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when all of them are too long; `of` says what they belong to.
    pub fn add(&mut self, bytes: usize, of: impl std::fmt::Display) -> Result<()> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 > MANIFESTS_LIMIT_BYTES {
            let why = "the manifests that belong to it are longer than 256 MiB together; take one image of it, or leave out what refers to it";
            return Err(Error::invalid(of, why));
        }
        Ok(())
    }
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

/// Bytes that are read at a time where there is no other measure.
const TAKEN_BYTES: usize = 256 << 10;

/// The bytes of a blob as they come.
pub trait BlobRead: Read + Send {
    /// The next of them, for somebody to keep: some, not very many, and none only at the end. What has come in memory of its
    /// own is not copied.
    fn take_bytes(&mut self) -> io::Result<Bytes> {
        let mut bytes = vec![0; TAKEN_BYTES];
        let n = self.read(&mut bytes)?;
        bytes.truncate(n);
        Ok(bytes.into())
    }
}

impl BlobRead for File {}
impl BlobRead for Empty {}
impl BlobRead for &[u8] {}
impl<T: AsRef<[u8]> + Send> BlobRead for Cursor<T> {}
impl<R: Read + Send> BlobRead for Take<R> {}
impl BlobRead for Box<dyn Read + Send> {}

/// A blob that is read from whatever source.
pub type BlobReader<'a> = Box<dyn BlobRead + 'a>;

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

    /// How long it takes to answer, at best, as far as that is known.
    fn latency(&self) -> Duration {
        Duration::ZERO
    }

    /// Is told that what it gave for a blob was wrong. Whether it will give something else.
    fn distrust(&self, _blob: &Digest) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn manifests_that_are_held_are_bounded_by_their_bytes() {
        let mut held = HeldBytes::default();
        held.add(MANIFESTS_LIMIT_BYTES, "a").unwrap();
        let refused = held.add(1, "image b").unwrap_err().to_string();
        assert!(refused.contains("image b") && refused.contains("256 MiB"), "{refused}");
        assert!(held.add(usize::MAX, "c").is_err());
    }

    #[test]
    fn a_tag_that_is_made_of_a_digest_says_of_which() {
        let subject = Digest::of(b"a");
        assert_eq!(referring_tags(&subject).iter().filter_map(subject_of_tag).collect::<Vec<_>>(), vec![subject.clone(); 3]);
        for other in
            ["latest", "1.sig", "sha256-00.sig", &format!("sha256-{}", subject.hex()), &format!("sha256-{}.txt", subject.hex())]
        {
            assert_eq!(subject_of_tag(&other.parse().unwrap()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_tag_never_panics(tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", likely in "sha(256|512)[-.:][0-9a-f]{60,64}[.]?(sig)?") {
            for tag in [tag, likely] {
                let _ = tag.parse::<Tag>().map(|tag| subject_of_tag(&tag));
            }
        }
    }
}
