//! Layers of the store in either form: pulled, converted, killed while converted, used, removed.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_runtime::image::Descriptor;
use longshore_runtime::launch::Rootfs;
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::progress::{LayerEvent, Progress};
use longshore_runtime::pull::{Options, pull};
use longshore_runtime::source::BlobReader;
use longshore_runtime::store::LayerForm::{self, Directory, Erofs};
use longshore_runtime::{Error, RawManifest, Result, Source, Store, erofs};
use tempfile::TempDir;

use crate::image::mountable;
use crate::support::*;

/// An image of plain layers that is nowhere but in memory.
struct Hosted {
    manifest: RawManifest,
    blobs: HashMap<Digest, Vec<u8>>,
    diff_ids: Vec<Digest>,
}

impl Hosted {
    /// Two layers; the upper one lists none of the directories its entries are in.
    fn new() -> Self {
        let lower = crate::entries::everything().pax(&[("mtime", b"5.5"), ("SCHILY.xattr.user.a", b"b")]).dir("etc", 0o2750);
        let upper = Layer::new().file("etc/passwd", "root").file("dir/.wh.owned", "").raw(b'0', "big", "", 0o644, &[7; 1 << 20]);
        Self::of(&[lower.tar(), upper.tar()])
    }

    fn of(layers: &[Vec<u8>]) -> Self {
        let mut blobs = HashMap::new();
        let mut put = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            blobs.insert(digest.clone(), bytes.to_vec());
            serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.as_str(), "size": bytes.len() })
        };
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let names: Vec<&str> = diff_ids.iter().map(Digest::as_str).collect();
        let config = serde_json::json!({
            "architecture": Platform::host().architecture, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": names }
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(config.to_string().as_bytes()), "layers": layers.iter().map(|layer| put(layer)).collect::<Vec<_>>()
        });
        let bytes = manifest.to_string().into_bytes();
        let media_type = "application/vnd.oci.image.manifest.v1+json".into();
        Self { manifest: RawManifest { media_type, digest: Digest::of(&bytes), bytes }, blobs, diff_ids }
    }
}

impl Source for Hosted {
    fn manifest(&self, _: &Reference) -> Result<RawManifest> {
        Ok(self.manifest.clone())
    }

    fn blob<'a>(&'a self, _: &Reference, blob: &Descriptor, offset: u64, _: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
        Ok(Box::new(&self.blobs[&blob.digest][offset as usize..]))
    }
}

struct Silent;

impl Progress for Silent {
    fn layers(&self, _: &[Descriptor]) {}
    fn layer(&self, _: &Digest, _: LayerEvent) {}
}

const NAME: &str = "registry.invalid/app:1";

/// A store with the image.
struct Stored {
    store: Store,
    hosted: Hosted,
    temp: TempDir,
}

impl Stored {
    fn try_new(form: Option<LayerForm>, unpack: &longshore_runtime::unpack::Options) -> Result<Self> {
        Self::of(Hosted::new(), 2, form, unpack)
    }

    fn of(hosted: Hosted, jobs: usize, form: Option<LayerForm>, unpack: &longshore_runtime::unpack::Options) -> Result<Self> {
        let temp = TempDir::new().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let options = Options {
            platform: Platform::host(),
            jobs: Some(jobs),
            unpack: unpack.clone(),
            form,
            named: true,
            action: "pull",
            approve: &|_, _| Ok(()),
        };
        pull(&store, &hosted, &NAME.parse().unwrap(), &options, &Silent)?;
        Ok(Self { store, hosted, temp })
    }

    fn new(form: LayerForm) -> Self {
        Self::try_new(Some(form), &options()).unwrap()
    }

    fn forms(&self) -> Vec<Option<LayerForm>> {
        self.hosted.diff_ids.iter().map(|diff_id| self.store.layer_form(diff_id)).collect()
    }

    /// What is in each layer, whatever its form.
    fn trees(&self) -> Vec<BTreeMap<PathBuf, Node>> {
        let tree = |diff_id: &Digest| {
            let layer = erofs::open_layer(&self.store.layer_path(diff_id)).unwrap();
            let mut tree = snapshot(Path::new(&format!("/proc/self/fd/{}/.", layer.as_raw_fd())));
            tree.values_mut().filter(|node| node.device == 0 && node.kind == "char device").for_each(|node| node.mtime = (0, 0));
            tree
        };
        self.hosted.diff_ids.iter().map(tree).collect()
    }

    /// Names in the directory of layers.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.temp.path().join("layers/sha256")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_pull_makes_the_same_layers_in_both_forms_and_images_where_they_work() {
    if !mountable() {
        return;
    }
    let (directories, images) = (Stored::new(Directory), Stored::new(Erofs));
    assert_eq!((directories.forms(), images.forms()), (vec![Some(Directory); 2], vec![Some(Erofs); 2]));
    assert_eq!(directories.trees(), images.trees());
    let adopted = &images.trees()[1][Path::new("etc")];
    assert_eq!((adopted.mode, adopted.mtime, adopted.xattrs.len()), (0o2750, (5, 500_000_000), 1));
    assert_eq!(Stored::try_new(None, &options()).unwrap().forms(), images.forms());
    for diff_id in &images.hosted.diff_ids {
        let [one, other] = [&directories, &images].map(|stored| stored.store.layer_info(diff_id).unwrap());
        assert_eq!((one.unpacked_bytes, one.entries), (other.unpacked_bytes, other.entries));
        let occupied = images.store.disk_bytes(diff_id) - images.hosted.blobs[diff_id].len() as u64;
        let data_bytes = if diff_id == &images.hosted.diff_ids[1] { 1 << 20 } else { 0 };
        assert!(occupied > data_bytes && occupied < data_bytes + (64 << 10), "{occupied} bytes on disk");
    }
}

#[test]
fn containerd_13030_layers_unpacked_side_by_side_hide_what_they_should() {
    if !crate::needs::root() {
        return;
    }
    let base = Layer::new().dir("d", 0o755).file("d/gone", "").file("d/kept", "").dir("o", 0o755).file("o/hidden", "");
    let base = base.file("first", "one").hard_link("second", "first").dir("was", 0o755).file("was/below", "");
    let whiteouts = Layer::new().file("d/.wh.gone", "").file("o/.wh..wh..opq", "").file("o/new", "").file(".wh.first", "");
    let renewed = Layer::new().file("d/gone", "back").file(".wh.was", "").dir("was", 0o755).file("third", "3");
    let renewed = renewed.hard_link("d/fourth", "third");
    let layers = [base.tar(), whiteouts.tar(), renewed.tar()];
    let forms = if mountable() { vec![Directory, Erofs] } else { vec![Directory] };
    // The last is small and done first, the first is done last: by turns all orders come.
    for (round, form) in (0..12).flat_map(|round| forms.iter().map(move |form| (round, *form))) {
        let stored = Stored::of(Hosted::of(&layers), 3, Some(form), &options()).unwrap();
        let [upper, work] = ["upper", "work"].map(|name| stored.temp.path().join(name));
        for path in [&upper, &work] {
            std::fs::create_dir(path).unwrap();
        }
        let lower = stored.hosted.diff_ids.iter().rev().map(|diff_id| stored.store.layer_path(diff_id)).collect();
        let root = Rootfs::Overlay { lower, upper, work, userxattr: false, ephemeral: true }.mount().unwrap();
        let tree = snapshot(Path::new(&format!("/proc/self/fd/{}/.", root.as_raw_fd())));
        let names: Vec<_> = tree.keys().filter_map(|path| path.to_str()).filter(|path| !path.is_empty()).collect();
        let expected = ["d", "d/fourth", "d/gone", "d/kept", "o", "o/new", "second", "third", "was"];
        assert_eq!(names, expected, "{form:?}, round {round}");
        let node = |path: &str| &tree[Path::new(path)];
        assert_eq!((&node("d/gone").content[..], &node("second").content[..]), (&b"back"[..], &b"one"[..]));
        assert_eq!((node("third").links, node("d/fourth").links), (2, 2));
    }
}

#[test]
fn cve_2021_41091_nobody_else_looks_into_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let temp = TempDir::new().unwrap();
    std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
    Store::open(temp.path()).unwrap();
    for entry in std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap()) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", entry.path());
    }
}

#[test]
fn images_are_refused_rootless_if_asked_for_and_not_used_if_not() {
    let rootless = longshore_runtime::unpack::Options { userxattr: true, ..options() };
    let refused = Stored::try_new(Some(Erofs), &rootless).err().unwrap();
    assert!(refused.to_string().contains("only root"), "{refused}");
    assert_eq!(Stored::try_new(None, &rootless).unwrap().forms(), [Some(Directory); 2]);
    let refused = Stored::new(Directory).store.convert(Erofs, &rootless, |_| {}).unwrap_err();
    assert!(refused.to_string().contains("only root"), "{refused}");
    assert!("squashfs".parse::<LayerForm>().is_err());
}

#[test]
fn a_conversion_there_and_back_changes_nothing_but_the_form() {
    if !mountable() {
        return;
    }
    let stored = Stored::new(Directory);
    let before = stored.trees();
    for form in [Erofs, Erofs, Directory, Directory] {
        let changes = stored.forms() != [Some(form); 2];
        let mut said = Vec::new();
        let done = stored.store.convert(form, &options(), |diff_id| said.push(diff_id.clone())).unwrap();
        assert_eq!((done.converted.len(), &done.converted, done.in_use.len()), (if changes { 2 } else { 0 }, &said, 0));
        assert_eq!(stored.forms(), [Some(form); 2]);
        assert_eq!(stored.names().len(), 2, "the old form is gone: {:?}", stored.names());
        assert!(stored.trees() == before);
        assert_eq!(std::fs::read_dir(stored.temp.path().join("scratch")).unwrap().count(), 0);
    }
}

#[test]
fn a_layer_that_somebody_uses_keeps_its_form() {
    if !mountable() {
        return;
    }
    for (form, other) in [(Directory, Erofs), (Erofs, Directory)] {
        let stored = Stored::new(form);
        let user = stored.store.lease().unwrap();
        user.add([&stored.hosted.diff_ids[0]]).unwrap();
        let done = stored.store.convert(other, &options(), |_| {}).unwrap();
        assert_eq!((done.in_use, stored.forms()), (vec![stored.hosted.diff_ids[0].clone()], vec![Some(form), Some(other)]));
        assert_eq!(stored.names().len(), 2);
        drop(user);
        assert!(stored.store.convert(other, &options(), |_| {}).unwrap().in_use.is_empty());
        assert_eq!(stored.forms(), [Some(other); 2]);
    }
}

#[test]
fn a_damaged_blob_ends_a_conversion_and_the_layer_stays() {
    if !mountable() {
        return;
    }
    let stored = Stored::new(Directory);
    let before = stored.trees();
    let blob = stored.store.blob_path(&stored.hosted.diff_ids[1]); // plain: the same digest
    let mut bytes = std::fs::read(&blob).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let error = stored.store.convert(Erofs, &options(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(stored.trees() == before);
    assert_eq!(stored.store.layer_form(&stored.hosted.diff_ids[1]), Some(Directory));
}

#[test]
fn a_removed_image_takes_its_layers_of_either_form_along() {
    if !mountable() {
        return;
    }
    for form in [Directory, Erofs] {
        let stored = Stored::new(form);
        let layer = erofs::open_layer(&stored.store.layer_path(&stored.hosted.diff_ids[1])).unwrap();
        stored.store.remove(NAME, false).unwrap();
        assert_eq!(stored.names(), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(stored.temp.path().join("scratch")).unwrap().count(), 0);
        if form == Erofs {
            let file = format!("/proc/self/fd/{}/etc/passwd", layer.as_raw_fd());
            assert_eq!(std::fs::read(file).unwrap(), b"root", "what is mounted stays readable");
        }
    }
}

/// Kills a process that converts there and back without end, at many moments.
#[test]
fn a_conversion_killed_at_any_point_loses_nothing() {
    if !mountable() {
        return;
    }
    let stored = Stored::new(Directory);
    let before = stored.trees();
    let mut seen = Vec::new();
    for delay_us in (0..40).map(|n| n * 700) {
        let tests = std::env::current_exe().unwrap();
        let mut child = Command::new(tests)
            .args(["--ignored", "--exact", "--nocapture", "forms::convert_without_end"])
            .env("STORE_TO_CONVERT", stored.temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begins") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended before it began");
        }
        // No wait for a condition: which moment this is does not matter, only that it is another each time.
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stored.trees() == before, "after {delay_us} microseconds");
        seen.push(stored.forms());
        // Everything that was left behind goes with the next command.
        stored.store.convert(if delay_us % 1400 == 0 { Erofs } else { Directory }, &options(), |_| {}).unwrap();
        assert_eq!(stored.names().len(), 2, "{:?}", stored.names());
        assert!(stored.trees() == before);
    }
    seen.dedup();
    assert!(seen.len() > 2, "killed between conversions only");
}

#[test]
#[ignore = "run by a_conversion_killed_at_any_point_loses_nothing in a process of its own"]
fn convert_without_end() {
    let store = Store::open(std::env::var_os("STORE_TO_CONVERT").unwrap()).unwrap();
    println!("\nbegins");
    loop {
        store.convert(Erofs, &options(), |_| {}).unwrap();
        store.convert(Directory, &options(), |_| {}).unwrap();
    }
}
