//! The secret that access tokens, upload sessions and list markers are made with:
//! `DATA/token.key`, random, made at the first start.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::hmac;
use longshore_runtime::files::{random_hex, read_bounded, write_atomically};

use crate::error::{Attempt, Result};

const KEY_BYTES: usize = 32;

/// A secret from which others are derived, each for one purpose.
pub(super) struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}

impl Key {
    /// The key in the file, which is made when it is not there.
    ///
    /// # Errors
    /// When what is there is no key, or everybody can read it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unusable = |why: &str| longshore_runtime::Error::invalid(format_args!("signing key {}", path.display()), why);
        if File::open(path).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            let scratch = path.with_extension(format!("key.{}", random_hex(8)?));
            write_atomically(path, &scratch, format!("{}\n", random_hex(KEY_BYTES)?).as_bytes())?;
        }
        let mode = std::fs::metadata(path).attempt(|| format!("look up {}", path.display()))?.mode();
        if mode & 0o007 != 0 {
            return Err(
                unusable("everybody on this machine can read it; remove it, and it is made anew at the next start").into()
            );
        }
        let text = read_bounded(path, 2 * KEY_BYTES as u64 + 1)?;
        let text = text.trim_ascii();
        if text.len() != 2 * KEY_BYTES || !text.iter().all(u8::is_ascii_hexdigit) {
            return Err(unusable("it is damaged; remove it, and it is made anew at the next start").into());
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text)))
    }

    /// The secret for one purpose.
    pub(super) fn derive(&self, purpose: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.derive_tag(purpose).as_ref())
    }

    /// The secret for one purpose, to encrypt with.
    pub(super) fn derive_cipher(&self, purpose: &str) -> Result<RandomizedNonceKey> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, self.derive_tag(purpose).as_ref());
        Ok(key.map_err(std::io::Error::other).attempt(|| "make an encryption key")?)
    }

    fn derive_tag(&self, purpose: &str) -> hmac::Tag {
        hmac::sign(&self.0, purpose.as_bytes())
    }
}

/// A secret of this process alone.
pub(super) fn random_key() -> Result<hmac::Key> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, random_hex(KEY_BYTES)?.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token.key");
        let derived = |purpose| hmac::sign(&Key::open(&path).unwrap().derive(purpose), b"x").as_ref().to_vec();
        let first = derived("a");
        assert_eq!(derived("a"), first, "the next start has the same");
        assert_ne!(derived("b"), first);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert!(Key::open(&path).unwrap_err().to_string().contains("everybody"));
        std::fs::remove_file(&path).unwrap();
        assert_ne!(derived("a"), first);
        for damaged in ["", "00", &"g".repeat(64), &"0".repeat(66)] {
            std::fs::write(&path, damaged).unwrap();
            let error = Key::open(&path).unwrap_err().to_string();
            assert!(error.contains("token.key"), "{error}");
        }
    }
}
