//! A private key under a password, as cosign writes it: scrypt makes a key of the password, NaCl's secretbox
//! (`XSalsa20` and Poly1305) keeps the secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use scrypt::Params;
use serde::{Deserialize, Serialize};

/// What cosign has used since its version 2, as powers of two and counts.
const COST: Kdf = Kdf { n: 1 << 16, r: 8, p: 1 };

/// The most memory that opening a key may take, in bytes: a key says itself what it costs.
const MEMORY_LIMIT_BYTES: u64 = 1 << 30;

/// The most work, in the same measure for every key.
const WORK_LIMIT: u64 = 1 << 24;

const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

#[derive(Serialize, Deserialize)]
struct Document {
    kdf: KdfDocument,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct KdfDocument {
    name: String,
    params: Kdf,
    salt: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Kdf {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Opens what [`seal`] or cosign sealed.
pub(super) fn open(document: &[u8], password: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Document { kdf, cipher, ciphertext } = serde_json::from_slice(document).map_err(|_| "it is not what cosign writes")?;
    if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
        return Err("it is encrypted in a way that is not known");
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| "it is not what cosign writes");
    let nonce: [u8; NONCE_BYTES] = decode(&cipher.nonce)?.try_into().map_err(|_| "it is not what cosign writes")?;
    let key = derive(password, &decode(&kdf.salt)?, kdf.params)?;
    open_box(&key, &nonce, &decode(&ciphertext)?).ok_or("the password is wrong, or it is damaged")
}

/// Puts a secret under a password.
pub(super) fn seal(secret: &[u8], password: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
    for random in [&mut salt[..], &mut nonce[..]] {
        rustix::rand::getrandom(random, rustix::rand::GetRandomFlags::empty()).map_err(|_| "there are no random bytes")?;
    }
    let key = derive(password, &salt, COST)?;
    let document = Document {
        kdf: KdfDocument { name: "scrypt".into(), params: COST, salt: STANDARD.encode(salt) },
        cipher: Cipher { name: "nacl/secretbox".into(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(seal_box(&key, &nonce, secret)),
    };
    serde_json::to_vec(&document).map_err(|_| "it cannot be written")
}

fn derive(password: &[u8], salt: &[u8], Kdf { n, r, p }: Kdf) -> Result<[u8; KEY_BYTES], &'static str> {
    let block = 128 * u64::from(r);
    let cheap = n.checked_mul(block).is_some_and(|bytes| bytes <= MEMORY_LIMIT_BYTES)
        && n.checked_mul(u64::from(r)).and_then(|work| work.checked_mul(u64::from(p))).is_some_and(|work| work <= WORK_LIMIT);
    if !cheap || !n.is_power_of_two() {
        return Err("opening it would cost more than any key that cosign makes");
    }
    let params = Params::new(n.trailing_zeros() as u8, r, p).map_err(|_| "its cost makes no sense")?;
    let mut key = [0; KEY_BYTES];
    scrypt::scrypt(password, salt, &params, &mut key).map_err(|_| "its cost makes no sense")?;
    Ok(key)
}

/// The stream behind the one-time key of the authenticator, and that key.
fn streams(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES]) -> (XSalsa20, Poly1305) {
    let mut stream = XSalsa20::new(key.into(), nonce.into());
    let mut first = [0; KEY_BYTES];
    stream.apply_keystream(&mut first);
    (stream, Poly1305::new(&first.into()))
}

fn seal_box(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES], secret: &[u8]) -> Vec<u8> {
    let (mut stream, authenticator) = streams(key, nonce);
    let mut hidden = secret.to_vec();
    stream.apply_keystream(&mut hidden);
    [&authenticator.compute_unpadded(&hidden)[..], &hidden].concat()
}

fn open_box(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES], sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, hidden) = sealed.split_at_checked(TAG_BYTES)?;
    let (mut stream, authenticator) = streams(key, nonce);
    // Not the bytes as such: comparing tags takes the same time whatever they are.
    let right: poly1305::Tag = authenticator.compute_unpadded(hidden);
    aws_lc_rs::constant_time::verify_slices_are_equal(&right, tag).ok()?;
    let mut secret = hidden.to_vec();
    stream.apply_keystream(&mut secret);
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nacls_own_example_comes_out() {
        // secretbox_easy of libsodium, key 00..1f, nonce 00..17, "longshore".
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        let nonce: [u8; 24] = std::array::from_fn(|i| i as u8);
        let sealed = seal_box(&key, &nonce, b"longshore");
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ae3f3eef497e0e4f26574acd8b14b19132905628b4a2cd62de");
        assert_eq!(open_box(&key, &nonce, &sealed).as_deref(), Some(&b"longshore"[..]));
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(open_box(&key, &nonce, &other), None, "{at}");
        }
        assert_eq!(open_box(&key, &nonce, &sealed[..15]), None);
    }

    #[test]
    fn a_sealed_secret_opens_with_its_password_alone() {
        let sealed = seal(b"secret", b"open sesame").unwrap();
        assert_eq!(open(&sealed, b"open sesame").as_deref(), Ok(&b"secret"[..]));
        assert!(open(&sealed, b"open barley").unwrap_err().contains("password"));
    }

    #[test]
    fn a_key_that_would_take_all_memory_is_refused() {
        let text = String::from_utf8(seal(b"secret", b"x").unwrap()).unwrap();
        for (cost, other) in
            [("65536", "1073741824"), ("65536", "65535"), ("\"r\":8", "\"r\":4000000"), ("\"p\":1", "\"p\":100000")]
        {
            let hostile = text.replacen(cost, other, 1);
            assert_ne!(hostile, text);
            assert!(open(hostile.as_bytes(), b"x").unwrap_err().contains("cost"), "{other}");
        }
    }
}
