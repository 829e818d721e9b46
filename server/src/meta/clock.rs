//! What time it is, for everything that becomes garbage with time.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// The system's clock, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    #[cfg(test)]
    set: Option<Arc<AtomicU64>>,
}

impl Clock {
    pub(super) fn now_ms(&self) -> u64 {
        #[cfg(test)]
        if let Some(set) = &self.set {
            return set.load(Ordering::SeqCst);
        }
        now_ms()
    }

    /// One that reads what `set` holds.
    #[cfg(test)]
    pub(super) fn reading(set: &Arc<AtomicU64>) -> Self {
        Self { set: Some(Arc::clone(set)) }
    }
}
