//! `rbox images --filter`

use std::time::SystemTime;

use longshore_runtime::name::Reference;
use longshore_runtime::store::Image;
use longshore_runtime::{Error, Store};

use super::label::{Wanted, all_fit};
use super::logs::parse_time;
use crate::config::name_here;
use crate::error::Result;
use crate::text::parse_rfc3339;

/// What images are to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// Without a name, or with one.
    Dangling(bool),
    Label(Wanted),
    /// A pattern of names.
    Reference(String),
    /// Made before this image was.
    Before(String),
    /// Made after this image was.
    Since(String),
    Until(SystemTime),
    After(SystemTime),
}

impl Filter {
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        Ok(match kind {
            "dangling" => Self::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err("dangling is true or false".into()),
            }),
            "label" => Self::Label(Wanted::parse(value, true)?),
            "reference" => Self::Reference(value.into()),
            "before" => Self::Before(value.into()),
            "since" => Self::Since(value.into()),
            "until" => Self::Until(parse_time(value)?),
            _ => return Err("the kinds are dangling, label, reference, before, since and until".into()),
        })
    }

    /// With the times of the images that it names.
    pub(super) fn resolved(self, store: &Store) -> Result<Self> {
        let created = |text: &str| Ok::<_, Error>(time(&store.get(&name_here(store, text)?)?).unwrap_or(SystemTime::UNIX_EPOCH));
        Ok(match self {
            Self::Before(name) => Self::Until(created(&name)?),
            Self::Since(name) => Self::After(created(&name)?),
            other => other,
        })
    }

    fn fits(&self, image: &Image) -> bool {
        match self {
            Self::Dangling(dangling) => image.names.is_empty() == *dangling,
            Self::Label(wanted) => wanted.fits(|name| image.config.config.labels.get(name).map(String::as_str)),
            Self::Reference(pattern) => image.names.iter().any(|name| is_named(name, pattern)),
            Self::Until(until) => time(image).is_some_and(|created| created < *until),
            Self::After(after) => time(image).is_some_and(|created| created > *after),
            // They have become times.
            Self::Before(_) | Self::Since(_) => false,
        }
    }
}

/// When it was made, if it says so.
fn time(image: &Image) -> Option<SystemTime> {
    image.config.created.as_deref().and_then(parse_rfc3339)
}

/// Whether an image fits all that is asked of it.
pub(super) fn wanted(filters: &[Filter], image: &Image) -> bool {
    all_fit(filters, |one| matches!(one, Filter::Label(_)), |one| one.fits(image))
}

/// Whether one of an image's names is asked for.
pub(super) fn wanted_name(filters: &[Filter], name: &Reference) -> bool {
    let mut patterns = filters.iter().filter_map(|filter| match filter {
        Filter::Reference(pattern) => Some(pattern),
        _ => None,
    });
    patterns.clone().next().is_none() || patterns.any(|pattern| is_named(name, pattern))
}

/// Whether `text` means a name: as one, with or without its tag, or as a pattern of how it is shown.
pub(super) fn is_named(name: &Reference, text: &str) -> bool {
    let tag_given = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let same = |asked: Reference| asked.name() == name.name() && (!tag_given || asked.tag() == name.tag());
    text.parse().is_ok_and(same) || matches(text, &name.familiar()) || matches(text, &name.familiar_name())
}

/// Go's `path.Match`: `*` and `?` but for a slash, `[a-z]`, `[^a]`, and what stands behind a backslash.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut in_text) = (0, 0);
    // Behind the last star, and how much of the text that has taken: it takes more when what follows does not fit.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let next = match (pattern.get(at), text.get(in_text)) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((at + 1, in_text));
                at += 1;
                continue;
            }
            (Some(_), Some(&c)) => one(&pattern[at..], c),
            _ => None,
        };
        match (next, star) {
            (Some(length), _) => (at, in_text) = (at + length, in_text + 1),
            (None, Some((behind, taken))) if text.get(taken).is_some_and(|c| *c != '/') => {
                star = Some((behind, taken + 1));
                (at, in_text) = (behind, taken + 1);
            }
            _ => return false,
        }
    }
}

/// How long the part of a pattern is that stands for this character; nothing if it does not.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (c != '/').then_some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|c| *c == ']')? + 1;
            let (negated, set) = rest[..end].strip_prefix(&['^']).map_or((false, &rest[..end]), |set| (true, set));
            let mut found = false;
            let mut left = set;
            while let Some((&low, behind)) = left.split_first() {
                (found, left) = match behind {
                    ['-', high, more @ ..] => (found || (low..=*high).contains(&c), more),
                    more => (found || low == c, more),
                };
            }
            (found != negated && c != '/').then_some(end + 2)
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_go_s() {
        for (pattern, text, expected) in [
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a*c", "abbc", true),
            ("a*c*e", "abcde", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
            ("ab", "a", false),
            ("a*", "a", true),
            ("*:1.*", "app:1.2", true),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn names_are_meant_whole_without_tag_and_by_pattern() {
        let name: Reference = "docker.io/library/mysql:5.7".parse().unwrap();
        for text in ["mysql", "mysql:5.7", "docker.io/library/mysql", "my*", "*:5.?"] {
            assert!(is_named(&name, text), "{text}");
        }
        for text in ["mysq", "mysql:8", "other/mysql", "*/mysql"] {
            assert!(!is_named(&name, text), "{text}");
        }
        for bad in ["dangling=odd", "size=1", "label", "until=whenever"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn matching_ends_and_a_text_without_signs_matches_itself(pattern in "[]a*?^\\\\\\[-]{0,12}", text in "[a-z0-9:./]{0,20}") {
            matches(&pattern, &text);
            prop_assert!(matches(&text, &text));
        }
    }
}
