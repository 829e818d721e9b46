//! A few things at a time; the first failure ends it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long who sleeps does not look whether it is still wanted.
const CANCEL_LOOK: Duration = Duration::from_millis(50);

/// Tells workers that what they do is not wanted any more. Part of a larger work, it ends with that.
#[derive(Debug, Default)]
pub struct Cancel<'a> {
    set: AtomicBool,
    whole: Option<&'a Cancel<'a>>,
}

impl<'a> Cancel<'a> {
    /// For a part of the work that `whole` ends.
    pub fn of(whole: &'a Cancel<'a>) -> Self {
        Self { set: AtomicBool::new(false), whole: Some(whole) }
    }

    /// Ends the work.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Whether the work is to end.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed) || self.whole.is_some_and(Cancel::is_set)
    }

    /// Sleeps; `false` when the work is to end.
    pub fn sleep(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        while !self.is_set() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(CANCEL_LOOK));
        }
        false
    }
}

/// Calls `work` with every item and its place, on up to `jobs` threads at once, this one included.
///
/// The first error is returned, after the calls already under way have ended; `cancel` is set for
/// them to see.
pub fn for_each<T: Sync, E: Send>(
    items: &[T],
    jobs: usize,
    cancel: &Cancel<'_>,
    work: impl Fn(usize, &T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let run = || {
        while !cancel.is_set() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            if let Err(e) = work(at, item) {
                cancel.set();
                // What fails after the first failure fails because of it.
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
