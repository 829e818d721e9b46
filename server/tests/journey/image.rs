//! Small images, made byte by byte.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use longshore_runtime::name::{Digest, Platform};
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A blob and what a descriptor says of it.
#[derive(Clone)]
pub struct Blob {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

impl Blob {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// One image, all of it in memory.
#[derive(Clone)]
pub struct Image {
    pub layers: Vec<Blob>,
    pub diff_ids: Vec<Digest>,
    pub config: Blob,
    pub manifest: Blob,
}

impl Image {
    /// An image of these layers, given as plain tar files.
    pub fn new(plain_layers: &[Vec<u8>]) -> Self {
        let layers = plain_layers.iter().map(|plain| Blob { media_type: LAYER, bytes: gzip(plain) }).collect();
        Self::from_parts(layers, plain_layers.iter().map(|plain| Digest::of(plain)).collect(), &Platform::host())
    }

    /// An image of any layers with any DiffIDs: also one that lies.
    pub fn from_parts(layers: Vec<Blob>, diff_ids: Vec<Digest>, platform: &Platform) -> Self {
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": { "Cmd": ["/bin/true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob { media_type: CONFIG, bytes: config.to_string().into_bytes() };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob { media_type: MANIFEST, bytes: manifest.to_string().into_bytes() };
        Self { layers, diff_ids, config, manifest }
    }

    /// An image of one layer with `files` files of `bytes` bytes each that do not compress.
    pub fn bulky(seed: u64, files: usize, bytes: usize) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut noise = || {
            let words = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            });
            words.take(bytes.div_ceil(8)).flatten().take(bytes).collect::<Vec<u8>>()
        };
        let contents: Vec<(String, Vec<u8>)> = (0..files).map(|n| (format!("data/{seed}-{n}"), noise())).collect();
        Self::new(&[tar(&contents.iter().map(|(path, content)| (path.as_str(), &content[..])).collect::<Vec<_>>())])
    }

    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }

    /// Writes an OCI image layout with this image under `tag`.
    pub fn write_layout(&self, dir: &Path, tag: &str) {
        let mut entry = self.manifest.descriptor();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        write_layout(dir, self.blobs().chain([&self.manifest]), &[entry]);
    }
}

/// Writes an OCI image layout of these blobs.
pub fn write_layout<'a>(dir: &Path, blobs: impl Iterator<Item = &'a Blob>, entries: &[Value]) {
    let blob_dir = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blob_dir).unwrap();
    for blob in blobs {
        std::fs::write(blob_dir.join(blob.digest().hex()), &blob.bytes).unwrap();
    }
    std::fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": entries }).to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// A tar file of regular files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
