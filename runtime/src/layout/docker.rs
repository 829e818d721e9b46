//! What `docker load` reads (`docker-archive:`): one image, its layers plain.
//!
//! The only form that cannot keep a manifest: its digest is another once the image is read from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::download::Fetching;
use crate::error::{Attempt, Error, Result};
use crate::files::{Order, Replacing, unnamed_file};
use crate::image::{CONFIG_LIMIT_BYTES, Descriptor, Document, ImageConfig, Manifest};
use crate::name::{Algorithm, Digest, Reference};
use crate::progress::LayerEvent;
use crate::save::{add_bytes, header};
use crate::source::{BlobReader, RawManifest};
use crate::unpack;

/// Bytes given to the file at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A docker archive of one image.
#[derive(Debug)]
pub struct DockerArchive {
    to: Replacing,
    name: Option<Reference>,
    manifest: Manifest,
    config: Mutex<Vec<u8>>,
    /// The layers that are here, inflated, each with its DiffID.
    layers: Mutex<BTreeMap<Digest, (File, Digest)>>,
}

impl DockerArchive {
    /// An archive of the image of that manifest.
    pub fn create(path: &Path, root: &RawManifest, name: Option<Reference>) -> Result<Self> {
        let Document::Image(manifest) = Document::parse(&root.media_type, &root.bytes)? else {
            return Err(Error::invalid("docker-archive", "it holds one image, not an index: choose one with --platform"));
        };
        Ok(Self {
            to: Replacing::create(path, Order::First)?,
            name,
            manifest,
            config: Mutex::default(),
            layers: Mutex::default(),
        })
    }

    /// Brings a blob here: the configuration as it is, a layer inflated.
    pub fn put_blob(&self, blob: &Descriptor, fetching: &Fetching<'_>) -> Result<()> {
        fetching.report(blob, LayerEvent::Started { total_bytes: blob.size, resumed_bytes: 0 });
        let reader = Reported { reader: fetching.open(blob)?.take(blob.size), blob, fetching };
        if blob.digest == self.manifest.config.digest {
            let mut bytes = Vec::new();
            reader.take(CONFIG_LIMIT_BYTES + 1).read_to_end(&mut bytes).attempt(|| format!("copy blob {}", blob.digest))?;
            check(blob, blob.digest.algorithm().digest(&bytes))?;
            *self.config.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
            return Ok(());
        }
        let mut plain = unnamed_file(&self.to.directory())?;
        let algorithms = (blob.digest.algorithm(), Algorithm::Sha256);
        let inflated = unpack::inflate(reader, algorithms, &unpack::Options::default(), &mut plain)?;
        check(blob, inflated.blob)?;
        let layer = (plain, inflated.diff_id);
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest.clone(), layer);
        Ok(())
    }

    /// Writes the archive, and gives it its name.
    pub fn finish(&self) -> Result<()> {
        let config = std::mem::take(&mut *self.config.lock().unwrap_or_else(PoisonError::into_inner));
        let mut layers = std::mem::take(&mut *self.layers.lock().unwrap_or_else(PoisonError::into_inner));
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != self.manifest.layers.len() {
            let why = format!("it has {} layers and {} DiffIDs", self.manifest.layers.len(), diff_ids.len());
            return Err(Error::invalid("image", why));
        }
        let mut out = tar::Builder::new(io::BufWriter::with_capacity(BUFFER_BYTES, self.to.file()));
        let config_name = format!("{}.json", self.manifest.config.digest.hex());
        add_bytes(&mut out, &config_name, &config).attempt(|| self.to.attempted())?;
        let mut written = BTreeSet::new();
        let mut members = Vec::new();
        for (layer, diff_id) in self.manifest.layers.iter().zip(&diff_ids) {
            let name = format!("{}.tar", diff_id.hex());
            if written.insert(diff_id) {
                let (file, got) = layers.get_mut(&layer.digest).ok_or_else(|| absent(layer))?;
                if got != diff_id {
                    let what = format!("layer {}, inflated,", layer.digest);
                    return Err(Error::Mismatch { what, expected: diff_id.clone(), got: got.clone() });
                }
                add_file(&mut out, &name, file).attempt(|| self.to.attempted())?;
            }
            members.push(name);
        }
        let names: Vec<String> = self.name.iter().map(Reference::familiar).collect();
        let list = json!([{ "Config": config_name, "RepoTags": names, "Layers": members }]).to_string();
        let written = add_bytes(&mut out, "manifest.json", list.as_bytes()).and_then(|()| out.into_inner()?.flush());
        written.attempt(|| self.to.attempted())?;
        self.to.finish()
    }
}

fn absent(layer: &Descriptor) -> Error {
    let hint = "its licence keeps it out of registries, and out of this archive".into();
    Error::NotFound { what: format!("layer {}", layer.digest), hint }
}

fn add_file(out: &mut tar::Builder<impl Write>, name: &str, file: &mut File) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    file.rewind()?;
    out.append_data(&mut header(bytes), name, file.take(bytes))
}

fn check(blob: &Descriptor, got: Digest) -> Result<()> {
    if got == blob.digest {
        return Ok(());
    }
    Err(Error::Mismatch { what: format!("blob {}", blob.digest), expected: blob.digest.clone(), got })
}

/// Tells of the bytes that pass.
struct Reported<'a> {
    reader: io::Take<BlobReader<'a>>,
    blob: &'a Descriptor,
    fetching: &'a Fetching<'a>,
}

impl Read for Reported<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.fetching.report(self.blob, LayerEvent::Moved(n as u64));
        Ok(n)
    }
}
