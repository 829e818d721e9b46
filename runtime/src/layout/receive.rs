//! The bytes of a blob on their way into a file, hashed as they pass.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;

use super::{Open, Report};
use crate::error::{Attempt, Error, Result};
use crate::files::write_behind;
use crate::image::Descriptor;
use crate::name::{Digest, Hasher};
use crate::progress::LayerEvent;

/// Bytes read at a time of what is here already.
const BUFFER_BYTES: usize = 256 << 10;

/// Pieces that are received before they are hashed.
const AHEAD: usize = 4;

/// Takes the next `bytes` of a reader in.
pub(super) fn hash(reader: &mut impl Read, bytes: u64, hasher: &mut Hasher) -> io::Result<()> {
    let mut reader = reader.take(bytes);
    let mut buffer = vec![0; if bytes == 0 { 0 } else { BUFFER_BYTES }];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a blob's bytes from `offset` on to `file` at `at`, and gives the digest of all of it; `hasher` has taken in those
/// before. A thread of its own hashes what this one receives and writes: neither waits long for the other.
pub(super) fn receive(
    blob: &Descriptor,
    offset: u64,
    mut hasher: Hasher,
    open: &Open<'_>,
    file: &File,
    mut at: u64,
    report: &Report<'_>,
) -> Result<Digest> {
    let attempted = || format!("copy blob {}", blob.digest);
    let mut left_bytes = blob.size - offset;
    if left_bytes == 0 {
        return Ok(hasher.finish());
    }
    let mut reader = open(offset)?;
    std::thread::scope(|scope| {
        let (to_hasher, received) = sync_channel::<Bytes>(AHEAD);
        let hashing = scope.spawn(move || {
            received.into_iter().for_each(|bytes| hasher.update(&bytes));
            hasher.finish()
        });
        while left_bytes > 0 {
            let mut bytes = match reader.take_bytes() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.attempt(attempted)?,
            };
            if bytes.is_empty() {
                let early =
                    io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ended early, {left_bytes} bytes are missing"));
                return Err(early).attempt(attempted);
            }
            bytes.truncate(usize::try_from(left_bytes).unwrap_or(usize::MAX));
            // It takes all there is, until this is dropped.
            let _ = to_hasher.send(bytes.clone());
            write_behind(file, &bytes, at).attempt(attempted)?;
            let moved_bytes = bytes.len() as u64;
            report(LayerEvent::Moved(moved_bytes));
            at += moved_bytes;
            left_bytes -= moved_bytes;
        }
        drop(to_hasher);
        hashing.join().map_err(|_| Error::io(attempted(), io::Error::other("its hash was not completed")))
    })
}
