//! Pushing whole images: blobs in parallel, manifests after what they name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use longshore_runtime::image::{Descriptor, Document};
use longshore_runtime::name::Digest;
use longshore_runtime::origin::Origin;
use longshore_runtime::progress::{LayerEvent, Progress};
use longshore_runtime::{RawManifest, parallel};

use crate::error::{Error, Result};
use crate::registry::Repository;

/// Indexes within indexes.
const DEPTH_LIMIT: usize = 4;

/// Sends an image, under `identifier` (a tag or a digest), to a repository. What the registry has
/// already is not sent again; the tag moves last, when everything below it is there.
pub fn push(repository: &Repository, origin: &Origin, identifier: &str, jobs: usize, progress: &Arc<dyn Progress>) -> Result<()> {
    let mut plan = Plan::default();
    plan.add(origin, &origin.root, DEPTH_LIMIT)?;
    let blobs: Vec<Descriptor> = plan.blobs.into_values().collect();
    progress.layers(&blobs);
    parallel::for_each(&blobs, jobs, &AtomicBool::new(false), |_, blob| push_blob(repository, origin, blob, progress))?;
    for manifest in &plan.manifests {
        let top = manifest.digest == origin.root.digest;
        repository.put_manifest(if top { identifier } else { manifest.digest.as_str() }, manifest)?;
    }
    Ok(())
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

fn push_blob(repository: &Repository, origin: &Origin, blob: &Descriptor, progress: &Arc<dyn Progress>) -> Result<()> {
    let report = |event| progress.layer(&blob.digest, event);
    if repository.has_blob(&blob.digest)? {
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
    repository.put_blob(&blob.digest, size, || Ok(origin.blob(&blob.digest)?.0), sent)?;
    report(LayerEvent::Complete);
    Ok(())
}
