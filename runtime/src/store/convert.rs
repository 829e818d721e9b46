//! Changing the form of layers that are in the store already.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

use super::new_layer::{FinishedLayer, remove};
use super::{LayerForm, Lease, NewLayer, Store};
use crate::error::{Attempt, Error, Result};
use crate::name::Digest;
use crate::{erofs, unpack};

/// What a conversion did, by DiffID.
#[derive(Debug, Default)]
pub struct Converted {
    /// Layers that have the form now and had another before.
    pub converted: Vec<Digest>,
    /// Layers left as they are because a container, a pull or a push uses them.
    pub in_use: Vec<Digest>,
}

impl Store {
    /// Gives every layer of every image the form `to`, one after the other, and calls `converted` after each.
    ///
    /// A layer is unpacked anew from its blob, verified as in a pull, and takes over from the old form what
    /// its archive does not say. Then the new form appears by one rename before the old one goes: killed at
    /// any point, it leaves each layer whole in one form at least. Layers that others use stay as they are.
    ///
    /// # Errors
    ///
    /// What stands in the way of images, if `to` asks for them; [`Error::Mismatch`] for a damaged blob;
    /// [`Error::Io`]. Layers converted before stay converted.
    pub fn convert(&self, to: LayerForm, options: &unpack::Options, mut converted: impl FnMut(&Digest)) -> Result<Converted> {
        let lease = self.lease()?;
        if to == LayerForm::Erofs {
            LayerForm::check_erofs(&lease, options.userxattr)?;
        }
        let mut done = Converted::default();
        for (diff_id, blob) in self.layers()? {
            lease.add([&diff_id, &blob])?; // from here on nobody removes them
            if !self.layer_place(&diff_id, other(to)).exists() {
                continue;
            }
            // A conversion that was killed may have left both.
            let new = match self.layer_place(&diff_id, to).exists() {
                true => None,
                false => Some(self.unpack_again(&diff_id, &blob, to, &lease, options)?),
            };
            let lock = self.lock(FlockOperation::LockExclusive)?;
            if self.leased_by_others(&lease)?.contains(&diff_id) {
                drop(lock);
                new.map_or(Ok(()), FinishedLayer::remove)?;
                done.in_use.push(diff_id);
                continue;
            }
            new.map_or(Ok(()), |new| new.place(self, &diff_id))?;
            let gone = self.discard_layer(&diff_id, other(to), &lease)?;
            drop(lock);
            remove(&gone)?; // now, not with the lease: the disk need not hold everything twice
            converted(&diff_id);
            done.converted.push(diff_id);
        }
        Ok(done)
    }

    /// A layer made from its blob once more, with the metadata that the present form adopted.
    fn unpack_again(
        &self,
        diff_id: &Digest,
        blob: &Digest,
        form: LayerForm,
        lease: &Lease,
        options: &unpack::Options,
    ) -> Result<FinishedLayer> {
        let mut new = self.unpack_anew(diff_id, blob, form, lease, options)?;
        let present = erofs::open_layer(&self.layer_path(diff_id))?;
        new.adopt(&[present.as_fd()])?;
        new.finish(diff_id)
    }

    /// The same without that metadata.
    pub(super) fn unpack_anew(
        &self,
        diff_id: &Digest,
        blob: &Digest,
        form: LayerForm,
        lease: &Lease,
        options: &unpack::Options,
    ) -> Result<NewLayer> {
        let path = self.blob_path(blob);
        let compressed = File::open(&path).attempt(|| format!("open {} (pull the image again)", path.display()))?;
        let algorithms = (blob.algorithm(), diff_id.algorithm());
        let new = NewLayer::unpack(form, lease, diff_id.hex(), compressed, algorithms, options)?;
        for (what, expected, got) in
            [("layer", blob, &new.unpacked().blob), ("DiffID of layer", diff_id, &new.unpacked().diff_id)]
        {
            if got != expected {
                return Err(Error::Mismatch { what: format!("{what} {blob}"), expected: expected.clone(), got: got.clone() });
            }
        }
        Ok(new)
    }

    /// Every layer that an image needs, with its blob. Damaged images have none.
    fn layers(&self) -> Result<BTreeMap<Digest, Digest>> {
        let mut layers = BTreeMap::new();
        for image in self.images()?.into_iter().flatten() {
            layers.extend(image.diff_ids().iter().cloned().zip(image.manifest.layers.iter().map(|layer| layer.digest.clone())));
        }
        Ok(layers)
    }
}

fn other(form: LayerForm) -> LayerForm {
    match form {
        LayerForm::Directory => LayerForm::Erofs,
        LayerForm::Erofs => LayerForm::Directory,
    }
}
