//! What is to be moved: every blob once, and the manifests, each after those it names.

use std::collections::{BTreeMap, BTreeSet};

use longshore_runtime::image::{Descriptor, Document, Index};
use longshore_runtime::name::{Digest, Platform, Reference, Tag};
use longshore_runtime::source::HeldBytes;
use longshore_runtime::{Error, RawManifest, Source};

use crate::error::Result;

/// Indexes within indexes, and referrers of referrers.
const DEPTH_LIMIT: usize = 4;

/// Manifests of one transfer.
const MANIFESTS_LIMIT: usize = 10_000;

/// Which images of an index are moved.
#[derive(Debug, Clone)]
pub enum Choice {
    /// All, and the index itself.
    All,
    /// The one made for this platform.
    Platform(Platform),
}

/// A manifest or index to be stored.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// As it is.
    pub raw: RawManifest,
    /// What it refers to, if it is here for that.
    pub subject: Option<Digest>,
    /// A tag it is found by beside its digest.
    pub tag: Option<Tag>,
}

impl Manifest {
    /// Its tag.
    pub fn name(&self) -> Option<&str> {
        self.tag.as_ref().map(Tag::as_str)
    }
}

/// What a transfer is about.
#[derive(Debug, Clone)]
pub struct Root {
    /// The manifest or index that gets the name.
    pub manifest: RawManifest,
    /// The digest of what was asked for: an index's, where one of its images was chosen.
    pub resolved: Digest,
}

impl Root {
    /// What a reference stands for, or the one of its images that is chosen.
    pub fn find(source: &dyn Source, reference: &Reference, choice: &Choice) -> Result<Self> {
        let resolved = source.manifest(reference)?;
        Self::choose(source, reference, resolved, choice)
    }

    /// The same, of a manifest that is known.
    pub fn choose(source: &dyn Source, reference: &Reference, resolved: RawManifest, choice: &Choice) -> Result<Self> {
        let digest = match reference.digest() {
            Some(expected) => {
                verify(expected, &resolved.bytes)?;
                expected.clone()
            }
            None => resolved.digest.clone(),
        };
        let resolved = RawManifest { digest: digest.clone(), ..resolved };
        let Choice::Platform(platform) = choice else { return Ok(Self { manifest: resolved, resolved: digest }) };
        let Document::Index(index) = Document::parse(&resolved.media_type, &resolved.bytes)? else {
            return Ok(Self { manifest: resolved, resolved: digest });
        };
        let entry = entry_for(&index, reference, platform)?;
        Ok(Self { manifest: fetch(source, reference, entry)?, resolved: digest })
    }
}

/// The entry of an index for a platform.
fn entry_for<'a>(index: &'a Index, reference: &Reference, platform: &Platform) -> Result<&'a Descriptor> {
    let missing = || Error::NotFound {
        what: format!("image {} for {platform}", reference.familiar()),
        hint: format!("it is made for {}; choose one with --platform, or all with --all", index.platforms()),
    };
    Ok(index.choose(platform).ok_or_else(missing)?)
}

/// What to move.
#[derive(Debug)]
pub struct Plan {
    blobs: BTreeMap<Digest, Descriptor>,
    below: Vec<Manifest>,
    /// What gets the name.
    pub root: RawManifest,
    seen: BTreeSet<Digest>,
    held: HeldBytes,
}

impl Plan {
    /// The root and all below it.
    pub fn of(source: &dyn Source, reference: &Reference, root: RawManifest) -> Result<Self> {
        let (seen, held) = (BTreeSet::new(), HeldBytes::default());
        let mut plan = Self { blobs: BTreeMap::new(), below: Vec::new(), root: root.clone(), seen, held };
        plan.add_below(source, reference, &root, DEPTH_LIMIT)?;
        plan.seen.insert(root.digest);
        Ok(plan)
    }

    /// What refers to any manifest of the root, and nothing of what is in the root itself.
    pub fn of_referrers(source: &dyn Source, reference: &Reference, root: RawManifest) -> Result<Self> {
        let mut plan = Self::of(source, reference, root)?;
        plan.blobs.clear();
        plan.below.clear();
        plan.add_referrers(source, reference)?;
        Ok(plan)
    }

    /// Also what refers to any of its manifests, and to those.
    pub fn add_referrers(&mut self, source: &dyn Source, reference: &Reference) -> Result<()> {
        let mut subjects: Vec<Digest> = self.seen.iter().cloned().collect();
        for _ in 0..DEPTH_LIMIT {
            let mut found = Vec::new();
            for subject in std::mem::take(&mut subjects) {
                for referring in source.referrers(reference, &subject)? {
                    if self.seen.contains(&referring.manifest.digest) && referring.tag.is_none() {
                        continue;
                    }
                    found.push(referring.manifest.digest.clone());
                    let link = referring.tag.is_none().then(|| subject.clone());
                    self.add(source, reference, &referring.manifest, (link, referring.tag), DEPTH_LIMIT)?;
                }
            }
            subjects = found;
        }
        Ok(())
    }

    /// The blobs.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.values()
    }

    /// The manifests but for the root, in the order in which they are to be stored.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.below.iter()
    }

    /// Those of them that others refer to by a name, or that nothing else names: what a layout lists.
    pub fn listed(&self) -> impl Iterator<Item = &Manifest> {
        self.below.iter().filter(|manifest| manifest.subject.is_some() || manifest.tag.is_some())
    }

    /// A manifest after what it names.
    fn add(
        &mut self,
        source: &dyn Source,
        reference: &Reference,
        manifest: &RawManifest,
        (subject, tag): (Option<Digest>, Option<Tag>),
        depth_left: usize,
    ) -> Result<()> {
        let is_new = self.seen.insert(manifest.digest.clone());
        if is_new {
            self.add_below(source, reference, manifest, depth_left)?;
        }
        if is_new || tag.is_some() {
            self.held.add(manifest.bytes.len(), format_args!("image {}", reference.familiar()))?;
            self.below.push(Manifest { raw: manifest.clone(), subject, tag });
        }
        if self.below.len() > MANIFESTS_LIMIT {
            return Err(Error::invalid("image", "more than 10000 manifests belong to it").into());
        }
        Ok(())
    }

    fn add_below(&mut self, source: &dyn Source, reference: &Reference, manifest: &RawManifest, depth_left: usize) -> Result<()> {
        match Document::parse(&manifest.media_type, &manifest.bytes)? {
            Document::Image(image) => {
                let blobs = image.layers.into_iter().filter(|layer| !layer.is_foreign()).chain([image.config]);
                self.blobs.extend(blobs.map(|blob| (blob.digest.clone(), blob)));
            }
            Document::Index(index) => {
                if depth_left == 0 {
                    return Err(Error::invalid("index", "indexes stand in it more than 4 deep").into());
                }
                for entry in &index.manifests {
                    if !self.seen.contains(&entry.digest) {
                        self.add(source, reference, &fetch(source, reference, entry)?, (None, None), depth_left - 1)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A manifest by what names it, verified.
fn fetch(source: &dyn Source, reference: &Reference, entry: &Descriptor) -> Result<RawManifest> {
    let raw = source.manifest(&reference.with_digest(entry.digest.clone()))?;
    verify(&entry.digest, &raw.bytes)?;
    let media_type = if raw.media_type.is_empty() { entry.media_type.clone() } else { raw.media_type };
    Ok(RawManifest { media_type, digest: entry.digest.clone(), bytes: raw.bytes })
}

fn verify(expected: &Digest, bytes: &[u8]) -> Result<()> {
    let got = expected.algorithm().digest(bytes);
    if got == *expected {
        return Ok(());
    }
    Err(Error::Mismatch { what: format!("manifest {expected}"), expected: expected.clone(), got }.into())
}

#[cfg(test)]
mod tests {
    use longshore_runtime::image::media_type;
    use longshore_runtime::parallel::Cancel;
    use longshore_runtime::source::{BlobReader, MANIFESTS_LIMIT_BYTES};
    use serde_json::json;

    use super::*;

    /// An index of indexes that name nothing.
    struct Nested(Vec<RawManifest>);

    impl Nested {
        fn index(entries: &[RawManifest], name: usize) -> RawManifest {
            let entry = |raw: &RawManifest| json!({ "mediaType": raw.media_type, "digest": raw.digest, "size": raw.bytes.len() });
            let entries: Vec<_> = entries.iter().map(entry).collect();
            let document = json!({ "schemaVersion": 2, "manifests": entries, "annotations": { "name": name.to_string() } });
            let bytes = document.to_string().into_bytes();
            RawManifest { media_type: media_type::OCI_INDEX.into(), digest: Digest::of(&bytes), bytes }
        }
    }

    impl Source for Nested {
        fn manifest(&self, reference: &Reference) -> longshore_runtime::Result<RawManifest> {
            Ok(self.0.iter().find(|manifest| Some(&manifest.digest) == reference.digest()).unwrap().clone())
        }

        fn blob<'a>(
            &'a self,
            _: &Reference,
            _: &Descriptor,
            _: u64,
            _: &'a Cancel<'a>,
        ) -> longshore_runtime::Result<BlobReader<'a>> {
            unreachable!("manifests only")
        }
    }

    #[test]
    fn manifests_that_are_too_long_together_are_refused() {
        let source = Nested((0..3).map(|name| Nested::index(&[], name)).collect());
        let (reference, root) = ("localhost/a".parse().unwrap(), Nested::index(&source.0, 9));
        let length: usize = source.0.iter().map(|manifest| manifest.bytes.len()).sum();
        for (spare, fits) in [(length, true), (length - 1, false)] {
            let mut plan = Plan::of(&source, &reference, Nested::index(&[], 9)).unwrap();
            plan.held.add(MANIFESTS_LIMIT_BYTES - spare, "others").unwrap();
            let added = plan.add_below(&source, &reference, &root, DEPTH_LIMIT);
            assert_eq!(added.is_ok(), fits, "{added:?}");
        }
    }
}
