//! One layer: fetched, verified, unpacked, in place by one rename.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::{Job, verify};
use crate::download::{Download, Partial, hash};
use crate::error::{Attempt, Error, Result};
use crate::image::Descriptor;
use crate::name::Digest;
use crate::progress::LayerEvent;
use crate::store::NewLayer;
use crate::{erofs, files};

/// How often a layer is fetched that is wrong when it is here: from a few mirrors, and from its registry.
const ATTEMPTS_LIMIT: usize = 4;

/// A layer that is unpacked but has directories its archive does not describe: they take their
/// metadata from the layers below before it is put in place.
pub(super) struct Unadopted {
    at: usize,
    layer: NewLayer,
}

/// Brings one layer, number `at` from the bottom, into the store.
pub(super) fn fetch(job: &Job<'_>, at: usize, descriptor: &Descriptor, diff_id: &Digest) -> Result<Option<Unadopted>> {
    let exists = || job.store.has_blob(&descriptor.digest) && job.store.has_layer(diff_id);
    let report = |event| job.fetching.report(descriptor, event);
    if exists() {
        report(LayerEvent::Exists);
        return Ok(None);
    }
    if descriptor.is_foreign() {
        return Err(Error::invalid(
            format_args!("layer {}", descriptor.digest),
            "its licence keeps it out of registries; it cannot be fetched",
        ));
    }
    let partial_path = job.store.partial_path(&descriptor.digest);
    let partial = match files::lock_path(&partial_path, FlockOperation::NonBlockingLockExclusive)? {
        Some(file) => file,
        None => {
            report(LayerEvent::Waiting);
            files::lock_path(&partial_path, FlockOperation::LockExclusive)?
                .ok_or_else(|| Error::invalid("partial download", "its lock was refused"))?
        }
    };
    let layer = Layer { job, at, descriptor, diff_id, partial: &partial, partial_path: &partial_path };
    let unadopted = if exists() {
        discard(&partial_path);
        None
    } else if job.store.has_blob(&descriptor.digest) {
        discard(&partial_path);
        let path = job.store.blob_path(&descriptor.digest);
        let blob = File::open(&path).attempt(|| format!("open {}", path.display()))?;
        layer.unpack(blob, 0)?
    } else {
        layer.receive()?
    };
    report(LayerEvent::Complete);
    Ok(unadopted)
}

/// Puts the deferred layers in place, lowest first, after their implied directories took over the
/// metadata of the directories they stand over.
pub(super) fn adopt(job: &Job<'_>, mut deferred: Vec<Unadopted>, diff_ids: &[Digest]) -> Result<()> {
    deferred.sort_by_key(|layer| layer.at);
    for Unadopted { at, mut layer } in deferred {
        let below = diff_ids[..at].iter().rev().map(|diff_id| erofs::open_layer(&job.store.layer_path(diff_id)));
        let below = below.collect::<Result<Vec<OwnedFd>>>()?;
        let below: Vec<BorrowedFd<'_>> = below.iter().map(AsFd::as_fd).collect();
        layer.adopt(&below)?;
        layer.finish(&diff_ids[at])?.place(job.store, &diff_ids[at])?;
    }
    Ok(())
}

struct Layer<'a> {
    job: &'a Job<'a>,
    at: usize,
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    partial: &'a File,
    partial_path: &'a Path,
}

impl Layer<'_> {
    /// Fetches the blob and puts it in place, and unpacks it in the same pass. What turns out wrong although
    /// it was not fetched in one piece, or may come from elsewhere, is fetched once more from its beginning.
    fn receive(&self) -> Result<Option<Unadopted>> {
        let partial = Partial::new(self.partial, self.partial_path, self.descriptor.size);
        for attempt in 0..ATTEMPTS_LIMIT {
            let here = partial.load()?;
            let is_pieced = !here.is_empty();
            match self.receive_once(&partial, here, attempt) {
                Ok(unadopted) => {
                    partial.place(&self.job.store.blob_path(&self.descriptor.digest))?;
                    return Ok(unadopted);
                }
                Err(e @ (Error::Mismatch { .. } | Error::Invalid { .. })) => {
                    partial.clear()?;
                    let is_blob = matches!(&e, Error::Mismatch { expected, .. } if *expected == self.descriptor.digest);
                    let again = is_blob && (self.job.fetching.source.distrust(&self.descriptor.digest) || is_pieced);
                    if !again || attempt + 1 == ATTEMPTS_LIMIT {
                        discard(self.partial_path);
                        return Err(e);
                    }
                }
                // What arrived so far is good as far as anybody knows: kept, to be resumed.
                Err(e) => return Err(e),
            }
        }
        Err(Error::invalid(format_args!("layer {}", self.descriptor.digest), "no source has it as its digest promises"))
    }

    /// Fetches and, unless the layer is here under another compression, unpacks in the same pass.
    fn receive_once(&self, partial: &Partial<'_>, here: Vec<Range<u64>>, attempt: usize) -> Result<Option<Unadopted>> {
        self.job.fetching.fetch(self.descriptor, partial, here, |bytes| {
            if self.job.store.has_layer(self.diff_id) {
                let got = hash(bytes, self.descriptor, |_| Ok(()))?;
                return self.verify_blob(got).map(|()| None);
            }
            match self.unpack(&mut *bytes, attempt) {
                Err(e @ Error::Invalid { .. }) if !bytes.has_failed() => Err(self.blame(e, bytes)),
                unpacked => unpacked,
            }
        })
    }

    /// Whether undecodable bytes are the fault of the transfer (their digest is wrong) or of the image.
    fn blame(&self, malformed: Error, rest: &mut Download<'_, '_>) -> Error {
        let verdict = io::copy(rest, &mut io::sink())
            .and_then(|_| File::open(self.partial_path))
            .attempt(|| "verify a layer that cannot be unpacked")
            .and_then(|mut whole| hash(&mut whole, self.descriptor, |_| Ok(())))
            .and_then(|got| self.verify_blob(got));
        verdict.err().unwrap_or(malformed)
    }

    fn unpack(&self, compressed: impl Read + Send, attempt: usize) -> Result<Option<Unadopted>> {
        let name = format!("layer-{}-{attempt}", self.at);
        let algorithms = (self.descriptor.digest.algorithm(), self.diff_id.algorithm());
        let layer = NewLayer::unpack(self.job.form, self.job.lease, &name, compressed, algorithms, &self.job.options.unpack)
            .map_err(|e| match e {
                Error::Invalid { what, why } => Error::invalid(format_args!("layer {}, {what}", self.descriptor.digest), why),
                other => other,
            })?;
        let unpacked = layer.unpacked();
        self.verify_blob(unpacked.blob.clone())?;
        verify(|| format!("DiffID of layer {}", self.descriptor.digest), self.diff_id, unpacked.diff_id.clone())?;
        if unpacked.implied.is_empty() {
            layer.finish(self.diff_id)?.place(self.job.store, self.diff_id)?;
            return Ok(None);
        }
        Ok(Some(Unadopted { at: self.at, layer }))
    }

    fn verify_blob(&self, got: Digest) -> Result<()> {
        verify(|| format!("layer {}", self.descriptor.digest), &self.descriptor.digest, got)
    }
}

/// A partial download nobody needs; that it cannot be removed harms nothing.
fn discard(path: &Path) {
    let _ = std::fs::remove_file(path);
}
