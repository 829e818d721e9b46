//! The digest of a blob that passes.

use std::io;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use crate::error::{Attempt, Result};
use crate::image::Descriptor;
use crate::name::Digest;
use crate::source::BlobRead;

/// Pieces that are read before they are hashed.
const AHEAD: usize = 2;

/// Reads as many bytes as a blob is said to have, and gives their digest. A thread of its own hashes what this one reads and
/// gives to `each`: neither waits long for the other.
pub(crate) fn hash(
    reader: &mut (impl BlobRead + ?Sized),
    blob: &Descriptor,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Digest> {
    let attempted = || format!("read blob {}", blob.digest);
    let (mut hasher, mut left_bytes) = (blob.digest.algorithm().hasher(), blob.size);
    std::thread::scope(|scope| {
        let (to_hasher, taken) = sync_channel::<Bytes>(AHEAD);
        let hashing = scope.spawn(move || {
            taken.into_iter().for_each(|bytes| hasher.update(&bytes));
            hasher.finish()
        });
        while left_bytes > 0 {
            let mut bytes = match reader.take_bytes() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.attempt(attempted)?,
            };
            if bytes.is_empty() {
                let early = format!("it ended early, {left_bytes} bytes are missing");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, early)).attempt(attempted);
            }
            bytes.truncate(usize::try_from(left_bytes).unwrap_or(usize::MAX));
            left_bytes -= bytes.len() as u64;
            // It takes all there is, until this is dropped.
            let _ = to_hasher.send(bytes.clone());
            each(&bytes)?;
        }
        drop(to_hasher);
        Ok(hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
