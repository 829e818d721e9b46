//! `index.json` of an image layout: which images it holds, under which names.
//!
//! What others wrote into it stays, also what nobody here knows.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Layout;
use crate::error::{Error, Result};
use crate::files;
use crate::image::{Descriptor, Document, media_type};
use crate::name::{Digest, MANIFEST_LIMIT_BYTES};
use crate::source::RawManifest;
use crate::store::REF_NAME;

/// The longest `index.json`, in bytes: some 100,000 names.
const INDEX_LIMIT_BYTES: u64 = 50 << 20;

/// An image of a layout that has a name.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its name, mostly a tag.
    pub name: String,
    /// Its manifest.
    pub manifest: Descriptor,
}

/// An index of nothing.
pub(super) fn empty() -> Vec<u8> {
    document(&[])
}

pub(super) fn document(entries: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries }).to_string().into_bytes()
}

/// The entry of a manifest.
pub(super) fn entry(manifest: &RawManifest, name: Option<&str>) -> Value {
    let mut entry = json!({ "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len() });
    if let Some(name) = name {
        entry["annotations"] = json!({ REF_NAME: name });
    }
    entry
}

fn name_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}

impl Layout {
    /// The images that have a name.
    pub fn named(&self) -> Result<Vec<Named>> {
        let index = self.read_index()?;
        let entries = index["manifests"].as_array().into_iter().flatten();
        let named = entries
            .filter_map(|entry| Some(Named { name: name_of(entry)?.to_owned(), manifest: Descriptor::deserialize(entry).ok()? }));
        Ok(named.collect())
    }

    /// The manifest under a name; `None` if nothing has it.
    pub fn find(&self, name: &str) -> Result<Option<RawManifest>> {
        let Some(named) = self.named()?.into_iter().find(|named| named.name == name) else { return Ok(None) };
        let Descriptor { media_type, digest, .. } = named.manifest;
        let path = self.blob_path(&digest);
        // Others list what is not here.
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_bounded(&path, MANIFEST_LIMIT_BYTES as u64)?;
        Ok(Some(RawManifest { media_type, digest, bytes }))
    }

    /// Whether a manifest is listed, under a name or without one.
    pub fn lists(&self, digest: &Digest) -> Result<bool> {
        let index = self.read_index()?;
        Ok(index["manifests"].as_array().into_iter().flatten().any(|entry| entry["digest"] == digest.as_str()))
    }

    /// Whether a manifest is listed, or named by an index that is.
    pub fn reaches(&self, digest: &Digest) -> Result<bool> {
        let index = self.read_index()?;
        let entries = index["manifests"].as_array().into_iter().flatten();
        let mut left: Vec<Descriptor> = entries.filter_map(|entry| Descriptor::deserialize(entry).ok()).collect();
        let mut seen = BTreeSet::new();
        while let Some(listed) = left.pop() {
            if listed.digest == *digest {
                return Ok(true);
            }
            let is_index = matches!(&*listed.media_type, media_type::OCI_INDEX | media_type::DOCKER_LIST);
            if !is_index || !seen.insert(listed.digest.clone()) {
                continue;
            }
            // Others list what is not here.
            let bytes = files::read_bounded(&self.blob_path(&listed.digest), MANIFEST_LIMIT_BYTES as u64);
            if let Ok(Document::Index(index)) = bytes.and_then(|bytes| Document::parse(&listed.media_type, &bytes)) {
                left.extend(index.manifests);
            }
        }
        Ok(false)
    }

    /// Lists a manifest that is here: under a name, which it takes from whatever had it, or without one.
    pub fn list(&self, manifest: &RawManifest, name: Option<&str>) -> Result<()> {
        let _lock = self.lock()?;
        self.change(|entries| {
            let digest = manifest.digest.as_str();
            match name {
                Some(name) => entries.retain(|entry| name_of(entry) != Some(name)),
                None if entries.iter().any(|entry| entry["digest"] == digest) => return,
                None => {}
            }
            entries.push(entry(manifest, name));
        })
    }

    /// Stores what `next` makes of the manifest that has a name, and gives it that; `None` leaves it as it is. Nobody else
    /// names anything meanwhile.
    pub fn replace_named<E: From<Error>>(
        &self,
        name: &str,
        next: impl FnOnce(Option<&RawManifest>) -> Result<Option<RawManifest>, E>,
    ) -> Result<(), E> {
        let _lock = self.lock()?;
        let Some(manifest) = next(self.find(name)?.as_ref())? else { return Ok(()) };
        self.put_manifest(&manifest)?;
        Ok(self.change(|entries| {
            entries.retain(|entry| name_of(entry) != Some(name));
            entries.push(entry(&manifest, Some(name)));
        })?)
    }

    /// Takes a name away. The image's blobs stay.
    pub fn unlist(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        self.change(|entries| entries.retain(|entry| name_of(entry) != Some(name)))
    }

    fn read_index(&self) -> Result<Value> {
        let path = self.dir.join("index.json");
        let bytes = files::read_bounded(&path, INDEX_LIMIT_BYTES)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::invalid(path.display(), format_args!("it is not JSON: {e}")))
    }

    /// Replaces the index by a changed one. The lock is held.
    fn change(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let mut index = self.read_index()?;
        let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(Error::invalid(self.dir.join("index.json").display(), "it lists no manifests"));
        };
        let before = entries.clone();
        change(entries);
        if *entries == before {
            return Ok(());
        }
        self.replace("index.json", index.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest(bytes: &[u8]) -> RawManifest {
        RawManifest { media_type: media_type::OCI_MANIFEST.into(), digest: Digest::of(bytes), bytes: bytes.into() }
    }

    #[test]
    fn a_name_moves_and_what_others_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        let theirs = json!({ "digest": Digest::of(b"t"), "size": 1, "annotations": { "their": "word" }, "strange": [1] });
        let index = json!({ "schemaVersion": 2, "manifests": [theirs], "annotations": { "a": "b" } });
        std::fs::write(dir.path().join("index.json"), index.to_string()).unwrap();

        layout.list(&manifest(b"one"), Some("1")).unwrap();
        layout.list(&manifest(b"two"), Some("2")).unwrap();
        layout.list(&manifest(b"three"), Some("1")).unwrap();
        layout.list(&manifest(b"three"), None).unwrap();
        let names = |layout: &Layout| -> Vec<_> {
            layout.named().unwrap().into_iter().map(|named| (named.name, named.manifest.digest)).collect()
        };
        assert_eq!(names(&layout), [("2".into(), Digest::of(b"two")), ("1".into(), Digest::of(b"three"))]);
        layout.unlist("2").unwrap();
        assert_eq!(names(&layout), [("1".into(), Digest::of(b"three"))]);
        let after: Value = serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
        assert_eq!((&after["manifests"][0], &after["annotations"]["a"]), (&theirs, &json!("b")));
        assert_eq!(after["manifests"].as_array().unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn reading_and_changing_any_index_never_panics(text in "\\PC{0,60}", likely in "([\\[\\]{},:0-3]|\"manifests\"|\"annotations\"|\"digest\"|null){0,12}") {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::open_or_create(dir.path()).unwrap();
            for index in [text, likely.clone(), format!("{{\"manifests\":[{likely}]}}"), format!("{{\"manifests\":{likely}}}")] {
                std::fs::write(dir.path().join("index.json"), index).unwrap();
                let _ = (layout.find("1"), layout.reaches(&Digest::of(b"x")));
                let _ = (layout.named(), layout.list(&manifest(b"x"), Some("1")), layout.unlist("1"));
            }
        }
    }

    #[test]
    fn many_who_name_at_once_lose_no_name() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    let layout = Layout::open_or_create(dir).unwrap();
                    for number in 0..5 {
                        layout.list(&manifest(b"x"), Some(&format!("{worker}-{number}"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(Layout::open(dir.path()).unwrap().named().unwrap().len(), 20);
    }
}
