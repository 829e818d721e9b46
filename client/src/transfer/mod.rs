//! Whole images on their way from one place to another: blobs in parallel, manifests after what they name, names last.
//!
//! Push and copy are this one thing between any [`Source`] and any [`Destination`]. Only what is missing travels.

mod files;
mod plan;
mod queue;
mod registry;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use longshore_runtime::Source;
use longshore_runtime::download::{self, Fetching};
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::Reference;
use longshore_runtime::parallel::{self, Cancel};
use longshore_runtime::progress::{LayerEvent, Progress};
use longshore_runtime::source::BlobReader;

pub use self::files::InLayout;
pub use self::plan::{Choice, Manifest, Plan, Root};
pub use self::registry::{Neighbours, Remote};
use crate::error::{Error, Result};
use crate::registry::Sent;

/// Where images go. What is not said of it is that of an archive: nothing is there before, and its manifests are in it from
/// its beginning.
pub trait Destination: Sync {
    /// Whether a blob is there.
    fn has_blob(&self, _blob: &Descriptor, _cancel: &Cancel<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Brings a blob there, verified. What may pass is tried again: an error is final.
    fn put_blob(&self, blob: &Moving<'_>) -> Result<Sent>;

    /// Whether a manifest is there, under its tag if it has one: what else is under that may be there, too.
    fn has_manifest(&self, _manifest: &Manifest) -> Result<bool> {
        Ok(false)
    }

    /// Stores a manifest by its digest, or adds it to what is under its tag. What it names is there.
    fn put_manifest(&self, _manifest: &Manifest) -> Result<()> {
        Ok(())
    }

    /// How long it takes to answer, at best, as far as that is known.
    fn latency(&self) -> Duration {
        Duration::ZERO
    }

    /// Gives the root its name, last of all.
    fn finish(&self, plan: &Plan) -> Result<()>;
}

/// How images are moved.
pub struct Transfer<'a> {
    /// From where.
    pub source: &'a dyn Source,
    /// What the source is asked for.
    pub reference: &'a Reference,
    /// Where to.
    pub destination: &'a dyn Destination,
    /// Blobs at a time; [as many](download::jobs) as the distance suggests, if nothing is said.
    pub jobs: Option<usize>,
    /// Who is told.
    pub progress: &'a Arc<dyn Progress>,
}

impl Transfer<'_> {
    /// Moves what is planned. The name moves last, when everything below it is there.
    pub fn run(&self, plan: &Plan) -> Result<()> {
        let blobs: Vec<Descriptor> = plan.blobs().cloned().collect();
        self.progress.layers(&blobs);
        let cancel = Cancel::default();
        let fetching = Fetching::new(self.source, self.reference, &**self.progress, &cancel);
        let jobs = self.jobs.unwrap_or_else(|| download::jobs(self.source.latency().max(self.destination.latency())));
        parallel::for_each(&blobs, jobs, &cancel, |_, blob| self.blob(&Moving { transfer: self, fetching: &fetching, blob }))?;
        plan.manifests().try_for_each(|manifest| self.destination.put_manifest(manifest))?;
        self.destination.finish(plan)
    }

    fn blob(&self, moving: &Moving<'_>) -> Result<()> {
        let digest = &moving.blob.digest;
        if self.destination.has_blob(moving.blob, moving.fetching.cancel)? {
            moving.report(LayerEvent::Exists);
            return Ok(());
        }
        loop {
            match self.destination.put_blob(moving) {
                Ok(Sent::Uploaded) => moving.report(LayerEvent::Complete),
                Ok(Sent::Mounted) => moving.report(LayerEvent::Exists),
                // A mirror's bytes were wrong: the next one's may be right.
                Err(Error::Runtime(longshore_runtime::Error::Mismatch { .. })) if self.source.distrust(digest) => continue,
                Err(e) => return Err(e),
            }
            return Ok(());
        }
    }
}

/// A blob on its way.
pub struct Moving<'a> {
    transfer: &'a Transfer<'a>,
    /// Where it comes from, and what ends that.
    pub fetching: &'a Fetching<'a>,
    /// Which.
    pub blob: &'a Descriptor,
}

impl Moving<'_> {
    /// Its bytes at the source from an offset on, not verified. They end soon after `cancel` is set.
    pub fn open<'a>(&'a self, offset: u64, cancel: &'a Cancel<'a>) -> longshore_runtime::Result<BlobReader<'a>> {
        self.fetching.source.blob(self.fetching.reference, self.blob, offset, cancel)
    }

    /// Tells what becomes of it.
    pub fn report(&self, event: LayerEvent) {
        self.fetching.report(self.blob, event);
    }

    fn progress(&self) -> Arc<dyn Progress> {
        Arc::clone(self.transfer.progress)
    }
}
