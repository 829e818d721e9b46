//! A few things at a time; the first failure ends it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Calls `work` with every item and its place, on up to `jobs` threads at once, this one included.
///
/// The first error is returned, after the calls already under way have ended; `cancelled` is set for
/// them to see.
pub fn for_each<T: Sync, E: Send>(
    items: &[T],
    jobs: usize,
    cancelled: &AtomicBool,
    work: impl Fn(usize, &T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<E>> = Mutex::new(None);
    let run = || {
        while !cancelled.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            if let Err(e) = work(at, item) {
                cancelled.store(true, Ordering::Relaxed);
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
