//! Patterns of repository names: `*` stands for any characters but a slash, `**` for any characters.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The longest name that is matched and the longest pattern, in bytes: repository names end there.
const LIMIT_BYTES: usize = 255;

/// A pattern of repository names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// `*`
    WithinComponent,
    /// `**`
    Anything,
}

impl Pattern {
    /// The pattern of every name.
    pub(super) fn everything() -> Self {
        Self { pieces: vec![Piece::Anything] }
    }

    /// Whether the whole name is one of the pattern. Takes time in proportion to the two lengths:
    /// one pass over the name for each piece, and no way back.
    pub(super) fn matches(&self, name: &str) -> bool {
        if name.len() > LIMIT_BYTES {
            return false;
        }
        let mut reached = Positions::start();
        for (at, piece) in self.pieces.iter().enumerate() {
            reached = match piece {
                Piece::Text(text) => reached.after_text(name, text),
                Piece::Anything if at + 1 == self.pieces.len() => return !reached.is_empty(),
                Piece::Anything => reached.extended(name, |_| true),
                Piece::WithinComponent => reached.extended(name, |byte| byte != b'/'),
            };
            if reached.is_empty() {
                return false;
            }
        }
        reached.has(name.len())
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why| Err(longshore_runtime::Error::Name { what: "repository pattern", input: text.into(), why }.into());
        if text.is_empty() || text.len() > LIMIT_BYTES {
            return invalid("it must have 1 to 255 characters");
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return invalid("names are lowercase");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/*".contains(&b)) {
            return invalid("it may have letters, digits, '.', '_', '-', '/', '*' and '**'");
        }
        if text.contains("***") || text.contains("//") || text.starts_with('/') || text.ends_with('/') {
            return invalid("no name can match it: look at its stars and slashes");
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, length) = if rest.starts_with("**") {
                (Piece::Anything, 2)
            } else if rest.starts_with('*') {
                (Piece::WithinComponent, 1)
            } else {
                let length = rest.find('*').unwrap_or(rest.len());
                (Piece::Text(rest[..length].into()), length)
            };
            pieces.push(piece);
            rest = &rest[length..];
        }
        Ok(Self { pieces })
    }
}

/// A set of positions in a name, from before its first byte to after its last.
#[derive(Clone, Copy)]
struct Positions([u64; 4]);

impl Positions {
    fn start() -> Self {
        Self([1, 0, 0, 0])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// Where one is after `text` was read from one of these.
    fn after_text(&self, name: &str, text: &str) -> Self {
        let mut after = Self([0; 4]);
        let last = (name.len() + 1).saturating_sub(text.len());
        for at in (0..last).filter(|at| self.has(*at)) {
            if name.as_bytes()[at..].starts_with(text.as_bytes()) {
                after.insert(at + text.len());
            }
        }
        after
    }

    /// Where one is after any number of bytes that `pass` were read from one of these.
    fn extended(&self, name: &str, pass: impl Fn(u8) -> bool) -> Self {
        let mut extended = *self;
        for (at, byte) in name.bytes().enumerate() {
            if extended.has(at) && pass(byte) {
                extended.insert(at + 1);
            }
        }
        extended
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| {
            f.write_str(match piece {
                Piece::Text(text) => text,
                Piece::WithinComponent => "*",
                Piece::Anything => "**",
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    /// What the pattern means, tried out in every way.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|n| naive(rest, &name[n..])),
            [b'*', rest @ ..] => (0..=name.len()).take_while(|n| !name[..*n].contains(&b'/')).any(|n| naive(rest, &name[n..])),
            [first, rest @ ..] => name.first() == Some(first) && naive(rest, &name[1..]),
        }
    }

    #[test]
    fn one_star_stays_within_a_component_and_two_do_not() {
        for (pattern, yes, no) in [
            ("team/*", &["team/app", "team/a.b-c"][..], &["team", "team/a/b", "other/app", "xteam/a"][..]),
            ("public/**", &["public/a", "public/a/b/c"], &["public", "publican/a", "my/public/a"]),
            ("**", &["a", "a/b/c"], &[]),
            ("*", &["a", "abc"], &["a/b"]),
            ("app", &["app"], &["ap", "apps", "app/a", "my/app"]),
            ("*/app-*", &["a/app-1", "b/app-"], &["app-1", "a/b/app-1", "a/app"]),
            ("**/test/*", &["a/test/x", "a/b/test/x"], &["test/x", "a/test/x/y", "a/tests/x"]),
        ] {
            yes.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_could_match_nothing_is_refused() {
        for bad in ["", "/a", "a/", "a//b", "***", "A/*", "a b", "a?", "[a]", "a\\b", "ä", &"a".repeat(256)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hostile_name_and_pattern_take_no_time() {
        let pattern: Pattern = "*a".repeat(127).parse().unwrap();
        let start = std::time::Instant::now();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(254))));
        assert!(start.elapsed().as_secs() < 5);
    }

    proptest! {
        #[test]
        fn it_matches_what_the_naive_one_matches(pattern in "[ab*/]{1,12}", name in "[ab/]{0,16}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                prop_assert_eq!(parsed.matches(&name), naive(pattern.as_bytes(), name.as_bytes()), "{} {}", pattern, name);
                prop_assert_eq!(parsed.to_string(), pattern);
            }
        }
    }
}
