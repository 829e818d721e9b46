//! Pushing whole images: blobs in parallel, manifests after what they name.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use longshore_runtime::image::{Descriptor, Document};
use longshore_runtime::name::{Digest, Reference, RepoName};
use longshore_runtime::origin::Origin;
use longshore_runtime::parallel::{self, Cancel};
use longshore_runtime::progress::{LayerEvent, Progress};
use longshore_runtime::{RawManifest, Store};

use crate::error::{Error, Result};
use crate::registry::{Content, Repository, Sent};

/// Indexes within indexes.
const DEPTH_LIMIT: usize = 4;

/// Where an image goes.
#[derive(Debug)]
pub struct Destination<'a> {
    /// Its name there.
    pub reference: &'a Reference,
    /// The repository of that name.
    pub repository: &'a Repository,
    /// The other repositories of the same registry that blobs are known from.
    pub neighbours: Neighbours<'a>,
}

/// Sends an image to its destination. What the registry has already is not sent again; the tag moves
/// last, when everything below it is there.
pub fn push(destination: &Destination<'_>, origin: &Origin, jobs: usize, progress: &Arc<dyn Progress>) -> Result<()> {
    let mut plan = Plan::default();
    plan.add(origin, &origin.root, DEPTH_LIMIT)?;
    let blobs: Vec<Descriptor> = plan.blobs.into_values().collect();
    progress.layers(&blobs);
    let cancel = Cancel::default();
    parallel::for_each(&blobs, jobs, &cancel, |_, blob| push_blob(destination, origin, blob, &cancel, progress))?;
    for manifest in &plan.manifests {
        let top = manifest.digest == origin.root.digest;
        let identifier = if top { destination.reference.identifier() } else { manifest.digest.as_str() };
        destination.repository.put_manifest(identifier, manifest)?;
    }
    Ok(())
}

/// Which other repositories of a registry have which blobs, by the names that images in the store have:
/// from there they were pulled, or there they were pushed to.
#[derive(Debug)]
pub struct Neighbours<'a> {
    store: &'a Store,
    of: &'a Reference,
    known: OnceLock<BTreeMap<Digest, RepoName>>,
}

impl<'a> Neighbours<'a> {
    /// Those of the repository that `of` names. Reads nothing yet.
    pub fn new(store: &'a Store, of: &'a Reference) -> Self {
        Self { store, of, known: OnceLock::new() }
    }

    fn having(&self, blob: &Digest) -> Option<&RepoName> {
        self.known.get_or_init(|| self.read()).get(blob)
    }

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

/// What to send: every blob once, and the manifests, each after those it names.
#[derive(Default)]
struct Plan {
    blobs: BTreeMap<Digest, Descriptor>,
    manifests: Vec<RawManifest>,
}

impl Plan {
    fn add(&mut self, origin: &Origin, manifest: &RawManifest, depth_left: usize) -> Result<()> {
        match Document::parse(&manifest.media_type, &manifest.bytes)? {
            Document::Image(image) => {
                let blobs = image.layers.into_iter().filter(|layer| !layer.is_foreign()).chain([image.config]);
                self.blobs.extend(blobs.map(|blob| (blob.digest.clone(), blob)));
            }
            Document::Index(index) => {
                if depth_left == 0 {
                    return Err(longshore_runtime::Error::invalid("index", "indexes stand in it more than 4 deep").into());
                }
                for entry in &index.manifests {
                    self.add(origin, &origin.manifest(entry)?, depth_left - 1)?;
                }
            }
        }
        self.manifests.push(manifest.clone());
        Ok(())
    }
}

fn push_blob(
    destination: &Destination<'_>,
    origin: &Origin,
    blob: &Descriptor,
    cancel: &Cancel<'_>,
    progress: &Arc<dyn Progress>,
) -> Result<()> {
    let report = |event| progress.layer(&blob.digest, event);
    if destination.repository.has_blob(&blob.digest, cancel)? {
        report(LayerEvent::Exists);
        return Ok(());
    }
    let (_, size) = origin.blob(&blob.digest)?;
    if size != blob.size {
        let why = format!("it is {size} bytes long, its manifest says {}", blob.size);
        return Err(Error::Runtime(longshore_runtime::Error::invalid(format_args!("blob {}", blob.digest), why)));
    }
    report(LayerEvent::Started { total_bytes: size, resumed_bytes: 0 });
    let sent = {
        let (progress, digest) = (Arc::clone(progress), blob.digest.clone());
        move |bytes| progress.layer(&digest, LayerEvent::Moved(bytes))
    };
    let open = || Ok(origin.blob(&blob.digest)?.0);
    let mount_from = destination.neighbours.having(&blob.digest).cloned();
    let content = Content { digest: &blob.digest, size, open: &open, mount_from };
    match destination.repository.put_blob(&content, sent, cancel)? {
        Sent::Uploaded => report(LayerEvent::Complete),
        Sent::Mounted => report(LayerEvent::Exists),
    }
    Ok(())
}
