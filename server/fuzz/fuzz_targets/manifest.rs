//! What a manifest refers to is what a walk over its plain JSON finds. The first byte chooses what
//! the request says its type is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_server::manifest::Manifest;
use serde_json::Value;

const TYPES: [Option<&str>; 5] = [
    None,
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json"),
];

fuzz_target!(|data: &[u8]| {
    let Some((chosen, bytes)) = data.split_first() else { return };
    let Ok(manifest) = Manifest::parse(bytes, TYPES[usize::from(*chosen) % TYPES.len()], 8) else { return };
    // Stricter than a parser that passes over what it does not use.
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    let document = document.as_object().expect("a manifest is an object");
    assert_eq!(document["schemaVersion"], 2);
    assert!(document.get("mediaType").is_none_or(|own| own.is_null() || *own == manifest.media_type.as_str()));

    let is_index = manifest.media_type.ends_with("index.v1+json") || manifest.media_type.ends_with("list.v2+json");
    let (own, others) = if is_index {
        (&["manifests"][..], ["config", "layers"])
    } else {
        (&["config", "layers"][..], ["manifests", "fsLayers"])
    };
    assert!(others.iter().all(|key| document.get(*key).is_none_or(Value::is_null)), "of two kinds");
    let descriptors = own.iter().flat_map(|key| match &document[*key] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    });
    let expected: Vec<_> =
        descriptors.enumerate().filter(|(n, it)| is_index || *n == 0 || is_here(it)).map(|(_, it)| digest(&it)).collect();
    let references = &manifest.references;
    let found: Vec<_> = references.blobs.iter().chain(&references.manifests).map(ToString::to_string).collect();
    assert_eq!(found, expected);
    assert!(found.len() <= 8);
    assert!(if is_index { references.blobs.is_empty() } else { references.manifests.is_empty() });
    let subject = document.get("subject").filter(|subject| !subject.is_null()).map(digest);
    assert_eq!(references.referrer.as_ref().map(|referrer| referrer.subject.to_string()), subject);
});

fn digest(descriptor: &Value) -> String {
    descriptor.as_object().expect("a descriptor is an object")["digest"].as_str().expect("a digest").to_owned()
}

/// Not one of the layers that are fetched from elsewhere.
fn is_here(layer: &Value) -> bool {
    let media_type = layer["mediaType"].as_str().unwrap_or_default();
    let is_foreign = media_type.contains(".foreign.") || media_type.contains(".nondistributable.");
    !(is_foreign && layer["urls"].as_array().is_some_and(|urls| !urls.is_empty()))
}
