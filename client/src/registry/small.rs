//! Bodies that are small and wanted whole: manifests, tokens, lists, what errors say. They have a time limit in all, which a host that sends a byte now and
//! then cannot outwit.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 16 << 10;

/// A body, at most `limit_bytes` of it and one more to show that there is more, within a time.
pub(super) fn read(mut body: impl Read, limit_bytes: usize, within: Duration) -> io::Result<Vec<u8>> {
    let (began, mut bytes, mut chunk) = (Instant::now(), Vec::new(), [0; CHUNK_BYTES]);
    while bytes.len() <= limit_bytes {
        let wanted = chunk.len().min(limit_bytes + 1 - bytes.len());
        match body.read(&mut chunk[..wanted]) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if began.elapsed() > within {
            let why = format!("{} bytes came in {:.1} seconds, and more were to come", bytes.len(), within.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte at a time, for ever.
    struct Drip;

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer[0] = b'x';
            Ok(1)
        }
    }

    #[test]
    fn a_body_ends_by_itself_by_its_limit_or_by_its_time() {
        let hour = Duration::from_secs(3600);
        assert_eq!(read(&b"abc"[..], 3, hour).unwrap(), b"abc");
        assert_eq!(read(&b"abc"[..], 2, hour).unwrap().len(), 3, "one more than the limit");
        assert_eq!(read(Drip, 70_000, hour).unwrap().len(), 70_001);
        assert_eq!(read(Drip, usize::MAX - 1, Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
