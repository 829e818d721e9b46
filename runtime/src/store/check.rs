//! Whether the store is whole, and taking out what is not.
//!
//! What is taken out a pull brings again: blobs from the registry, layers from their blobs.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use super::compare::difference;
use super::index::Entry;
use super::remove::discard;
use super::{LayerForm, Lease, Leftover, Store};
use crate::error::{Error, Result};
use crate::name::{Digest, Reference};
use crate::{erofs, unpack};

/// Bytes hashed at a time.
const READ_BYTES: usize = 256 << 10;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about: `"blob sha256:..."`.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
    /// What mends it.
    pub remedy: Remedy,
}

/// What mends a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// To take the blob out, and pull these images again.
    Fetch {
        /// The blob that is damaged or gone.
        blob: Digest,
        /// Who needs it: a name, if there is one, and the manifest's digest.
        images: Vec<(Option<Reference>, Digest)>,
    },
    /// To take the layer out, and pull these images again, which needs no registry if their blobs are whole.
    Unpack {
        /// The DiffID of the layer that is damaged or gone.
        layer: Digest,
        /// Who needs it.
        images: Vec<(Option<Reference>, Digest)>,
    },
    /// To remove it.
    Discard(Leftover),
    /// Nothing: the layer cannot be unpacked here again, by this version or with what this user may do.
    Nothing,
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub struct Thoroughness<'a> {
    /// Whether every byte is read: blobs are hashed, and layers compared with what they are unpacked from.
    pub whole: bool,
    /// How layers are unpacked here.
    pub unpack: &'a unpack::Options,
}

impl Store {
    /// Looks for what is damaged, gone, or left over. `looked` is called with each thing that was looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::Invalid`] for an `index.json` that cannot be read: nothing else can be told then.
    pub fn check(&self, how: Thoroughness<'_>, looked: &mut dyn FnMut(&str)) -> Result<Vec<Problem>> {
        let lease = self.lease()?;
        let mut problems = Vec::new();
        let mut blobs: BTreeMap<Digest, Needed> = BTreeMap::new();
        let mut layers: BTreeMap<Digest, Needed> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for entry in &self.read_index()?.manifests {
            let image = (entry.name(), entry.digest.clone());
            let need = |parts: &mut BTreeMap<Digest, Needed>, digest: &Digest, size: Option<u64>, of: Option<&Digest>| {
                let needed = parts.entry(digest.clone()).or_default();
                needed.images.push(image.clone());
                needed.size = needed.size.or(size);
                needed.blob = needed.blob.take().or_else(|| of.cloned());
            };
            need(&mut blobs, &entry.digest, Some(entry.size), None);
            match self.load(&[entry]) {
                Ok(image) => {
                    lease.add(image.blobs().chain(image.diff_ids()))?;
                    need(&mut blobs, image.id(), Some(image.manifest.config.size), None);
                    for (layer, diff_id) in image.manifest.layers.iter().zip(image.diff_ids()) {
                        need(&mut blobs, &layer.digest, Some(layer.size), None);
                        need(&mut layers, diff_id, None, Some(&layer.digest));
                    }
                }
                Err(error) => {
                    let config = self.config_of(entry);
                    config.iter().for_each(|config| need(&mut blobs, config, None, None));
                    unreadable.push((image, config, error));
                }
            }
        }
        let mut damaged = HashSet::new();
        for (blob, needed) in blobs {
            looked(&format!("blob {blob}"));
            // What cannot be read may well have the right length.
            let whole =
                how.whole || unreadable.iter().any(|(image, config, _)| image.1 == blob || config.as_ref() == Some(&blob));
            if let Some(why) = self.damage(&blob, needed.size, whole) {
                damaged.insert(blob.clone());
                let remedy = Remedy::Fetch { blob: blob.clone(), images: needed.images };
                problems.push(Problem { what: format!("blob {blob}"), why, remedy });
            }
        }
        for (image, config, error) in unreadable {
            if !damaged.contains(&image.1) && config.is_none_or(|config| !damaged.contains(&config)) {
                let what = format!("image {}", image.1);
                let remedy = Remedy::Fetch { blob: image.1.clone(), images: vec![image] };
                problems.push(Problem { what, why: error.to_string(), remedy });
            }
        }
        for (layer, needed) in layers {
            looked(&format!("layer {layer}"));
            let blob = needed.blob.filter(|blob| how.whole && !damaged.contains(blob));
            let what = format!("layer {layer}");
            match self.layer_state(&layer, blob.as_ref(), &lease, how.unpack)? {
                LayerState::Whole => {}
                LayerState::Damaged(why) => {
                    problems.push(Problem { what, why, remedy: Remedy::Unpack { layer, images: needed.images } });
                }
                LayerState::Unknown(why) => problems.push(Problem { what, why, remedy: Remedy::Nothing }),
            }
        }
        problems.extend(self.leftovers()?.into_iter().map(|leftover| Problem {
            what: leftover.path.strip_prefix(&self.root).unwrap_or(&leftover.path).display().to_string(),
            why: "nothing needs it".into(),
            remedy: Remedy::Discard(leftover),
        }));
        // What went meanwhile is no loss.
        let index = self.read_index()?;
        problems.retain(|problem| match &problem.remedy {
            Remedy::Fetch { images, .. } | Remedy::Unpack { images, .. } => {
                images.iter().any(|(_, digest)| index.manifests.iter().any(|entry| entry.digest == *digest))
            }
            Remedy::Discard(_) | Remedy::Nothing => true,
        });
        Ok(problems)
    }

    /// The configuration an image's manifest names, if that can be read.
    fn config_of(&self, entry: &Entry) -> Option<Digest> {
        #[derive(serde::Deserialize)]
        struct Named {
            config: crate::image::Descriptor,
        }
        let bytes = std::fs::read(self.blob_path(&entry.digest)).ok()?;
        Some(serde_json::from_slice::<Named>(&bytes).ok()?.config.digest)
    }

    /// What is wrong with a blob, if anything is.
    fn damage(&self, digest: &Digest, size: Option<u64>, whole: bool) -> Option<String> {
        let mut file = match File::open(self.blob_path(digest)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("it is not there".into()),
            Err(error) => return Some(error.to_string()),
            Ok(file) => file,
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if let Some(size) = size.filter(|size| *size != length) {
            return Some(format!("it is {length} bytes long, not {size}"));
        }
        if !whole {
            return None;
        }
        let mut hasher = digest.algorithm().hasher();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            match file.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => hasher.update(&bytes[..length]),
                Err(error) => return Some(error.to_string()),
            }
        }
        let is = hasher.finish();
        (is != *digest).then(|| format!("it is {is}"))
    }

    /// How an unpacked layer is, as far as it can be told: all of it, with the `blob` it was unpacked from, but for what
    /// its archive does not say of the directories it implies.
    fn layer_state(
        &self,
        diff_id: &Digest,
        blob: Option<&Digest>,
        lease: &Lease,
        options: &unpack::Options,
    ) -> Result<LayerState> {
        let damaged = |why: String| Ok(LayerState::Damaged(why));
        let Some(form) = self.layer_form(diff_id) else { return damaged("it is not there".into()) };
        let present = match self.layer_info(diff_id).and_then(|_| erofs::open_layer(&self.layer_path(diff_id))) {
            Err(error) => return damaged(error.to_string()),
            Ok(present) => present,
        };
        let Some(blob) = blob else { return Ok(LayerState::Whole) };
        let mut new = match self.unpack_anew(diff_id, blob, form, lease, options) {
            Err(error @ (Error::Mismatch { .. } | Error::Invalid { .. })) => return Ok(LayerState::Unknown(error.to_string())),
            new => new?,
        };
        if let Err(error) = new.adopt(&[present.as_fd()]) {
            return damaged(error.to_string());
        }
        let new = new.finish(diff_id)?;
        let compared = difference(present.as_fd(), new.open()?.as_fd());
        new.remove()?; // now, not with the lease: the disk need not hold everything twice
        match compared {
            Err(errno) => damaged(format!("it cannot be read: {errno}")),
            Ok(Some(path)) => damaged(format!("/{} is not what it was unpacked as", path.display())),
            Ok(None) => Ok(LayerState::Whole),
        }
    }

    /// Takes out what is damaged or left over. `rest` gives, for a container that does not run, what keeps it from being
    /// started: such a one may miss a layer for a moment.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] for what others are using.
    pub fn take_out(&self, remedy: &Remedy, rest: &dyn Fn(&str) -> Option<File>) -> Result<()> {
        let (digest, what) = match remedy {
            Remedy::Fetch { blob, .. } => (blob, "blob"),
            Remedy::Unpack { layer, .. } => (layer, "layer"),
            Remedy::Discard(_) => return self.discard_leftovers().map(drop),
            Remedy::Nothing => return Ok(()),
        };
        // Dropped last: the slow part, removing trees, then happens after the lock is given back.
        let lease = self.lease()?;
        let _index = self.lock_index()?;
        let mut resting = Vec::new();
        for claim in self.claimed_but_by(Some(&lease))? {
            if !claim.text.lines().any(|line| line.parse::<Digest>().is_ok_and(|claimed| claimed == *digest)) {
                continue;
            }
            match rest(&claim.id).filter(|_| claim.is_container) {
                Some(held) => resting.push(held),
                None => {
                    let why = format!("{} is using it; stop what runs, and check again", claim.id);
                    return Err(Error::Busy { what: format!("{what} {digest}"), why });
                }
            }
        }
        match remedy {
            Remedy::Fetch { .. } => discard(&self.blob_path(digest), &lease.scratch().join("blob")),
            _ => [LayerForm::Erofs, LayerForm::Directory]
                .into_iter()
                .try_for_each(|form| self.discard_layer(digest, form, &lease).map(drop)),
        }
    }
}

enum LayerState {
    Whole,
    Damaged(String),
    /// It cannot be compared with what it was unpacked from.
    Unknown(String),
}

/// What the images need one blob or layer for.
#[derive(Default)]
struct Needed {
    images: Vec<(Option<Reference>, Digest)>,
    size: Option<u64>,
    /// Of a layer: what it is unpacked from.
    blob: Option<Digest>,
}
