//! Removing names and images, and the blobs and layers nothing else needs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::image::{Image, find_digest, not_found};
use super::index::Entry;
use super::{LayerForm, Lease, Store};
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::name::{Digest, Reference};

/// What a removal did, in the order to report it.
#[derive(Debug, Default)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// The image, if it went with its last name.
    pub deleted: Option<Digest>,
}

impl Store {
    /// Removes one name, and the image with its last name; by image ID, the image with its one name
    /// (`force`: with all of them).
    ///
    /// An image that a running container or pull uses is not deleted: `Error::Busy`.
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed> {
        // Declared first so that it is dropped last: the slow part, removing trees, then happens after
        // the lock is given back.
        let lease = self.lease()?;
        let mut locked = self.lock_index()?;
        let entries = &mut locked.index.manifests;
        let digest = find_digest(entries, text, |entry| self.load(&[entry]))?.ok_or_else(|| not_found(text))?;
        let group: Vec<Entry> = entries.iter().filter(|entry| entry.digest == digest).cloned().collect();
        let named: Vec<Reference> = group.iter().filter_map(Entry::name).collect();
        let by_name: Option<Reference> = text.parse().ok().filter(|wanted| named.contains(wanted));
        if by_name.is_none() && named.len() > 1 && !force {
            let why = format!("it has {} names; remove them one by one, or all with --force", named.len());
            return Err(Error::Busy { what: format!("image {text}"), why });
        }
        let untagged = by_name.map_or_else(|| named.clone(), |name| vec![name]);
        if untagged.len() < named.len() {
            let image = self.load(&group.iter().collect::<Vec<_>>()).ok();
            entries.retain(|entry| entry.digest != digest || entry.name().is_none_or(|name| !untagged.contains(&name)));
            locked.save()?;
            let removed = Removed { untagged, deleted: None };
            self.tell_removed(&removed, image.as_ref());
            return Ok(removed);
        }
        let leased: HashSet<Digest> = self.leased()?.into_iter().collect();
        if !force && leased.contains(&digest) {
            let why = "a container or a pull is using it; wait for it, or remove the container (`rbox ps --all`)".into();
            return Err(Error::Busy { what: format!("image {text}"), why });
        }
        let image = self.load(&group.iter().collect::<Vec<_>>()).ok();
        entries.retain(|entry| entry.digest != digest);
        locked.save()?;
        let deleted = image.as_ref().map_or(&digest, Image::id).clone();
        let mut candidates: HashSet<Digest> = group.iter().filter_map(Entry::resolved).collect();
        candidates.insert(digest);
        candidates.extend(image.iter().flat_map(|image| image.blobs().chain(image.diff_ids())).cloned());
        candidates.retain(|digest| !leased.contains(digest));
        self.discard_unreferenced(&locked.index.manifests, candidates, &lease)?;
        let removed = Removed { untagged, deleted: Some(deleted) };
        self.tell_removed(&removed, image.as_ref());
        Ok(removed)
    }

    /// As docker tells it, by the image's ID. Of an image that is damaged nothing is told.
    fn tell_removed(&self, removed: &Removed, image: Option<&Image>) {
        let Some(image) = image else { return };
        let untagged = removed.untagged.iter().map(|_| "untag");
        for action in untagged.chain(removed.deleted.iter().map(|_| "delete")) {
            self.tell_image(action, image.id().as_str(), image.id().as_str(), &image.config.config.labels);
        }
    }

    /// Removes what a container that has gone claimed, its image's manifest first, as far as nobody else needs it:
    /// an image that was removed by force meanwhile goes with the last of its containers.
    pub(crate) fn release(&self, claims: Vec<Digest>, lease: &Lease) -> Result<()> {
        let locked = self.lock_index()?;
        let entries = &locked.index.manifests;
        if claims.first().is_none_or(|manifest| entries.iter().any(|entry| entry.digest == *manifest)) {
            return Ok(());
        }
        let leased: HashSet<Digest> = self.leased_by_others(lease)?.into_iter().collect();
        self.discard_unreferenced(entries, claims.into_iter().filter(|digest| !leased.contains(digest)).collect(), lease)
    }

    /// Moves those of `candidates` that no image among `entries` needs into the lease's scratch directory.
    fn discard_unreferenced(&self, entries: &[Entry], mut candidates: HashSet<Digest>, lease: &Lease) -> Result<()> {
        for entry in entries {
            candidates.remove(&entry.digest);
            if let Some(resolved) = entry.resolved() {
                candidates.remove(&resolved);
            }
            // Without its manifest nobody can tell what an image needs: keep everything.
            let image = self.load(&[entry])?;
            for digest in image.blobs().chain(image.diff_ids()) {
                candidates.remove(digest);
            }
        }
        for digest in candidates {
            discard(&self.blob_path(&digest), &lease.scratch().join(format!("blob-{}", digest.hex())))?;
            for form in [LayerForm::Erofs, LayerForm::Directory] {
                self.discard_layer(&digest, form, lease)?;
            }
        }
        Ok(())
    }

    /// Moves a layer, if it has that form, into the lease's scratch directory. Gives where it is then.
    pub(super) fn discard_layer(&self, diff_id: &Digest, form: LayerForm, lease: &Lease) -> Result<PathBuf> {
        let gone = lease.scratch().join(format!("gone-{form:?}-{}", diff_id.hex()));
        let place = self.layer_place(diff_id, form);
        Shared::forget(&place);
        discard(&place, &gone)?;
        Ok(gone)
    }
}

pub(super) fn discard(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.attempt(|| format!("remove {}", from.display())),
    }
}
