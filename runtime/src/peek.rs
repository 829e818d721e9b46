//! One file out of an image that need not be here: its layers are read from the top down, as they stream by, until one
//! has the file. Nothing is kept of them.
//!
//! Whiteouts, opaque directories, symbolic and hard links mean what they mean in a container. `..` in the target of a
//! symbolic link is resolved by name.

use std::fs::File;
use std::io::Write;

use crate::error::{Attempt, Error, Result};
use crate::image::Descriptor;
use crate::name::Reference;
use crate::parallel::Cancel;
use crate::source::{BlobReader, Source};
use crate::store::Store;
use crate::unpack::{Found, ImagePath, Reading, Remembered, Search};

/// How many symbolic links are followed for one path, as by the kernel.
const LINKS_LIMIT: usize = 40;

/// An image's layers, wherever they are.
pub struct Layers<'a> {
    /// Where those are looked for first.
    pub store: &'a Store,
    /// Where the others are.
    pub source: &'a dyn Source,
    /// The image's name there.
    pub image: &'a Reference,
    /// The layers, bottom first.
    pub layers: &'a [Descriptor],
}

impl Layers<'_> {
    /// Writes a file's content to `out`. Symbolic links are followed.
    ///
    /// A layer that was read to its end is compared with its digest. That in which the file is found is so only where it
    /// is to be read as a `whole`: what was written before an error is not to be believed, then.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where there is no such file, [`Error::Invalid`] where it is no file.
    pub fn cat(&self, path: &str, whole: bool, out: &mut dyn Write) -> Result<()> {
        let mut wanted = ImagePath::new(path.as_bytes());
        let mut names: Vec<Option<Remembered>> = self.layers.iter().map(|_| None).collect();
        for _ in 0..=LINKS_LIMIT {
            match self.search(&mut Search::new(wanted), whole, out, &mut names)? {
                Some(elsewhere) => wanted = elsewhere,
                None => return Ok(()),
            }
        }
        Err(self.invalid(path, "too many symbolic links lead to it"))
    }

    /// Looks through all layers, from the top down; gives the path to look for instead if it is a symbolic link.
    fn search(
        &self,
        search: &mut Search,
        whole: bool,
        out: &mut dyn Write,
        names: &mut [Option<Remembered>],
    ) -> Result<Option<ImagePath>> {
        if search.path().is_root() {
            return Err(self.invalid("/", "it is a directory"));
        }
        for (at, layer) in self.layers.iter().enumerate().rev() {
            let found = match names[at].as_ref().and_then(|names| search.known(names)) {
                Some(known) => known,
                None => {
                    let mut own = Remembered::new(names.iter().flatten().map(Remembered::len).sum());
                    let found = self.read(layer, search, whole, out, Some(&mut own))?;
                    names[at] = Some(own);
                    found
                }
            };
            match self.follow(layer, found, whole, out)? {
                Found::Written => return Ok(None),
                Found::Elsewhere(path) => return Ok(Some(path)),
                Found::Other(what) => return Err(self.invalid(&search.path().to_string(), &format!("it is {what}"))),
                Found::Nothing { hidden: true } => break,
                Found::Linked(_) | Found::Nothing { hidden: false } => {}
            }
        }
        let hint = "paths begin at the image's root: /etc/os-release, for example".into();
        Err(Error::NotFound { what: format!("file {} in image {}", search.path(), self.image.familiar()), hint })
    }

    /// What a hard link is a further name of is in the same layer.
    fn follow(&self, layer: &Descriptor, mut found: Found, whole: bool, out: &mut dyn Write) -> Result<Found> {
        for _ in 0..=LINKS_LIMIT {
            let Found::Linked(path) = found else { return Ok(found) };
            let mut search = Search::new(path);
            found = self.read(layer, &mut search, whole, out, None)?;
            if let Found::Nothing { .. } = found {
                let why = format!("it is a hard link to {}, which its layer does not have", search.path());
                return Err(self.invalid("of that name", &why));
            }
        }
        Err(self.invalid("of that name", "too many hard links lead to it"))
    }

    fn read(
        &self,
        layer: &Descriptor,
        search: &mut Search,
        whole: bool,
        out: &mut dyn Write,
        names: Option<&mut Remembered>,
    ) -> Result<Found> {
        let cancel = Cancel::default();
        let reading = Reading { blob: &layer.digest, whole, cancel: &cancel };
        search.layer(self.open(layer, &cancel)?, reading, out, names)
    }

    fn open<'a>(&'a self, layer: &Descriptor, cancel: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
        let path = self.store.blob_path(&layer.digest);
        if self.store.has_blob(&layer.digest) {
            return Ok(Box::new(File::open(&path).attempt(|| format!("open {}", path.display()))?));
        }
        if layer.is_foreign() {
            let why = "its licence keeps it out of registries; it cannot be fetched";
            return Err(Error::invalid(format_args!("layer {}", layer.digest), why));
        }
        self.source.blob(self.image, layer, 0, cancel)
    }

    fn invalid(&self, path: &str, why: &str) -> Error {
        Error::invalid(format_args!("file {path} in image {}", self.image.familiar()), why)
    }
}

#[cfg(test)]
mod tests {
    use crate::source::BlobRead;
    use std::collections::{BTreeMap, HashMap};
    use std::io::Read;
    use std::sync::Mutex;

    use proptest::prelude::*;
    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::name::Digest;
    use crate::source::RawManifest;

    /// What stands in a layer.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum What {
        File(String),
        Link(String),
        Hard(String),
        Directory,
        Whiteout,
        Opaque,
    }
    use What::{Directory, File as Content, Hard, Link, Opaque, Whiteout};

    fn layer(entries: &[(String, What)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, what) in entries {
            let mut header = Header::new_gnu();
            let (above, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(above, name)| (above, name));
            let in_above = |name: &str| if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
            let (kind, path, content) = match what {
                Content(content) => (EntryType::Regular, path.clone(), content.as_str()),
                Link(_) => (EntryType::Symlink, path.clone(), ""),
                Hard(_) => (EntryType::Link, path.clone(), ""),
                Directory => (EntryType::Directory, path.clone(), ""),
                Whiteout => (EntryType::Regular, in_above(&format!(".wh.{name}")), ""),
                Opaque => (EntryType::Regular, format!("{path}/.wh..wh..opq"), ""),
            };
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            match what {
                Link(target) | Hard(target) => builder.append_link(&mut header, path, target).unwrap(),
                _ => builder.append_data(&mut header, path, content.as_bytes()).unwrap(),
            }
        }
        builder.into_inner().unwrap()
    }

    /// A registry that has blobs, and counts what is read of them.
    #[derive(Default)]
    struct Blobs {
        blobs: HashMap<Digest, Vec<u8>>,
        read: Mutex<HashMap<Digest, u64>>,
    }

    struct Counted<'a> {
        bytes: &'a [u8],
        digest: Digest,
        blobs: &'a Blobs,
    }

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = self.bytes.read(buffer)?;
            *self.blobs.read.lock().unwrap().entry(self.digest.clone()).or_default() += read as u64;
            Ok(read)
        }
    }

    impl BlobRead for Counted<'_> {}

    impl Source for Blobs {
        fn manifest(&self, _: &Reference) -> Result<RawManifest> {
            Err(Error::invalid("manifest", "nobody asks"))
        }

        fn blob<'a>(&'a self, _: &Reference, blob: &Descriptor, _: u64, _: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
            Ok(Box::new(Counted { bytes: &self.blobs[&blob.digest], digest: blob.digest.clone(), blobs: self }))
        }
    }

    /// An image of these layers, bottom first.
    struct Image {
        directory: tempfile::TempDir,
        blobs: Blobs,
        layers: Vec<Descriptor>,
    }

    impl Image {
        fn new(layers: &[Vec<(String, What)>]) -> Self {
            let mut blobs = Blobs::default();
            let descriptor = |bytes: Vec<u8>| {
                let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
                blobs.blobs.insert(digest.clone(), bytes);
                Descriptor { media_type: String::new(), digest, size, platform: None }
            };
            let layers = layers.iter().map(|entries| layer(entries)).map(descriptor).collect();
            Self { directory: tempfile::tempdir().unwrap(), blobs, layers }
        }

        fn cat(&self, path: &str, whole: bool) -> Result<String> {
            let store = Store::open(self.directory.path()).unwrap();
            let image = "x:1".parse().unwrap();
            let layers = Layers { store: &store, source: &self.blobs, image: &image, layers: &self.layers };
            let mut out = Vec::new();
            layers.cat(path, whole, &mut out)?;
            Ok(String::from_utf8(out).unwrap())
        }

        fn read_bytes(&self, at: usize) -> u64 {
            self.blobs.read.lock().unwrap().get(&self.layers[at].digest).copied().unwrap_or_default()
        }
    }

    fn entries(entries: &[(&str, What)]) -> Vec<(String, What)> {
        entries.iter().map(|(path, what)| ((*path).to_owned(), what.clone())).collect()
    }

    fn file(content: &str) -> What {
        Content(content.into())
    }

    #[test]
    fn a_file_is_found_as_a_container_would_find_it() {
        let image = Image::new(&[
            entries(&[
                ("usr/lib/os-release", file("old")),
                ("etc/os-release", Link("../usr/lib/os-release".into())),
                ("bin", Link("usr/bin".into())),
                ("usr/bin/sh", file("shell")),
                ("gone", file("x")),
                ("dir/a", file("a")),
                ("opaque/a", file("a")),
                ("loop", Link("loop".into())),
                ("up", Link("../../../../etc/os-release".into())),
            ]),
            entries(&[
                ("usr/lib/os-release", file("new")),
                ("gone", Whiteout),
                ("dir", Whiteout),
                ("opaque", Opaque),
                ("opaque/b", file("b")),
                ("hard/one", file("linked")),
                ("hard/two", Hard("hard/one".into())),
                ("hard/three", Hard("hard/two".into())),
            ]),
        ]);
        for (path, content) in [
            ("/etc/os-release", "new"),
            ("etc/../etc/./os-release", "new"),
            ("up", "new"),
            ("/bin/sh", "shell"),
            ("opaque/b", "b"),
            ("hard/two", "linked"),
            ("hard/three", "linked"),
        ] {
            for whole in [false, true] {
                assert_eq!(image.cat(path, whole).unwrap(), content, "{path}");
            }
        }
        for path in ["gone", "dir/a", "opaque/a", "nowhere", "usr/bin/sh/x", "loop", "/", "usr", "usr/bin"] {
            let said = image.cat(path, false).unwrap_err().to_string();
            assert!(said.contains("x:1"), "{path}: {said}");
        }
    }

    #[test]
    fn what_lies_below_or_behind_a_file_is_not_read() {
        let noise: String =
            (0..4_000_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
        let image = Image::new(&[
            entries(&[("only-below", file("x"))]),
            entries(&[("first", file("x")), ("noise", Content(noise.clone())), ("more", Content(noise))]),
        ]);
        assert_eq!(image.cat("first", false).unwrap(), "x");
        assert_eq!(image.read_bytes(0), 0);
        assert!(image.read_bytes(1) < image.layers[1].size, "all of the layer was read");
        image.cat("first", true).unwrap();
        assert!(image.read_bytes(1) > image.layers[1].size, "the layer was not read to its end");
    }

    #[test]
    fn a_layer_that_is_not_what_its_digest_promises_is_refused_where_it_is_read_to_its_end() {
        let mut image = Image::new(&[entries(&[("a", file("x"))])]);
        let digest = image.layers[0].digest.clone();
        image.blobs.blobs.insert(digest, layer(&entries(&[("a", file("another"))])));
        assert!(matches!(image.cat("a", true), Err(Error::Mismatch { .. })));
        assert!(matches!(image.cat("b", false), Err(Error::Mismatch { .. })));
    }

    /// What an image is, its layers laid over one another one by one.
    #[derive(Default)]
    struct Model(BTreeMap<String, What>);

    impl Model {
        fn remove(&mut self, path: &str, itself: bool) {
            self.0.retain(|known, _| !(known.starts_with(&format!("{path}/")) || itself && known == path));
        }

        fn lay(&mut self, layer: &[(String, What)]) {
            for (path, what) in layer {
                match what {
                    Whiteout => self.remove(path, true),
                    Opaque => self.remove(path, false),
                    _ => {}
                }
            }
            for (path, what) in layer {
                let is_opaque = *what == Opaque;
                let parents = path.match_indices('/').map(|(at, _)| &path[..at]).chain(is_opaque.then_some(path.as_str()));
                for parent in parents {
                    if self.0.get(parent) != Some(&Directory) {
                        self.remove(parent, true);
                        self.0.insert(parent.to_owned(), Directory);
                    }
                }
                match what {
                    Whiteout | Opaque => {}
                    Directory if self.0.get(path) == Some(&Directory) => {}
                    what => {
                        self.remove(path, true);
                        self.0.insert(path.clone(), what.clone());
                    }
                }
            }
        }

        fn cat(&self, path: &str, links_left: usize) -> Option<String> {
            for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
                match self.0.get(&path[..at])? {
                    Link(target) if links_left > 0 => {
                        let above = path[..at].rsplit_once('/').map_or("", |(above, _)| above);
                        let whole = if target.starts_with('/') { target.clone() } else { format!("{above}/{target}") };
                        return self.cat(&clean(&format!("{whole}{}", &path[at..])), links_left - 1);
                    }
                    Content(content) if at == path.len() => return Some(content.clone()),
                    Directory if at < path.len() => {}
                    _ => return None,
                }
            }
            None
        }
    }

    fn clean(path: &str) -> String {
        let mut parts = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part == ".." {
                parts.pop();
            } else {
                parts.push(part);
            }
        }
        parts.join("/")
    }

    fn any_path() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]", 1..4).prop_map(|parts| parts.join("/"))
    }

    fn any_what() -> impl Strategy<Value = What> {
        prop_oneof![
            3 => "[x-z]{1,3}".prop_map(Content),
            2 => prop_oneof![any_path(), any_path().prop_map(|path| format!("/{path}")), any_path().prop_map(|path| format!("../{path}"))].prop_map(Link),
            2 => Just(Directory),
            2 => Just(Whiteout),
            1 => Just(Opaque),
        ]
    }

    /// As tools make layers: each path once, parents first, nothing below what is no directory.
    fn any_layer() -> impl Strategy<Value = Vec<(String, What)>> {
        proptest::collection::btree_map(any_path(), any_what(), 0..6).prop_map(|map| {
            let closed: Vec<String> =
                map.iter().filter(|(_, what)| matches!(what, Content(_) | Link(_))).map(|(path, _)| format!("{path}/")).collect();
            map.into_iter().filter(|(path, _)| !closed.iter().any(|closed| path.starts_with(closed))).collect()
        })
    }

    proptest! {
        #[test]
        fn whatever_its_layers_are_a_file_is_what_a_container_has(
            layers in proptest::collection::vec(any_layer(), 1..5),
            paths in proptest::collection::vec(any_path(), 1..6),
        ) {
            let (image, mut model) = (Image::new(&layers), Model::default());
            layers.iter().for_each(|layer| model.lay(layer));
            for path in paths {
                prop_assert_eq!(image.cat(&path, false).ok(), model.cat(&path, LINKS_LIMIT), "{}", path);
            }
        }

        #[test]
        fn looking_into_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000), path in "[a-z/.]{0,10}") {
            let mut image = Image::new(&[Vec::new()]);
            let digest = image.layers[0].digest.clone();
            image.blobs.blobs.insert(digest, bytes);
            let _ = image.cat(&path, false);
        }
    }
}
