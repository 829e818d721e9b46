//! What `docker save` writes, as an OCI image: the configuration as it is, the layers compressed, unless they are.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::archive::{Archive, MAGIC_BYTES, is_compressed};
use crate::error::{Attempt, Error, Result};
use crate::files::unnamed_file;
use crate::image::{CONFIG_LIMIT_BYTES, ImageConfig, media_type, parse_own};
use crate::name::{Algorithm, Digest, Hasher, MANIFEST_LIMIT_BYTES, Reference};
use crate::parallel::{self, Cancel};
use crate::source::RawManifest;
use crate::unpack;

/// Layers compressed at the same time.
const COMPRESSION_JOBS: usize = 2;

/// An entry of `manifest.json` (docker image specification v1.2, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A docker archive's blobs in the form a registry wants them.
#[derive(Debug)]
pub(super) struct Converted {
    archive: Arc<Archive>,
    blobs: HashMap<Digest, Content>,
}

/// Where a blob's bytes are.
#[derive(Debug)]
enum Content {
    /// In the archive, as they are.
    Member(String),
    /// Made of what is in the archive.
    File { file: Arc<File>, bytes: u64 },
}

/// A layer in the form a registry wants it.
#[derive(Debug)]
struct Layer {
    media_type: &'static str,
    digest: Digest,
    bytes: u64,
    content: Content,
}

/// The images of an archive, as it lists them.
pub(super) fn list(archive: &Archive) -> Result<Vec<SavedImage>> {
    parse_own("manifest.json", &archive.read(MANIFEST, MANIFEST_LIMIT_BYTES as u64)?)
}

/// The member that lists the images.
const MANIFEST: &str = "manifest.json";

impl SavedImage {
    /// The names it was saved under.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }
}

impl Converted {
    pub(super) fn new(archive: &Arc<Archive>, image: &SavedImage, scratch: &Path) -> Result<(RawManifest, Self)> {
        let config = archive.read(&image.config, CONFIG_LIMIT_BYTES)?;
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            let why = format!("it has {} layers and {} DiffIDs", image.layers.len(), diff_ids.len());
            return Err(Error::invalid("docker archive", why));
        }
        let layers = compress_all(archive, &image.layers, &diff_ids, scratch)?;

        let config_digest = Digest::of(&config);
        let descriptor = |media_type: &str, digest: &Digest, size: u64| serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size });
        let of_layer = |layer: &Layer| descriptor(layer.media_type, &layer.digest, layer.bytes);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
            "layers": layers.iter().map(of_layer).collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string().into_bytes();

        let mut config_file = unnamed_file(scratch)?;
        config_file.write_all(&config).attempt(|| "write a temporary file")?;
        let config_file = Content::File { file: Arc::new(config_file), bytes: config.len() as u64 };
        let mut blobs = HashMap::from([(config_digest, config_file)]);
        blobs.extend(layers.into_iter().map(|layer| (layer.digest, layer.content)));
        let raw = RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(&bytes), bytes };
        Ok((raw, Self { archive: Arc::clone(archive), blobs }))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send>, u64)> {
        match self.blobs.get(digest) {
            Some(Content::Member(path)) => self.archive.member(path),
            Some(Content::File { file, bytes }) => Ok((Box::new(FromStart { file: Arc::clone(file), offset: 0 }), *bytes)),
            None => {
                let hint = "the archive has none of that digest".into();
                Err(Error::NotFound { what: format!("blob {digest}"), hint })
            }
        }
    }
}

/// The image of that name, or the only one.
pub(super) fn choose<'a>(images: &'a [SavedImage], reference: Option<&str>) -> Result<&'a SavedImage> {
    let wanted: Option<Reference> = reference.map(str::parse).transpose()?;
    let named = |image: &&SavedImage| match &wanted {
        Some(wanted) => image.names().any(|name| name.parse::<Reference>().is_ok_and(|name| name == *wanted)),
        None => true,
    };
    let found: Vec<&SavedImage> = images.iter().filter(named).collect();
    let [image] = found[..] else {
        let all: Vec<&str> = images.iter().flat_map(SavedImage::names).map(String::as_str).take(16).collect();
        return Err(Error::NotFound {
            what: reference
                .map_or_else(|| "the one image of the archive".into(), |name| format!("image {name:?} in the archive")),
            hint: format!("it holds {} images: {}", images.len(), all.join(", ")),
        });
    };
    Ok(image)
}

fn compress_all(archive: &Archive, layers: &[String], diff_ids: &[Digest], scratch: &Path) -> Result<Vec<Layer>> {
    let compressed: Mutex<BTreeMap<usize, Layer>> = Mutex::default();
    parallel::for_each(layers, COMPRESSION_JOBS, &Cancel::default(), |at, path| {
        let layer = layer(archive, path, &diff_ids[at], scratch)?;
        compressed.lock().unwrap_or_else(PoisonError::into_inner).insert(at, layer);
        Ok::<(), Error>(())
    })?;
    Ok(compressed.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}

/// A layer, its DiffID checked: as it is if it is compressed.
fn layer(archive: &Archive, path: &str, diff_id: &Digest, scratch: &Path) -> Result<Layer> {
    let (mut bytes, size) = archive.member(path)?;
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    bytes.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic).attempt(|| format!("read layer {path}"))?;
    let media_type = match magic.first() {
        Some(0x1f) => media_type::OCI_LAYER_GZIP,
        _ => media_type::OCI_LAYER_ZSTD,
    };
    let whole = magic.chain(bytes);
    if !is_compressed(whole.get_ref().0) {
        return compress(whole, path, diff_id, scratch);
    }
    let algorithms = (Algorithm::Sha256, diff_id.algorithm());
    let digests = unpack::inflate(whole, algorithms, &unpack::Options::default(), &mut io::sink())?;
    check(path, diff_id, digests.diff_id)?;
    Ok(Layer { media_type, digest: digests.blob, bytes: size, content: Content::Member(path.into()) })
}

fn check(path: &str, diff_id: &Digest, got: Digest) -> Result<()> {
    let what = || format!("layer {path} of the archive");
    if got == *diff_id { Ok(()) } else { Err(Error::Mismatch { what: what(), expected: diff_id.clone(), got }) }
}

/// Compresses a plain layer.
fn compress(mut plain: impl Read, path: &str, diff_id: &Digest, scratch: &Path) -> Result<Layer> {
    let attempted = || format!("compress layer {path}");
    let output = Counted { file: unnamed_file(scratch)?, hasher: Algorithm::Sha256.hasher(), written: 0 };
    let mut encoder = GzEncoder::new(output, Compression::new(4));
    let mut diff_hasher = diff_id.algorithm().hasher();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = plain.read(&mut buffer).attempt(attempted)?;
        if n == 0 {
            break;
        }
        diff_hasher.update(&buffer[..n]);
        encoder.write_all(&buffer[..n]).attempt(attempted)?;
    }
    check(path, diff_id, diff_hasher.finish())?;
    let Counted { file, hasher, written: bytes } = encoder.finish().attempt(attempted)?;
    let content = Content::File { file: Arc::new(file), bytes };
    Ok(Layer { media_type: media_type::OCI_LAYER_GZIP, digest: hasher.finish(), bytes, content })
}

struct Counted {
    file: File,
    hasher: Hasher,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}
