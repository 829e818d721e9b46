//! Upload sessions are bound to whoever started them: the name a client is given carries a seal over
//! the session's identifier and the user. What is stored stays as it is.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::rules::Identity;
use crate::blob::UploadId;
use crate::error::{Error, Result};

/// Half of a SHA-256.
type Seal = [u8; 16];

/// An upload session as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionName {
    id: UploadId,
    seal: Option<Seal>,
}

impl SessionName {
    /// The name of a session nobody is asked about.
    pub(super) fn open(id: UploadId) -> Self {
        Self { id, seal: None }
    }

    /// The name of a session of `owner`.
    pub(super) fn sealed(id: UploadId, owner: &Identity, key: &hmac::Key) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(id.to_string().as_bytes());
        // An identifier has one length, so nothing can be moved from it to the name.
        context.update(owner.name().as_bytes());
        let mut seal = Seal::default();
        seal.copy_from_slice(&context.sign().as_ref()[..16]);
        Self { id, seal: Some(seal) }
    }

    /// Whether both name the same session of the same owner, in constant time.
    pub(super) fn is(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.seal.unwrap_or_default(), other.seal.unwrap_or_default());
        let same_seal = verify_slices_are_equal(&ours, &theirs).is_ok() & (self.seal.is_some() == other.seal.is_some());
        same_seal & (self.id == other.id)
    }

    /// What it is stored under.
    pub fn id(&self) -> UploadId {
        self.id
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seal {
            None => write!(f, "{}", self.id),
            Some(seal) => write!(f, "{}{:032x}", self.id, u128::from_be_bytes(seal)),
        }
    }
}

impl FromStr for SessionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((id, seal)) = text.split_at_checked(32).filter(|(_, seal)| !seal.is_empty()) else {
            return Ok(Self { id: text.parse()?, seal: None });
        };
        // A seal is written like an identifier.
        let seal: UploadId = seal.parse()?;
        let seal = u128::from_str_radix(&seal.to_string(), 16).map_err(|_| Error::UploadUnknown)?;
        Ok(Self { id: id.parse()?, seal: Some(seal.to_be_bytes()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, b"secret")
    }

    #[test]
    fn an_upload_session_is_bound_to_its_user() {
        let (alice, bob) = (Identity::User("alice".into()), Identity::User("bob".into()));
        let id = UploadId::random().unwrap();
        let named = SessionName::sealed(id, &alice, &key());
        let again: SessionName = named.to_string().parse().unwrap();
        assert_eq!(again, named);
        assert!(again.is(&SessionName::sealed(id, &alice, &key())));
        for other in [
            SessionName::sealed(id, &bob, &key()),
            SessionName::sealed(id, &Identity::Anonymous, &key()),
            SessionName::sealed(UploadId::random().unwrap(), &alice, &key()),
            SessionName::sealed(id, &alice, &hmac::Key::new(hmac::HMAC_SHA256, b"other")),
            SessionName::open(id),
        ] {
            assert!(!again.is(&other) && !other.is(&again), "{other}");
        }
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is() {
        let id = UploadId::random().unwrap();
        assert_eq!(id.to_string().parse::<SessionName>().unwrap(), SessionName::open(id));
        for bad in
            ["", "x", &"a".repeat(31), &"a".repeat(33), &"a".repeat(63), &"a".repeat(65), &"A".repeat(64), &"\u{e4}".repeat(32)]
        {
            assert!(matches!(bad.parse::<SessionName>(), Err(Error::UploadUnknown)), "{bad}");
        }
    }
}
