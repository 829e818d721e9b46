//! A registry as the place where images go.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use longshore_runtime::Store;
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::{Digest, Reference, RepoName};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::progress::LayerEvent;

use super::stream::streamed;
use super::{Destination, Manifest, Moving, Plan};
use crate::error::Result;
use crate::registry::{Content, Repository, Sent};

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
            self.repository.put_blob(&content, sent, moving.cancel)
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let identifier = manifest.name().unwrap_or(manifest.raw.digest.as_str());
        match &manifest.subject {
            Some(subject) => self.repository.put_referrer(&manifest.raw, subject).map(drop),
            None => self.repository.put_manifest(identifier, &manifest.raw),
        }
    }

    fn finish(&self, plan: &Plan) -> Result<()> {
        self.repository.put_manifest(self.reference.identifier(), &plan.root)
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
