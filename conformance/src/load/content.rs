//! Content of any size that nobody has pushed before, and its digests.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::digest::hex;
use crate::limits::{INLINE_CONTENT_BYTES, PIECE_BYTES};

/// Blobs of one size, told apart by a number; the beginning of each differs.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) size: u64,
    nonce: u64,
    piece: Arc<[u8]>,
}

impl Content {
    pub(super) fn new(size: u64, nonce: u64) -> Self {
        // Noise, so that no file system makes it smaller.
        let mut state = nonce | 1;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self { size, nonce, piece: noise.take(PIECE_BYTES / 8).flatten().collect() }
    }

    /// Blobs of another size; they share their noise.
    pub(super) fn sized(&self, size: u64) -> Self {
        Self { size, ..self.clone() }
    }

    /// Whether it is made and hashed while the load runs.
    pub(super) fn is_small(&self) -> bool {
        self.size <= INLINE_CONTENT_BYTES
    }

    /// The first bytes of blob `number`, [`PIECE_BYTES`] or all of it.
    pub(super) fn first_piece(&self, number: u64) -> Vec<u8> {
        let mut first = self.repeated(self.size).to_vec();
        let stamp = [self.nonce.to_be_bytes(), number.to_be_bytes()].concat();
        let length = stamp.len().min(first.len());
        // The number's end comes first, for what is shorter than the stamp.
        first[..length].copy_from_slice(&stamp.into_iter().rev().collect::<Vec<_>>()[..length]);
        first
    }

    /// The bytes after the first piece, in pieces.
    pub(super) fn further_pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.size.saturating_sub(PIECE_BYTES as u64);
        std::iter::from_fn(move || {
            let piece = self.repeated(left);
            left -= piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    fn repeated(&self, left: u64) -> &[u8] {
        &self.piece[..usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES)]
    }

    /// The digest of blob `number`.
    pub(super) fn digest(&self, number: u64) -> String {
        let mut hash = Sha256::new_with_prefix(self.first_piece(number));
        self.further_pieces().for_each(|piece| hash.update(piece));
        hex("sha256:", &hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_content_of_its_own_of_just_the_size() {
        for size in [1, 16, 4096, PIECE_BYTES as u64, 3 * PIECE_BYTES as u64 + 7] {
            let content = Content::new(size, 0xfeed_beef);
            let whole = |number| {
                let mut bytes = content.first_piece(number);
                content.further_pieces().for_each(|piece| bytes.extend_from_slice(piece));
                bytes
            };
            assert_eq!(whole(0).len() as u64, size);
            assert_ne!(whole(1), whole(2), "{size}");
            assert_eq!(content.digest(5), hex("sha256:", &Sha256::digest(whole(5))));
            if size >= 16 {
                assert_ne!(content.digest(1), Content::new(size, 7).digest(1), "another run's content differs");
            }
        }
        assert_eq!(Content::new(0, 1).digest(3), hex("sha256:", &Sha256::digest(b"")));
    }
}
