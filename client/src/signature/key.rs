//! Keys that images are signed with: PEM files as cosign and openssl write them.

use std::fmt;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA256_ASN1, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::sealed;
use crate::error::{Error, Result};

/// The longest key file read, in bytes.
const FILE_LIMIT_BYTES: u64 = 64 << 10;

/// Characters of base64 in a line of a PEM file (RFC 7468).
const LINE_LENGTH: usize = 64;

/// What a private key under a password is called in a PEM file, now and by older versions of cosign.
const SEALED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];

/// How the public key of each kind begins, up to the key itself (RFC 5280 SubjectPublicKeyInfo).
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
const P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
const ED25519_KEY: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// The same of an RSA key, behind its length, and how long everything before the key is.
const RSA: (&[u8], usize) = (b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82", 24);

/// A key that signatures are checked by: ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 bits and more.
#[derive(Clone)]
pub struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

impl PublicKey {
    /// Reads a file that holds one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?;
        Self::parse(&text).map_err(|why| bad(path, why))
    }

    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let der = match decode(text)? {
            (label, der) if label == "PUBLIC KEY" => der,
            (label, _) if label.ends_with("PRIVATE KEY") => return Err("it is a private key; the public one is needed"),
            _ => return Err("it is no public key"),
        };
        let ecdsa: [(&[u8], &'static dyn VerificationAlgorithm); 3] =
            [(P256, &ECDSA_P256_SHA256_ASN1), (P384, &ECDSA_P384_SHA256_ASN1), (ED25519_KEY, &ED25519)];
        for (start, algorithm) in ecdsa {
            if let Some(key) = der.strip_prefix(start) {
                return Ok(Self { algorithm, key: key.to_owned() });
            }
        }
        let (start, length) = RSA;
        match der.get(4..).is_some_and(|rest| rest.starts_with(start)).then(|| der.get(length..)).flatten() {
            Some(key) => Ok(Self { algorithm: &RSA_PKCS1_2048_8192_SHA256, key: key.to_owned() }),
            None => Err("it is a key of no kind that is known: ECDSA on P-256 or P-384, Ed25519, RSA"),
        }
    }

    /// Whether `signature` is that of `message` by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.key).verify(message, signature).is_ok()
    }
}

/// A key that signs.
pub struct PrivateKey(Pair);

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(...)")
    }
}

impl PrivateKey {
    /// Reads a file that holds one. `password` is asked for where it is under one.
    pub fn read(path: &Path, password: impl FnOnce() -> Result<String>) -> Result<Self> {
        let text = longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?;
        let (label, content) = decode(&text).map_err(|why| bad(path, why))?;
        if !SEALED.contains(&&*label) {
            return Self::of_der(&label, &content).map_err(|why| bad(path, why));
        }
        let password = password()?;
        let der = sealed::open(&content, password.as_bytes()).map_err(|why| bad(path, why))?;
        Self::of_der("PRIVATE KEY", &der).map_err(|why| bad(path, why))
    }

    fn of_der(label: &str, der: &[u8]) -> Result<Self, &'static str> {
        match label {
            "PRIVATE KEY" | "EC PRIVATE KEY" => {}
            "PUBLIC KEY" => return Err("it is a public key; the private one is needed to sign"),
            _ => return Err("it is no private key"),
        }
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der) {
            return Ok(Self(Pair::Ecdsa(pair)));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
        pair.map(|pair| Self(Pair::Ed25519(pair))).map_err(|_| "it is a key of no kind that signs: ECDSA on P-256, Ed25519")
    }

    /// Makes a pair (ECDSA on P-256, as cosign does): the private key under a password, and the public one, as the
    /// text of files.
    pub fn generate(password: &str) -> Result<(String, String)> {
        let failed = |why: &str| longshore_runtime::Error::invalid("make a key", why);
        let unspecified = |_| failed("the cryptographic library refused");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(unspecified)?;
        let der = pair.to_pkcs8v1().map_err(unspecified)?;
        let sealed = sealed::seal(der.as_ref(), password.as_bytes()).map_err(failed)?;
        let public = [P256, pair.public_key().as_ref()].concat();
        Ok((encode(SEALED[1], &sealed), encode("PUBLIC KEY", &public)))
    }

    /// The key by which others verify what this one signs.
    pub fn public(&self) -> PublicKey {
        let (algorithm, key): (&'static dyn VerificationAlgorithm, _) = match &self.0 {
            Pair::Ecdsa(pair) => (&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref()),
            Pair::Ed25519(pair) => (&ED25519, pair.public_key().as_ref()),
        };
        PublicKey { algorithm, key: key.to_owned() }
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = match &self.0 {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message),
            Pair::Ed25519(pair) => Ok::<signature::Signature, _>(pair.sign(message)),
        };
        let refused = |_| longshore_runtime::Error::invalid("sign", "the cryptographic library refused");
        Ok(signature.map_err(refused)?.as_ref().to_owned())
    }
}

fn bad(path: &Path, why: &str) -> Error {
    Error::Config { path: path.display().to_string(), why: why.to_owned() }
}

/// The label and the content of the only PEM block in a file.
fn decode(text: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    const NONE: &str = "it is no PEM file: a line -----BEGIN ...----- is missing";
    let text = std::str::from_utf8(text).map_err(|_| NONE)?;
    let (_, text) = text.split_once("-----BEGIN ").ok_or(NONE)?;
    let (label, text) = text.split_once("-----").ok_or(NONE)?;
    let (content, _) = text.split_once(&format!("-----END {label}-----")).ok_or("its end is missing")?;
    let content: String = content.split_ascii_whitespace().collect();
    Ok((label.to_owned(), STANDARD.decode(content).map_err(|_| "what is in it is no base64")?))
}

fn encode(label: &str, content: &[u8]) -> String {
    let content = STANDARD.encode(content);
    let lines: Vec<&str> = content.as_bytes().chunks(LINE_LENGTH).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn key(path: &Path) -> PrivateKey {
        PrivateKey::read(path, || Ok("password".into())).unwrap()
    }

    #[test]
    fn what_one_key_of_a_pair_signs_the_other_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let (private, public) = (directory.path().join("a.key"), directory.path().join("a.pub"));
        let (private_text, public_text) = PrivateKey::generate("password").unwrap();
        std::fs::write(&private, private_text).unwrap();
        std::fs::write(&public, public_text).unwrap();
        let signature = key(&private).sign(b"message").unwrap();
        let public = PublicKey::read(&public).unwrap();
        assert!(public.verifies(b"message", &signature));
        assert!(!public.verifies(b"another", &signature) && !public.verifies(b"message", &signature[1..]));
        let other = PublicKey::parse(PrivateKey::generate("x").unwrap().1.as_bytes()).unwrap();
        assert!(!other.verifies(b"message", &signature));
        let wrong = PrivateKey::read(&private, || Ok("wrong".into())).unwrap_err().to_string();
        assert!(wrong.contains("a.key: the password is wrong"), "{wrong}");
    }

    /// Keys and signatures of every kind, made by openssl.
    #[test]
    fn openssl_and_this_agree() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&directory).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !openssl("version") {
            eprintln!("SKIPPED openssl_and_this_agree: it needs openssl");
            return;
        }
        std::fs::write(path("message"), "message").unwrap();
        for kind in [
            "EC -pkeyopt ec_paramgen_curve:P-256",
            "EC -pkeyopt ec_paramgen_curve:P-384",
            "RSA -pkeyopt rsa_keygen_bits:2048",
            "RSA -pkeyopt rsa_keygen_bits:4096",
            "ED25519",
        ] {
            assert!(openssl(&format!("genpkey -algorithm {kind} -out key")), "{kind}");
            assert!(openssl("pkey -in key -pubout -out key.pub"));
            let how = if kind == "ED25519" { "-rawin" } else { "-rawin -digest sha256" };
            assert!(openssl(&format!("pkeyutl -sign -inkey key {how} -in message -out signature")), "{kind}");
            let signature = std::fs::read(path("signature")).unwrap();
            let public = PublicKey::read(&path("key.pub")).unwrap();
            assert!(public.verifies(b"message", &signature), "{kind}");
            assert!(!public.verifies(b"messagf", &signature), "{kind}");
            if kind.contains("P-256") || kind == "ED25519" {
                std::fs::write(path("signature"), key(&path("key")).sign(b"message").unwrap()).unwrap();
                assert!(
                    openssl(&format!("pkeyutl -verify -pubin -inkey key.pub {how} -in message -sigfile signature")),
                    "{kind}"
                );
            }
            assert!(PublicKey::read(&path("key")).unwrap_err().to_string().contains("private key"), "{kind}");
        }
        assert!(openssl("ecparam -name prime256v1 -genkey -noout -out sec1"));
        key(&path("sec1")).sign(b"message").unwrap();
    }

    proptest! {
        #[test]
        fn no_file_makes_reading_a_key_panic(text in "\\PC{0,80}", body in "[A-Za-z0-9+/=\n]{0,200}") {
            let _ = PublicKey::parse(text.as_bytes());
            let _ = PublicKey::parse(format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----").as_bytes());
        }
    }
}
