//! `policy.toml`: which images may be pulled, by whom they must be signed.
//!
//! ```toml
//! default = "accept"                                   # what it is without this line
//!
//! [images]
//! "docker.io" = "reject"
//! "docker.io/library/debian" = "accept"
//! "registry.example/team" = { signed-by = ["/etc/longshore/team.pub"] }
//! "mirror.example" = { signed-by = ["ci.pub"], identity = "any" }
//! ```
//!
//! A key is a registry, or a registry and the beginning of a repository's name, whole components of it; the longest that
//! fits counts. Keys that sign are PEM files, relative to this one. `identity = "any"` takes signatures made for another
//! name, as those of mirrored images are.
//!
//! Read from `$LONGSHORE_POLICY`, else from `longshore/policy.toml` below the XDG configuration directory, else from
//! `/etc/longshore/policy.toml`; the first that exists counts, and one that cannot be read is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longshore_runtime::name::Reference;
use serde::Deserialize;

use crate::config;
use crate::error::{Error, Result};
use crate::signature::PublicKey;

/// What is asked of an image.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Nothing.
    Accept,
    /// It is not to be pulled.
    Reject,
    /// A signature.
    SignedBy {
        /// By one of these.
        keys: Vec<PublicKey>,
        /// It must name the image, not only its digest.
        named: bool,
    },
}

/// The rules.
#[derive(Debug)]
pub struct Policy {
    path: PathBuf,
    default: Rule,
    images: BTreeMap<String, Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    default: Word,
    #[serde(default)]
    images: BTreeMap<String, RuleDocument>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Accept,
    Reject,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"accept\", \"reject\" or { signed-by = [\"KEY.pub\"] }")]
enum RuleDocument {
    Word(Word),
    Signed(SignedDocument),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SignedDocument {
    signed_by: Vec<PathBuf>,
    #[serde(default)]
    identity: IdentityWord,
}

#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum IdentityWord {
    #[default]
    Exact,
    Any,
}

impl From<Word> for Rule {
    fn from(word: Word) -> Self {
        match word {
            Word::Accept => Self::Accept,
            Word::Reject => Self::Reject,
        }
    }
}

impl Policy {
    /// Reads the first file that exists; without any, every image is accepted.
    pub fn load() -> Result<Self> {
        match config::find_file("LONGSHORE_POLICY", "policy.toml") {
            Some(path) => Self::read(&path),
            None => Ok(Self { path: PathBuf::new(), default: Rule::Accept, images: BTreeMap::new() }),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::Config { path: path.display().to_string(), why };
        let Document { default, images } = toml::from_str(&config::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        let mut rules = BTreeMap::new();
        for (name, rule) in images {
            // A name is good if an image's could begin so.
            let whole: Reference = format!("{name}/a").parse().map_err(|_| bad(format!("{name:?} is no beginning of a name")))?;
            if whole.name() != format!("{name}/a") {
                return Err(bad(format!("{name:?} does not begin with a registry: write docker.io/library/NAME, for example")));
            }
            let rule = match rule {
                RuleDocument::Word(word) => word.into(),
                RuleDocument::Signed(SignedDocument { signed_by, .. }) if signed_by.is_empty() => {
                    return Err(bad(format!("signed-by of {name:?} names no key: write \"reject\" if that is what is meant")));
                }
                RuleDocument::Signed(SignedDocument { signed_by, identity }) => {
                    let key = |key: PathBuf| PublicKey::read(&path.parent().unwrap_or(Path::new("/")).join(key));
                    let keys = signed_by.into_iter().map(key).collect::<Result<_>>()?;
                    Rule::SignedBy { keys, named: identity == IdentityWord::Exact }
                }
            };
            if rules.insert(config::one_spelling(&name), rule).is_some() {
                return Err(bad(format!("{name:?} is there a second time, with its host in another spelling")));
            }
        }
        Ok(Self { path: path.to_owned(), default: default.into(), images: rules })
    }

    /// What is asked of an image of this name.
    ///
    /// # Errors
    ///
    /// When it is not to be pulled at all.
    pub fn rule(&self, image: &Reference) -> Result<&Rule> {
        let name = config::one_spelling(&image.name());
        let mut part = name.as_str();
        let rule = loop {
            match (self.images.get(part), part.rfind('/')) {
                (Some(rule), _) => break rule,
                (None, Some(slash)) => part = &part[..slash],
                (None, None) => break &self.default,
            }
        };
        match rule {
            Rule::Reject => Err(Error::Policy { image: image.familiar(), why: format!("{} rejects it", self.path.display()) }),
            rule => Ok(rule),
        }
    }

    /// Whether an image of this name may come from where there are no signatures.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn accept_unsigned(&self, image: &Reference) -> Result<()> {
        match self.rule(image)? {
            Rule::Accept => Ok(()),
            _ => {
                let why = format!("{} wants a signature, and an archive has none: pull it", self.path.display());
                Err(Error::Policy { image: image.familiar(), why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::PrivateKey;

    fn policy(text: &str) -> Result<Policy> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.pub"), PrivateKey::generate("p").unwrap().1).unwrap();
        let path = directory.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        Policy::read(&path)
    }

    #[test]
    fn the_longest_name_that_fits_counts_and_only_whole_components() {
        let policy = policy(
            r#"
            default = "reject"
            [images]
            "r.example" = "accept"
            "r.example/team" = { signed-by = ["a.pub"] }
            "R.example:443/team/open" = "accept"
            "docker.io/library/debian" = { signed-by = ["a.pub"], identity = "any" }
            "#,
        )
        .unwrap();
        for (image, wanted) in [
            ("r.example/app:1", "accept"),
            ("r.example/team/app", "named"),
            ("r.example/team/open:2", "accept"),
            ("r.example/team/open2", "named"),
            ("r.example/teams/app", "accept"),
            ("R.Example/team/app", "named"),
            ("r.example:443/team/open:2", "accept"),
            ("registry-1.docker.io:443/library/debian:12", "any"),
            ("debian:12", "any"),
            ("debian2", "reject"),
            ("r.example:5000/team/app", "reject"),
        ] {
            let rule = match policy.rule(&image.parse().unwrap()) {
                Ok(Rule::Accept) => "accept",
                Ok(Rule::SignedBy { named: true, .. }) => "named",
                Ok(Rule::SignedBy { named: false, .. }) => "any",
                Ok(Rule::Reject) | Err(_) => "reject",
            };
            assert_eq!(rule, wanted, "{image}");
        }
    }

    #[test]
    fn a_wrong_policy_is_an_error_not_an_open_door() {
        for bad in [
            "default = \"maybe\"",
            "defaults = \"reject\"",
            "[images]\n\"r.example\" = \"signed\"",
            "[images]\n\"r.example\" = { signed-by = [] }",
            "[images]\n\"r.example\" = { signed-by = [\"missing.pub\"] }",
            "[images]\n\"r.example\" = { signed-by = [\"a.pub\"], identity = \"some\" }",
            "[images]\n\"r.example\" = { signed-by = [\"a.pub\"], by = \"x\" }",
            "[images]\n\"R.example\" = \"accept\"\n\"r.example\" = \"reject\"",
            "[images]\n\"debian\" = \"reject\"",
            "[images]\n\"r.example/UPPER\" = \"reject\"",
            "[images]\n\"r.example/\" = \"reject\"",
            "[images]\n\"\" = \"reject\"",
            "x",
        ] {
            assert!(policy(bad).is_err(), "{bad}");
        }
    }
}
