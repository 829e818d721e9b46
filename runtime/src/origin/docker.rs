//! What `docker save` writes, as an OCI image: the configuration as it is, the layers compressed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::archive::Archive;
use crate::error::{Attempt, Error, Result};
use crate::image::{CONFIG_LIMIT_BYTES, ImageConfig, media_type, parse_own};
use crate::name::{Algorithm, Digest, Hasher, MANIFEST_LIMIT_BYTES, Reference};
use crate::parallel::{self, Cancel};
use crate::source::RawManifest;

/// Layers compressed at the same time.
const COMPRESSION_JOBS: usize = 2;

/// An entry of `manifest.json` (docker image specification v1.2, "Combined Image JSON + Filesystem
/// Changeset Format").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A docker archive's blobs in the form a registry wants them.
#[derive(Debug)]
pub(super) struct Converted {
    blobs: HashMap<Digest, (Arc<File>, u64)>,
}

impl Converted {
    pub(super) fn open(archive: &Archive, reference: Option<&str>, scratch: &Path) -> Result<(RawManifest, Self)> {
        let images: Vec<SavedImage> = parse_own("manifest.json", &archive.read("manifest.json", MANIFEST_LIMIT_BYTES as u64)?)?;
        let image = choose(&images, reference)?;
        let config = archive.read(&image.config, CONFIG_LIMIT_BYTES)?;
        let diff_ids = ImageConfig::parse(&config)?.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            let why = format!("it has {} layers and {} DiffIDs", image.layers.len(), diff_ids.len());
            return Err(Error::invalid("docker archive", why));
        }
        let layers = compress_all(archive, &image.layers, &diff_ids, scratch)?;

        let config_digest = Digest::of(&config);
        let descriptor = |media_type: &str, digest: &Digest, size: u64| serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size });
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
            "layers": layers.iter().map(|(digest, _, size)| descriptor(media_type::OCI_LAYER_GZIP, digest, *size)).collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string().into_bytes();

        let mut config_file = unnamed_file(scratch)?;
        config_file.write_all(&config).attempt(|| "write a temporary file")?;
        let mut blobs = HashMap::from([(config_digest, (Arc::new(config_file), config.len() as u64))]);
        blobs.extend(layers.into_iter().map(|(digest, file, size)| (digest, (Arc::new(file), size))));
        let raw = RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(&bytes), bytes };
        Ok((raw, Self { blobs }))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<(Box<dyn Read + Send>, u64)> {
        let (file, size) = self.blobs.get(digest).ok_or_else(|| Error::NotFound {
            what: format!("blob {digest}"),
            hint: "the archive has none of that digest".into(),
        })?;
        Ok((Box::new(FromStart { file: Arc::clone(file), offset: 0 }), *size))
    }
}

fn choose<'a>(images: &'a [SavedImage], reference: Option<&str>) -> Result<&'a SavedImage> {
    let tags = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    let wanted: Option<Reference> = reference.map(str::parse).transpose()?;
    let named = |image: &&SavedImage| match &wanted {
        Some(wanted) => tags(image).iter().any(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag == *wanted)),
        None => true,
    };
    let found: Vec<&SavedImage> = images.iter().filter(named).collect();
    let [image] = found[..] else {
        let all: Vec<String> = images.iter().flat_map(tags).take(16).collect();
        return Err(Error::NotFound {
            what: reference
                .map_or_else(|| "the one image of the archive".into(), |name| format!("image {name:?} in the archive")),
            hint: format!("it holds {} images: {}", images.len(), all.join(", ")),
        });
    };
    Ok(image)
}

fn compress_all(archive: &Archive, layers: &[String], diff_ids: &[Digest], scratch: &Path) -> Result<Vec<(Digest, File, u64)>> {
    let compressed: Mutex<BTreeMap<usize, (Digest, File, u64)>> = Mutex::default();
    parallel::for_each(layers, COMPRESSION_JOBS, &Cancel::default(), |at, path| {
        let layer = compress(archive, path, &diff_ids[at], scratch)?;
        compressed.lock().unwrap_or_else(PoisonError::into_inner).insert(at, layer);
        Ok::<(), Error>(())
    })?;
    Ok(compressed.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
}

/// Compresses a plain layer, checking its DiffID on the way.
fn compress(archive: &Archive, path: &str, diff_id: &Digest, scratch: &Path) -> Result<(Digest, File, u64)> {
    let attempted = || format!("compress layer {path}");
    let (mut plain, _) = archive.member(path)?;
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
    let got = diff_hasher.finish();
    if got != *diff_id {
        return Err(Error::Mismatch { what: format!("layer {path} of the archive"), expected: diff_id.clone(), got });
    }
    let output = encoder.finish().attempt(attempted)?;
    Ok((output.hasher.finish(), output.file, output.written))
}

/// A file that goes when it is closed.
fn unnamed_file(dir: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)
        .attempt(|| format!("create a temporary file in {}", dir.display()))?
        .into())
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
