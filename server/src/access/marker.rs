//! Where a list goes on, for a client that must not learn what lies there: the last repository that
//! was looked at may be one it cannot see. So its name is encrypted.

use std::fmt;

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

/// What no repository's name starts with.
const PREFIX: char = '~';

/// Makes markers and reads them back.
pub(super) struct Markers(RandomizedNonceKey);

impl fmt::Debug for Markers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Markers(...)")
    }
}

impl Markers {
    pub(super) fn new(key: RandomizedNonceKey) -> Self {
        Self(key)
    }

    /// A marker for a name.
    pub(super) fn seal(&self, name: &str) -> Result<String> {
        let mut bytes = name.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut bytes);
        let nonce = nonce.map_err(|e| longshore_runtime::Error::io("encrypt a list's marker", std::io::Error::other(e)))?;
        bytes.extend_from_slice(nonce.as_ref());
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The name to go on after: the one in a marker, or the text itself.
    ///
    /// # Errors
    /// A marker that was not made here.
    pub(super) fn open(&self, last: String) -> Result<String> {
        let Some(sealed) = last.strip_prefix(PREFIX) else { return Ok(last) };
        let open = || {
            let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
            let nonce = bytes.split_off(bytes.len().checked_sub(NONCE_LEN)?);
            let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
            let name = self.0.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?;
            String::from_utf8(name.to_vec()).ok()
        };
        open().ok_or_else(|| Error::Parameter("query parameter last is no marker of this registry; start the list anew".into()))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::AES_256_GCM;

    use super::*;

    #[test]
    fn a_marker_tells_nothing_and_is_read_back() {
        let markers = Markers::new(RandomizedNonceKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let (one, two) = (markers.seal("secret/name").unwrap(), markers.seal("secret/name").unwrap());
        assert_ne!(one, two);
        assert!(!one.contains("secret"));
        assert_eq!(markers.open(one.clone()).unwrap(), "secret/name");
        assert_eq!(markers.open("plain/name".into()).unwrap(), "plain/name");
        for bad in ["~", "~!", "~AAAA", &one[..one.len() - 4], &format!("{one}AAAA")] {
            assert!(markers.open(bad.into()).is_err(), "{bad}");
        }
        let other = Markers::new(RandomizedNonceKey::new(&AES_256_GCM, &[8; 32]).unwrap());
        assert!(other.open(one).is_err());
    }
}
