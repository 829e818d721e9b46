//! A layer on its way into the store: unpacked in a scratch directory in either form, then put in place.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::layer::{LayerForm, LayerInfo};
use super::{Lease, Store};
use crate::erofs;
use crate::error::{Attempt, Result};
use crate::files;
use crate::launch::remove_tree;
use crate::name::{Algorithm, Digest};
use crate::unpack::{self, PendingImage, Unpacked};

/// A layer that is unpacked but not finished. Dropped, it is left to go with the lease.
pub(crate) struct NewLayer {
    path: PathBuf,
    form: Form,
    unpacked: Unpacked,
}

enum Form {
    Directory,
    Image(PendingImage),
}

/// A finished layer that is not in place. Dropped, it is left to go with the lease.
pub(crate) struct FinishedLayer {
    /// The directory or file that will be renamed.
    path: PathBuf,
    form: LayerForm,
}

impl NewLayer {
    /// Unpacks compressed bytes under a `name` of its own in the lease's scratch directory. The caller compares
    /// the digests.
    ///
    /// # Errors
    ///
    /// Those of [`unpack::unpack_layer`].
    pub(crate) fn unpack(
        form: LayerForm,
        lease: &Lease,
        name: &str,
        compressed: impl Read + Send,
        algorithms: (Algorithm, Algorithm),
        options: &unpack::Options,
    ) -> Result<Self> {
        let path = lease.scratch().join(name);
        match form {
            LayerForm::Directory => {
                let fs = path.join("fs");
                files::make_private_dir(&path)?;
                DirBuilder::new().mode(0o755).create(&fs).attempt(|| format!("create directory {}", fs.display()))?;
                let fs = open_dir(&fs)?;
                let unpacked = unpack::unpack_layer(compressed, algorithms.0, algorithms.1, fs.as_fd(), options)?;
                Ok(Self { path, form: Form::Directory, unpacked })
            }
            LayerForm::Erofs => {
                let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
                let file = file.attempt(|| format!("create file {}", path.display()))?;
                let (unpacked, image) = unpack::unpack_image(compressed, algorithms.0, algorithms.1, file, options)?;
                Ok(Self { path, form: Form::Image(image), unpacked })
            }
        }
    }

    /// What was read.
    pub(crate) fn unpacked(&self) -> &Unpacked {
        &self.unpacked
    }

    /// Gives the implied directories the metadata they have in the layers `below`, the nearest first.
    pub(crate) fn adopt(&mut self, below: &[BorrowedFd<'_>]) -> Result<()> {
        match &mut self.form {
            Form::Image(image) => self.unpacked.implied.iter().try_for_each(|path| image.adopt_directory(below, path).map(drop)),
            Form::Directory => {
                let fs = open_dir(&self.path.join("fs"))?;
                let adopt = |path: &PathBuf| unpack::adopt_directory(below, path, fs.as_fd()).map(drop);
                self.unpacked.implied.iter().try_for_each(adopt)
            }
        }
    }

    /// Writes what is left to be written. Nothing is synced.
    pub(crate) fn finish(self, diff_id: &Digest) -> Result<FinishedLayer> {
        let info = LayerInfo { unpacked_bytes: self.unpacked.unpacked_bytes, entries: self.unpacked.entries }.encode()?;
        match self.form {
            Form::Directory => {
                std::fs::write(self.path.join("layer.json"), info).attempt(|| "write layer.json")?;
                Ok(FinishedLayer { path: self.path, form: LayerForm::Directory })
            }
            Form::Image(image) => {
                image.finish(diff_id, &info)?;
                Ok(FinishedLayer { path: self.path, form: LayerForm::Erofs })
            }
        }
    }
}

impl FinishedLayer {
    /// Puts the layer in place by one rename.
    pub(crate) fn place(self, store: &Store, diff_id: &Digest) -> Result<()> {
        match std::fs::rename(&self.path, store.layer_place(diff_id, self.form)) {
            // Another pull put the same layer in place: as good as ours, which goes with the lease.
            Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => Ok(()),
            other => other.attempt(|| format!("put layer {diff_id} in place")),
        }
    }

    /// Its root directory.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        match self.form {
            LayerForm::Directory => open_dir(&self.path.join("fs")).map(OwnedFd::from),
            LayerForm::Erofs => erofs::open_layer(&self.path),
        }
    }

    /// Removes the layer: it is not wanted.
    pub(super) fn remove(self) -> Result<()> {
        remove(&self.path)
    }
}

/// Removes a layer that is not in place, of whichever form.
pub(super) fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        return remove_tree(path);
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.attempt(|| format!("remove {}", path.display())),
    }
}

fn open_dir(path: &Path) -> Result<File> {
    File::open(path).attempt(|| format!("open directory {}", path.display()))
}
