//! Where images lie, in skopeo's words: `docker://`, `oci:`, `oci-archive:`, `docker-archive:`, and `store:`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::name::Reference;

/// An image named by where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A name alone: the verb says of what.
    Name(String),
    /// `store:IMAGE`, in the local store.
    Store(String),
    /// `docker://NAME[:TAG|@DIGEST]`, in a registry.
    Registry(Reference),
    /// `oci:DIRECTORY[:TAG]`
    OciLayout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:REFERENCE]`
    DockerArchive(PathBuf, Option<String>),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let invalid = |why| Error::Name { what: "image location", input: s.chars().take(400).collect(), why };
        if let Some(name) = s.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse()?));
        }
        let Some((kind, rest)) = s.split_once(':') else { return Ok(Self::Name(s.into())) };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (PathBuf::from(path), Some(tag.to_owned())),
            None => (PathBuf::from(rest), None),
        };
        let is_file = matches!(kind, "oci" | "oci-archive" | "docker-archive");
        if is_file && path.as_os_str().is_empty() {
            return Err(invalid("a path must follow the colon"));
        }
        if is_file && tag.as_ref().is_some_and(String::is_empty) {
            return Err(invalid("a tag must follow the second colon"));
        }
        Ok(match kind {
            "oci" => Self::OciLayout(path, tag),
            "oci-archive" => Self::OciArchive(path, tag),
            "docker-archive" => Self::DockerArchive(path, tag),
            "store" if rest.is_empty() => return Err(invalid("the name of an image must follow the colon")),
            "store" => Self::Store(rest.into()),
            _ if rest.starts_with("//") => {
                return Err(invalid("docker://, oci:, oci-archive:, docker-archive: and store: are known"));
            }
            _ => Self::Name(s.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locations_read_as_skopeo_writes_them() {
        let parse = |s: &str| s.parse::<Location>().unwrap();
        assert_eq!(parse("docker://a/b:1"), Location::Registry("a/b:1".parse().unwrap()));
        assert_eq!(parse("oci:dir:1.0"), Location::OciLayout("dir".into(), Some("1.0".into())));
        assert_eq!(parse("oci:/a/b"), Location::OciLayout("/a/b".into(), None));
        assert_eq!(parse("oci-archive:x.tar"), Location::OciArchive("x.tar".into(), None));
        assert_eq!(parse("docker-archive:x.tar:a:1"), Location::DockerArchive("x.tar".into(), Some("a:1".into())));
        assert_eq!(parse("store:app:1"), Location::Store("app:1".into()));
        assert_eq!(parse("localhost:5000/a:1"), Location::Name("localhost:5000/a:1".into()));
        assert_eq!(parse("app"), Location::Name("app".into()));
        for bad in ["oci:", "oci::1", "oci:dir:", "store:", "docker://", "docker://A", "https://a/b", "dir://x"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_location_never_panics(text in "\\PC{0,60}", tail in "(oci|oci-archive|docker-archive|store|docker)(:|//|[a-z./]){0,12}") {
            let _ = (text.parse::<Location>(), tail.parse::<Location>());
        }
    }
}
