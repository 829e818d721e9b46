//! Signatures in a repository, where cosign keeps them: an image of digest `sha256:HEX` has them in the layers of what is
//! tagged `sha256-HEX.sig`.

use std::collections::BTreeMap;
use std::io::Read;

use longshore_runtime::image::{Descriptor, media_type};
use longshore_runtime::name::{Digest, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::{RawManifest, Source};
use serde_json::{Value, json};

use super::{PrivateKey, Signed, layers};
use crate::error::{Error, Result};
use crate::policy::Rule;
use crate::registry::{Content, Repository};

/// The media type of a signed document.
const DOCUMENT: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The annotation of a layer that holds the signature of what is in it, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The most signatures of one image that are looked at.
const SIGNATURES_LIMIT: usize = 64;

/// The longest signed document read, in bytes.
const DOCUMENT_LIMIT_BYTES: u64 = 64 << 10;

/// Whether a rule lets an image be pulled. `digests` are that of what its name stands for and its own, which is another
/// where that is an index: a signature of either will do.
///
/// # Errors
///
/// [`Error::Policy`] when it does not, and whatever keeps the signatures from being read.
pub fn approve(repository: &Repository, rule: &Rule, image: &Reference, digests: [&Digest; 2]) -> Result<()> {
    let Rule::SignedBy { keys, named } = rule else { return Ok(()) };
    let name = named.then(|| image.name());
    let (mut reasons, mut documents) = (Vec::new(), BTreeMap::new());
    let [resolved, own] = digests;
    for digest in std::iter::once(resolved).chain(Some(own).filter(|own| *own != resolved)) {
        for signed in fetch(repository, image, digest, &mut documents)? {
            match signed.check(name.as_deref(), digest, keys) {
                Ok(()) => return Ok(()),
                Err(why) => reasons.push(why),
            }
        }
    }
    let why = match reasons.len() {
        0 => "it has no signature".to_owned(),
        count => {
            reasons.sort_unstable();
            reasons.dedup();
            format!("its signatures ({count}) will not do: {}", reasons.join("; "))
        }
    };
    let why = format!("the policy wants one by a key it names, and {why}; `rpush --sign-by KEY` signs what it pushes");
    Err(Error::Policy { image: image.familiar(), why })
}

/// Signs that an image of that digest, which is in the repository, has this name. What signatures it has stay; one by the
/// same key is enough.
pub fn sign(repository: &Repository, image: &Reference, digest: &Digest, key: &PrivateKey) -> Result<()> {
    let signed = Signed::new(&image.name(), digest, key)?;
    let document = Digest::of(&signed.document);
    let config = json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [document] },
    });
    let config = config.to_string().into_bytes();
    let place = place(image, digest)?;
    let existing = layers::find(repository, &place)?.map(|raw| parse(&raw, &place)).transpose()?;
    let known = existing.as_ref().map(layers_of).unwrap_or_default();
    let is_ours = |layer: &Value| {
        let signature = layer["annotations"][SIGNATURE].as_str().and_then(super::from_base64);
        layer["digest"] == document.as_str() && signature.is_some_and(|one| key.public().verifies(&signed.document, &one))
    };
    if known.iter().any(is_ours) {
        return Ok(());
    }
    if known.len() >= SIGNATURES_LIMIT {
        let why = format!("it has {SIGNATURES_LIMIT} signatures already, and no more are looked at");
        return Err(Error::Policy { image: image.familiar(), why });
    }
    let layer = json!({
        "mediaType": DOCUMENT,
        "digest": document,
        "size": signed.document.len(),
        "annotations": { SIGNATURE: super::base64(&signed.signature) },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": { "mediaType": media_type::OCI_CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": [layer],
    });
    for bytes in [signed.document, config] {
        let content = Content {
            digest: &Digest::of(&bytes),
            size: bytes.len() as u64,
            open: &|offset| {
                let mut reader = std::io::Cursor::new(bytes.clone());
                reader.set_position(offset);
                Ok(reader)
            },
            mount_from: None,
        };
        let cancel = Cancel::default();
        if !repository.has_blob(content.digest, &cancel)? {
            repository.put_blob(&content, |_| {}, &cancel)?;
        }
    }
    let bytes = manifest.to_string().into_bytes();
    let raw = RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(&bytes), bytes };
    layers::add(repository, &place, &raw)
}

/// Where the signatures of an image are.
fn place(image: &Reference, digest: &Digest) -> Result<Reference> {
    Ok(format!("{}:{}-{}.sig", image.name(), digest.algorithm().as_str(), digest.hex()).parse()?)
}

fn parse(raw: &RawManifest, place: &Reference) -> Result<Value> {
    let broken = |_| longshore_runtime::Error::invalid(format_args!("signatures {place}"), "they are no image manifest");
    Ok(serde_json::from_slice(&raw.bytes).map_err(broken)?)
}

fn layers_of(manifest: &Value) -> Vec<Value> {
    manifest["layers"].as_array().cloned().unwrap_or_default()
}

/// The signatures an image has, none of them verified. What is no signature, or of no sensible size, is left out. Several
/// keys sign the same document, which is fetched once: `documents` are those that are here.
fn fetch(
    repository: &Repository,
    image: &Reference,
    digest: &Digest,
    documents: &mut BTreeMap<Digest, Vec<u8>>,
) -> Result<Vec<Signed>> {
    let place = place(image, digest)?;
    let raw = match repository.get_manifest(&place) {
        Err(Error::Refused { answer, .. }) if answer.status == 404 => return Ok(Vec::new()),
        other => other?,
    };
    let mut signatures = Vec::new();
    for layer in layers_of(&parse(&raw, &place)?).into_iter().take(SIGNATURES_LIMIT) {
        let signature = layer["annotations"][SIGNATURE].as_str().and_then(super::from_base64);
        let descriptor = serde_json::from_value::<Descriptor>(layer);
        let (Some(signature), Ok(descriptor)) = (signature, descriptor) else { continue };
        if descriptor.media_type != DOCUMENT || descriptor.size > DOCUMENT_LIMIT_BYTES {
            continue;
        }
        if !documents.contains_key(&descriptor.digest) {
            let cancel = Cancel::default();
            let mut document = Vec::new();
            let blob = repository.blob(&place, &descriptor, 0, &cancel)?;
            blob.take(descriptor.size)
                .read_to_end(&mut document)
                .map_err(|e| longshore_runtime::Error::io(format_args!("fetch a signature of {image}"), e))?;
            documents.insert(descriptor.digest.clone(), document);
        }
        signatures.extend(documents.get(&descriptor.digest).map(|document| Signed { document: document.clone(), signature }));
    }
    Ok(signatures)
}
