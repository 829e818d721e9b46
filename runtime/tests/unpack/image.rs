//! The other form of a layer: the same archive as an EROFS image, mounted and compared entry by entry
//! with the directory. Every archive of every test here comes by.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use longshore_runtime::name::{Algorithm, Digest};
use longshore_runtime::unpack::{Options, PendingImage, Unpacked, unpack_image};
use longshore_runtime::{Error, Result, erofs};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::needs::{installed, useful};
use crate::support::*;

/// An image beside nothing else.
pub(crate) struct Image {
    temp: TempDir,
}

impl Image {
    pub(crate) fn path(&self) -> PathBuf {
        self.temp.path().join("image")
    }

    /// The root directory of the mounted image, as long as the descriptor lives.
    pub(crate) fn mount(&self) -> (OwnedFd, PathBuf) {
        let mount = erofs::open_layer(&self.path()).unwrap();
        // With the dot it is the directory itself, not the link to it.
        let path = format!("/proc/self/fd/{}/.", mount.as_raw_fd()).into();
        (mount, path)
    }
}

/// Unpacks into an image that is not finished.
pub(crate) fn pending(compressed: &[u8], options: &Options) -> Result<(Image, Unpacked, PendingImage)> {
    let image = Image { temp: TempDir::new().unwrap() };
    let file = File::create_new(image.path()).unwrap();
    let (unpacked, pending) = unpack_image(compressed, Algorithm::Sha256, Algorithm::Sha256, file, options)?;
    Ok((image, unpacked, pending))
}

pub(crate) fn image(layer: &Layer) -> Image {
    let (image, unpacked, pending) = pending(&layer.tar(), &options()).unwrap();
    pending.finish(&unpacked.diff_id, b"").unwrap();
    image
}

/// Whether images can be mounted; says once if not.
pub(crate) fn mountable() -> bool {
    static MOUNTABLE: OnceLock<bool> = OnceLock::new();
    *MOUNTABLE.get_or_init(|| {
        let temp = TempDir::new().unwrap();
        let probed = erofs::probe(temp.path());
        useful(probed.is_ok(), &format!("root and a kernel that mounts EROFS images from files ({probed:?})"))
    })
}

/// Compares the image of an archive with the outcome and the directory of another unpacking of it.
pub(crate) fn assert_same(compressed: &[u8], options: &Options, expected: &Result<Unpacked>, directory: &Path) {
    let (image, unpacked, pending) = match (pending(compressed, options), expected) {
        (Ok(image), Ok(_)) => image,
        (Err(ours), Err(theirs)) => return assert_same_refusal(&ours, theirs),
        // Some of what a user may not do on a file system an image can hold, and what no file system can hold too.
        (Ok(_), Err(Error::Io { .. })) if options.userxattr => return,
        (ours, theirs) => panic!("as an image {:?}, as a directory {theirs:?}", ours.map(|(_, unpacked, _)| unpacked)),
    };
    let expected = expected.as_ref().unwrap();
    assert_eq!(
        (&unpacked.diff_id, unpacked.entries, &unpacked.implied),
        (&expected.diff_id, expected.entries, &expected.implied)
    );
    if !options.userxattr {
        assert_eq!(unpacked.dropped_xattrs, expected.dropped_xattrs);
    }
    pending.finish(&unpacked.diff_id, b"").unwrap();
    if options.userxattr || !mountable() {
        return;
    }
    let (_mount, root) = image.mount();
    let (mut ours, mut theirs) = (snapshot(&root), snapshot(directory));
    for node in ours.values_mut().chain(theirs.values_mut()) {
        // A whiteout has the time it was made at, which nobody sees.
        if node.kind == "char device" && node.device == 0 {
            node.mtime = (0, 0);
        }
    }
    for (path, node) in &theirs {
        assert_eq!(Some(node), ours.get(path), "{path:?} of the directory, and of the image");
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
}

fn assert_same_refusal(ours: &Error, theirs: &Error) {
    match (ours, theirs) {
        (Error::Io { source: ours, .. }, Error::Io { source: theirs, .. }) => {
            assert_eq!(ours.raw_os_error(), theirs.raw_os_error(), "{ours} and {theirs}");
        }
        _ => assert_eq!(ours.to_string(), theirs.to_string()),
    }
}

/// Has `fsck.erofs` read all of an image.
fn fsck(image: &Image) {
    let output = Command::new("fsck.erofs").arg("--extract").arg(image.path()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("corrupt"), "{said}");
}

/// A directory of many blocks, names of every length, attributes larger than a block, links and files
/// of every size around a block.
fn awkward() -> Layer {
    let mut layer = crate::entries::everything().dir("many", 0o755).dir("many/empty", 0o700);
    for n in 0..1000 {
        layer = layer.file(&format!("many/{}{n}", "n".repeat(n % 90)), "");
    }
    for name in ["!", "-", ".-", "..a", ".a", "...", "z~", "\u{fc}"] {
        layer = layer.file(&format!("many/{name}"), name);
    }
    let longest = format!("many/{}", "l".repeat(255));
    layer = layer.pax(&[("path", longest.as_bytes())]).file("l", "longest");
    for size in [1, 4000, 4095, 4096, 4097, 12_288, 300_000] {
        layer = layer.raw(b'0', &format!("size-{size}"), "", 0o644, &vec![b'x'; size]);
    }
    for size in [4000_usize, 4031, 4032, 4033, 4095] {
        layer = layer.pax(&[("linkpath", &b"t".repeat(size))]).symlink(&format!("link-{size}"), "");
        let value = vec![b'v'; size - 995];
        let note: [(&str, &[u8]); 2] = [("SCHILY.xattr.user.note", &value), ("SCHILY.xattr.trusted.a", b"1")];
        layer = layer.pax(&note).file(&format!("attributes-{size}"), "data").pax(&note).dir(&format!("directory-{size}"), 0o755);
        layer = layer.pax(&note[1..]).symlink(&format!("attributes-link-{size}"), &"s".repeat(90));
    }
    layer
}

#[test]
fn whatever_does_not_fit_beside_its_inode_is_elsewhere() {
    let (_, unpacked) = unpack(&awkward());
    assert_eq!(unpacked.dropped_xattrs, 0);
}

#[test]
fn erofs_utils_find_nothing_wrong_with_an_image() {
    if installed("fsck.erofs") {
        for layer in [Layer::new(), crate::entries::everything(), awkward()] {
            fsck(&image(&layer));
        }
    }
}

#[test]
fn one_archive_makes_one_image_byte_for_byte() {
    let images = [image(&awkward()), image(&awkward())];
    let [one, other] = images.map(|image| std::fs::read(image.path()).unwrap());
    assert!(one == other);
}

#[test]
fn a_note_stands_before_the_superblock_and_nothing_of_it_behind() {
    let (image, unpacked, pending) = pending(&Layer::new().file("a", "x").tar(), &options()).unwrap();
    pending.finish(&unpacked.diff_id, &[b'n'; 2000]).unwrap();
    let mut block = vec![0; 4096];
    File::open(image.path()).unwrap().read_exact_at(&mut block, 0).unwrap();
    assert!(block[..1024].iter().all(|&byte| byte == b'n'));
    assert_eq!(block[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    assert_eq!(
        block[1024 + 48..][..4],
        Digest::of(&Layer::new().file("a", "x").tar())
            .hex()
            .as_bytes()
            .chunks(2)
            .take(4)
            .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
            .collect::<Vec<_>>()[..]
    );
    if mountable() {
        assert_eq!(node(&image.mount().1.join("a")).content, b"x");
    }
}

/// Offsets at which data begins, and at which it ends.
fn extents(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let mut extents = Vec::new();
    let mut at = 0;
    while let Ok(from) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(from)).unwrap();
        extents.push((from, at));
    }
    extents
}

fn sparse(layer: Layer, path: &str, size: u64, runs: &[(u64, usize)]) -> Layer {
    let map = runs.iter().map(|(offset, length)| format!("{offset},{length}")).collect::<Vec<_>>().join(",");
    let data: Vec<u8> = runs.iter().flat_map(|(_, length)| vec![b'd'; *length]).collect();
    let (size, blocks) = (size.to_string(), runs.len().to_string());
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.numblocks", blocks.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
    layer.pax(&records).raw(b'0', path, "", 0o644, &data)
}

#[test]
fn holes_are_where_the_directory_form_has_them_and_take_no_room() {
    let layer = sparse(Layer::new(), "holes", 1 << 20, &[(0, 3), (5000, 8000), (200_000, 1), (1_048_575, 1)]);
    let layer = sparse(layer, "empty", 0, &[]);
    let layer = sparse(layer, "nothing-but-holes", 8 << 20, &[]);
    let layer = sparse(layer, "tail", 10_000, &[(4090, 10)]).file("after", "in step");
    let (ground, _) = unpack(&layer);
    // Larger than the number of its chunks allows with chunks of one block.
    let large = sparse(Layer::new(), "large", 300 << 30, &[(1 << 30, 700), (299 << 30, 5)]).file("after", "in step");
    let large = image(&large);
    assert!(std::fs::metadata(large.path()).unwrap().len() < 64 << 20, "two chunks and little else");
    if !mountable() {
        return;
    }
    let small = image(&layer);
    let (_mount, root) = small.mount();
    for path in ["holes", "empty", "nothing-but-holes", "tail"] {
        assert_eq!(extents(&root.join(path)), extents(&ground.at(path)), "{path}");
    }
    let (_mount, root) = large.mount();
    let file = File::open(root.join("large")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 300 << 30);
    let mut bytes = [0; 1000];
    for (offset, length) in [(1 << 30, 700), (299 << 30, 5), (0, 0), (150 << 30, 0)] {
        file.read_exact_at(&mut bytes, offset).unwrap();
        assert!(bytes[..length].iter().all(|&byte| byte == b'd') && bytes[length..].iter().all(|&byte| byte == 0), "{offset}");
    }
    assert_eq!(node(&root.join("after")).content, b"in step");
}

#[test]
fn an_implied_directory_of_an_image_adopts_the_metadata_of_a_lower_layer_in_either_form() {
    if !mountable() {
        return;
    }
    use std::os::fd::AsFd as _;
    let acl: &[u8] =
        &[2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255];
    let records: [(&str, &[u8]); 3] =
        [("mtime", b"7.5"), ("SCHILY.xattr.user.a", b"b"), ("SCHILY.xattr.system.posix_acl_default", acl)];
    let lower = Layer::new().pax(&records).dir("etc", 0o2710).symlink("lib", "etc");
    let upper = Layer::new().file("etc/.wh..wh..opq", "").file("etc/passwd", "root").file("lib/x", "");
    let (ground, _) = unpack(&lower);
    let lower_image = image(&lower);
    let (as_directory, as_image) = (File::open(ground.dest()).unwrap(), lower_image.mount());
    for below in [as_directory.as_fd(), as_image.0.as_fd()] {
        let (image, unpacked, mut pending) = pending(&upper.tar(), &options()).unwrap();
        assert_eq!(unpacked.implied, [Path::new(""), Path::new("etc"), Path::new("lib")]);
        let mut adopt = |path: &str| pending.adopt_directory(&[below], Path::new(path)).unwrap();
        assert_eq!((adopt("etc"), adopt("lib"), adopt("not-implied")), (true, false, false));
        pending.finish(&unpacked.diff_id, b"").unwrap();
        let (_mount, root) = image.mount();
        let mut adopted = node(&root.join("etc"));
        assert_eq!(adopted.xattrs.remove(&b"trusted.overlay.opaque"[..]).unwrap(), b"y", "its own marks stay");
        assert_eq!(adopted, node(&ground.at("etc")));
    }
}

/// Trees of everything, with names that meet and data around the size of a block.
fn tree() -> impl Strategy<Value = Layer> {
    let name = prop_oneof![
        prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh..wh..opq", "!", "..", "-"]).prop_map(str::to_owned),
        "[a-z.]{1,255}",
    ];
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop::sample::select(b"000555512634".to_vec());
    let xattr = prop::option::of((prop::sample::select(vec!["user.n", "trusted.t", "security.s"]), 1..5000_usize));
    let entry = (kind, path, 0_usize..30, prop::sample::select(vec![0, 1, 100, 4095, 4096, 4097, 9000]), any::<i32>(), xattr);
    prop::collection::vec(entry, 0..60).prop_map(|entries| {
        let paths: Vec<String> = entries.iter().map(|entry| entry.1.clone()).collect();
        entries.into_iter().fold(Layer::new(), |layer, (kind, path, other, size, mtime, xattr)| {
            let target = paths.get(other).unwrap_or(&path).clone();
            let mtime = format!("{mtime}.{:09}", size * 1000);
            let mut records: Vec<(&str, &[u8])> =
                vec![("path", path.as_bytes()), ("linkpath", target.as_bytes()), ("mtime", mtime.as_bytes())];
            // No user.* on what can have none, which would end the archive.
            let xattr = xattr.filter(|(name, _)| !name.starts_with("user") || matches!(kind, b'0' | b'5'));
            let (name, value) =
                xattr.map_or_else(Default::default, |(name, size)| (format!("SCHILY.xattr.{name}"), vec![b'v'; size % 3500 + 1]));
            if !name.is_empty() {
                records.push((&name, &value));
            }
            let data = if kind == b'0' { vec![kind; size] } else { Vec::new() };
            let layer = layer.pax(&records);
            if matches!(kind, b'3' | b'4') {
                layer.device(kind, "x", 1, 3)
            } else {
                layer.raw(kind, "x", "", size as u32 & 0o7777, &data)
            }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// [`Ground::unpack`] compares.
    #[test]
    fn any_tree_is_the_same_in_both_forms(layer in tree()) {
        let _ = Ground::new().unpack(&layer.tar(), &options());
    }
}
