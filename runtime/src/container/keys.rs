//! The keys that leave an attached container running: docker's `ctrl-p,ctrl-q`, or others.

use std::str::FromStr;

use crate::error::{Error, Result};

/// The most keys of a sequence.
const KEYS_LIMIT: usize = 16;

/// A sequence of keys, as the bytes a terminal sends for them. An empty one never comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        const CTRL_P: u8 = 16;
        const CTRL_Q: u8 = 17;
        Self(vec![CTRL_P, CTRL_Q])
    }
}

impl FromStr for DetachKeys {
    type Err = Error;

    /// `ctrl-p,ctrl-q`, `ctrl-@,x`: characters, or `ctrl-` and one of `a` to `z @ [ \ ] ^ _`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why| Error::Name { what: "sequence of detach keys", input: text.to_owned(), why };
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let key = |key: &str| match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
            (&[byte], _) if byte.is_ascii_graphic() => Some(byte),
            (_, Some(&[letter])) if letter.is_ascii_alphabetic() => Some(letter.to_ascii_lowercase() - b'a' + 1),
            (_, Some(b"@")) => Some(0),
            (_, Some(&[sign])) if (b'['..=b'_').contains(&sign) => Some(sign - b'@'),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.ok_or_else(|| bad("keys with commas between them: characters, or ctrl- and one of a-z @ [ \\ ] ^ _"))?;
        if keys.len() > KEYS_LIMIT {
            return Err(bad("at most 16 keys"));
        }
        Ok(Self(keys))
    }
}

/// Looks for the keys in what is typed, and holds back what may be their beginning.
#[derive(Debug)]
pub(super) struct Typed {
    keys: Vec<u8>,
    held: usize,
}

impl Typed {
    pub(super) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), held: 0 }
    }

    /// Adds to `out` what is meant for the container. True once the keys have come; what is behind them is left out.
    pub(super) fn pass(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in typed {
            if self.keys.get(self.held) == Some(byte) {
                self.held += 1;
                if self.held == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend(&self.keys[..self.held]);
            self.held = usize::from(self.keys.first() == Some(byte));
            if self.held == 0 {
                out.push(*byte);
            } else if self.keys.len() == 1 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(keys: &str, typed: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detector = Typed::new(&keys.parse().unwrap());
        let mut out = Vec::new();
        let detached = typed.iter().any(|part| detector.pass(part, &mut out));
        (out, detached)
    }

    #[test]
    fn keys_are_found_also_in_parts_and_what_is_none_is_passed_on() {
        assert_eq!("ctrl-p,ctrl-q".parse::<DetachKeys>().unwrap(), DetachKeys::default());
        assert_eq!("ctrl-@,a,ctrl-_".parse::<DetachKeys>().unwrap(), DetachKeys(vec![0, b'a', 31]));
        let keys = "ctrl-p,ctrl-q";
        assert_eq!(pass(keys, &[b"ab\x10", b"\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(pass(keys, &[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(pass(keys, &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(pass("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
        assert_eq!(pass("q", &[b"aq"]), (b"a".to_vec(), true));
        for bad in ["ctrl", "ctrl-", "ctrl-ab", "ctrl-1", ",", "a,,b", "ab", "é", &"a,".repeat(20)] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_is_lost_before_the_keys(parts in proptest::collection::vec(proptest::collection::vec(14u8..19, 0..6), 0..6)) {
            let mut detector = Typed::new(&DetachKeys::default());
            let mut out = Vec::new();
            let all: Vec<u8> = parts.concat();
            let detached = parts.iter().any(|part| detector.pass(part, &mut out));
            match all.windows(2).position(|two| two == [16, 17]) {
                Some(at) => prop_assert_eq!((detached, &out[..]), (true, &all[..at])),
                None => {
                    out.extend(&detector.keys[..detector.held]);
                    prop_assert_eq!((detached, out), (false, all));
                }
            }
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,24}") {
            let _ = text.parse::<DetachKeys>();
        }
    }
}
