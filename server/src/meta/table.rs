//! The ordered keys and values metadata is kept in, and changes on top that are not in it yet.
//!
//! Two implementations: runs in sled's tree, and one in memory for tests.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);
/// Keys with their new values; `None` removes.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Values by key.
pub trait Lookup {
    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Whether there is such a key.
    fn has(&self, key: &[u8]) -> Result<bool>;
}

/// Ordered keys and values.
pub trait Table: Lookup + Clone + Send + Sync + 'static {
    /// The entries whose keys begin with `prefix`, in order, those after the key `after` only.
    fn scan<'t>(&'t self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = Result<Entry>> + use<'t, Self>;
    /// Makes the changes, all at once.
    fn apply(&self, changes: &Changes) -> Result<()>;
    /// Puts everything applied on stable storage.
    fn flush(&self) -> Result<()>;
}

pub(super) fn failed(source: sled::Error) -> Error {
    match source {
        sled::Error::Corruption { .. } => {
            let why = format!("{source}; stop rhub and run `rhub rebuild` to make it anew from the journal");
            Error::damaged("the metadata database", why)
        }
        source => Error::Database { attempted: "use the metadata database", source },
    }
}

/// A table, with changes on top that it does not have yet.
pub(super) struct View<'a, T> {
    table: &'a T,
    pending: Changes,
    /// When the changes happen, in milliseconds since the epoch.
    pub(super) now_ms: u64,
}

impl<'a, T: Table> View<'a, T> {
    pub(super) fn new(table: &'a T, now_ms: u64) -> Self {
        Self { table, pending: BTreeMap::new(), now_ms }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.pending.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.table.get(key),
        }
    }

    pub(super) fn has(&self, key: &[u8]) -> Result<bool> {
        match self.pending.get(key) {
            Some(value) => Ok(value.is_some()),
            None => self.table.has(key),
        }
    }

    /// Whether any key begins with `prefix`.
    pub(super) fn has_any(&self, prefix: &[u8]) -> Result<bool> {
        if self.changed_under(prefix).any(|(_, value)| value.is_some()) {
            return Ok(true);
        }
        for entry in self.table.scan(prefix, None) {
            if !self.pending.contains_key(&entry?.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every key that begins with `prefix`.
    pub(super) fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        for entry in self.table.scan(prefix, None) {
            let (key, _) = entry?;
            if !self.pending.contains_key(&key) {
                keys.push(key);
            }
        }
        keys.extend(self.changed_under(prefix).filter(|(_, value)| value.is_some()).map(|(key, _)| key.clone()));
        Ok(keys)
    }

    fn changed_under<'v>(&'v self, prefix: &'v [u8]) -> impl Iterator<Item = (&'v Vec<u8>, &'v Option<Vec<u8>>)> {
        self.pending.range(prefix.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<Vec<u8>>) {
        self.pending.insert(key, Some(value.into()));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.pending.insert(key, None);
    }

    pub(super) fn into_changes(self) -> Changes {
        self.pending
    }
}
