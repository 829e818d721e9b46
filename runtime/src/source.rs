//! Where images come from, as this crate sees it.

use std::io::Read;

use crate::error::Result;
use crate::name::{Digest, Reference};

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

/// Something that holds manifests and blobs: a registry, an image layout, an archive.
///
/// This crate never learns what a URL is: a command hands it a `Source`.
pub trait Source: Sync {
    /// The manifest or index a reference stands for, at most [`crate::name::MANIFEST_LIMIT_BYTES`] long.
    fn manifest(&self, reference: &Reference) -> Result<RawManifest>;

    /// A blob's bytes from `offset` (in bytes) to its end. A source that cannot seek may start at 0
    /// and skip. Nothing is verified here: the reader is untrusted.
    fn blob(&self, reference: &Reference, digest: &Digest, offset: u64) -> Result<Box<dyn Read + Send + '_>>;
}
