//! The lock of a container: who watches it holds it, for as long as that run lasts.

use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::record::End;
use super::store::{Containers, unknown};
use crate::error::{Attempt, Result};
use crate::files;

impl Containers {
    /// A container's lock, open for reading, which does for locking.
    pub(super) fn open_lock(&self, id: &str) -> Result<File> {
        let path = self.lock_path(id);
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(unknown(id)),
            other => other.attempt(|| format!("open {}", path.display())),
        }
    }

    /// The lock of a container that does not run: until it is given back nobody starts it. `None` if it runs or, where
    /// `operation` does not wait, somebody holds it.
    pub(super) fn lock_resting(&self, id: &str, operation: FlockOperation) -> Result<Option<File>> {
        loop {
            // In this order: had it been started since, this would not be its lock any more.
            let lock = self.open_lock(id)?;
            if self.status(id)?.is_live() || !files::try_lock(&lock, operation)? {
                return Ok(None);
            }
            if files::leads_to(&self.lock_path(id), &lock)? {
                // Who began to start it may have been killed before there was another lock.
                return Ok((!self.status(id)?.is_live()).then_some(lock));
            }
        }
    }

    /// Keeps a container that does not run from being started, for as long as what it gives is kept; `None` if it runs.
    pub fn rest(&self, id: &str) -> Option<File> {
        self.lock_resting(id, FlockOperation::NonBlockingLockExclusive).ok().flatten()
    }

    pub(super) fn lock_path(&self, id: &str) -> PathBuf {
        self.directory(id).join("lock")
    }

    /// The lock of a container that is started from here on, held by this process; `None` if somebody else has started
    /// it.
    ///
    /// Each start makes the file anew: who waits for the end of one run is not left to wait for the end of the next.
    pub(super) fn lock_to_start(&self, id: &str) -> Result<Option<File>> {
        let Some(_resting) = self.lock_resting(id, FlockOperation::LockExclusive)? else { return Ok(None) };
        self.unmark_stopped(id);
        // Before the lock is seen: nobody waits for one of a container that is live.
        self.save_status(id, &self.status(id)?.starting(false))?;
        let new = self.directory(id).join("lock.new");
        let lock = files::open_lock(&new)?;
        End::write(None, &lock)?;
        files::try_lock(&lock, FlockOperation::LockExclusive)?;
        std::fs::rename(&new, self.lock_path(id)).attempt(|| format!("rename {}", new.display()))?;
        Ok(Some(lock))
    }

    /// Whether a monitor holds a container's lock. Many may ask at the same time.
    pub(super) fn is_held(&self, id: &str) -> Result<bool> {
        Ok(!files::try_lock(&self.open_lock(id)?, FlockOperation::NonBlockingLockShared)?)
    }
}
