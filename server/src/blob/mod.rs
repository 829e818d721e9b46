//! Content by digest: the trait every blob store implements.
//!
//! The methods are futures because stores behind a network are as much meant as the file system;
//! the file system's implementation hands its calls to the blocking pool itself, in pieces large
//! enough that the hop does not show.

mod body;
#[cfg(test)]
mod contract;
mod fs;
mod fs_upload;
#[cfg(test)]
mod memory;
mod stage;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use longshore_runtime::name::{Algorithm, Digest, RepoName};

pub use body::BlobBody;
pub use fs::FsBlobStore;
pub use fs_upload::FsUpload;
#[cfg(test)]
pub(crate) use memory::MemoryBlobStore;

use crate::error::{Error, Result};

/// Where content is kept, by digest. Content is visible whole and verified, or not at all.
pub trait BlobStore: Send + Sync + 'static {
    /// An open upload session; one request has it at a time.
    type Upload: Upload;

    /// The size in bytes of a blob that is stored.
    fn size(&self, digest: &Digest) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// Bytes `range` of a blob of `size` bytes, read as the body is drained.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the stored content is absent or not `size` bytes long: whoever asks
    /// has been told by the metadata that it is there.
    fn read(&self, digest: &Digest, size: u64, range: Range<u64>) -> impl Future<Output = Result<BlobBody>> + Send;

    /// All of a blob of `size` bytes as it is stored, be it right or wrong; never from memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn read_stored(&self, digest: &Digest, size: u64) -> impl Future<Output = Result<BlobBody>> + Send;

    /// Stores small content whole; it is on stable storage when this returns. Storing what is
    /// stored already is a success.
    ///
    /// # Errors
    /// [`longshore_runtime::Error::Mismatch`] when `bytes` do not hash to `digest`.
    fn put(&self, digest: &Digest, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// At least `limit` stored blobs after `after`, with their sizes in bytes, in order of algorithm and
    /// digest; fewer at the end only.
    fn list(&self, after: Option<&Digest>, limit: usize) -> impl Future<Output = Result<Vec<(Digest, u64)>>> + Send;

    /// Removes a blob; `false` when it is not stored.
    fn delete(&self, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Puts a blob aside whose content is not what its digest says; `false` when it is not stored.
    fn quarantine(&self, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Starts an upload session of a repository. It outlives the process, an end by force only once it
    /// has bytes.
    ///
    /// # Errors
    /// [`Error::TooMany`] at the limit of open sessions.
    fn start_upload(&self, repo: &RepoName, algorithm: Algorithm) -> impl Future<Output = Result<UploadId>> + Send;

    /// Takes hold of an upload session; waits a while for another request to let go of it.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`] when there is none of this identifier *in this repository*;
    /// [`Error::UploadBusy`].
    fn open_upload(&self, repo: &RepoName, id: UploadId) -> impl Future<Output = Result<Self::Upload>> + Send;

    /// Ends the sessions nothing was written to for `age`, and gives their number.
    fn expire_uploads(&self, age: Duration) -> impl Future<Output = Result<u64>> + Send;

    /// The sessions of all repositories.
    fn uploads(&self) -> Vec<(RepoName, UploadId)>;
}

/// An upload session in the hands of one request. Dropping it leaves the session as it is, with
/// the bytes received so far, to be opened again.
pub trait Upload: Send + 'static {
    /// Bytes received so far, those of this request included.
    fn offset(&self) -> u64;

    /// Takes in the next bytes, in order. May return before they are written; a failure shows in
    /// a later call at the latest.
    fn write(&mut self, pieces: Vec<Bytes>) -> impl Future<Output = Result<()>> + Send;

    /// Waits until everything taken in is written, and leaves the session to later requests.
    fn suspend(self) -> impl Future<Output = Result<()>> + Send;

    /// Verifies the content, puts it on stable storage under its digest, ends the session and
    /// gives the size in bytes.
    ///
    /// # Errors
    /// [`longshore_runtime::Error::Mismatch`]; the session is ended then too: no further bytes
    /// could make the content right.
    fn finish(self, digest: &Digest) -> impl Future<Output = Result<u64>> + Send;

    /// Ends the session and discards its bytes.
    fn cancel(self) -> impl Future<Output = Result<()>> + Send;
}

/// The name of an upload session: 128 random bits, so that nobody guesses another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId(u128);

impl UploadId {
    /// A fresh one from the kernel's random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| longshore_runtime::Error::io("get random numbers", e))?;
        // Up to 256 bytes come whole (getrandom(2)).
        assert_eq!(filled, bytes.len(), "getrandom gave less than it promises");
        Ok(Self(u128::from_ne_bytes(bytes)))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for UploadId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let well_formed = s.len() == 32 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = well_formed.then(|| u128::from_str_radix(s, 16).ok()).flatten();
        value.map(Self).ok_or(Error::UploadUnknown)
    }
}
