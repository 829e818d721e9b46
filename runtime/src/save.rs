//! Images as one archive that docker, podman and tools for OCI layouts read.
//!
//! It is a tar of an image layout (image-spec image-layout.md) with docker's `manifest.json` beside it, as docker
//! writes since version 25. The blobs are those of the store, byte for byte: what is saved and loaded is pushed
//! under the same digests.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};

use serde_json::json;

use crate::error::{Attempt, Result};
use crate::image::media_type;
use crate::name::{Digest, Reference};
use crate::source::RawManifest;
use crate::store::{Image, REF_NAME, Store};

/// The annotation by which containerd, and so docker, knows an image in an archive.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Everybody may read what they were given.
const FILE_MODE: u32 = 0o644;

/// Writes images, each under the names it is to have, as one tar. A lease must hold them.
pub fn save(store: &Store, images: &[(Image, Vec<Reference>)], out: impl Write) -> Result<()> {
    let mut archive = tar::Builder::new(out);
    let attempted = || "write the archive";
    add_bytes(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).attempt(attempted)?;
    let mut written = BTreeSet::new();
    for (image, _) in images {
        let foreign = |digest: &Digest| image.manifest.layers.iter().any(|layer| layer.digest == *digest && layer.is_foreign());
        for digest in image.blobs() {
            if written.insert(digest.clone()) && (store.has_blob(digest) || !foreign(digest)) {
                add_blob(&mut archive, store, digest)?;
            }
        }
    }
    let text = |document: serde_json::Value| document.to_string().into_bytes();
    add_bytes(&mut archive, "index.json", &text(index(images))).attempt(attempted)?;
    add_bytes(&mut archive, "manifest.json", &text(docker_manifest(images))).attempt(attempted)?;
    archive.into_inner().and_then(|mut out| out.flush()).attempt(attempted)
}

/// One member, the same whenever and by whomever it is written.
pub(crate) fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes);
    header.set_mode(FILE_MODE);
    header
}

pub(crate) fn add_bytes(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(bytes.len() as u64), name, bytes)
}

fn add_blob(archive: &mut tar::Builder<impl Write>, store: &Store, digest: &Digest) -> Result<()> {
    let path = store.blob_path(digest);
    let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
    let bytes = file.metadata().attempt(|| format!("inspect {}", path.display()))?.len();
    // Its length is what its header says, whatever becomes of the file.
    archive.append_data(&mut header(bytes), member(digest), file.take(bytes)).attempt(|| format!("write {digest} to the archive"))
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// `index.json`: an entry for each name, or one without.
fn index(images: &[(Image, Vec<Reference>)]) -> serde_json::Value {
    let entry = |image: &Image, annotations: serde_json::Value| {
        let RawManifest { media_type, digest, bytes } = &image.raw;
        let platform = &image.config.platform;
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len(), "platform": platform, "annotations": annotations })
    };
    let entries = images.iter().flat_map(|(image, names)| {
        let named = names.iter().map(|name| json!({ CONTAINERD_NAME: name.to_string(), REF_NAME: name.to_string() }));
        let unnamed = names.is_empty().then(|| json!({}));
        named.chain(unnamed).map(move |annotations| entry(image, annotations))
    });
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries.collect::<Vec<_>>() })
}

/// `manifest.json` (docker image specification v1.2).
fn docker_manifest(images: &[(Image, Vec<Reference>)]) -> serde_json::Value {
    let entries = images.iter().map(|(image, names)| {
        let names: Vec<String> = names.iter().map(Reference::familiar).collect();
        let layers: Vec<String> = image.manifest.layers.iter().map(|layer| member(&layer.digest)).collect();
        json!({ "Config": member(image.id()), "RepoTags": names, "Layers": layers })
    });
    entries.collect()
}
