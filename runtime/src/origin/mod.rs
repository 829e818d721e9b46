//! Images that lie elsewhere, to be pushed or loaded: the local store, an OCI layout directory or archive, a docker
//! archive.
//!
//! An [`Origin`] is a root manifest or index with a way to open every blob below it. It is read as
//! untrusted: names inside archives never become paths on this machine.

mod archive;
mod docker;
mod load;
mod location;
mod referrers;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use self::archive::Archive;
use self::docker::{Converted, SavedImage};
pub use self::load::{Input, each_in_archive};
pub use self::location::Location;
use crate::error::{Attempt, Error, Result};
use crate::image::{Descriptor, Index, parse_own};
use crate::name::{Digest, MANIFEST_LIMIT_BYTES, Reference};
use crate::parallel::Cancel;
use crate::source::{BlobReader, RawManifest, Referring, Source};
use crate::store::{Image, Store};

/// An image to push or load: its root document, and its blobs by digest.
#[derive(Debug)]
pub struct Origin {
    /// The manifest or index to push under the destination's tag.
    pub root: RawManifest,
    blobs: Blobs,
    /// What its layout lists, where it lies in one.
    listed: Vec<Tagged>,
}

#[derive(Debug)]
enum Blobs {
    Layout(PathBuf),
    Archive(Arc<Archive>),
    Converted(Converted),
}

impl Source for Origin {
    /// The root, or what it names.
    fn manifest(&self, reference: &Reference) -> Result<RawManifest> {
        match reference.digest() {
            Some(digest) if *digest != self.root.digest => {
                let bytes = self.read(digest, MANIFEST_LIMIT_BYTES as u64)?;
                Ok(RawManifest { media_type: String::new(), digest: digest.clone(), bytes })
            }
            _ => Ok(self.root.clone()),
        }
    }

    fn blob<'a>(&'a self, _: &Reference, blob: &Descriptor, offset: u64, _: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
        let (mut bytes, size) = Self::blob(self, &blob.digest)?;
        if size != blob.size {
            let why = format!("it is {size} bytes long, its manifest says {}", blob.size);
            return Err(Error::invalid(format_args!("blob {}", blob.digest), why));
        }
        io::copy(&mut bytes.by_ref().take(offset), &mut io::sink()).attempt(|| format!("read blob {}", blob.digest))?;
        Ok(Box::new(bytes))
    }

    fn referrers(&self, _: &Reference, subject: &Digest) -> Result<Vec<Referring>> {
        self.listed_referrers(subject)
    }
}

impl Origin {
    /// Opens an image of the local store.
    pub fn from_store(store: &Store, image: &Image) -> Self {
        Self { root: image.raw.clone(), blobs: Blobs::Layout(store.root().into()), listed: Vec::new() }
    }

    /// Opens an OCI image layout directory; `tag` may be left out when it holds one image.
    pub fn from_layout(dir: &Path, tag: Option<&str>) -> Result<Self> {
        let read = |name: &str| crate::files::read_bounded(&dir.join(name), MANIFEST_LIMIT_BYTES as u64);
        check_layout_version(&read(LAYOUT)?)?;
        Self::select(&read("index.json")?, tag, Blobs::Layout(dir.into()), &dir.display().to_string())
    }

    /// Opens a tarball of an OCI image layout.
    pub fn from_oci_archive(path: &Path, tag: Option<&str>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let index = read_index(&archive)?;
        Self::select(&index, tag, Blobs::Archive(Arc::new(archive)), &path.display().to_string())
    }

    /// Opens what `docker save` wrote. Layers are compressed into unnamed files below `scratch`, because a
    /// docker archive holds them plain.
    pub fn from_docker_archive(path: &Path, reference: Option<&str>, scratch: &Path) -> Result<Self> {
        let archive = Arc::new(Archive::open(path)?);
        let images = docker::list(&archive)?;
        Self::converted(&archive, docker::choose(&images, reference)?, scratch)
    }

    fn converted(archive: &Arc<Archive>, image: &SavedImage, scratch: &Path) -> Result<Self> {
        let (root, converted) = Converted::new(archive, image, scratch)?;
        Ok(Self { root, blobs: Blobs::Converted(converted), listed: Vec::new() })
    }

    fn select(index: &[u8], tag: Option<&str>, blobs: Blobs, place: &str) -> Result<Self> {
        let index: TaggedIndex = parse_own("index.json", index)?;
        let wanted: Vec<&Tagged> = match tag {
            Some(tag) => index.manifests.iter().filter(|entry| entry.annotations.name.as_deref() == Some(tag)).collect(),
            None => index.manifests.iter().collect(),
        };
        let [entry] = wanted[..] else {
            let tags: Vec<&str> = index.manifests.iter().filter_map(|entry| entry.annotations.name.as_deref()).take(16).collect();
            return Err(Error::NotFound {
                what: tag.map_or_else(|| format!("the one image of {place}"), |tag| format!("tag {tag:?} in {place}")),
                hint: format!("it holds {} images, tagged: {}", index.manifests.len(), tags.join(", ")),
            });
        };
        let origin = Self::rooted(&entry.descriptor, blobs)?;
        Ok(Self { listed: index.manifests, ..origin })
    }

    /// What a descriptor stands for.
    fn rooted(descriptor: &Descriptor, blobs: Blobs) -> Result<Self> {
        let nothing = RawManifest { media_type: String::new(), digest: descriptor.digest.clone(), bytes: Vec::new() };
        let mut origin = Self { root: nothing, blobs, listed: Vec::new() };
        origin.root = origin.manifest(descriptor)?;
        Ok(origin)
    }

    /// Reads a manifest below the root and checks it against its digest.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest> {
        let bytes = self.read(&descriptor.digest, MANIFEST_LIMIT_BYTES as u64)?;
        let mut hasher = descriptor.digest.algorithm().hasher();
        hasher.update(&bytes);
        let got = hasher.finish();
        if got != descriptor.digest {
            return Err(Error::Mismatch { what: "manifest".into(), expected: descriptor.digest.clone(), got });
        }
        Ok(RawManifest { media_type: descriptor.media_type.clone(), digest: descriptor.digest.clone(), bytes })
    }

    /// Which of an index's manifests are here: all of them in a complete layout.
    pub fn available<'a>(&self, index: &'a Index) -> Vec<&'a Descriptor> {
        index.manifests.iter().filter(|entry| self.blob(&entry.digest).is_ok()).collect()
    }

    /// A blob's bytes and their number. Not verified: a registry verifies what it is given.
    pub fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send>, u64)> {
        match &self.blobs {
            Blobs::Layout(dir) => {
                let path = dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex());
                let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
                let size = file.metadata().attempt(|| format!("inspect {}", path.display()))?.len();
                Ok((Box::new(file), size))
            }
            Blobs::Archive(archive) => archive.member(&format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())),
            Blobs::Converted(converted) => converted.blob(digest),
        }
    }

    fn read(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>> {
        let (reader, size) = self.blob(digest)?;
        archive::read_whole(reader, size, limit_bytes, digest.as_str())
    }
}

/// `index.json` of an image layout in an archive.
fn read_index(archive: &Archive) -> Result<Vec<u8>> {
    check_layout_version(&archive.read(LAYOUT, MANIFEST_LIMIT_BYTES as u64)?)?;
    archive.read("index.json", MANIFEST_LIMIT_BYTES as u64)
}

/// The member, or file, by which an image layout is recognised.
const LAYOUT: &str = "oci-layout";

pub(crate) fn check_layout_version(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let marker: Marker = parse_own(LAYOUT, bytes)?;
    if marker.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(Error::invalid("image layout", format_args!("its version {:?} is not 1.x", marker.image_layout_version)))
    }
}

#[derive(Deserialize)]
struct TaggedIndex {
    manifests: Vec<Tagged>,
}

#[derive(Debug, Deserialize)]
struct Tagged {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Debug, Deserialize, Default)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: Option<String>,
    /// containerd's, which is always a full reference.
    #[serde(rename = "io.containerd.image.name")]
    reference: Option<String>,
}
