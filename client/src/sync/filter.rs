//! Which tags are meant: by glob, by regular expression, by a range of versions. All that is said must hold.

use std::str::FromStr;

use longshore_runtime::Error;
use longshore_runtime::name::Tag;
use regex_lite::Regex;
use semver::{Version, VersionReq};

/// The longest pattern, in bytes.
const PATTERN_LIMIT_BYTES: usize = 1024;

/// Tags that are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these must match; without any, all do.
    pub include: Vec<Glob>,
    /// None of these may.
    pub exclude: Vec<Glob>,
    /// It must match somewhere.
    pub regex: Option<Pattern>,
    /// It must be a version of this range.
    pub semver: Option<VersionReq>,
}

impl Filter {
    /// Whether a tag is meant.
    pub fn accepts(&self, tag: &Tag) -> bool {
        let matches = |glob: &Glob| glob.0.is_match(tag.as_str());
        let included = self.include.is_empty() || self.include.iter().any(matches);
        let in_range = |range: &VersionReq| version(tag.as_str()).is_some_and(|version| range.matches(&version));
        included
            && !self.exclude.iter().any(matches)
            && self.regex.as_ref().is_none_or(|pattern| pattern.0.is_match(tag.as_str()))
            && self.semver.as_ref().is_none_or(in_range)
    }
}

/// A tag as a version: `1.2.3`, `v1.2.3-rc.1`. Fewer than three numbers are none.
fn version(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

/// A pattern of tags: `*` for any characters, `?` for one.
#[derive(Debug, Clone)]
pub struct Glob(Regex);

impl FromStr for Glob {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut pattern = String::from("^");
        for character in text.chars() {
            match character {
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                other => pattern.push_str(&regex_lite::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        pattern.push('$');
        compile(text, &pattern).map(Self)
    }
}

/// A regular expression.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        compile(text, text).map(Self)
    }
}

fn compile(text: &str, pattern: &str) -> Result<Regex, Error> {
    if text.is_empty() || text.len() > PATTERN_LIMIT_BYTES {
        return Err(Error::invalid("pattern of tags", "it must have 1 to 1024 characters"));
    }
    Regex::new(pattern).map_err(|e| Error::invalid(format_args!("pattern of tags {text:?}"), e))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted<'a>(filter: &Filter, tags: &[&'a str]) -> Vec<&'a str> {
        tags.iter().copied().filter(|tag| filter.accepts(&tag.parse().unwrap())).collect()
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let tags = ["1.0.0", "1.2.3", "v1.3.0", "1.4.0-rc.1", "2.0.0", "1.2", "latest", "1.2.3.4", "edge-1"];
        let globs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Glob>>();
        let semver = |range: &str| Filter { semver: Some(range.parse().unwrap()), ..Filter::default() };
        assert_eq!(accepted(&Filter::default(), &tags), tags);
        let filter = Filter { include: globs(&["1.?", "late*"]), ..Filter::default() };
        assert_eq!(accepted(&filter, &tags), ["1.2", "latest"], "a dot is a dot, and all of it must match");
        let filter = Filter { exclude: globs(&["*.*", "e*"]), ..Filter::default() };
        assert_eq!(accepted(&filter, &tags), ["latest"]);
        let filter = Filter { regex: Some("^[a-z]+(-[0-9])?$".parse().unwrap()), ..Filter::default() };
        assert_eq!(accepted(&filter, &tags), ["latest", "edge-1"]);
        assert_eq!(accepted(&semver("^1.2"), &tags), ["1.2.3", "v1.3.0"]);
        assert_eq!(accepted(&semver(">=1.4.0-rc.0, <2"), &tags), ["1.4.0-rc.1"]);
        let filter = Filter { exclude: globs(&["v*"]), ..semver("^1") };
        assert_eq!(accepted(&filter, &tags), ["1.0.0", "1.2.3"]);
    }

    #[test]
    fn patterns_that_make_no_sense_are_refused() {
        for bad in ["", "(", "[a", "a{99999999}"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        assert!("".parse::<Glob>().is_err() && "a".repeat(2000).parse::<Glob>().is_err());
    }

    proptest! {
        #[test]
        fn reading_and_matching_never_panics(text in "\\PC{0,40}", likely in "[\\[\\]().*+?a-c|{}0-9]{0,20}", tag in "[a-z0-9._-]{1,40}") {
            let _ = (text.parse::<Pattern>(), likely.parse::<Pattern>(), version(&text), version(&tag));
            if let (Ok(glob), Ok(tag)) = (text.parse::<Glob>(), tag.parse::<Tag>()) {
                let _ = Filter { include: vec![glob], ..Filter::default() }.accepts(&tag);
            }
        }

        #[test]
        fn a_glob_without_stars_matches_itself_alone(text in "[a-z0-9._-]{1,20}", other in "[a-z0-9._-]{1,20}") {
            let glob: Glob = text.parse().unwrap();
            prop_assert!(glob.0.is_match(&text));
            prop_assert_eq!(glob.0.is_match(&other), text == other);
        }
    }
}
