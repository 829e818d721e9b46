//! Metadata in memory, for tests: the same store over a map, and a log whose storage can fail, or
//! freeze as a power failure freezes it.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use super::clock::Clock;
use super::journal::{AppendError, Log, Rewritten, read};
use super::lease::Leases;
use super::sled::Replay;
use super::store::Store;
use super::table::{Changes, Entry, Lookup, Table};
use crate::error::Result;
use crate::faults::{Fault, Faults};

/// A table in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryTable(Arc<RwLock<std::collections::BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Lookup for MemoryTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.read().unwrap().get(key).cloned())
    }

    fn has(&self, key: &[u8]) -> Result<bool> {
        Ok(self.0.read().unwrap().contains_key(key))
    }
}

impl Table for MemoryTable {
    fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t> {
        let mut start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let (map, prefix) = (Arc::clone(&self.0), prefix.to_vec());
        std::iter::from_fn(move || {
            let map = map.read().unwrap();
            let (key, value) = map.range((start.clone(), Bound::Unbounded)).next()?;
            start = Bound::Excluded(key.clone());
            key.starts_with(&prefix).then(|| Ok((key.clone(), value.clone())))
        })
    }

    fn apply(&self, changes: &Changes) -> Result<()> {
        let mut map = self.0.write().unwrap();
        for (key, value) in changes {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A log in memory. What is here is what a restart would find.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryLog {
    durable: Arc<Mutex<Vec<u8>>>,
    faults: Arc<Faults>,
    clock: Clock,
}

impl MemoryLog {
    pub(crate) fn with(faults: &Arc<Faults>) -> Self {
        Self { faults: Arc::clone(faults), ..Self::default() }
    }

    /// For which time is what `set` holds, in milliseconds since the epoch.
    pub(crate) fn at(set: &Arc<AtomicU64>) -> Self {
        Self { clock: Clock::reading(set), ..Self::default() }
    }

    /// The metadata a start makes of the log.
    pub(crate) fn open(&self) -> Store<MemoryTable> {
        let table = MemoryTable::default();
        let mut replay = Replay::new(&table);
        let mut durable = self.durable.lock().unwrap();
        let mut bytes = std::io::Cursor::new(durable.as_slice());
        let found = read(Path::new("memory"), &mut bytes, 0, |record| replay.take(&record)).unwrap();
        assert_eq!(found.first_damage_at, None, "only the end is torn");
        durable.truncate(usize::try_from(found.end).unwrap());
        drop(durable);
        replay.finish().unwrap();
        Store::new(table, self.clone(), None, Leases::renewed_now(self.clock.clone()))
    }
}

impl Log for MemoryLog {
    fn end(&self) -> u64 {
        self.durable.lock().unwrap().len() as u64
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), AppendError> {
        match self.faults.next("append to the journal") {
            Ok(()) => {
                self.durable.lock().unwrap().extend_from_slice(lines);
                Ok(())
            }
            Err((Fault::Refuse, e)) => Err(AppendError::Refused(e)),
            // Some of it may be there: a start has to cut what is torn.
            Err((Fault::Freeze { kept }, e)) => {
                self.durable.lock().unwrap().extend_from_slice(&lines[..kept.min(lines.len())]);
                Err(AppendError::Unknown(e))
            }
        }
    }

    fn adopt(&mut self, _: Rewritten) -> Result<(), AppendError> {
        unreachable!("nobody writes it anew")
    }
}

#[cfg(test)]
mod tests {
    use crate::meta::contract::every_promise_is_kept;

    use super::*;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        let log = MemoryLog::default();
        every_promise_is_kept(|| log.open()).await;
    }
}
