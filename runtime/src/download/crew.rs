//! Several connections for one blob: helpers that fetch ahead of whoever reads it in order.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::Fetching;
use super::partial::Partial;
use super::plan::{ClaimId, Plan, rate};
use crate::error::{Attempt, Result};
use crate::image::Descriptor;
use crate::parallel::Cancel;
use crate::progress::LayerEvent;

/// Helpers of all blobs of an image together.
const HELPERS_LIMIT: usize = 16;

/// How long a helper without work does not look for some.
const IDLE: Duration = Duration::from_millis(200);

/// A download as all its connections see it.
pub(crate) struct Transfer<'a> {
    pub(super) fetching: &'a Fetching<'a>,
    pub(super) descriptor: &'a Descriptor,
    pub(super) partial: &'a Partial<'a>,
    /// Set when the download ends, however it ends.
    pub(super) cancel: Cancel<'a>,
    plan: Mutex<Plan>,
    /// Bytes have come, or a helper has ended.
    news: Condvar,
    helpers: AtomicUsize,
    /// The source has no ranges, or takes no more connections.
    alone: AtomicBool,
}

impl<'a> Transfer<'a> {
    /// A download that goes on with what is `here`.
    pub(crate) fn new(
        fetching: &'a Fetching<'a>,
        descriptor: &'a Descriptor,
        partial: &'a Partial<'a>,
        here: Vec<Range<u64>>,
    ) -> Self {
        Self {
            fetching,
            descriptor,
            partial,
            cancel: Cancel::of(fetching.cancel),
            plan: Mutex::new(Plan::new(descriptor.size, here)),
            news: Condvar::new(),
            helpers: AtomicUsize::new(0),
            alone: AtomicBool::new(!partial.can_journal()),
        }
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self, event: LayerEvent) {
        self.fetching.report(self.descriptor, event);
    }

    /// Waits for bytes, or for so long.
    pub(super) fn wait_for_news(&self, limit: Duration) {
        drop(self.news.wait_timeout(self.plan(), limit).unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes the next bytes of a claim down. Gives how many of them, none if the claim was taken away, and
    /// how many it has left.
    pub(super) fn keep(&self, claim: ClaimId, position: u64, bytes: &[u8]) -> Result<(usize, u64)> {
        let kept = self.plan().reserve(claim, bytes.len() as u64) as usize;
        self.partial.write_at(&bytes[..kept], position)?;
        let mut plan = self.plan();
        let left_bytes = plan.arrived(claim, Instant::now());
        let whole: Vec<u64> = plan.whole_chunks(position..position + kept as u64).collect();
        drop(plan);
        self.news.notify_all();
        self.report(LayerEvent::Arrived(kept as u64));
        self.partial.note(&whole)?;
        Ok((kept, left_bytes))
    }

    pub(super) fn helpers(&self) -> usize {
        self.helpers.load(Ordering::Relaxed)
    }

    pub(super) fn allows_helpers(&self) -> bool {
        !self.alone.load(Ordering::Relaxed)
    }

    /// Ends all work on it.
    pub(super) fn end(&self) {
        self.cancel.set();
        self.news.notify_all();
    }

    /// Makes ready for bytes out of order.
    pub(super) fn begin_ranges(&self) -> Result<()> {
        let whole: Vec<u64> = self.plan().whole_chunks(0..self.descriptor.size).collect();
        self.partial.start_journal(whole)
    }

    /// Has up to `wanted` helpers at work.
    pub(super) fn engage<'scope>(&'a self, scope: &'scope Scope<'scope, 'a>, wanted: usize) {
        while self.helpers() < wanted {
            let Some(permit) = Permit::take(&self.fetching.helpers) else { return };
            self.helpers.fetch_add(1, Ordering::Relaxed);
            let work = move || {
                let _permit = permit;
                self.help();
                self.helpers.fetch_sub(1, Ordering::Relaxed);
                self.news.notify_all();
            };
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                self.helpers.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Fetches one claim after the other. A helper that fails leaves its work to the others: only the
    /// reader's own failure is the download's.
    fn help(&self) {
        let mut own_rate = 0;
        while !self.cancel.is_set() {
            let workers = self.helpers() as u64;
            let claimed = self.plan().claim_any(workers, own_rate, Instant::now());
            let Some((claim, range)) = claimed else {
                self.wait_for_news(IDLE);
                continue;
            };
            let began = Instant::now();
            let fetched = self.fetch(claim, range);
            self.plan().release(claim);
            match fetched {
                Ok(Some(bytes)) => own_rate = rate(bytes, began.elapsed()),
                Ok(None) | Err(_) => {
                    self.alone.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Fetches a claim for as long as it is one. Gives how many bytes came; `None` if the source has no ranges.
    fn fetch(&self, claim: ClaimId, range: Range<u64>) -> Result<Option<u64>> {
        let (start, mut left_bytes) = (range.start, range.end - range.start);
        let Fetching { source, reference, .. } = self.fetching;
        let Some(mut reader) = source.blob_range(reference, self.descriptor, range, &self.cancel)? else { return Ok(None) };
        let mut position = start;
        while left_bytes > 0 && !self.cancel.is_set() {
            let bytes = match reader.take_bytes() {
                Ok(none) if none.is_empty() => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            let bytes = bytes.attempt(|| "fetch a range of a blob")?;
            let (kept, left) = self.keep(claim, position, &bytes)?;
            (position, left_bytes) = (position + kept as u64, left);
        }
        Ok(Some(position - start))
    }
}

/// The right to one more connection.
struct Permit<'a>(&'a AtomicUsize);

impl<'a> Permit<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let more = |now: usize| (now < HELPERS_LIMIT).then_some(now + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(taken))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
