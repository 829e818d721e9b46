//! A table with its recently read values in memory: what is asked all the time is answered without
//! a thread that may wait for a disk.
//!
//! Sled itself would do as long as its pages are in memory (0.7 us a value). But nobody knows
//! beforehand whether they are: of a million tags, with a page cache of 8 MiB, a value takes 14 us
//! where the kernel has the page, and as long as a disk takes where it has not.

use std::cell::Cell;
use std::sync::Arc;

use super::table::{Changes, Entry, Lookup, Table};
use crate::cache::Cache;
use crate::error::Result;
use crate::limits::METADATA_VALUES_BYTES;

/// Values by key; nothing, where the table has nothing.
type Values = Cache<Vec<u8>, Option<Vec<u8>>>;

/// A table and what was read from it.
#[derive(Debug, Clone)]
pub(super) struct Cached<T> {
    table: T,
    values: Arc<Values>,
}

impl<T: Table> Cached<T> {
    pub(super) fn new(table: T) -> Self {
        Self { table, values: Arc::new(Cache::new(METADATA_VALUES_BYTES)) }
    }

    /// What a query of single keys gives, if all it asks for is in memory. Never waits.
    pub(super) fn remembered<V>(&self, query: impl FnOnce(&Remembered<'_>) -> Result<V>) -> Option<Result<V>> {
        let remembered = Remembered { values: &self.values, missed: Cell::new(false) };
        let answer = query(&remembered);
        (!remembered.missed.get()).then_some(answer)
    }
}

impl<T: Table> Lookup for Cached<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.values.get(key) {
            return Ok(value);
        }
        let epoch = self.values.epoch(key);
        let value = self.table.get(key)?;
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        self.values.insert(key.to_vec(), value.clone(), bytes, epoch);
        Ok(value)
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }
}

impl<T: Table> Table for Cached<T> {
    fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t, T> {
        self.table.scan(prefix, after)
    }

    fn apply(&self, changes: &Changes) -> Result<()> {
        let applied = self.table.apply(changes);
        // Whatever came of it.
        changes.keys().for_each(|key| self.values.invalidate(key.as_slice()));
        applied
    }

    fn flush(&self) -> Result<()> {
        self.table.flush()
    }
}

/// What is in memory of a table. Nothing it says counts once it was asked for something that is not.
#[derive(Debug)]
pub(super) struct Remembered<'a> {
    values: &'a Values,
    missed: Cell<bool>,
}

impl Lookup for Remembered<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.values.get(key);
        self.missed.set(self.missed.get() || value.is_none());
        Ok(value.flatten())
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryTable;
    use super::*;

    fn open() -> Cached<MemoryTable> {
        Cached::new(MemoryTable::default())
    }

    fn remembered(table: &Cached<MemoryTable>, key: &[u8]) -> Option<Option<Vec<u8>>> {
        table.remembered(|values| values.get(key)).map(Result::unwrap)
    }

    #[test]
    fn what_was_read_is_remembered_until_it_changes() {
        let table = open();
        assert_eq!(remembered(&table, b"k"), None, "it was never read");
        assert_eq!(table.get(b"k").unwrap(), None);
        assert_eq!(remembered(&table, b"k"), Some(None), "absence is remembered too");
        for value in [Some(b"1".to_vec()), Some(b"2".to_vec()), None] {
            table.apply(&Changes::from([(b"k".to_vec(), value.clone())])).unwrap();
            assert_eq!(remembered(&table, b"k"), None);
            assert_eq!(table.get(b"k").unwrap(), value);
            assert_eq!(remembered(&table, b"k"), Some(value));
        }
    }

    #[test]
    fn an_answer_made_of_something_not_in_memory_is_none() {
        let table = open();
        table.get(b"known").unwrap();
        let both = |first: &'static [u8], second: &'static [u8]| {
            table.remembered(|values| Ok((values.get(first)?, values.has(second)?))).is_some()
        };
        assert!(both(b"known", b"known"));
        assert!(!both(b"known", b"other") && !both(b"other", b"known"));
    }
}
