//! Who was told that something unreferenced exists, and when: such a thing is not collected before
//! the grace period after that is over.
//!
//! Leases are in memory, and in a file from an orderly end to the next start. A start that finds no
//! such file counts as a renewal of all of them, so that none is lost to a crash.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName};

use super::Kind;
use super::clock::Clock;
use crate::data_dir::sync_directory;
use crate::error::{Attempt, Result};
use crate::limits::LEASE_MEMORY;

/// Something in a repository.
pub(super) type Key = (RepoName, Digest, Kind);

/// The leases of everything unreferenced.
#[derive(Debug)]
pub(super) struct Leases {
    /// Before this, everything counts as renewed, in milliseconds since the epoch.
    start_ms: u64,
    state: Mutex<State>,
    clock: Clock,
    /// Where they are written to at the end.
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    /// When, in milliseconds since the epoch.
    renewed: HashMap<Key, u64>,
    /// The longest grace period anybody asked for.
    longest: Duration,
    /// On their way out: these do not exist any more, whatever the database still says.
    condemned: HashSet<Key>,
}

impl Leases {
    /// All of them renewed at this moment.
    pub(super) fn renewed_now(clock: Clock) -> Self {
        Self { start_ms: clock.now_ms(), state: Mutex::default(), clock, file: None }
    }

    /// What time it is for them.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes the leases an earlier process left in `file`.
    pub(super) fn open(file: PathBuf) -> Result<Self> {
        let mut leases = Self::renewed_now(Clock::default());
        if let Some((start_ms, renewed)) = fs::read_to_string(&file).ok().as_deref().and_then(read) {
            leases.start_ms = start_ms;
            leases.state().renewed = renewed;
        }
        // It says nothing of what this process is going to tell: after a crash it must not be there.
        crate::data_dir::remove_if_there(&file)?;
        file.parent().map_or(Ok(()), sync_directory)?;
        leases.file = Some(file);
        Ok(leases)
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
            state.renewed.insert(key, self.clock.now_ms());
        }
        stands
    }

    /// Whether a lease was renewed within `grace`.
    pub(super) fn is_held(&self, key: &Key, grace: Duration) -> bool {
        self.is_held_in(&self.state(), key, grace)
    }

    fn is_held_in(&self, state: &State, key: &Key, grace: Duration) -> bool {
        let renewed = state.renewed.get(key).copied().unwrap_or_default().max(self.start_ms);
        self.is_within(renewed, grace)
    }

    /// Ends the existence of a thing whose lease was not renewed within `grace`; `false` when it
    /// was. [`Self::bury`] has to follow.
    pub(super) fn condemn(&self, key: &Key, grace: Duration) -> bool {
        let mut state = self.state();
        if self.is_held_in(&state, key, grace) {
            return false;
        }
        state.renewed.remove(key);
        state.condemned.insert(key.clone());
        true
    }

    /// Whether less than `period` has passed since `at_ms`. A clock that went back has let none pass.
    fn is_within(&self, at_ms: u64, period: Duration) -> bool {
        u128::from(self.clock.now_ms().saturating_sub(at_ms)) < period.as_millis()
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
        state.renewed.retain(|_, at| self.is_within(*at, longest));
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(e) = write(file, self.start_ms, &self.state().renewed)
        {
            tracing::warn!("{e}; the next start counts as a renewal of every lease");
        }
    }
}

/// One lease a line, and a last line that says that all are there, and before when everything counts
/// as renewed.
const LAST: &str = "start ";

fn write(file: &Path, start_ms: u64, renewed: &HashMap<Key, u64>) -> Result<()> {
    let mut text = String::new();
    for ((repo, digest, kind), at) in renewed {
        let kind = match kind {
            Kind::Blob => "blob",
            Kind::Manifest => "manifest",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{repo} {digest} {kind} {at}");
    }
    let _ = write!(text, "{LAST}{start_ms}");
    Ok(fs::write(file, text).attempt(|| format!("write {}", file.display()))?)
}

/// `None` when it was not written to its end.
fn read(text: &str) -> Option<(u64, HashMap<Key, u64>)> {
    let mut lines = text.lines();
    let start_ms = lines.next_back()?.strip_prefix(LAST)?.parse().ok()?;
    Some((start_ms, lines.map(lease).collect::<Option<_>>()?))
}

fn lease(line: &str) -> Option<(Key, u64)> {
    let mut words = line.split(' ');
    let (repo, digest) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let kind = match words.next()? {
        "blob" => Kind::Blob,
        "manifest" => Kind::Manifest,
        _ => return None,
    };
    Some(((repo, digest, kind), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn key(name: &str) -> Key {
        ("a".parse().unwrap(), Digest::of(name.as_bytes()), Kind::Blob)
    }

    #[test]
    fn a_lease_is_renewed_or_the_thing_is_gone() {
        let (leases, key) = (Leases::renewed_now(Clock::default()), key("x"));
        assert!(!leases.condemn(&key, LONG), "a start counts as a renewal");
        assert!(leases.renew(key.clone()));
        assert!(leases.is_held(&key, LONG) && !leases.is_held(&key, Duration::ZERO));
        assert!(leases.condemn(&key, Duration::ZERO));
        assert!(!leases.renew(key.clone()), "condemned, it cannot be had any more");
        leases.bury(std::slice::from_ref(&key));
        assert!(leases.renew(key), "pushed again");
        leases.expire(Duration::ZERO);
        assert_eq!(leases.state().renewed.len(), 1, "somebody with more patience may ask");
    }

    #[test]
    fn leases_outlive_an_orderly_end_and_a_crash_renews_all() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Leases::open(dir.path().join("leases")).unwrap();
        let first = open();
        assert!(first.is_held(&key("any"), LONG), "nobody knows what was told before");
        drop(first);
        assert!(open().is_held(&key("any"), LONG), "nor does anybody after an end that soon");
        fs::write(dir.path().join("leases"), format!("{LAST}1000")).unwrap();
        let known = open();
        assert!(!known.is_held(&key("any"), LONG));
        known.renew(key("x"));
        drop(known);
        let next = open();
        assert!(next.is_held(&key("x"), LONG) && !next.is_held(&key("any"), LONG));
        std::mem::forget(next);
        assert!(open().is_held(&key("any"), LONG), "a crash");
        fs::write(dir.path().join("leases"), "torn").unwrap();
        assert!(open().is_held(&key("any"), LONG));
    }
}
