//! Leases: which blobs and layers a running command needs, and the private directory it works in.
//!
//! A lease is a locked file that lists digests. The kernel drops the lock when the process ends,
//! however it ends, so a lease nobody holds is stale and anybody may clear it away.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::Store;
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::launch::remove_tree;
use crate::name::Digest;
use crate::network::Networks;
use crate::userns;

/// What all images of a large store consist of: each blob and each layer a line of up to 136 bytes.
const LEASE_LIMIT_BYTES: u64 = 256 << 20;

/// A claim on blobs and layers for as long as this value (or the process) lives, with a scratch
/// directory on the store's file system. Dropping it removes both.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    id: String,
    file: File,
}

impl Lease {
    /// 64 hexadecimal digits; also the identity of a container run under this lease.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The private directory. What is in it goes when the lease goes.
    pub fn scratch(&self) -> PathBuf {
        self.store.root.join("scratch").join(&self.id)
    }

    /// The lease's own file: whoever cleans up for a killed process removes it last.
    pub fn path(&self) -> PathBuf {
        lease_path(&self.store, &self.id)
    }

    /// Stores a small blob whose bytes are at hand.
    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.store.has_blob(digest) {
            return Ok(());
        }
        files::write_atomically(&self.store.blob_path(digest), &self.scratch().join(digest.hex()), bytes)
    }

    /// Claims more blobs or layers. From here on nobody removes those that exist.
    pub fn add<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let mut lines = String::new();
        for digest in digests {
            let _ = writeln!(lines, "{digest}");
        }
        let _lock = self.store.lock(FlockOperation::LockShared)?;
        (&self.file).write_all(lines.as_bytes()).attempt(|| "write lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Failing to clear away is no error of the work done: the next command sweeps what the lease still names.
        let _ = remove_tree(&self.scratch()).map(|()| std::fs::remove_file(self.path()));
    }
}

/// What a running command or a container needs.
pub(crate) struct Claim {
    /// The lease's or the container's.
    pub(crate) id: String,
    /// Of a container that is kept, not of a command.
    pub(crate) is_container: bool,
    /// A line for each blob, layer and volume.
    pub(crate) text: String,
}

fn lease_path(store: &Store, id: &str) -> PathBuf {
    store.root.join("leases").join(id)
}

impl Store {
    /// A new lease, empty. Also clears away what killed commands left.
    pub fn lease(&self) -> Result<Lease> {
        self.sweep()?;
        let id = files::random_hex(32)?;
        let file = files::lock_path(&lease_path(self, &id), FlockOperation::LockExclusive)?
            .ok_or_else(|| Error::invalid("lease", "its lock was refused"))?;
        let lease = Lease { store: self.clone(), id, file };
        files::make_private_dir(&lease.scratch())?;
        Ok(lease)
    }

    /// Removes the scratch directories of leases nobody holds. One that resists (a killed command's
    /// container may still be dying in it) keeps its lease file and is the next command's to remove.
    fn sweep(&self) -> Result<()> {
        for path in self.lease_files()? {
            let Some(id) = path.file_name().map(PathBuf::from) else { continue };
            if let Some(_stale) = lock_existing(&path)? {
                userns::strike_out_killed(&self.root);
                if let Some(id) = id.to_str().filter(|id| !self.root.join("containers").join(id).exists()) {
                    // What stays is found by who wants it next. Of a container that is there it is that one's own.
                    let _ = Networks::new(self).release(id);
                }
                let removed = remove_tree(&self.root.join("scratch").join(id));
                let _ = removed.map(|()| std::fs::remove_file(&path));
            }
        }
        Ok(())
    }

    /// Whether the command that has this lease lives.
    pub(crate) fn is_leased(&self, id: &str) -> bool {
        let path = lease_path(self, id);
        path.exists() && lock_existing(&path).is_ok_and(|lock| lock.is_none())
    }

    /// Every digest that a running command has claimed. Only meaningful under the exclusive lock.
    pub(super) fn leased(&self) -> Result<Vec<Digest>> {
        self.leased_but_by(None)
    }

    /// The same, but for what `own` claims.
    pub(super) fn leased_by_others(&self, own: &Lease) -> Result<Vec<Digest>> {
        self.leased_but_by(Some(own))
    }

    fn leased_but_by(&self, own: Option<&Lease>) -> Result<Vec<Digest>> {
        let claimed = self.claimed_but_by(own)?;
        Ok(claimed.iter().flat_map(|claim| claim.text.lines()).filter_map(|line| line.parse().ok()).collect())
    }

    /// Who claims what. Only meaningful under the exclusive lock.
    pub(crate) fn claimed_but_by(&self, own: Option<&Lease>) -> Result<Vec<Claim>> {
        let mut claimed = Vec::new();
        let id = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let own = own.map(Lease::path);
        for path in self.lease_files()?.into_iter().filter(|path| own.as_ref() != Some(path)) {
            if lock_existing(&path)?.is_some() {
                continue;
            }
            let text = match files::read_bounded(&path, LEASE_LIMIT_BYTES) {
                // A lease that ended between the two looks claims nothing any more.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                text => text?,
            };
            claimed.push(Claim { id: id(&path), is_container: false, text: String::from_utf8_lossy(&text).into_owned() });
        }
        // What a container that is kept needs it needs whether it runs or not.
        for container in std::fs::read_dir(self.root.join("containers")).into_iter().flatten().flatten() {
            let path = container.path();
            claimed.push(Claim { id: id(&path), is_container: true, text: claim_lines(&path) });
        }
        Ok(claimed)
    }

    fn lease_files(&self) -> Result<Vec<PathBuf>> {
        let dir = self.root.join("leases");
        let entries = std::fs::read_dir(&dir).attempt(|| format!("read {}", dir.display()))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
    }
}

/// What the container kept in `directory` claims; nothing if that has gone.
pub(crate) fn claims(directory: &Path) -> Vec<Digest> {
    claim_lines(directory).lines().filter_map(|line| line.parse().ok()).collect()
}

fn claim_lines(directory: &Path) -> String {
    let text = files::read_bounded(&directory.join("claims"), LEASE_LIMIT_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The lock of a lease that nobody holds; `None` if it is held or gone.
fn lock_existing(path: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(path) else { return Ok(None) };
    Ok(files::try_lock(&file, FlockOperation::NonBlockingLockExclusive)?.then_some(file))
}
