//! A registry as the place where images go.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use longshore_runtime::image::Descriptor;
use longshore_runtime::name::{Digest, Reference, RepoName, Tag};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::progress::LayerEvent;
use longshore_runtime::{RawManifest, Source, Store};

use super::stream::streamed;
use super::{Destination, Manifest, Moving, Plan};
use crate::error::Result;
use crate::registry::{Content, Repository, Sent};
use crate::signature::layers;

/// A name in a registry.
#[derive(Debug)]
pub struct Remote<'a> {
    /// The name.
    pub reference: &'a Reference,
    /// The repository of that name.
    pub repository: &'a Repository,
    /// The other repositories of the same registry that blobs are known from.
    pub neighbours: Neighbours<'a>,
}

impl Destination for Remote<'_> {
    fn has_blob(&self, blob: &Descriptor, cancel: &Cancel<'_>) -> Result<bool> {
        self.repository.has_blob(&blob.digest, cancel)
    }

    fn put_blob(&self, moving: &Moving<'_>) -> Result<Sent> {
        let blob = moving.blob;
        let sent = {
            let (progress, digest) = (moving.progress(), blob.digest.clone());
            move |bytes| progress.layer(&digest, LayerEvent::Moved(bytes))
        };
        streamed(moving, |open| {
            let mount_from = self.neighbours.having(&blob.digest).cloned();
            let content = Content { digest: &blob.digest, size: blob.size, open, mount_from };
            self.repository.put_blob(&content, sent, moving.fetching.cancel)
        })
    }

    fn latency(&self) -> Duration {
        self.repository.latency()
    }

    fn has_manifest(&self, manifest: &Manifest) -> Result<bool> {
        let RawManifest { digest, .. } = &manifest.raw;
        match &manifest.tag {
            Some(tag) => {
                let existing = layers::find(self.repository, &self.tagged(tag)?)?;
                Ok(existing.is_some() && layers::with(existing.as_ref(), &manifest.raw, tag.as_str())?.is_none())
            }
            None => self.repository.has_manifest(digest),
        }
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        match (&manifest.tag, &manifest.subject) {
            // It may have others there.
            (Some(tag), _) => layers::add(self.repository, &self.tagged(tag)?, &manifest.raw),
            (None, Some(subject)) => self.repository.put_referrer(&manifest.raw, subject).map(drop),
            (None, None) => self.repository.put_manifest(manifest.raw.digest.as_str(), &manifest.raw),
        }
    }

    fn finish(&self, plan: &Plan) -> Result<()> {
        match self.reference.tag().filter(|tag| self.reference.digest().is_none() && layers::is_added_to(tag)) {
            Some(_) => layers::add(self.repository, self.reference, &plan.root),
            None => self.repository.put_manifest(self.reference.identifier(), &plan.root),
        }
    }
}

impl Remote<'_> {
    fn tagged(&self, tag: &Tag) -> Result<Reference> {
        Ok(format!("{}:{tag}", self.reference.name()).parse()?)
    }
}

/// Which other repositories of a registry have which blobs.
#[derive(Debug)]
pub enum Neighbours<'a> {
    /// None is known.
    Unknown,
    /// This one has whatever it is.
    All(&'a RepoName),
    /// By the names that images in the store have: from there they were pulled, or there they were pushed to.
    Stored(StoredNeighbours<'a>),
}

impl<'a> Neighbours<'a> {
    /// Those of the repository that `of` names, as far as the store knows. Reads nothing yet.
    pub fn in_store(store: &'a Store, of: &'a Reference) -> Self {
        Self::Stored(StoredNeighbours { store, of, known: OnceLock::new() })
    }

    /// The source of a copy, where it is in the same registry.
    pub fn source(source: &'a Reference, of: &Reference) -> Self {
        let is_neighbour = source.registry() == of.registry() && source.repository() != of.repository();
        if is_neighbour { Self::All(source.repository()) } else { Self::Unknown }
    }

    fn having(&self, blob: &Digest) -> Option<&RepoName> {
        match self {
            Self::Unknown => None,
            Self::All(repository) => Some(repository),
            Self::Stored(stored) => stored.known.get_or_init(|| stored.read()).get(blob),
        }
    }
}

/// What the store knows of a registry.
#[derive(Debug)]
pub struct StoredNeighbours<'a> {
    store: &'a Store,
    of: &'a Reference,
    known: OnceLock<BTreeMap<Digest, RepoName>>,
}

impl StoredNeighbours<'_> {
    /// A store that cannot be read knows none: the blob is sent, then.
    fn read(&self) -> BTreeMap<Digest, RepoName> {
        let images: Vec<_> = self.store.images().into_iter().flatten().flatten().collect();
        let mut known = BTreeMap::new();
        for image in &images {
            let is_neighbour =
                |name: &&Reference| name.registry() == self.of.registry() && name.repository() != self.of.repository();
            if let Some(name) = image.names.iter().find(is_neighbour) {
                known.extend(image.blobs().map(|blob| (blob.clone(), name.repository().clone())));
            }
        }
        known
    }
}
