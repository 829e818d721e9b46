//! The bytes of a blob on their way into a file, hashed as they pass.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::{Open, Report};
use crate::error::{Attempt, Result};
use crate::image::Descriptor;
use crate::name::{Digest, Hasher};
use crate::progress::LayerEvent;

/// Bytes read and written at a time.
const BUFFER_BYTES: usize = 256 << 10;

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
/// before.
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
    let mut buffer = vec![0; BUFFER_BYTES];
    while left_bytes > 0 {
        let wanted = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        let n = match reader.read(&mut buffer[..wanted]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => other.attempt(attempted)?,
        };
        if n == 0 {
            let early = io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ended early, {left_bytes} bytes are missing"));
            return Err(early).attempt(attempted);
        }
        hasher.update(&buffer[..n]);
        file.write_all_at(&buffer[..n], at).attempt(attempted)?;
        report(LayerEvent::Moved(n as u64));
        at += n as u64;
        left_bytes -= n as u64;
    }
    Ok(hasher.finish())
}
