//! Signatures, attestations and SBOMs that come to a tag where others are already: cosign keeps each in a layer of one
//! manifest, and clients list referrers in an index. They are added, and none is lost.

use longshore_runtime::name::{Digest, MANIFEST_LIMIT_BYTES, Reference, Tag};
use longshore_runtime::source::subject_of_tag;
use longshore_runtime::{Error as RuntimeError, RawManifest};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::registry::Repository;

/// How often a manifest that others write at the same time is written and looked at.
const RACES_LIMIT: usize = 6;

/// Stores a manifest under a tag of cosign's, together with what is there. Its blobs are there. Two who write at once may
/// lose one another's layers; who notices writes again.
pub(crate) fn add(repository: &Repository, place: &Reference, added: &RawManifest) -> Result<()> {
    for _ in 0..RACES_LIMIT {
        let Some(raw) = with(find(repository, place)?.as_ref(), added, place.identifier())? else { return Ok(()) };
        repository.put_manifest(place.identifier(), &raw)?;
    }
    let why = "others write it at the same time; try again".into();
    Err(RuntimeError::Busy { what: format!("tag {place}"), why }.into())
}

/// What is under a tag where it is pushed to; `None` if nothing is.
pub(crate) fn find(repository: &Repository, place: &Reference) -> Result<Option<RawManifest>> {
    match repository.get_own_manifest(place) {
        Err(Error::Refused { answer, .. }) if answer.status == 404 => Ok(None),
        other => other.map(Some),
    }
}

/// What is to be under a tag that has `existing`, so that it also has the layers of `added`; `None` if it has them.
pub(crate) fn with(existing: Option<&RawManifest>, added: &RawManifest, tag: &str) -> Result<Option<RawManifest>> {
    let Some(existing) = existing else { return Ok(Some(added.clone())) };
    if existing.digest == added.digest {
        return Ok(None);
    }
    let both = "what is there and what is to come are not of one kind, and both cannot stay; remove one of them";
    let parsed = Members::parse(&existing.bytes).zip(Members::parse(&added.bytes)).filter(|(old, new)| old.key == new.key);
    let (mut old, new) = parsed.ok_or_else(|| RuntimeError::invalid(format_args!("tag {tag}"), both))?;
    let missing: Vec<Value> = new.list.iter().filter(|member| !old.has(member)).cloned().collect();
    if missing.is_empty() {
        return Ok(None);
    }
    if old.list.iter().all(|member| new.has(member)) {
        // Byte for byte, where nothing is lost by it.
        return Ok(Some(added.clone()));
    }
    old.manifest[old.key] = [old.list, missing].concat().into();
    let manifest = old.manifest;
    let bytes = manifest.to_string().into_bytes();
    if bytes.len() > MANIFEST_LIMIT_BYTES {
        let why = "with what is to be added it would be longer than 4 MiB; remove some of what is there";
        return Err(RuntimeError::invalid(format_args!("tag {tag}"), why).into());
    }
    Ok(Some(RawManifest { media_type: existing.media_type.clone(), digest: Digest::of(&bytes), bytes }))
}

/// What a manifest consists of: layers, or in an index manifests.
struct Members {
    manifest: Value,
    key: &'static str,
    list: Vec<Value>,
}

impl Members {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let manifest: Value = serde_json::from_slice(bytes).ok()?;
        let key = ["layers", "manifests"].into_iter().find(|key| manifest.get(key).is_some())?;
        let list = manifest[key].as_array()?.clone();
        Some(Self { manifest, key, list })
    }

    /// Several signatures may be of one document, and differ in what is said of it; a manifest is listed once.
    fn has(&self, member: &Value) -> bool {
        let is_same = |known: &Value| known == member || (self.key == "manifests" && known["digest"] == member["digest"]);
        self.list.iter().any(is_same)
    }
}

/// Whether a tag is made of a digest, and what it stands for is added to: cosign's, and the list of referrers that clients
/// keep where the registry keeps none.
pub(crate) fn is_added_to(tag: &Tag) -> bool {
    subject_of_tag(tag).is_some() || lists_referrers(tag)
}

/// Whether a tag is such a list.
pub(crate) fn lists_referrers(tag: &Tag) -> bool {
    tag.as_str().replacen('-', ":", 1).parse::<Digest>().is_ok()
}

#[cfg(test)]
mod tests {
    use longshore_runtime::image::media_type;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn raw(bytes: Vec<u8>) -> RawManifest {
        RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(&bytes), bytes }
    }

    /// A manifest of layers, each a document and its signature.
    fn manifest(config: &str, layers: &[(&str, &str)]) -> RawManifest {
        let layer = |(digest, signature): &(&str, &str)| json!({ "digest": digest, "annotations": { "signature": signature } });
        let layers: Vec<Value> = layers.iter().map(layer).collect();
        raw(json!({ "config": config, "layers": layers }).to_string().into_bytes())
    }

    #[test]
    fn what_both_have_is_there_once_and_what_one_has_is_there() {
        let (own, theirs) = (manifest("own", &[("a", "1"), ("a", "2")]), manifest("theirs", &[("a", "2"), ("b", "1")]));
        let both = with(Some(&own), &theirs, "t").unwrap().unwrap();
        assert_eq!(both.bytes, manifest("own", &[("a", "1"), ("a", "2"), ("b", "1")]).bytes);
        assert_eq!(both.digest, Digest::of(&both.bytes));
        for known in [&own, &theirs, &both] {
            assert!(with(Some(&both), known, "t").unwrap().is_none());
        }
        // Of what loses nothing every byte stays.
        for existing in [None, Some(&own), Some(&theirs)] {
            assert_eq!(with(existing, &both, "t").unwrap().unwrap().bytes, both.bytes);
        }
    }

    #[test]
    fn a_list_of_referrers_has_each_once() {
        let list = |entries: &[(&str, u8)]| {
            let entries: Vec<Value> = entries.iter().map(|(digest, size)| json!({ "digest": digest, "size": size })).collect();
            raw(json!({ "manifests": entries }).to_string().into_bytes())
        };
        let both = with(Some(&list(&[("a", 1), ("b", 1)])), &list(&[("b", 2), ("c", 1)]), "t").unwrap().unwrap();
        assert_eq!(both.bytes, list(&[("a", 1), ("b", 1), ("c", 1)]).bytes);
    }

    #[test]
    fn what_cannot_be_added_to_is_left_alone() {
        let own = manifest("own", &[("a", "1")]);
        for other in [&b"{}"[..], b"[]", b"<html>", br#"{"layers":{}}"#, br#"{"manifests":[]}"#] {
            let other = raw(other.to_vec());
            assert!(with(Some(&other), &own, "t").is_err() && with(Some(&own), &other, "t").is_err());
            assert!(with(Some(&other), &other, "t").unwrap().is_none());
        }
        let long = "x".repeat(MANIFEST_LIMIT_BYTES - 100);
        assert!(with(Some(&manifest("own", &[(&long, "1")])), &manifest("own", &[(&long, "2")]), "t").is_err());
    }

    proptest! {
        #[test]
        fn adding_to_anything_never_panics_and_loses_nothing(
            bytes in any::<Vec<u8>>(),
            likely in "([\\[\\]{},:0-3]|\"layers\"|\"digest\"|null){0,12}",
            layers in prop::collection::vec(0..5_u8, 0..5),
            more in prop::collection::vec(0..5_u8, 0..5),
        ) {
            let _ = with(Some(&raw(bytes.clone())), &raw(likely.clone().into_bytes()), "t");
            let _ = with(Some(&raw(format!("{{\"layers\":[{likely}]}}").into_bytes())), &manifest("c", &[("a", "b")]), "t");
            let one = |layers: &[u8]| raw(json!({ "layers": layers }).to_string().into_bytes());
            let existing = one(&layers);
            let after = with(Some(&existing), &one(&more), "t").unwrap().unwrap_or(existing);
            let after = Members::parse(&after.bytes).unwrap().list;
            prop_assert!(layers.iter().chain(&more).all(|layer| after.contains(&json!(layer))));
        }
    }
}
