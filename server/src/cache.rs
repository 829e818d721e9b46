//! Recently used values in memory, bounded by bytes, and never stale.
//!
//! **Never stale.** Whoever changes the source calls [`Cache::invalidate`] after the change and
//! before anyone is told of it. Whoever fills the cache takes the key's [`Epoch`] *before* it reads
//! the source; a value is refused if its key's shard was invalidated since. So a value that was
//! read before a change is either removed by the invalidation, or comes too late to be kept.
//!
//! **Bounded.** Values are kept in two generations. What is used is in, or moves to, the young one;
//! when that has half of the bytes, the old one is dropped and the young one is old from then on.
//! So what was not used for a generation goes, at the cost of no list, no clock and no second copy
//! of a key.
//!
//! Sharded by the key's hash; a shard is locked for one look-up, never across I/O.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards, so that threads rarely meet in one. A power of two.
const SHARDS: usize = 16;
/// What an entry takes beside its key and value, in bytes: its place in a table that is on average
/// two thirds full, and what the allocator adds.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Values by key.
#[derive(Debug)]
pub struct Cache<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    hasher: RandomState,
    /// The most bytes of one generation of one shard.
    generation_bytes: usize,
}

/// The state of a key's shard; see [`Cache::epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

#[derive(Debug)]
struct Shard<K, V> {
    young: Generation<K, V>,
    old: Generation<K, V>,
    /// Changes of the source so far.
    epoch: Epoch,
}

#[derive(Debug)]
struct Generation<K, V> {
    entries: HashMap<K, (V, usize)>,
    bytes: usize,
}

impl<K, V> Default for Generation<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), bytes: 0 }
    }
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// A cache of at most `limit_bytes`, keys, values and what it takes to hold them. No single
    /// value may be larger than a 32nd of it.
    pub fn new(limit_bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { young: Generation::default(), old: Generation::default(), epoch: Epoch(0) });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            generation_bytes: limit_bytes / SHARDS / 2,
        }
    }

    /// The value kept under a key.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key);
        if let Some((value, _)) = shard.young.entries.get(key) {
            return Some(value.clone());
        }
        let (key, value, bytes) = shard.old.remove(key)?;
        shard.insert(key, value.clone(), bytes, self.generation_bytes);
        Some(value)
    }

    /// To be taken before the source is read for [`Self::insert`].
    pub fn epoch<Q>(&self, key: &Q) -> Epoch
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shard(key).epoch
    }

    /// Keeps a value of `bytes`, its key included, that was read from the source after its key had
    /// this `epoch`; unless it may be stale, or is too large.
    pub fn insert(&self, key: K, value: V, bytes: usize, epoch: Epoch) {
        let bytes = bytes + ENTRY_OVERHEAD_BYTES;
        let mut shard = self.shard(&key);
        if shard.epoch == epoch && bytes <= self.generation_bytes {
            shard.old.remove(&key);
            shard.insert(key, value, bytes, self.generation_bytes);
        }
    }

    /// Forgets a key. To be called after its value changed in the source and before anyone is told.
    pub fn invalidate<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut shard = self.shard(key);
        shard.epoch.0 += 1;
        shard.young.remove(key);
        shard.old.remove(key);
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, Shard<K, V>> {
        // The upper bits: the tables inside use the lower ones, of another hash though.
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn insert(&mut self, key: K, value: V, bytes: usize, generation_bytes: usize) {
        self.young.remove(&key);
        if self.young.bytes + bytes > generation_bytes {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += bytes;
        self.young.entries.insert(key, (value, bytes));
    }
}

impl<K: Hash + Eq, V> Generation<K, V> {
    fn remove<Q>(&mut self, key: &Q) -> Option<(K, V, usize)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (key, (value, bytes)) = self.entries.remove_entry(key)?;
        self.bytes -= bytes;
        Some((key, value, bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    impl<K: Hash + Eq, V> Cache<K, V> {
        fn bytes(&self) -> usize {
            let bytes = |shard: &Mutex<Shard<K, V>>| {
                let shard = shard.lock().unwrap();
                let counted = |generation: &Generation<K, V>| generation.entries.values().map(|(_, bytes)| bytes).sum::<usize>();
                assert_eq!(counted(&shard.young), shard.young.bytes);
                assert_eq!(counted(&shard.old), shard.old.bytes);
                shard.young.bytes + shard.old.bytes
            };
            self.shards.iter().map(bytes).sum()
        }
    }

    const LIMIT_BYTES: usize = SHARDS * 2 * 1024;

    #[derive(Debug, Clone)]
    enum Step {
        Get(u8),
        Fill(u8, usize),
        /// The source changes between the look at the epoch and the insertion.
        FillLate(u8, usize),
        Change(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u8>().prop_map(Step::Get),
            (any::<u8>(), 0..1200_usize).prop_map(|(key, bytes)| Step::Fill(key, bytes)),
            (any::<u8>(), 0..100_usize).prop_map(|(key, bytes)| Step::FillLate(key, bytes)),
            any::<u8>().prop_map(Step::Change),
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_the_source_has_within_the_limit(steps in prop::collection::vec(step(), 1..400)) {
            let cache = Cache::new(LIMIT_BYTES);
            let mut source = [0_u32; 256];
            for step in steps {
                match step {
                    Step::Get(key) => if let Some(value) = cache.get(&key) {
                        prop_assert_eq!(value, source[usize::from(key)]);
                    }
                    Step::Fill(key, bytes) => {
                        let before = cache.get(&key);
                        let epoch = cache.epoch(&key);
                        cache.insert(key, source[usize::from(key)], bytes, epoch);
                        let fits = bytes + ENTRY_OVERHEAD_BYTES <= 1024;
                        let expected = if fits { Some(source[usize::from(key)]) } else { before };
                        prop_assert_eq!(cache.get(&key), expected);
                    }
                    Step::FillLate(key, bytes) => {
                        let (epoch, stale) = (cache.epoch(&key), source[usize::from(key)]);
                        source[usize::from(key)] += 1;
                        cache.invalidate(&key);
                        cache.insert(key, stale, bytes, epoch);
                        prop_assert_eq!(cache.get(&key), None);
                    }
                    Step::Change(key) => {
                        source[usize::from(key)] += 1;
                        cache.invalidate(&key);
                        prop_assert_eq!(cache.get(&key), None);
                    }
                }
                prop_assert!(cache.bytes() <= LIMIT_BYTES);
            }
        }
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let cache = Cache::new(LIMIT_BYTES);
        let fill = |key: u32| cache.insert(key, key, 0, cache.epoch(&key));
        fill(0);
        fill(1);
        for key in 2..10_000 {
            fill(key);
            assert_eq!(cache.get(&0), Some(0), "used all the time, at {key}");
        }
        assert_eq!(cache.get(&1), None);
    }

    /// Threads that read while another changes: nobody sees a value older than the last one somebody
    /// was told of before the look.
    #[test]
    fn nothing_stale_is_ever_read() {
        const KEYS: usize = 4;
        let cache = Cache::new(LIMIT_BYTES);
        let (source, told) = ([const { AtomicU64::new(0) }; KEYS], [const { AtomicU64::new(0) }; KEYS]);
        let hits = AtomicU64::new(0);
        let read = |key: usize| {
            let at_least = told[key].load(Ordering::SeqCst);
            let value = cache.get(&key).inspect(|_| _ = hits.fetch_add(1, Ordering::Relaxed)).unwrap_or_else(|| {
                let epoch = cache.epoch(&key);
                let value = source[key].load(Ordering::SeqCst);
                // Time for a change.
                std::thread::yield_now();
                cache.insert(key, value, 0, epoch);
                value
            });
            assert!(value >= at_least, "{value} was read after {at_least} was told");
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| (0..30_000).for_each(|n| read(n % KEYS)))).collect();
            for (change, key) in (1..).zip((0..KEYS).cycle()) {
                source[key].store(change, Ordering::SeqCst);
                cache.invalidate(&key);
                told[key].store(change, Ordering::SeqCst);
                if readers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    break;
                }
                std::thread::yield_now();
            }
        });
        assert!(hits.load(Ordering::Relaxed) > 0, "nothing was ever read from the cache");
    }
}
