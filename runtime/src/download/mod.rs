//! Fetching blobs into files: over several connections where one is slow, and from where an earlier attempt stopped.
//!
//! Whoever wants a blob reads it [in order](Download), from whichever part of it is here. What comes is in the
//! [partial file](Partial) before it is handed on, so that nothing that has come is fetched again.

mod crew;
mod hash;
mod ordered;
mod pace;
mod partial;
mod plan;

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use self::crew::Transfer;
pub(crate) use self::hash::hash;
pub(crate) use self::ordered::Download;
pub(crate) use self::partial::Partial;
use crate::error::Result;
use crate::image::Descriptor;
use crate::name::Reference;
use crate::parallel::Cancel;
use crate::progress::{LayerEvent, Progress};
use crate::source::{BlobReader, Source};

/// Blobs moved at a time.
const JOBS: usize = 4;

/// Blobs moved at a time over a long way, where each connection waits for most of its time.
const FAR_JOBS: usize = 20;

/// Memory that a program keeps between two buffers.
const KEPT_BYTES: i32 = 4 << 20;

/// A registry is far away if it takes so long to answer.
pub(crate) const FAR: Duration = Duration::from_millis(40);

/// How many blobs are moved at a time where nobody has chosen, to or from what takes `latency` to answer.
pub fn jobs(latency: Duration) -> usize {
    if latency >= FAR { FAR_JOBS } else { JOBS }
}

/// Prepares a program that moves many blobs at a time: their buffers are given back to one heap and not kept in one of each
/// thread's. Call it before there are threads.
pub fn prepare() {
    crate::sys::share_heap(KEPT_BYTES);
}

/// What all blobs of one image have in common on their way here.
pub struct Fetching<'a> {
    /// From where they come.
    pub source: &'a dyn Source,
    /// What the source is asked for.
    pub reference: &'a Reference,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Set by the first that fails.
    pub cancel: &'a Cancel<'a>,
    /// How many connections beyond one a blob there are.
    helpers: AtomicUsize,
}

impl<'a> Fetching<'a> {
    /// Blobs of the image that `source` has as `reference`.
    pub fn new(source: &'a dyn Source, reference: &'a Reference, progress: &'a dyn Progress, cancel: &'a Cancel<'a>) -> Self {
        Self { source, reference, progress, cancel, helpers: AtomicUsize::new(0) }
    }

    /// Brings a blob into its partial file, of which some is `here`, while `read` reads all of it in order.
    pub(crate) fn fetch<T>(
        &self,
        blob: &Descriptor,
        partial: &Partial<'_>,
        here: Vec<Range<u64>>,
        read: impl FnOnce(&mut Download<'_, '_>) -> Result<T>,
    ) -> Result<T> {
        let resumed_bytes = here.iter().map(|range| range.end - range.start).sum();
        self.report(blob, LayerEvent::Started { total_bytes: blob.size, resumed_bytes });
        let transfer = Transfer::new(self, blob, partial, here);
        std::thread::scope(|scope| {
            let mut bytes = Download::new(&transfer, scope);
            let read = read(&mut bytes);
            // In full: what a reader says of it is brief.
            read.map_err(|e| bytes.take_failure().unwrap_or(e))
        })
    }

    /// A blob's bytes from its beginning, over one connection.
    pub(crate) fn open(&self, blob: &Descriptor) -> Result<BlobReader<'_>> {
        self.source.blob(self.reference, blob, 0, self.cancel)
    }

    /// Tells what becomes of a blob.
    pub fn report(&self, blob: &Descriptor, event: LayerEvent) {
        self.progress.layer(&blob.digest, event);
    }
}
