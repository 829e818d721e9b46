//! References: `[host[:port]/]repository[:tag][@digest]`, with Docker's defaults.
//!
//! Hand-written because oci-spec's compiles a regular expression on first use (34 ms), refuses IPv6
//! hosts and accepts uppercase repositories.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::Error;

/// The registry meant when a reference names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The longest repository name, in bytes (distribution-spec, "Pulling manifests": implementations
/// limit registry host plus name to 255).
const REPOSITORY_LIMIT_BYTES: usize = 255;

/// A repository name: slash-separated components of lowercase letters and digits, joined inside by
/// `.`, `_`, `__` or dashes (distribution-spec, "Pulling manifests").
///
/// Safe as a relative path: no component is empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(Box<str>);

impl RepoName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Name { what: "repository name", input: s.chars().take(300).collect(), why };
        if s.len() > REPOSITORY_LIMIT_BYTES {
            return Err(invalid("it is longer than 255 bytes"));
        }
        if s.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("it must be lowercase"));
        }
        if !s.split('/').all(is_path_component) {
            return Err(invalid("each part between slashes must be letters and digits, joined by '.', '_', '__' or dashes"));
        }
        Ok(Self(s.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = bytes.first().is_some_and(|&b| alphanumeric(b)) && bytes.last().is_some_and(|&b| alphanumeric(b));
    ends_well
        && bytes.split(|&b| alphanumeric(b)).all(|separator| match separator {
            [] | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|&b| b == b'-'),
        })
}

impl<'de> serde::Deserialize<'de> for RepoName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first_ok = s.bytes().next().is_some_and(word);
        if first_ok && s.len() <= 128 && s.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
            Ok(Self(s.into()))
        } else {
            let why = "it must be 1 to 128 letters, digits, '_', '.' or '-', and not start with '.' or '-'";
            Err(Error::Name { what: "tag", input: s.chars().take(160).collect(), why })
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Tag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An image by name: `mysql:5.7` is `docker.io/library/mysql:5.7`; without tag and digest, the tag
/// is `latest`. At least one of `tag` and `digest` is present; a digest wins over a tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: Box<str>,
    repository: RepoName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's `host[:port]`, never empty; `docker.io` by default.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository inside the registry.
    pub fn repository(&self) -> &RepoName {
        &self.repository
    }

    /// The tag, if one was given or defaulted.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if the reference is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image, pinned to a digest (the tag is dropped).
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// `registry/repository` in full.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What stands in a registry's manifest URL: the digest if pinned, else the tag.
    pub fn identifier(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag.as_str(),
            (None, None) => unreachable!("a reference has a tag or a digest"),
        }
    }

    /// `registry/repository` as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if &*self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let name = self.repository.as_str();
        match name.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest.into(),
            _ => name.into(),
        }
    }

    /// The whole reference as people write it.
    pub fn familiar(&self) -> String {
        self.render(self.familiar_name())
    }

    fn render(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag.as_str());
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Name { what: "reference", input: s.chars().take(400).collect(), why };
        if s.is_empty() {
            return Err(invalid("it is empty"));
        }
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (s, None),
        };
        // A colon after the last slash starts a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.ends_with(']') => (name, Some(tag.parse::<Tag>()?)),
            _ => (rest, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) => (host, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err(invalid("its registry must read host[:port], the port from 1 to 65535"));
        }
        // Docker's own aliases for its hub.
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}").parse()?
        } else {
            repository.parse()?
        };
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".parse()?),
            (tag, _) => tag,
        };
        Ok(Self { registry: registry.into(), repository, tag, digest })
    }
}

/// Docker's rule: the first part is a host if it has a dot or a colon, is `localhost`, or could not
/// be a repository part because it has uppercase letters.
fn is_host_like(part: &str) -> bool {
    part == "localhost" || part.bytes().any(|b| matches!(b, b'.' | b':' | b'[') || b.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.len() <= 253 && host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(s: &str) -> String {
        s.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn dockers_defaults_apply() {
        assert_eq!(full("mysql"), "docker.io/library/mysql:latest");
        assert_eq!(full("mysql:5.7"), "docker.io/library/mysql:5.7");
        assert_eq!(full("team/app"), "docker.io/team/app:latest");
        assert_eq!(full("index.docker.io/mysql"), "docker.io/library/mysql:latest");
        assert_eq!(full("localhost/app"), "localhost/app:latest");
        assert_eq!(full("localhost:5000/team/app:1.2"), "localhost:5000/team/app:1.2");
        assert_eq!(full("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(full("[::1]/a:b"), "[::1]/a:b");
        assert_eq!(full("h.example/a/b/blobs"), "h.example/a/b/blobs:latest");
    }

    #[test]
    fn a_digest_stands_without_a_tag_and_beside_one() {
        let digest = Digest::of(b"x");
        assert_eq!(full(&format!("a@{digest}")), format!("docker.io/library/a@{digest}"));
        let both: Reference = format!("a:1@{digest}").parse().unwrap();
        assert_eq!(both.identifier(), digest.as_str());
        assert_eq!(both.tag().unwrap().as_str(), "1");
    }

    #[test]
    fn names_are_shown_as_people_write_them() {
        let familiar = |s: &str| s.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/mysql:5.7"), "mysql:5.7");
        assert_eq!(familiar("team/app"), "team/app:latest");
        assert_eq!(familiar("localhost:5000/a:1"), "localhost:5000/a:1");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "A",
            "a//b",
            "a/../b",
            "a/./b",
            "..",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:",
            "a:-1",
            "a@",
            "a@sha256:1",
            "host:99999/a",
            "host:0/a",
            "host:x/a",
            "[::1/a",
            "[nope]:1/a",
            "-h.x/a",
            "a b",
            "a\n",
            "a\u{1b}[2J",
            "h..x/a",
            &long,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_it_prints_it_reads_again(s in "\\PC{0,80}") {
            if let Ok(reference) = s.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn names_of_the_right_shape_round_trip(s in "([a-z]{1,5}\\.[a-z]{1,5}(:[1-9][0-9]{0,3})?/)?[a-z0-9]{1,5}([._-][a-z0-9]{1,4})?(/[a-z0-9]{1,4}){0,2}(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,8})?") {
            let reference: Reference = s.parse().unwrap();
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }

        #[test]
        fn a_repository_name_is_a_safe_relative_path(s in "[a-z0-9._/-]{0,40}") {
            if let Ok(name) = s.parse::<RepoName>() {
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
