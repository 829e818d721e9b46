//! Lists of images for several platforms that are made here, one by one, before they are pushed: what `docker manifest
//! create` keeps below `~/.docker/manifests`. Each is a file of the store:
//!
//! ```text
//! ROOT/manifests/HEX     the list whose name has this digest, as JSON
//! ROOT/manifests/lock    held while one is changed
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};

use longshore_runtime::image::{CONFIG_LIMIT_BYTES, Descriptor, Document, INDEX_LIMIT, media_type};
use longshore_runtime::name::{Digest, MANIFEST_LIMIT_BYTES, Reference};
use longshore_runtime::{Error as RuntimeError, RawManifest, Store, files};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::progress::{COPY, reporter};
use crate::registry::Repository;
use crate::transfer::{Choice, Neighbours, Plan, Remote, Root, Transfer};

/// What an image runs on, as a list says it (image-spec image-index.md#image-index-property-descriptions).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPlatform {
    /// `amd64`, `arm64`, ...
    #[serde(default)]
    pub architecture: String,
    /// `linux`, ...
    #[serde(default)]
    pub os: String,
    /// The version of the system it was made for.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the system must be able to.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// `v7`, `v8`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// One image of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// By which name it was given.
    pub name: String,
    /// Its manifest's media type.
    pub media_type: String,
    /// Its manifest's digest.
    pub digest: Digest,
    /// Its manifest's length in bytes.
    pub size: u64,
    /// What it runs on.
    pub platform: EntryPlatform,
}

/// A list that is made here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestList {
    /// Its name, in full.
    pub name: String,
    /// Its images, in order.
    pub entries: Vec<Entry>,
}

/// As what a list is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// An image index.
    Oci,
    /// Docker's manifest list.
    Docker,
}

impl ManifestList {
    /// Docker's, if all images are; else an image index.
    pub fn own_type(&self) -> ListType {
        let is_docker = |entry: &Entry| entry.media_type == media_type::DOCKER_MANIFEST;
        if self.entries.iter().all(is_docker) { ListType::Docker } else { ListType::Oci }
    }

    /// The list as it is pushed.
    pub fn manifest(&self, list_type: ListType) -> RawManifest {
        let media_type = match list_type {
            ListType::Oci => media_type::OCI_INDEX,
            ListType::Docker => media_type::DOCKER_LIST,
        };
        let entry = |entry: &Entry| json!({ "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size, "platform": entry.platform });
        let manifests: Vec<_> = self.entries.iter().map(entry).collect();
        let bytes = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string().into_bytes();
        RawManifest { media_type: media_type.into(), digest: Digest::of(&bytes), bytes }
    }

    /// Puts an image into the list, in place of what has the same name there.
    pub fn put(&mut self, entry: Entry) -> Result<()> {
        if let Some(same) = self.entries.iter_mut().find(|one| one.name == entry.name) {
            *same = entry;
        } else if self.entries.len() < INDEX_LIMIT {
            self.entries.push(entry);
        } else {
            return Err(RuntimeError::invalid("manifest list", format_args!("it has more than {INDEX_LIMIT} images")).into());
        }
        Ok(())
    }

    /// The image that was given by this name, or has its digest.
    pub fn entry_mut(&mut self, image: &Reference) -> Option<&mut Entry> {
        let name = image.to_string();
        self.entries.iter_mut().find(|entry| entry.name == name || image.digest() == Some(&entry.digest))
    }
}

/// The lists made here.
#[derive(Debug)]
pub struct ManifestLists {
    directory: PathBuf,
}

impl ManifestLists {
    /// Those of a store.
    pub fn of(store: &Store) -> Self {
        Self { directory: store.root().join("manifests") }
    }

    fn path(&self, name: &Reference) -> PathBuf {
        self.directory.join(Digest::of(name.to_string().as_bytes()).hex())
    }

    /// A list, if there is one of that name.
    pub fn find(&self, name: &Reference) -> Result<Option<ManifestList>> {
        let path = self.path(name);
        match files::read_bounded(&path, MANIFEST_LIMIT_BYTES as u64) {
            Err(RuntimeError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(parse(&path, &read?)?)),
        }
    }

    /// The same, with the error a user expects.
    pub fn get(&self, name: &Reference) -> Result<ManifestList> {
        let hint = "`rbox manifest create` makes one".into();
        let missing = || RuntimeError::NotFound { what: format!("manifest list {}", name.familiar()), hint };
        self.find(name)?.ok_or_else(|| missing().into())
    }

    /// Changes a list, which nobody else does meanwhile. What `change` makes of it is kept.
    pub fn change(&self, name: &Reference, change: impl FnOnce(Option<ManifestList>) -> Result<ManifestList>) -> Result<()> {
        let _lock = self.lock()?;
        let list = change(self.find(name)?)?;
        let path = self.path(name);
        let text = serde_json::to_vec(&list).map_err(|e| RuntimeError::invalid("manifest list", e))?;
        Ok(files::write_atomically(&path, &path.with_extension("new"), &text)?)
    }

    /// Forgets a list.
    pub fn remove(&self, name: &Reference) -> Result<()> {
        let _lock = self.lock()?;
        self.get(name)?;
        let path = self.path(name);
        Ok(std::fs::remove_file(&path).map_err(|e| RuntimeError::io(format_args!("remove {}", path.display()), e))?)
    }

    fn lock(&self) -> Result<File> {
        files::make_private_dir(&self.directory)?;
        let file = files::open_lock(&self.directory.join("lock"))?;
        files::try_lock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ManifestList> {
    let why = |e: serde_json::Error| format!("it is no list of images: {e}; remove it with `rbox manifest rm`");
    serde_json::from_slice(bytes).map_err(|e| Error::Config { path: path.display().to_string(), why: why(e) })
}

/// An image of a registry as an entry of a list: what it runs on stands in its configuration.
///
/// # Errors
///
/// [`RuntimeError::Invalid`] for what is a list itself.
pub fn entry_of(repository: &Repository, image: &Reference) -> Result<Entry> {
    let raw = repository.pinned_manifest(image)?;
    let Document::Image(manifest) = Document::parse(&raw.media_type, &raw.bytes)? else {
        let why = "it is a list itself; name its images by digest (`rbox manifest inspect` shows them)";
        return Err(RuntimeError::invalid(format_args!("image {}", image.familiar()), why).into());
    };
    Ok(Entry {
        name: image.to_string(),
        platform: platform_of(repository, &manifest.config)?,
        media_type: raw.media_type,
        digest: raw.digest,
        size: raw.bytes.len() as u64,
    })
}

/// What a configuration says of it; nothing, if it is no image's.
pub fn platform_of(repository: &Repository, config: &Descriptor) -> Result<EntryPlatform> {
    let bytes = repository.small_blob(config, CONFIG_LIMIT_BYTES)?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Brings an image into the repository of the list: only what is missing moves, and within one registry its blobs are
/// mounted from where they are.
pub fn bring(to: &Repository, list: &Reference, from: &Repository, image: &Reference, entry: &Entry) -> Result<()> {
    let [image, place] = [image, list].map(|name| name.with_digest(entry.digest.clone()));
    match to.head(&place) {
        Ok(_) => return Ok(()),
        Err(Error::Refused { answer, .. }) if answer.status == 404 => {}
        Err(e) => return Err(e),
    }
    let root = Root::find(from, &image, &Choice::All)?.manifest;
    if matches!(Document::parse(&root.media_type, &root.bytes)?, Document::Index(_)) {
        return Err(RuntimeError::invalid(format_args!("image {}", image.familiar()), "it is a list itself").into());
    }
    let plan = Plan::of(from, &image, root)?;
    let neighbours = Neighbours::source(&image, &place);
    let destination = &Remote { reference: &place, repository: to, neighbours };
    Transfer { source: from, reference: &image, destination, jobs: None, progress: &reporter(COPY, true) }.run(&plan)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, content: &str, kind: &str) -> Entry {
        let platform = EntryPlatform { architecture: "amd64".into(), os: "linux".into(), ..EntryPlatform::default() };
        Entry { name: name.into(), media_type: kind.into(), digest: Digest::of(content.as_bytes()), size: 3, platform }
    }

    #[test]
    fn a_list_is_kept_changed_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let lists = ManifestLists::of(&store);
        let name: Reference = "team/app:all".parse().unwrap();
        assert_eq!(lists.find(&name).unwrap(), None);
        assert!(lists.get(&name).is_err() && lists.remove(&name).is_err());
        let one = entry("docker.io/team/app:amd64", "one", media_type::DOCKER_MANIFEST);
        let list = ManifestList { name: name.to_string(), entries: vec![one.clone()] };
        lists.change(&name, |before| Ok(before.map_or(list.clone(), |_| panic!("there was none")))).unwrap();
        let change = |before: Option<ManifestList>| {
            let mut list = before.unwrap();
            list.put(entry("x", "two", media_type::OCI_MANIFEST))?;
            list.put(Entry { size: 4, ..one.clone() })?;
            Ok(list)
        };
        lists.change(&name, change).unwrap();
        let mut list = lists.get(&name).unwrap();
        assert_eq!(list.entries.iter().map(|entry| entry.size).collect::<Vec<_>>(), [4, 3]);
        assert!(list.entry_mut(&"team/app:amd64".parse().unwrap()).is_some());
        assert!(list.entry_mut(&"team/app:arm64".parse().unwrap()).is_none());
        assert_eq!(list.own_type(), ListType::Oci);
        lists.remove(&name).unwrap();
        assert_eq!(lists.find(&name).unwrap(), None);
    }

    #[test]
    fn what_is_pushed_can_be_read() {
        let list = ManifestList { name: "x".into(), entries: vec![entry("a", "one", media_type::DOCKER_MANIFEST)] };
        assert_eq!(list.own_type(), ListType::Docker);
        for list_type in [ListType::Oci, ListType::Docker] {
            let raw = list.manifest(list_type);
            let Document::Index(index) = Document::parse(&raw.media_type, &raw.bytes).unwrap() else { panic!() };
            assert_eq!(index.manifests[0].platform.as_ref().unwrap().to_string(), "linux/amd64");
        }
    }

    proptest! {
        #[test]
        fn reading_a_list_never_panics(bytes in any::<Vec<u8>>(), likely in "[{}\\[\\]\":,a-z0-9]{0,60}") {
            let _ = (parse(Path::new("x"), &bytes), parse(Path::new("x"), likely.as_bytes()));
        }
    }
}
