//! A table whose neighbouring entries share one item of a sled tree.
//!
//! Sled puts at most 16 items on a page, keeps a table of all pages in memory and reads it whole at a
//! start. With an item an entry, 10^5 manifests made 60,000 pages: 265 MB, 27 MiB of memory and
//! 45 ms of a start. In runs it is a tenth of the pages.
//!
//! A run is under a key that is no greater than any of its entries' keys and greater than every key of
//! the run before: its fence. An entry belongs to the last run whose fence is not greater than its key.
//! Runs are split and, once empty, removed, but never joined: a scan that is between two of them misses
//! nothing that was there all the time. Each entry in a run is
//!
//! | | |
//! |---|---|
//! | bytes the key shares with the key before it, with the fence for the first | varint |
//! | bytes of the rest of the key | varint |
//! | bytes of the value | varint |
//! | the rest of the key, the value | |

use std::ops::Bound;

use sled::IVec;

use super::table::{Changes, Entry, Lookup, Table, failed};
use crate::error::{Error, Result};
use crate::limits::METADATA_RUN_BYTES;

/// Entries in runs. The tree keeps the database it is in open.
#[derive(Debug, Clone)]
pub struct Runs {
    tree: sled::Tree,
    /// A run that becomes larger is split.
    limit_bytes: usize,
}

impl Runs {
    pub(super) fn new(tree: sled::Tree) -> Self {
        Self { tree, limit_bytes: METADATA_RUN_BYTES }
    }

    /// The run a key belongs to, by its fence.
    fn run_of(&self, key: &[u8]) -> Result<Option<(IVec, IVec)>> {
        self.tree.range(..=key).next_back().transpose().map_err(failed)
    }

    /// The fence of the run after the one a key belongs to.
    fn fence_after(&self, key: &[u8]) -> Result<Option<IVec>> {
        let after = (Bound::Excluded(key), Bound::Unbounded);
        Ok(self.tree.range::<&[u8], _>(after).next().transpose().map_err(failed)?.map(|(fence, _)| fence))
    }
}

impl Lookup for Runs {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((fence, run)) = self.run_of(key)? else { return Ok(None) };
        let mut entries = Entries::new(&fence, &run);
        while let Some(value) = entries.next()? {
            if entries.key.as_slice() >= key {
                return Ok((entries.key == key).then(|| value.to_vec()));
            }
        }
        Ok(None)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }
}

impl Table for Runs {
    fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t> {
        let (prefix, mut least) = (prefix.to_vec(), least(prefix, after));
        let first = self.run_of(&least);
        let runs =
            self.tree.range(first.as_ref().map_or(&[][..], |run| run.as_ref().map_or(&[][..], |(fence, _)| fence)).to_vec()..);
        let runs = first.err().map(Err).into_iter().chain(runs.map(|run| run.map_err(failed)));
        let entries = runs.flat_map(|run| match run.and_then(|(fence, run)| decode(&fence, &run)) {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(e) => vec![Err(e)],
        });
        entries
            .filter(move |entry| {
                let Ok((key, _)) = entry else { return true };
                // Neither what is before the first, nor what a split puts into the next run meanwhile.
                let is_next = *key >= least;
                if is_next {
                    least = [key, &[0][..]].concat();
                }
                is_next
            })
            .take_while(move |entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)))
    }

    fn apply(&self, changes: &Changes) -> Result<()> {
        let mut batch = sled::Batch::default();
        let mut changes = changes.iter().peekable();
        while let Some((first, _)) = changes.peek() {
            let (run, end) = (self.run_of(first)?, self.fence_after(first)?);
            let (fence, run) = run.as_ref().map_or((&[][..], &[][..]), |(fence, run)| (fence, run));
            let old = Decoded::new(fence, run)?;
            let (mut old, mut entries) = (old.iter().peekable(), Vec::new());
            while let Some((key, value)) = changes.next_if(|(key, _)| end.as_ref().is_none_or(|end| key[..] < end[..])) {
                entries.extend(std::iter::from_fn(|| old.next_if(|(old, _)| *old < &key[..])));
                old.next_if(|(old, _)| *old == &key[..]);
                entries.extend(value.as_ref().map(|value| (&key[..], &value[..])));
            }
            entries.extend(old);
            if entries.is_empty() {
                batch.remove(fence);
            }
            for (fence, run) in encode(fence, &entries, self.limit_bytes) {
                batch.insert(fence, run);
            }
        }
        self.tree.apply_batch(batch).map_err(failed)
    }

    fn flush(&self) -> Result<()> {
        self.tree.flush().map(drop).map_err(failed)
    }
}

/// The least key that may be in a scan.
fn least(prefix: &[u8], after: Option<&[u8]>) -> Vec<u8> {
    match after {
        Some(after) if after >= prefix => [after, &[0]].concat(),
        _ => prefix.to_vec(),
    }
}

/// Reads the entries of a run one after another.
struct Entries<'a> {
    /// Of the entry read last.
    key: Vec<u8>,
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    fn new(fence: &[u8], run: &'a [u8]) -> Self {
        Self { key: fence.to_vec(), rest: run }
    }

    /// The next entry's value.
    fn next(&mut self) -> Result<Option<&'a [u8]>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let entry = self.read();
        entry.map(Some).ok_or_else(|| Error::damaged("metadata", "it is not readable; stop rhub and run `rhub rebuild`"))
    }

    fn read(&mut self) -> Option<&'a [u8]> {
        let (shared, key, value) = (self.number()?, self.number()?, self.number()?);
        let rest_of_key = self.rest.split_off(..key)?;
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(rest_of_key);
        self.rest.split_off(..value)
    }

    /// A varint: seven bits a byte, the lowest first, all but the last byte with the highest bit set.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0;
        for shift in (0..usize::BITS - 7).step_by(7) {
            let byte = *self.rest.split_off_first()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

fn decode(fence: &[u8], run: &[u8]) -> Result<Vec<Entry>> {
    let (mut entries, mut decoded) = (Entries::new(fence, run), Vec::new());
    while let Some(value) = entries.next()? {
        decoded.push((entries.key.clone(), value.to_vec()));
    }
    Ok(decoded)
}

/// The entries of a run without an allocation each.
struct Decoded<'a> {
    /// One after another.
    keys: Vec<u8>,
    /// Where a key ends, and its value.
    entries: Vec<(usize, &'a [u8])>,
}

impl<'a> Decoded<'a> {
    fn new(fence: &[u8], run: &'a [u8]) -> Result<Self> {
        let (mut read, mut decoded) = (Entries::new(fence, run), Self { keys: Vec::new(), entries: Vec::new() });
        while let Some(value) = read.next()? {
            decoded.keys.extend_from_slice(&read.key);
            decoded.entries.push((decoded.keys.len(), value));
        }
        Ok(decoded)
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &'a [u8])> {
        self.entries.iter().scan(0, |start, (end, value)| Some((&self.keys[std::mem::replace(start, *end)..*end], *value)))
    }
}

/// One run or several of about the same size, under their fences; the first under `fence`.
fn encode(fence: &[u8], entries: &[(&[u8], &[u8])], limit_bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    // What an entry takes in a run at most, nearly: enough to share evenly.
    let bytes = entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let share = bytes / bytes.div_ceil(limit_bytes).max(1);
    let mut runs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let (mut last, mut taken) = (fence, 0);
    for &(key, value) in entries {
        if runs.is_empty() || taken >= share {
            // As short as it can be between the two keys.
            last = if runs.is_empty() { fence } else { &key[..=shared(last, key)] };
            runs.push((last.to_vec(), Vec::with_capacity(limit_bytes.min(bytes))));
            taken = 0;
        }
        taken += key.len() + value.len();
        if let Some((_, run)) = runs.last_mut() {
            let shared = shared(last, key);
            for number in [shared, key.len() - shared, value.len()] {
                write_number(number, run);
            }
            run.extend_from_slice(&key[shared..]);
            run.extend_from_slice(value);
        }
        last = key;
    }
    runs
}

fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

fn write_number(mut number: usize, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::MemoryTable;
    use super::*;

    fn open(limit_bytes: usize) -> Runs {
        Runs { tree: (*sled::Config::new().temporary(true).open().unwrap()).clone(), limit_bytes }
    }

    fn all(table: &impl Table, prefix: &[u8], after: Option<&[u8]>) -> Vec<Entry> {
        table.scan(prefix, after).map(Result::unwrap).collect()
    }

    /// Keys of few letters, so that they meet and are each other's beginnings.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(255)], 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever was changed, in whatever steps, it answers as a map does.
        #[test]
        fn it_answers_as_a_map_does(
            steps in proptest::collection::vec(proptest::collection::btree_map(key(), proptest::option::weighted(0.6, proptest::collection::vec(any::<u8>(), 0..40)), 1..12), 1..40),
            asked in proptest::collection::vec((key(), proptest::option::of(key())), 20),
            limit_bytes in 1..100_usize,
        ) {
            let (runs, map) = (open(limit_bytes), MemoryTable::default());
            for changes in steps {
                runs.apply(&changes).unwrap();
                map.apply(&changes).unwrap();
                prop_assert_eq!(all(&runs, b"", None), all(&map, b"", None));
            }
            for (key, after) in asked {
                prop_assert_eq!(runs.get(&key).unwrap(), map.get(&key).unwrap());
                prop_assert_eq!(all(&runs, &key, after.as_deref()), all(&map, &key, after.as_deref()));
            }
            let everything = all(&map, b"", None).into_iter().map(|(key, _)| (key, None)).collect();
            runs.apply(&everything).unwrap();
            prop_assert!(runs.tree.is_empty(), "nothing is left of empty runs");
        }

        /// Damage is an error, or another content, never a panic.
        #[test]
        fn whatever_a_run_holds_is_read_or_refused(fence: Vec<u8>, run: Vec<u8>) {
            let _ = decode(&fence, &run);
        }
    }

    #[test]
    fn runs_are_neither_large_nor_many() {
        let runs = open(1000);
        for n in 0..1000_u32 {
            let key = format!("m\0team/app\0{:064x}", n.wrapping_mul(2_654_435_761)).into_bytes();
            runs.apply(&Changes::from([(key, Some(vec![7; 20]))])).unwrap();
        }
        let (count, largest) =
            runs.tree.iter().map(Result::unwrap).fold((0, 0), |(n, most), (_, run)| (n + 1, most.max(run.len())));
        assert!((100..250).contains(&count) && largest <= 1000, "{count} runs, {largest} bytes");
    }

    /// A scan meets no entry twice and misses none, while others split what it has in hand.
    #[test]
    fn a_scan_goes_on_while_runs_are_split() {
        let runs = open(200);
        let key = |n: u32| format!("k{n:05}").into_bytes();
        let even: Changes = (0..1000).map(|n| (key(2 * n), Some(vec![1; 10]))).collect();
        runs.apply(&even).unwrap();
        let mut seen = Vec::new();
        for (n, entry) in (0..).zip(runs.scan(b"k", None)) {
            seen.push(entry.unwrap().0);
            let odd = (0..5).map(|m| (key((n * 10 + 2 * m + 1) % 2000), Some(vec![2; 40]))).collect();
            runs.apply(&odd).unwrap();
        }
        assert!(seen.is_sorted_by(|one, next| one < next), "in order, none twice");
        seen.retain(|key| even.contains_key(key));
        assert!(seen.iter().eq(even.keys()), "all that was there all the time");
    }
}
