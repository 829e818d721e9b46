//! The local image store: an OCI image layout, the unpacked layers beside it, and who uses what.
//!
//! ```text
//! ROOT/oci-layout index.json blobs/ALGORITHM/HEX    an image layout other tools can read
//! ROOT/layers/ALGORITHM/HEX/{fs,layer.json}         unpacked layers, named by DiffID: a directory,
//! ROOT/layers/ALGORITHM/HEX.erofs                   or an image
//! ROOT/volumes/NAME/                              what outlives containers, see `volume`
//! ROOT/partial/HEX                                  downloads that can be resumed, locked while running
//! ROOT/leases/ID ROOT/scratch/ID/                   who is working, and its private directory
//! ROOT/containers/ID/ ROOT/names/                    containers that are kept, see `container`
//! ROOT/events/                                   what has happened, see `events`
//! ROOT/lock                                         shared: register a use; exclusive: index.json, removal
//! ```
//!
//! **Invariants.** A blob, a layer or an image appears by one `rename` and is complete and verified
//! when it does. No process keeps `lock` across a download, an unpacking or a container. Everything
//! a killed process leaves behind is either resumable (`partial/`) or recognised as stale because
//! the kernel released its lock, and is removed by the next command that leases.

mod check;
mod compare;
mod convert;
mod image;
mod index;
mod layer;
mod lease;
mod leftovers;
mod new_layer;
mod remove;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

pub use check::{Problem, Remedy, Thoroughness};
pub use convert::Converted;
pub use image::Image;
pub(crate) use index::REF_NAME;
pub use layer::{LayerForm, LayerInfo};
pub use lease::Lease;
pub(crate) use lease::claims;
pub use leftovers::Leftover;
pub use remove::Removed;

pub(crate) use new_layer::NewLayer;

use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::name::Digest;
use crate::usage::disk_bytes;

/// One user's images on this machine. Cheap to open; any number of processes may share one.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Where the store is when nothing else is said: `$LONGSHORE_ROOT`, else `/var/lib/longshore` for
    /// root, else `longshore` below the XDG data directory.
    ///
    /// Call it before entering a user namespace, where everybody is root.
    pub fn default_root() -> Result<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = set("LONGSHORE_ROOT") {
            return Ok(root);
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/longshore".into());
        }
        set("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("longshore"))
            .ok_or_else(|| Error::NotFound {
                what: "a place for the image store".into(),
                hint: "set HOME, or name a directory with --root or LONGSHORE_ROOT".into(),
            })
    }

    /// Opens the store at `root`, creating it (mode 0700) when there is none.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = std::path::absolute(root.as_ref()).attempt(|| format!("resolve {}", root.as_ref().display()))?;
        let store = Self { root };
        if let Ok(metadata) = std::fs::metadata(store.root.join("oci-layout")) {
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(Error::Busy {
                    what: format!("image store {}", store.root.display()),
                    why: "it belongs to another user; name your own with --root or LONGSHORE_ROOT".into(),
                });
            }
            return Ok(store);
        }
        for dir in ["blobs/sha256", "blobs/sha512", "layers/sha256", "layers/sha512", "partial", "leases", "scratch"] {
            files::make_private_dir(&store.root.join(dir))?;
        }
        let _lock = store.lock(FlockOperation::LockExclusive)?;
        let marker = store.root.join("oci-layout");
        files::write_atomically(&marker, &marker.with_extension("new"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(store)
    }

    /// The store's directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.named("blobs", digest)
    }

    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Bytes on disk of the blob or the unpacked layer of that digest; 0 if there is neither.
    pub fn disk_bytes(&self, digest: &Digest) -> u64 {
        let layers = [LayerForm::Erofs, LayerForm::Directory].map(|form| self.layer_place(digest, form));
        disk_bytes(&self.blob_path(digest)) + layers.iter().map(|place| disk_bytes(place)).sum::<u64>()
    }

    /// The bytes on disk of downloads that stopped and can be resumed.
    pub fn partial_downloads(&self) -> Result<Vec<u64>> {
        let dir = self.root.join("partial");
        let entries = std::fs::read_dir(&dir).attempt(|| format!("read {}", dir.display()))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.blocks() * 512)).collect())
    }

    /// Removes downloads that stopped, but not those that go on just now. Gives how many bytes they took.
    pub fn discard_partial_downloads(&self) -> Result<u64> {
        let dir = self.root.join("partial");
        let entries = std::fs::read_dir(&dir).attempt(|| format!("read {}", dir.display()))?;
        let mut bytes = 0;
        for path in entries.flatten().map(|entry| entry.path()) {
            if let Some(file) = files::lock_path(&path, FlockOperation::NonBlockingLockExclusive)? {
                bytes += file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                std::fs::remove_file(&path).attempt(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(bytes)
    }

    /// Every digest that a running container, pull or push claims.
    pub fn in_use(&self) -> Result<Vec<Digest>> {
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        self.leased()
    }

    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    fn named(&self, kind: &str, digest: &Digest) -> PathBuf {
        self.root.join(kind).join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// The store's lock, held until the handle is dropped.
    pub(crate) fn lock(&self, operation: FlockOperation) -> Result<File> {
        let file = files::open_lock(&self.root.join("lock"))?;
        files::try_lock(&file, operation)?;
        Ok(file)
    }
}
