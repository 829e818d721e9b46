//! A table whose latest changes are in memory, and go to the one below many at a time.
//!
//! Below, a change costs the run its key is in, and sled the page that run is on. A small upload
//! changes three keys far from each other: put into the database one group of commits after another,
//! they were most of what an upload cost. Of many at a time, several share a run and all share a batch.
//! The journal has every change already, so a crash loses none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::{Changes, Entry, Lookup, Table};
use crate::error::Result;
use crate::limits::METADATA_BUFFER_BYTES;

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
    latest: Changes,
    /// Keys and values of the latest, each time they were changed.
    latest_bytes: usize,
    /// On their way into the table, and still here for those who look them up; older than the latest.
    leaving: Arc<Changes>,
}

impl<T: Table> Buffered<T> {
    pub(super) fn new(table: T) -> Self {
        Self { table, pending: Arc::default(), turn: Arc::default() }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts into the table what was changed before this was called. After a failure it is still
    /// pending.
    fn drain(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = self.pending().leave();
        if !leaving.is_empty() {
            self.table.apply(&leaving)?;
            self.pending().leaving = Arc::default();
        }
        Ok(())
    }
}

impl Pending {
    fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.latest.get(key).or_else(|| self.leaving.get(key))
    }

    /// Everything that is to leave now.
    fn leave(&mut self) -> Arc<Changes> {
        self.latest_bytes = 0;
        // Something is there already if it could not leave the last time.
        let mut leaving = Arc::unwrap_or_clone(std::mem::take(&mut self.leaving));
        leaving.append(&mut self.latest);
        self.leaving = Arc::new(leaving);
        Arc::clone(&self.leaving)
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
        let failure = self.drain().err().map(Err);
        failure.into_iter().chain(self.table.scan(prefix, after))
    }

    fn apply(&self, changes: &Changes) -> Result<()> {
        let bytes = {
            let mut pending = self.pending();
            for (key, value) in changes {
                pending.latest_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                pending.latest.insert(key.clone(), value.clone());
            }
            pending.latest_bytes
        };
        if bytes > METADATA_BUFFER_BYTES { self.drain() } else { Ok(()) }
    }

    fn flush(&self) -> Result<()> {
        self.drain()?;
        self.table.flush()
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
        let (below, value) = (MemoryTable::default(), vec![0; METADATA_BUFFER_BYTES / 4]);
        let buffered = Buffered::new(below.clone());
        for key in 0..4_u8 {
            assert!(!below.has(&[0]).unwrap(), "not yet, at {key}");
            buffered.apply(&Changes::from([(vec![key], Some(value.clone()))])).unwrap();
        }
        assert_eq!(all(&below).len(), 4);
    }
}
