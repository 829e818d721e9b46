//! Signatures of images, as cosign makes them: a document that names the image's digest, signed by a key, kept in the
//! same repository under the tag `sha256-HEX.sig`.
//!
//! **Invariant: nothing of a document is believed before its signature is verified**, and of a verified one only
//! what it says of the very digest that was asked for.

mod key;
pub(crate) mod layers;
mod repository;
mod sealed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use longshore_runtime::name::Digest;
use serde::{Deserialize, Serialize};

pub use key::{PrivateKey, PublicKey};
pub use repository::{approve, sign};

/// What cosign calls its documents.
const KIND: &str = "cosign container image signature";

/// A document and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What is signed, byte for byte.
    pub document: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The document (containers' "simple signing" format).
#[derive(Serialize, Deserialize)]
struct Document {
    critical: Critical,
    optional: Option<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

impl Signed {
    /// Signs that `name` (a registry and a repository) has an image of that digest.
    pub fn new(name: &str, digest: &Digest, key: &PrivateKey) -> crate::Result<Self> {
        let critical = Critical {
            identity: Identity { reference: name.to_owned() },
            image: Image { digest: digest.to_string() },
            r#type: KIND.into(),
        };
        let document = serde_json::to_vec(&Document { critical, optional: None })
            .map_err(|e| longshore_runtime::Error::invalid("sign", e.to_string()))?;
        let signature = key.sign(&document)?;
        Ok(Self { document, signature })
    }

    /// Whether one of `keys` says that `name` has an image of that digest; `None` as a name: that there is one anywhere.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self, name: Option<&str>, digest: &Digest, keys: &[PublicKey]) -> Result<(), &'static str> {
        if !keys.iter().any(|key| key.verifies(&self.document, &self.signature)) {
            return Err("it is by another key");
        }
        let Document { critical, .. } = serde_json::from_slice(&self.document).map_err(|_| "what it signs is unreadable")?;
        if critical.r#type != KIND {
            return Err("what it signs is no image");
        }
        if critical.image.digest != digest.as_str() {
            return Err("it is of another image");
        }
        // A name may carry a tag, which says nothing: tags move.
        let named = name.is_none_or(|name| {
            let rest = critical.identity.reference.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with([':', '@']) && !rest.contains('/')))
        });
        if named { Ok(()) } else { Err("it is of an image of another name") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (PrivateKey, PublicKey) {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = PrivateKey::generate("p").unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let private = PrivateKey::read(&write("key", private), || Ok("p".into())).unwrap();
        (private, PublicKey::read(&write("pub", public)).unwrap())
    }

    #[test]
    fn a_signature_is_good_for_one_digest_one_name_and_one_key() {
        let ((private, public), (_, stranger)) = (pair(), pair());
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let signed = Signed::new("r.example/team/app", &digest, &private).unwrap();
        let check = |signed: &Signed, name, digest, key: &PublicKey| signed.check(name, digest, std::slice::from_ref(key));
        assert_eq!(check(&signed, Some("r.example/team/app"), &digest, &public), Ok(()));
        assert_eq!(check(&signed, None, &digest, &public), Ok(()));
        assert_eq!(signed.check(None, &digest, &[stranger.clone(), public.clone()]), Ok(()));
        assert!(check(&signed, Some("r.example/team/app"), &other, &public).unwrap_err().contains("another image"));
        assert!(check(&signed, Some("r.example/team/app"), &digest, &stranger).unwrap_err().contains("another key"));
        assert!(signed.check(None, &digest, &[]).is_err());
        for name in ["r.example/team", "r.example/team/ap", "r.example/team/app2", "x.example/team/app"] {
            assert!(check(&signed, Some(name), &digest, &public).unwrap_err().contains("another name"), "{name}");
        }
        let tagged = Signed::new("r.example/team/app:1.2", &digest, &private).unwrap();
        assert_eq!(check(&tagged, Some("r.example/team/app"), &digest, &public), Ok(()));
        let mut changed = signed.clone();
        changed.document.push(b' ');
        assert!(check(&changed, None, &digest, &public).is_err());
    }

    #[test]
    fn what_is_signed_but_says_something_else_is_not_taken() {
        let (private, public) = pair();
        let digest = Digest::of(b"a");
        let right = String::from_utf8(Signed::new("r/a", &digest, &private).unwrap().document).unwrap();
        for document in ["{}", "", "[]", &right.replace(KIND, "atomic container signature")] {
            let signed = Signed { document: document.into(), signature: private.sign(document.as_bytes()).unwrap() };
            assert!(signed.check(None, &digest, std::slice::from_ref(&public)).is_err(), "{document}");
        }
    }
}
