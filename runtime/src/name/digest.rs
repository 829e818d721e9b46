//! Content digests (image-spec descriptor.md#digests) and the hashers that make them.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::error::Error;

/// A registered digest algorithm. Unregistered ones are refused: content under them could not be
/// verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, 64 hexadecimal digits.
    Sha256,
    /// `sha512`, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm's registered identifier.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// A fresh hasher.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(invalid(s, "the algorithm must be sha256 or sha512")),
        }
    }
}

/// A digest: `sha256:` and 64 lowercase hexadecimal digits, or `sha512:` and 128.
///
/// A value of this type is safe as a file name component: no slash, no dot, bounded length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Box<str>,
    algorithm: Algorithm,
}

impl Digest {
    /// The digest of `bytes` by sha256.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Algorithm::Sha256.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lowercase hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// The whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first 12 hexadecimal digits, for tables.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let (algorithm, hex) = s.split_once(':').ok_or_else(|| invalid(s, "it must read algorithm:hex"))?;
        let algorithm: Algorithm = algorithm.parse()?;
        if hex.len() != algorithm.hex_len() {
            return Err(invalid(s, "its length does not fit its algorithm"));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid(s, "only lowercase hexadecimal digits may follow the colon"));
        }
        Ok(Self { text: s.into(), algorithm })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// sha256.
    Sha256(Sha256),
    /// sha512.
    Sha512(Sha512),
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(h) => from_raw(Algorithm::Sha256, &h.finalize()),
            Self::Sha512(h) => from_raw(Algorithm::Sha512, &h.finalize()),
        }
    }
}

fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(algorithm.as_str().len() + 1 + 2 * raw.len());
    text.push_str(algorithm.as_str());
    text.push(':');
    for byte in raw {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    Digest { text: text.into(), algorithm }
}

fn invalid(input: &str, why: &'static str) -> Error {
    Error::Name { what: "digest", input: input.chars().take(160).collect(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_blob_has_its_known_digest() {
        let digest = Digest::of(b"");
        assert_eq!(digest.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn only_registered_algorithms_in_lowercase_hex_of_the_right_length_parse() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let short = format!("sha256:{}", "a".repeat(63));
        let swapped = format!("sha512:{}", "a".repeat(64));
        let path = format!("sha256:../{}", "a".repeat(61));
        for bad in ["", "sha256", "sha256:", "md5:d41d8cd98f00b204e9800998ecf8427e", &upper, &short, &swapped, &path] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
