//! Pulling: from a [`Source`] into the store, verified and unpacked in one pass over the bytes.

mod layer;
mod resume;

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::image::{CONFIG_LIMIT_BYTES, Descriptor, Document, ImageConfig, Manifest};
use crate::name::{Digest, MANIFEST_LIMIT_BYTES, Platform, Reference};
use crate::progress::Progress;
use crate::source::{RawManifest, Source};
use crate::store::{LayerForm, Lease, Store};
use crate::{files, parallel, unpack};

/// Layers fetched and unpacked at the same time unless told otherwise.
pub const DEFAULT_JOBS: usize = 4;

/// What a pull needs to know beside the name.
#[derive(Debug)]
pub struct Options {
    /// Which image of an index.
    pub platform: Platform,
    /// Layers at a time.
    pub jobs: usize,
    /// How layers are written.
    pub unpack: unpack::Options,
    /// What layers become; when nothing is said, the best that works here.
    pub form: Option<LayerForm>,
    /// Whether the reference becomes the image's name.
    pub named: bool,
    /// What has happened, for the store's events: `pull` or `load`.
    pub action: &'static str,
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
    options: &Options,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let lease = store.lease()?;
    let resolved = fetch_manifest(source, reference)?;
    let (raw, manifest) = choose_image(source, reference, &resolved, &options.platform)?;
    let layers = || manifest.layers.iter();
    lease.add([&resolved.digest, &raw.digest, &manifest.config.digest].into_iter().chain(layers().map(|layer| &layer.digest)))?;

    let config_bytes = fetch_config(store, source, reference, &manifest.config)?;
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
    fetch_layers(
        &Job { store, source, reference, options, progress, lease: &lease, form, cancelled: AtomicBool::new(false) },
        &manifest,
        diff_ids,
    )?;

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
    source: &'a dyn Source,
    reference: &'a Reference,
    options: &'a Options,
    progress: &'a dyn Progress,
    lease: &'a Lease,
    /// What layers become.
    form: LayerForm,
    /// Set by the first layer that fails.
    cancelled: AtomicBool,
}

fn fetch_layers(job: &Job<'_>, manifest: &Manifest, diff_ids: &[Digest]) -> Result<()> {
    let unadopted = Mutex::new(Vec::new());
    parallel::for_each(&manifest.layers, job.options.jobs, &job.cancelled, |at, descriptor| {
        let layer = layer::fetch(job, at, descriptor, &diff_ids[at])?;
        unadopted.lock().unwrap_or_else(PoisonError::into_inner).extend(layer);
        Ok(())
    })?;
    layer::adopt(job, unadopted.into_inner().unwrap_or_else(PoisonError::into_inner), diff_ids)
}

/// The image for `platform`: the document itself, or the one an index names.
fn choose_image(
    source: &dyn Source,
    reference: &Reference,
    resolved: &RawManifest,
    platform: &Platform,
) -> Result<(RawManifest, Manifest)> {
    let index = match Document::parse(&resolved.media_type, &resolved.bytes)? {
        Document::Image(manifest) => return Ok((resolved.clone(), manifest)),
        Document::Index(index) => index,
    };
    let entry = index.choose(platform).ok_or_else(|| Error::NotFound {
        what: format!("image {reference} for {platform}"),
        hint: format!("it is made for {}; choose one with --platform", index.platforms()),
    })?;
    let raw = fetch_manifest(source, &reference.with_digest(entry.digest.clone()))?;
    match Document::parse(&raw.media_type, &raw.bytes)? {
        Document::Image(manifest) => Ok((raw, manifest)),
        Document::Index(_) => Err(Error::invalid(format_args!("image {reference}"), "its index names another index")),
    }
}

/// A manifest whose own bytes, not a header, match the digest asked for (GHSA-qv35).
fn fetch_manifest(source: &dyn Source, reference: &Reference) -> Result<RawManifest> {
    let raw = source.manifest(reference)?;
    if raw.bytes.len() > MANIFEST_LIMIT_BYTES {
        return Err(Error::invalid(format_args!("manifest of {reference}"), "it is longer than 4 MiB"));
    }
    if let Some(expected) = reference.digest() {
        let mut hasher = expected.algorithm().hasher();
        hasher.update(&raw.bytes);
        verify(|| format!("manifest of {reference}"), expected, hasher.finish())?;
        return Ok(RawManifest { digest: expected.clone(), ..raw });
    }
    Ok(raw)
}

fn fetch_config(store: &Store, source: &dyn Source, reference: &Reference, config: &Descriptor) -> Result<Vec<u8>> {
    if store.has_blob(&config.digest) {
        return files::read_bounded(&store.blob_path(&config.digest), CONFIG_LIMIT_BYTES);
    }
    let what = || format!("configuration of {reference}");
    if config.size > CONFIG_LIMIT_BYTES {
        return Err(Error::invalid(what(), "it is longer than 8 MiB"));
    }
    let mut bytes = Vec::new();
    let reader = source.blob(reference, &config.digest, 0)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, config.size), &mut bytes)
        .map_err(|e| Error::io(format_args!("fetch {}", what()), e))?;
    let mut hasher = config.digest.algorithm().hasher();
    hasher.update(&bytes);
    verify(what, &config.digest, hasher.finish())?;
    Ok(bytes)
}

fn verify(what: impl FnOnce() -> String, expected: &Digest, got: Digest) -> Result<()> {
    if got == *expected { Ok(()) } else { Err(Error::Mismatch { what: what(), expected: expected.clone(), got }) }
}
