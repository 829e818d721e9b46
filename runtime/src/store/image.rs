//! Images in the store: listing, finding, naming.

use rustix::fs::FlockOperation;

use super::index::Entry;
use super::{Lease, Store};
use crate::error::{Error, Result};
use crate::files;
use crate::image::{self, CONFIG_LIMIT_BYTES, Document, HistoryEntry, ImageConfig, Manifest};
use crate::name::{Digest, MANIFEST_LIMIT_BYTES, Reference};
use crate::source::RawManifest;

/// The shortest image ID prefix understood as one.
const ID_PREFIX_MIN: usize = 4;

/// An image in the store with all its names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The names it has, tags and pinned digests; empty for one whose name moved on.
    pub names: Vec<Reference>,
    /// `name@digest` as the registries know it.
    pub repo_digests: Vec<String>,
    /// Its manifest as received.
    pub raw: RawManifest,
    /// Its manifest, read.
    pub manifest: Manifest,
    /// Its configuration, read.
    pub config: ImageConfig,
}

impl Image {
    /// The image ID, as docker counts it: the digest of its configuration.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }

    /// Its DiffIDs, bottom first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }

    /// Its unpacked size in bytes, shared layers included.
    pub fn unpacked_bytes(&self, store: &Store) -> u64 {
        self.diff_ids().iter().filter_map(|diff_id| store.layer_info(diff_id).ok()).map(|info| info.unpacked_bytes).sum()
    }

    /// Every blob the image consists of: manifest, configuration, layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.manifest.layers.iter().map(|layer| &layer.digest);
        [&self.raw.digest, self.id()].into_iter().chain(layers)
    }
}

impl Store {
    /// All images, those with the latest names last. Images whose files are damaged are reported as
    /// errors one by one and do not hide the others.
    pub fn images(&self) -> Result<Vec<Result<Image>>> {
        let index = self.read_index()?;
        let mut groups: Vec<Vec<&Entry>> = Vec::new();
        for entry in &index.manifests {
            match groups.iter_mut().find(|group| group[0].digest == entry.digest) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        Ok(groups.iter().map(|group| self.load(group)).collect())
    }

    /// The image a user means by `text`: a reference, or an image ID or a prefix of one.
    pub fn find(&self, text: &str) -> Result<Option<Image>> {
        let index = self.read_index()?;
        let Some(digest) = find_digest(&index.manifests, text, |entry| self.load(&[entry]))? else { return Ok(None) };
        let group: Vec<&Entry> = index.manifests.iter().filter(|entry| entry.digest == digest).collect();
        self.load(&group).map(Some)
    }

    /// As [`Store::find`], with the error a user expects.
    pub fn get(&self, text: &str) -> Result<Image> {
        self.find(text)?.ok_or_else(|| not_found(text))
    }

    /// As [`Store::find`], and claims the image's blobs and layers for `lease` before anybody can remove
    /// them.
    pub fn find_leased(&self, text: &str, lease: &Lease) -> Result<Option<Image>> {
        let lock = self.lock(FlockOperation::LockShared)?;
        let Some(image) = self.find(text)? else { return Ok(None) };
        lease.add(image.blobs().chain(image.diff_ids()))?;
        drop(lock);
        Ok(Some(image))
    }

    /// The steps by which an image was made, the first one first.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryEntry>> {
        image::parse_history(&files::read_bounded(&self.blob_path(image.id()), CONFIG_LIMIT_BYTES)?)
    }

    /// Gives the image a further name.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::Name { what: "tag", input: name.to_string(), why: "a new name must be a tag, not a digest" });
        }
        let mut locked = self.lock_index()?;
        let entries = &locked.index.manifests;
        let digest = find_digest(entries, image, |entry| self.load(&[entry]))?;
        let entry =
            digest.and_then(|digest| entries.iter().find(|entry| entry.digest == digest)).ok_or_else(|| not_found(image))?;
        let renamed = entry.rename(name);
        let image = self.load(&[entry]);
        locked.index.put(renamed);
        locked.save()?;
        if let Ok(image) = image {
            self.tell_image("tag", image.id().as_str(), &name.familiar(), &image.config.config.labels);
        }
        Ok(())
    }

    /// One image from all the entries that have its digest.
    pub(super) fn load(&self, group: &[&Entry]) -> Result<Image> {
        let entry = group[0];
        let bytes = files::read_bounded(&self.blob_path(&entry.digest), MANIFEST_LIMIT_BYTES as u64)?;
        let Document::Image(manifest) = Document::parse(&entry.media_type, &bytes)? else {
            return Err(Error::invalid(format_args!("manifest {}", entry.digest), "it is an index, the store keeps images"));
        };
        let config = ImageConfig::parse(&files::read_bounded(&self.blob_path(&manifest.config.digest), CONFIG_LIMIT_BYTES)?)?;
        let named = |entry: &&Entry| Some((entry.name()?, entry.resolved()));
        let mut repo_digests: Vec<String> = group
            .iter()
            .filter_map(named)
            .filter_map(|(name, resolved)| Some(format!("{}@{}", name.familiar_name(), resolved?)))
            .collect();
        repo_digests.dedup();
        Ok(Image {
            names: group.iter().filter_map(named).map(|(name, _)| name).collect(),
            repo_digests,
            raw: RawManifest { media_type: entry.media_type.clone(), digest: entry.digest.clone(), bytes },
            manifest,
            config,
        })
    }
}

/// The error for an image that is not here.
pub(super) fn not_found(image: &str) -> Error {
    Error::NotFound { what: format!("image {image:?}"), hint: "`rbox images` lists what is here, `rpull` fetches more".into() }
}

/// The manifest digest that `text` means among `entries`.
pub(super) fn find_digest(entries: &[Entry], text: &str, load: impl Fn(&Entry) -> Result<Image>) -> Result<Option<Digest>> {
    let id_like = text.strip_prefix("sha256:").unwrap_or(text);
    let is_id =
        id_like.len() >= ID_PREFIX_MIN && id_like.len() <= 64 && id_like.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let reference: Option<Reference> = match text.parse() {
        Ok(reference) => Some(reference),
        Err(_) if is_id => None,
        Err(e) => return Err(e),
    };
    if let Some(found) = reference.and_then(|reference| entries.iter().find(|entry| is_named(entry, &reference))) {
        return Ok(Some(found.digest.clone()));
    }
    if !is_id {
        return Ok(None);
    }
    let mut found: Option<Digest> = None;
    for entry in entries {
        let by_manifest = entry.digest.hex().starts_with(id_like);
        if by_manifest || load(entry).is_ok_and(|image| image.id().hex().starts_with(id_like)) {
            if found.as_ref().is_some_and(|found| *found != entry.digest) {
                return Err(Error::Name {
                    what: "image ID",
                    input: text.into(),
                    why: "it is the beginning of several; give more digits",
                });
            }
            found = Some(entry.digest.clone());
        }
    }
    Ok(found)
}

fn is_named(entry: &Entry, wanted: &Reference) -> bool {
    let Some(name) = entry.name() else { return false };
    if name.registry() != wanted.registry() || name.repository() != wanted.repository() {
        return false;
    }
    match wanted.digest() {
        Some(digest) => entry.digest == *digest || entry.resolved().as_ref() == Some(digest),
        None => name.digest().is_none() && name.tag() == wanted.tag(),
    }
}
