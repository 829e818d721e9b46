//! What is in the store and nothing needs: killed commands, or other programs, left it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::Store;
use crate::error::{Attempt, Result};
use crate::name::Digest;
use crate::usage::disk_bytes;

/// A blob, a layer, or the private directory of a command that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it takes on disk.
    pub bytes: u64,
}

impl Store {
    /// All that nothing needs. Where an image's files are damaged nobody can tell what it needs: then there is
    /// nothing but what commands left.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let _index = self.lock_index()?;
        let paths = self.unneeded()?.into_iter();
        Ok(paths.map(|path| Leftover { bytes: disk_bytes(&path), path }).collect())
    }

    /// Removes it. Gives what was removed.
    pub fn discard_leftovers(&self) -> Result<Vec<Leftover>> {
        // Dropped last: the slow part, removing trees, then happens after the lock is given back.
        let lease = self.lease()?;
        let _index = self.lock_index()?;
        let mut discarded = Vec::new();
        for (number, path) in self.unneeded()?.into_iter().enumerate() {
            let bytes = disk_bytes(&path);
            let gone = lease.scratch().join(format!("leftover-{number}"));
            std::fs::rename(&path, gone).attempt(|| format!("remove {}", path.display()))?;
            discarded.push(Leftover { path, bytes });
        }
        Ok(discarded)
    }

    /// What all of the store takes on disk, in bytes.
    pub fn total_bytes(&self) -> u64 {
        disk_bytes(&self.root)
    }

    /// Only meaningful under the exclusive lock.
    fn unneeded(&self) -> Result<Vec<PathBuf>> {
        let mut needed: HashSet<Digest> = self.leased()?.into_iter().collect();
        let mut all_known = true;
        for entry in &self.read_index()?.manifests {
            needed.extend([entry.digest.clone()].into_iter().chain(entry.resolved()));
            match self.load(&[entry]) {
                Ok(image) => needed.extend(image.blobs().chain(image.diff_ids()).cloned()),
                Err(_) => all_known = false,
            }
        }
        let mut unneeded = Vec::new();
        for kind in ["blobs", "layers"] {
            for algorithm in ["sha256", "sha512"] {
                let is_needed = |path: &Path| {
                    let hex = path.file_stem().unwrap_or_default().to_string_lossy();
                    format!("{algorithm}:{hex}").parse::<Digest>().is_ok_and(|digest| needed.contains(&digest))
                };
                let paths = list(&self.root.join(kind).join(algorithm))?;
                unneeded.extend(paths.into_iter().filter(|path| all_known && !is_needed(path)));
            }
        }
        let leases = self.root.join("leases");
        let is_nobodys = |path: &PathBuf| path.file_name().is_none_or(|id| !leases.join(id).exists());
        unneeded.extend(list(&self.root.join("scratch"))?.into_iter().filter(is_nobodys));
        Ok(unneeded)
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).attempt(|| format!("read {}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
