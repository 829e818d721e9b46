//! Who was told that something unreferenced exists, and when: such a thing is not collected before
//! the grace period after that is over.
//!
//! Leases are in memory. A start counts as a renewal of all of them, so that none is lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use longshore_runtime::name::{Digest, RepoName};

use super::Kind;
use crate::limits::LEASE_MEMORY;

/// Something in a repository.
pub(super) type Key = (RepoName, Digest, Kind);

/// The leases of everything unreferenced.
#[derive(Debug)]
pub(super) struct Leases {
    /// When this process began: whoever was told something by an earlier one was told it before.
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    renewed: HashMap<Key, Instant>,
    /// The longest grace period anybody asked for.
    longest: Duration,
    /// On their way out: these do not exist any more, whatever the database still says.
    condemned: HashSet<Key>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews a lease; `false` when the thing is being collected at this moment. Whoever saw it
    /// exist before must look again after a renewal.
    pub(super) fn renew(&self, key: Key) -> bool {
        let mut state = self.state();
        let stands = !state.condemned.contains(&key);
        if stands {
            state.renewed.insert(key, Instant::now());
        }
        stands
    }

    /// Whether a lease was renewed within `grace`.
    pub(super) fn is_held(&self, key: &Key, grace: Duration) -> bool {
        self.start.elapsed() < grace || self.state().renewed.get(key).is_some_and(|at| at.elapsed() < grace)
    }

    /// Ends the existence of a thing whose lease was not renewed within `grace`; `false` when it
    /// was. [`Self::bury`] has to follow.
    pub(super) fn condemn(&self, key: &Key, grace: Duration) -> bool {
        if self.start.elapsed() < grace {
            return false;
        }
        let mut state = self.state();
        if state.renewed.get(key).is_some_and(|at| at.elapsed() < grace) {
            return false;
        }
        state.renewed.remove(key);
        state.condemned.insert(key.clone());
        true
    }

    /// The database says itself by now whether these exist.
    pub(super) fn bury(&self, keys: &[Key]) {
        if !keys.is_empty() {
            let mut state = self.state();
            state.condemned.retain(|key| !keys.contains(key));
        }
    }

    /// Drops the leases that are over, whoever asks: after `grace`, and after any asked for before.
    pub(super) fn expire(&self, grace: Duration) {
        let mut state = self.state();
        state.longest = state.longest.max(grace).max(LEASE_MEMORY);
        let longest = state.longest;
        state.renewed.retain(|_, at| at.elapsed() < longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_or_the_thing_is_gone() {
        let leases = Leases::new();
        let key: Key = ("a".parse().unwrap(), Digest::of(b"x"), Kind::Blob);
        let long = Duration::from_secs(3600);
        assert!(!leases.condemn(&key, long), "a start counts as a renewal");
        assert!(leases.renew(key.clone()));
        assert!(leases.is_held(&key, long) && !leases.is_held(&key, Duration::ZERO));
        assert!(leases.condemn(&key, Duration::ZERO));
        assert!(!leases.renew(key.clone()), "condemned, it cannot be had any more");
        leases.bury(std::slice::from_ref(&key));
        assert!(leases.renew(key), "pushed again");
        leases.expire(Duration::ZERO);
        assert_eq!(leases.state().renewed.len(), 1, "somebody with more patience may ask");
    }
}
