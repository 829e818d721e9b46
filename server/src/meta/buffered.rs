//! A table whose latest changes are in memory, and go to the one below many at a time.
//!
//! Below, a change costs the run its key is in, and sled the page that run is on. A small upload
//! changes three keys far from each other: put into the database one group of commits after another,
//! they were most of what an upload cost. Of many at a time, several share a run and all share a batch.
//! The journal has every change already, so a crash loses none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::{Changes, Entry, Lookup, Table};
use crate::error::Result;
use crate::limits::{METADATA_BATCH_KEYS, METADATA_BUFFER_BYTES};

/// A table and what is yet to be put into it.
#[derive(Debug, Clone)]
pub(super) struct Buffered<T> {
    table: T,
    pending: Arc<Mutex<Pending>>,
    /// Held by whoever puts pending changes into the table, so that they get there in order.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct Pending {
    /// What goes into the table at once, the oldest first. Changes that were made at once are in one
    /// batch: the table never has a part of them.
    batches: VecDeque<Arc<Changes>>,
    bytes: usize,
}

impl Pending {
    fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.batches.iter().rev().find_map(|batch| batch.get(key))
    }

    fn add(&mut self, changes: &Changes) {
        self.bytes += bytes(changes);
        // One that is on its way into the table has a second owner.
        match self.batches.back_mut().and_then(Arc::get_mut).filter(|batch| batch.len() < METADATA_BATCH_KEYS) {
            Some(batch) => {
                for (key, value) in changes {
                    let replaced = batch.insert(key.clone(), value.clone());
                    self.bytes -= replaced.map_or(0, |replaced| key.len() + replaced.map_or(0, |value| value.len()));
                }
            }
            None => self.batches.push_back(Arc::new(changes.clone())),
        }
    }
}

fn bytes(changes: &Changes) -> usize {
    changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

impl<T: Table> Buffered<T> {
    pub(super) fn new(table: T) -> Self {
        Self { table, pending: Arc::default(), turn: Arc::default() }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the oldest batch into the table. After a failure it is still pending.
    fn put_oldest(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(oldest) = self.pending().batches.front().cloned() else { return Ok(()) };
        self.table.apply(&oldest)?;
        let mut pending = self.pending();
        pending.batches.pop_front();
        pending.bytes -= bytes(&oldest);
        Ok(())
    }

    /// Puts into the table what was changed before this was called.
    fn put_all(&self) -> Result<()> {
        let batches = self.pending().batches.len();
        (0..batches).try_for_each(|_| self.put_oldest())
    }
}

impl<T: Table> Lookup for Buffered<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        // What leaves between the two is in the table by then.
        let pending = self.pending().get(key).cloned();
        pending.map_or_else(|| self.table.get(key), Ok)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        let pending = self.pending().get(key).map(Option::is_some);
        pending.map_or_else(|| self.table.has(key), Ok)
    }
}

impl<T: Table> Table for Buffered<T> {
    fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t, T> {
        let failure = self.put_all().err().map(Err);
        failure.into_iter().chain(self.table.scan(prefix, after))
    }

    fn apply(&self, changes: &Changes) -> Result<()> {
        self.pending().add(changes);
        while self.pending().bytes > METADATA_BUFFER_BYTES {
            self.put_oldest()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.put_all()?;
        self.table.flush()
    }

    fn catch_up(&self) -> Result<()> {
        while self.pending().batches.len() > 1 {
            self.put_oldest()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use proptest::prelude::*;

    use super::super::memory::MemoryTable;
    use super::*;

    /// A table that fails while it is told to.
    #[derive(Debug, Clone, Default)]
    struct Failing {
        table: MemoryTable,
        fails: Arc<AtomicBool>,
    }

    impl Lookup for Failing {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
            self.table.get(key)
        }

        fn has(&self, key: &[u8]) -> Result<bool> {
            self.table.has(key)
        }
    }

    impl Table for Failing {
        fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t> {
            self.table.scan(prefix, after)
        }

        fn apply(&self, changes: &Changes) -> Result<()> {
            if self.fails.load(Relaxed) { Err(crate::Error::Stopped("told to".into())) } else { self.table.apply(changes) }
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Apply(Changes),
        Flush,
        Scan,
        Fails(bool),
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 1..4)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => proptest::collection::btree_map(key(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3)), 1..5).prop_map(Step::Apply),
            1 => Just(Step::Flush),
            1 => Just(Step::Scan),
            1 => any::<bool>().prop_map(Step::Fails),
        ]
    }

    proptest! {
        /// Whatever is pending, has left or could not leave, it answers as the table alone would.
        #[test]
        fn it_answers_as_the_table_does(steps in proptest::collection::vec(step(), 1..40)) {
            let (below, map) = (Failing::default(), MemoryTable::default());
            let buffered = Buffered::new(below.clone());
            for step in steps {
                match step {
                    Step::Apply(changes) => {
                        buffered.apply(&changes).unwrap();
                        map.apply(&changes).unwrap();
                        for key in changes.keys() {
                            prop_assert_eq!(buffered.get(key).unwrap(), map.get(key).unwrap());
                            prop_assert_eq!(buffered.has(key).unwrap(), map.has(key).unwrap());
                        }
                    }
                    Step::Flush => prop_assert!(buffered.flush().is_ok() || below.fails.load(Relaxed)),
                    Step::Scan => match buffered.scan(b"", None).collect::<Result<Vec<_>>>() {
                        Ok(found) => prop_assert_eq!(found, all(&map)),
                        Err(_) => prop_assert!(below.fails.load(Relaxed)),
                    },
                    Step::Fails(fails) => below.fails.store(fails, Relaxed),
                }
            }
            below.fails.store(false, Relaxed);
            buffered.flush().unwrap();
            prop_assert_eq!(all(&below.table), all(&map), "everything is below in the end");
        }
    }

    fn all(table: &MemoryTable) -> Vec<Entry> {
        table.scan(b"", None).map(Result::unwrap).collect()
    }

    #[test]
    fn what_is_pending_is_bounded() {
        let (below, value) = (MemoryTable::default(), vec![0; METADATA_BUFFER_BYTES / 4 - 1024]);
        let buffered = Buffered::new(below.clone());
        let keys = METADATA_BATCH_KEYS as u32 + 4;
        for key in 0..keys {
            let value = if key.is_multiple_of(64) { value.clone() } else { Vec::new() };
            buffered.apply(&Changes::from([(key.to_be_bytes().into(), Some(value))])).unwrap();
            assert!(buffered.pending().bytes <= METADATA_BUFFER_BYTES);
        }
        assert_eq!(all(&below).len(), METADATA_BATCH_KEYS, "the oldest alone");
        buffered.flush().unwrap();
        assert_eq!((all(&below).len(), buffered.pending().bytes), (keys as usize, 0));
    }
}
