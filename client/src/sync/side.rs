//! One side of a sync: a repository, or an image layout with a tag for each image.

use std::path::PathBuf;
use std::str::FromStr;

use longshore_runtime::layout::Layout;
use longshore_runtime::name::{Digest, Reference, Tag};
use longshore_runtime::origin::Origin;
use longshore_runtime::source::Resolved;
use longshore_runtime::{Error, RawManifest, Source};

use crate::config::Registries;
use crate::credentials::Credentials;
use crate::deletion;
use crate::error::{self, Result};
use crate::registry::Repository;
use crate::transfer::{Choice, Destination, InLayout, Neighbours, Remote, Root};

/// What an image of a layout is called while it travels.
const NAMELESS: &str = "localhost/image";

/// A side as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `docker://HOST/PATH`, or that alone; without a tag.
    Registry(String),
    /// `oci:DIRECTORY`
    Layout(PathBuf),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let invalid = |why| Error::Name { what: "repository", input: s.chars().take(400).collect(), why };
        if let Some(dir) = s.strip_prefix("oci:") {
            return match dir {
                "" => Err(invalid("a directory must follow the colon")),
                dir if dir.contains(':') => Err(invalid("all tags are meant: choose some with --include")),
                dir => Ok(Self::Layout(dir.into())),
            };
        }
        let name = s.strip_prefix("docker://").unwrap_or(s).trim_end_matches('/');
        if name.contains("//") {
            return Err(invalid("docker:// and oci: are known"));
        }
        if name.contains('@') || name.rsplit_once('/').is_some_and(|(_, last)| last.contains(':')) {
            return Err(invalid("all tags are meant: choose some with --include"));
        }
        // Good if something can stand below it; a host with a port is not a repository with a tag.
        format!("{name}/x").parse::<Reference>()?;
        Ok(Self::Registry(name.into()))
    }
}

/// One side.
pub enum Side {
    /// A repository, by any reference of it.
    Registry(Box<Repository>, Reference),
    /// An image layout, which need not be there yet.
    Layout(PathBuf),
}

impl Side {
    /// Where images come from.
    pub fn source(address: &Address, credentials: Option<Credentials>) -> Result<Self> {
        match address {
            Address::Registry(name) => {
                let (repository, reference) = repository(name, credentials)?;
                Ok(Self::Registry(Box::new(repository), reference))
            }
            Address::Layout(dir) => {
                Layout::open(dir)?;
                Ok(Self::Layout(dir.clone()))
            }
        }
    }

    /// Where they go. In another registry a repository keeps the last part of its name, below the one that is given.
    pub fn destination(address: &Address, source: &Self, credentials: Option<Credentials>) -> Result<Self> {
        let name = match (address, source) {
            (Address::Layout(dir), _) => return Ok(Self::Layout(dir.clone())),
            (Address::Registry(name), Self::Layout(_)) => name.clone(),
            (Address::Registry(prefix), Self::Registry(_, from)) => {
                let name = from.repository().as_str();
                format!("{prefix}/{}", name.rsplit_once('/').map_or(name, |(_, last)| last))
            }
        };
        let (repository, reference) = repository(&name, credentials)?;
        Ok(Self::Registry(Box::new(repository.without_mirrors()), reference))
    }

    /// Its tags. What is not there yet has none, if that is `allowed`.
    pub fn tags(&self, allowed: bool) -> Result<Vec<Tag>> {
        match self {
            Self::Registry(repository, _) => match repository.tags() {
                Err(error::Error::Refused { answer, .. }) if allowed && answer.status == 404 => Ok(Vec::new()),
                other => other,
            },
            Self::Layout(dir) if allowed && !dir.join("oci-layout").exists() => Ok(Vec::new()),
            // Others have names in their layouts that are no tags.
            Self::Layout(dir) => {
                Ok(Layout::open(dir)?.named()?.into_iter().filter_map(|named| named.name.parse().ok()).collect())
            }
        }
    }

    /// What a tag stands for, by its digest alone; `None` where it stands for nothing, or only the manifest can tell.
    pub fn resolve(&self, tag: &Tag) -> Result<Option<Resolved>> {
        match self {
            Self::Registry(repository, reference) => repository.head_manifest(&tagged(reference, tag)?),
            Self::Layout(dir) if !dir.join("oci-layout").exists() => Ok(None),
            Self::Layout(dir) => {
                let named = Layout::open(dir)?.named()?.into_iter().find(|named| named.name == tag.as_str());
                Ok(named.map(|named| Resolved { digest: named.manifest.digest, media_type: named.manifest.media_type }))
            }
        }
    }

    /// Whether it has a manifest of this digest. A layout keeps what has lost its name: that does not count.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        match self {
            Self::Registry(repository, _) => repository.has_manifest(digest),
            Self::Layout(dir) => Ok(Layout::open(dir)?.reaches(digest)?),
        }
    }

    /// What a tag stands for, or the one of its images that is chosen; gives what it is read from, too.
    pub fn find(&self, tag: &Tag, choice: &Choice) -> Result<(Found<'_>, RawManifest)> {
        let found = match self {
            Self::Registry(repository, reference) => Found::Registry(repository, tagged(reference, tag)?),
            Self::Layout(dir) => Found::Layout(Box::new(Origin::from_layout(dir, Some(tag.as_str()))?), NAMELESS.parse()?),
        };
        let root = Root::find(found.source(), found.reference(), choice)?.manifest;
        Ok((found, root))
    }

    /// Brings an image here and gives it the tag.
    pub fn bring(&self, tag: &Tag, from: &Self, transfer: impl FnOnce(&dyn Destination) -> Result<()>) -> Result<()> {
        match self {
            Self::Registry(repository, reference) => {
                let reference = &tagged(reference, tag)?;
                let neighbours = match from {
                    Self::Registry(_, source) => Neighbours::source(source, reference),
                    Self::Layout(_) => Neighbours::Unknown,
                };
                transfer(&Remote { reference, repository, neighbours })
            }
            Self::Layout(dir) => transfer(&InLayout { layout: &Layout::open_or_create(dir)?, name: Some(tag.as_str()) }),
        }
    }

    /// Takes a tag away, never a manifest that another tag has.
    pub fn remove(&self, tag: &Tag) -> Result<()> {
        match self {
            Self::Registry(repository, reference) => deletion::delete(repository, &tagged(reference, tag)?, false).map(drop),
            Self::Layout(dir) => Ok(Layout::open(dir)?.unlist(tag.as_str())?),
        }
    }
}

/// What an image is read from.
pub enum Found<'a> {
    /// A repository, by its name there.
    Registry(&'a Repository, Reference),
    /// A layout.
    Layout(Box<Origin>, Reference),
}

impl Found<'_> {
    /// What holds it.
    pub fn source(&self) -> &dyn Source {
        match self {
            Self::Registry(repository, _) => *repository,
            Self::Layout(origin, _) => &**origin,
        }
    }

    /// What the source is asked for.
    pub fn reference(&self) -> &Reference {
        match self {
            Self::Registry(_, reference) | Self::Layout(_, reference) => reference,
        }
    }
}

fn repository(name: &str, credentials: Option<Credentials>) -> Result<(Repository, Reference)> {
    let reference: Reference = name.parse()?;
    Ok((Repository::with_credentials(&Registries::load()?, &reference, credentials)?, reference))
}

fn tagged(reference: &Reference, tag: &Tag) -> Result<Reference> {
    Ok(format!("{}:{tag}", reference.name()).parse()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_side_is_a_repository_or_a_layout_without_a_tag() {
        let parse = |s: &str| s.parse::<Address>().unwrap();
        assert_eq!(parse("docker://a.example/b/c"), Address::Registry("a.example/b/c".into()));
        assert_eq!(parse("localhost:5000"), Address::Registry("localhost:5000".into()));
        assert_eq!(parse("docker://localhost:5000/"), Address::Registry("localhost:5000".into()));
        assert_eq!(parse("oci:dir/a"), Address::Layout("dir/a".into()));
        for bad in ["", "oci:", "oci:dir:1", "docker://a/b:1", "a/b@sha256:00", "https://a/b", "docker://A/B"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_side_never_panics(text in "\\PC{0,60}", likely in "(docker|oci)?(:|//|[a-z./@]){0,12}") {
            let _ = (text.parse::<Address>(), likely.parse::<Address>());
        }
    }
}
