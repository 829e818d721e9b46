//! Pulling: from a [`Source`] into the store, verified and unpacked in one pass over the bytes.

mod layer;
mod manifest;

use std::sync::{Mutex, PoisonError};

use self::manifest::Documents;
use crate::download::{self, Fetching};
use crate::error::{Error, Result};
use crate::image::{ImageConfig, Manifest};
use crate::name::{Digest, Platform, Reference};
use crate::parallel::Cancel;
use crate::progress::Progress;
use crate::source::Source;
use crate::store::{LayerForm, Lease, Store};
use crate::{parallel, unpack};

/// Says no to an image that is not to be pulled, by the digest of what its name stands for and its own.
pub type Approve<'a> = dyn Fn(&Digest, &Digest) -> Result<()> + Sync + 'a;

/// What a pull needs to know beside the name.
pub struct Options<'a> {
    /// Which image of an index.
    pub platform: Platform,
    /// Layers at a time; [as many](download::jobs) as the source's distance suggests, if nothing is said.
    pub jobs: Option<usize>,
    /// How layers are written.
    pub unpack: unpack::Options,
    /// What layers become; when nothing is said, the best that works here.
    pub form: Option<LayerForm>,
    /// Whether the reference becomes the image's name.
    pub named: bool,
    /// What has happened, for the store's events: `pull` or `load`.
    pub action: &'static str,
    /// Asked before anything but the manifest is fetched.
    pub approve: &'a Approve<'a>,
}

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// The digest the name stands for in the registry.
    pub resolved: Digest,
    /// The image ID.
    pub image_id: Digest,
    /// Whether the name stood for the same image here before.
    pub up_to_date: bool,
}

/// Brings an image into the store under the name of `reference`.
///
/// Layers already here are not fetched again, one half here is resumed. On an error the store keeps
/// whole, verified layers and resumable downloads, and no name changes.
pub fn pull(
    store: &Store,
    source: &dyn Source,
    reference: &Reference,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let lease = store.lease()?;
    let documents = Documents { store, source, reference };
    let resolved = documents.resolve()?;
    let (raw, manifest) = documents.choose_image(&resolved, &options.platform)?;
    (options.approve)(&resolved.digest, &raw.digest)?;
    let layers = || manifest.layers.iter();
    lease.add([&resolved.digest, &raw.digest, &manifest.config.digest].into_iter().chain(layers().map(|layer| &layer.digest)))?;

    let config_bytes = documents.config(&manifest.config)?;
    let config = ImageConfig::parse(&config_bytes)?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let why = format!("it has {} layers and {} DiffIDs", manifest.layers.len(), diff_ids.len());
        return Err(Error::invalid(format_args!("image {reference}"), why));
    }
    lease.add(diff_ids)?;

    let up_to_date =
        store.find(&reference.to_string()).ok().flatten().is_some_and(|image| {
            image.raw.digest == raw.digest && image.diff_ids().iter().all(|diff_id| store.has_layer(diff_id))
        });
    progress.layers(&manifest.layers);
    let form = if diff_ids.iter().all(|diff_id| store.has_layer(diff_id)) {
        LayerForm::Directory // of no layer
    } else {
        LayerForm::choose(options.form, &lease, options.unpack.userxattr)?
    };
    let cancel = Cancel::default();
    let fetching = Fetching::new(source, reference, progress, &cancel);
    fetch_layers(&Job { store, fetching, options, lease: &lease, form }, &manifest, diff_ids)?;

    lease.put_blob(&manifest.config.digest, &config_bytes)?;
    lease.put_blob(&raw.digest, &raw.bytes)?;
    lease.put_blob(&resolved.digest, &resolved.bytes)?;
    store.put_image(options.named.then_some(reference), &raw, &resolved.digest)?;
    store.tell_image(options.action, &reference.familiar(), &reference.familiar_name(), &config.config.labels);
    Ok(Pulled { resolved: resolved.digest, image_id: manifest.config.digest, up_to_date })
}

/// What all layers of one pull share.
struct Job<'a> {
    store: &'a Store,
    fetching: Fetching<'a>,
    options: &'a Options<'a>,
    lease: &'a Lease,
    /// What layers become.
    form: LayerForm,
}

fn fetch_layers(job: &Job<'_>, manifest: &Manifest, diff_ids: &[Digest]) -> Result<()> {
    let unadopted = Mutex::new(Vec::new());
    let jobs = job.options.jobs.unwrap_or_else(|| download::jobs(job.fetching.source.latency()));
    parallel::for_each(&manifest.layers, jobs, job.fetching.cancel, |at, descriptor| {
        let layer = layer::fetch(job, at, descriptor, &diff_ids[at])?;
        unadopted.lock().unwrap_or_else(PoisonError::into_inner).extend(layer);
        Ok(())
    })?;
    layer::adopt(job, unadopted.into_inner().unwrap_or_else(PoisonError::into_inner), diff_ids)
}

fn verify(what: impl FnOnce() -> String, expected: &Digest, got: Digest) -> Result<()> {
    if got == *expected { Ok(()) } else { Err(Error::Mismatch { what: what(), expected: expected.clone(), got }) }
}
