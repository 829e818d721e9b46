//! Digests as the specifications write them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256, Sha512};

/// The sha256 digest of `bytes`, with its algorithm.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex("sha256:", &Sha256::digest(bytes))
}

/// The sha512 digest of `bytes`, with its algorithm.
pub(crate) fn sha512(bytes: &[u8]) -> String {
    hex("sha512:", &Sha512::digest(bytes))
}

/// `prefix` and the bytes of a hash in lowercase hexadecimal.
pub(crate) fn hex(prefix: &str, raw: &[u8]) -> String {
    raw.iter().fold(prefix.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
