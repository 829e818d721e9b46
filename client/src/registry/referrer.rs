//! What refers to a manifest: read with its own manifest, and stored so that it is found.

use longshore_runtime::RawManifest;
use longshore_runtime::image::media_type;
use longshore_runtime::name::{Digest, Reference};
use longshore_runtime::source::{HeldBytes, Referring, referring_tags};
use serde_json::{Value, json};

use super::Repository;
use super::listing::referrers_tag;
use crate::error::{Error, Result};

/// Referrers of one manifest that are read whole.
const REFERRERS_LIMIT: usize = 1000;

/// How often a list that others write at the same time is written and looked at.
const RACES_LIMIT: usize = 6;

impl Repository {
    /// All that refers to a manifest: what the registry lists, and what cosign keeps under tags made of its digest.
    pub(super) fn referring(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Referring>> {
        let mut found = Vec::new();
        let listed = self.referrers(subject)?;
        if listed.len() > REFERRERS_LIMIT {
            let why = format!("more than {REFERRERS_LIMIT} manifests refer to {subject}");
            return Err(self.registry().broken(&format!("list what refers to {subject}"), why));
        }
        let mut held = HeldBytes::default();
        for referrer in listed {
            let digest = referrer.descriptor.digest;
            let manifest = self.get_manifest(&reference.with_digest(digest.clone()))?;
            held.add(manifest.bytes.len(), format_args!("manifest {subject}"))?;
            found.push(Referring { manifest: RawManifest { digest, ..manifest }, tag: None });
        }
        for tag in referring_tags(subject) {
            match self.get_manifest(&format!("{}:{tag}", reference.name()).parse()?) {
                Ok(manifest) => found.push(Referring { manifest, tag: Some(tag) }),
                Err(Error::Refused { answer, .. }) if answer.status == 404 => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Stores a manifest that refers to another, by its digest. Where the registry keeps no list of what refers to what,
    /// it is put into the one that clients keep (distribution-spec, "Pushing Manifests with Subject"), under the tag that
    /// is given back. Two who write that at once may lose one another's entry; who notices writes again.
    pub fn put_referrer(&self, manifest: &RawManifest, subject: &Digest) -> Result<Option<String>> {
        if self.store_manifest(manifest.digest.as_str(), manifest)? {
            return Ok(None);
        }
        let tag = referrers_tag(subject);
        for _ in 0..RACES_LIMIT {
            let index = self.referrers_index(subject)?;
            let broken = |why| self.registry().broken(&format!("list what refers to {subject}"), why);
            let Some(bytes) = with_entry(index.as_deref(), entry(manifest)).map_err(broken)? else { return Ok(Some(tag)) };
            let raw = RawManifest { media_type: media_type::OCI_INDEX.into(), digest: Digest::of(&bytes), bytes };
            self.put_manifest(&tag, &raw)?;
        }
        let why = "others write its list of referrers at the same time; try again".into();
        Err(longshore_runtime::Error::Busy { what: format!("tag {tag}"), why }.into())
    }
}

/// A list of referrers with one more, or a new one; `None` if it is there already.
fn with_entry(index: Option<&[u8]>, entry: Value) -> Result<Option<Vec<u8>>, String> {
    let mut index: Value = match index {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|e| format!("it is not the JSON expected: {e}"))?,
        None => json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
    };
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or("it lists no manifests")?;
    if entries.iter().any(|listed| listed["digest"] == entry["digest"]) {
        return Ok(None);
    }
    entries.push(entry);
    Ok(Some(index.to_string().into_bytes()))
}

/// What a list of referrers says of one.
fn entry(manifest: &RawManifest) -> Value {
    let document: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let artifact_type = document["artifactType"].as_str().or(document["config"]["mediaType"].as_str());
    let mut entry = json!({ "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len() });
    if let Some(artifact_type) = artifact_type {
        entry["artifactType"] = artifact_type.into();
    }
    if document["annotations"].is_object() {
        entry["annotations"] = document["annotations"].clone();
    }
    entry
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn referrer(bytes: &[u8]) -> Value {
        entry(&RawManifest { media_type: "m".into(), digest: Digest::of(bytes), bytes: bytes.into() })
    }

    #[test]
    fn a_list_says_what_a_referrer_says_of_itself_and_keeps_the_others() {
        let one = referrer(br#"{"artifactType":"sbom","annotations":{"a":"b"}}"#);
        assert_eq!((&one["artifactType"], &one["annotations"]["a"]), (&json!("sbom"), &json!("b")));
        let two = referrer(br#"{"config":{"mediaType":"signature"}}"#);
        assert_eq!((&two["artifactType"], &two["annotations"]), (&json!("signature"), &Value::Null));
        let first = with_entry(None, one.clone()).unwrap().unwrap();
        assert_eq!(with_entry(Some(&first), one.clone()), Ok(None));
        let both: Value = serde_json::from_slice(&with_entry(Some(&first), two.clone()).unwrap().unwrap()).unwrap();
        assert_eq!(both["manifests"], json!([one, two]));
        for bad in [&b"[]"[..], b"{}", b"1", b"<html>", br#"{"manifests":{}}"#] {
            assert!(with_entry(Some(bad), one.clone()).is_err());
        }
    }

    proptest! {
        #[test]
        fn reading_any_list_never_panics(bytes in any::<Vec<u8>>(), likely in "([\\[\\]{},:0-3]|\"manifests\"|\"digest\"|null){0,12}") {
            for index in [bytes, likely.into_bytes()] {
                let _ = (with_entry(Some(&index), referrer(&index)), entry(&RawManifest { media_type: String::new(), digest: Digest::of(b""), bytes: index }));
            }
        }
    }
}
