//! The data directory: what is where in it, and that one process has it at a time.
//!
//! ```text
//! DATA/lock                       held by the process that uses the directory
//! DATA/blobs/sha256/ab/<hex>      content, manifests included
//! DATA/uploads/<id>.<repository>  bytes of uploads in progress
//! DATA/journal                    who links what, and the tags: what content cannot tell
//! DATA/leases                     who was told what, while no process is there to know it
//! DATA/quarantine/                content that is not what its digest says, put aside by a check
//! DATA/control                    the socket on which the serving process takes maintenance
//! DATA/metadata/                  the database made of the journal
//! DATA/token.key                  what access tokens are signed with
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Attempt, Error, Result};

/// A data directory this process has for itself.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Closed, and with it unlocked, when this is dropped or the process dies.
    _lock: File,
}

impl DataDir {
    /// Creates the directory when it is not there, and takes it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).attempt(|| format!("create {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .attempt(|| format!("open {}", lock_path.display()))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse(path.display().to_string())),
            Err(errno) => Err(errno).attempt(|| format!("lock {}", lock_path.display()))?,
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where content and uploads are: `blobs/` and `uploads/` are in it.
    pub fn blobs(&self) -> &Path {
        &self.path
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where leases are while no process has them.
    pub fn leases(&self) -> PathBuf {
        self.path.join("leases")
    }

    /// The signing key's file.
    pub fn token_key(&self) -> PathBuf {
        self.path.join("token.key")
    }

    /// The metadata database's directory.
    pub fn metadata(&self) -> PathBuf {
        self.path.join("metadata")
    }
}

/// Puts a directory's entries on stable storage: what was created in it, renamed into it or
/// removed from it.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let sync = || File::open(path)?.sync_all();
    Ok(sync().attempt(|| format!("sync directory {}", path.display()))?)
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Ok(Err(e).attempt(|| format!("remove {}", path.display()))?),
        _ => Ok(()),
    }
}
