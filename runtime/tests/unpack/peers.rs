//! The same trees as peers make: umoci (whose reader is Go's `archive/tar`) and GNU tar.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_runtime::name::Digest;
use longshore_runtime::unpack::adopt_directory;
use tempfile::TempDir;

use crate::needs::{installed, root};
use crate::random::fix_checksums;
use crate::support::*;

/// Writes an image of the layers as an OCI layout and has umoci unpack it; its message when it refuses.
fn umoci(temp: &Path, layers: &[Vec<u8>]) -> Result<PathBuf, String> {
    let blobs = temp.join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| put("layer.v1.tar", layer)).collect();
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "t" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(temp.join("layout/index.json"), index.to_string()).unwrap();
    fs::write(temp.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layout = format!("{}:t", temp.join("layout").display());
    let output = Command::new("umoci").args(["unpack", "--image", &layout]).arg(temp.join("bundle")).output().unwrap();
    if output.status.success() { Ok(temp.join("bundle/rootfs")) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// Times that are not the archive's on one side: of implied directories, and umoci's root.
fn forget_times(tree: &mut BTreeMap<PathBuf, Node>, implied: &[PathBuf]) {
    for path in implied.iter().chain([&PathBuf::new()]) {
        if let Some(node) = tree.get_mut(path) {
            node.mtime = (0, 0);
        }
    }
}

fn assert_same(ours: &BTreeMap<PathBuf, Node>, theirs: &BTreeMap<PathBuf, Node>, what: &str) {
    for (path, node) in ours {
        assert_eq!(Some(node), theirs.get(path), "{what}: {path:?}, ours and theirs");
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{what}");
}

#[test]
fn umoci_makes_the_same_tree_of_every_type() {
    if !root() || !installed("umoci") {
        return;
    }
    let layer = crate::entries::everything();
    let (ground, unpacked) = unpack(&layer);
    let temp = TempDir::new().unwrap();
    let rootfs = umoci(temp.path(), &[layer.tar()]).expect("umoci unpacks it");
    let (mut ours, mut theirs) = (snapshot(&ground.dest()), snapshot(&rootfs));
    forget_times(&mut ours, &unpacked.implied);
    forget_times(&mut theirs, &unpacked.implied);
    assert_same(&ours, &theirs, "everything");
}

#[test]
fn containerd_13030_layers_unpacked_apart_make_the_tree_umoci_makes_of_them_in_order() {
    if !root() || !installed("umoci") {
        return;
    }
    let base = Layer::new()
        .dir("./", 0o755)
        .dir("a", 0o755)
        .file("a/gone", "1")
        .file("a/kept", "2")
        .dir("b", 0o711)
        .file("b/hidden", "3");
    let base = base.dir("c", 0o755).file("c/old", "4").file("was-file", "5").dir("was-dir", 0o755).file("was-dir/x", "6");
    let base = base.dir("sub", 0o755).dir("sub/deep", 0o700).file("sub/deep/x", "7").file("l", "linked").hard_link("m", "l");
    let middle =
        Layer::new().dir("a", 0o700).file("a/.wh.gone", "").dir("b", 0o711).file("b/new", "8").file("b/.wh..wh..opq", "");
    let middle = middle.file(".wh.c", "").dir("c", 0o750).file("c/new", "9").dir("was-file", 0o755).file("was-file/y", "10");
    let middle = middle.file("was-dir", "11").file("n", "12").hard_link("a/n", "n");
    let top =
        Layer::new().dir("a", 0o755).file("a/gone", "back").file("a/.wh.kept", "").dir("sub", 0o755).file("sub/.wh.deep", "");
    let top = top.file("c/implied", "13").file("b/implied", "14");
    let layers = [base.tar(), middle.tar(), top.tar()];
    let grounds: Vec<_> = layers.iter().map(|_| Ground::new()).collect();
    let unpacked: Vec<_> = std::thread::scope(|scope| {
        let unpack = |(ground, layer): (&'_ Ground, &'_ Vec<u8>)| ground.unpack(layer, &options()).unwrap();
        let threads: Vec<_> = grounds.iter().zip(&layers).map(|pair| scope.spawn(move || unpack(pair))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let directories: Vec<_> = grounds.iter().map(|ground| fs::File::open(ground.dest()).unwrap()).collect();
    for (index, unpacked) in unpacked.iter().enumerate() {
        let below: Vec<_> = directories[..index].iter().rev().map(fs::File::as_fd).collect();
        for path in &unpacked.implied {
            assert!(adopt_directory(&below, path, directories[index].as_fd()).unwrap(), "{path:?}");
        }
    }
    let temp = TempDir::new().unwrap();
    let rootfs = umoci(temp.path(), &layers).expect("umoci unpacks it");
    let merged = temp.path().join("merged");
    fs::create_dir(&merged).unwrap();
    let lower: Vec<_> = grounds.iter().rev().map(|ground| ground.dest().to_str().unwrap().to_owned()).collect();
    let layers = format!("ro,lowerdir={}", lower.join(":"));
    let mount = Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay"]).arg(&merged).status();
    assert!(mount.unwrap().success(), "mount an overlay");
    let ours = std::panic::catch_unwind(|| snapshot(&merged));
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    let (mut ours, mut theirs) = (ours.unwrap(), snapshot(&rootfs));
    forget_times(&mut ours, &[]);
    forget_times(&mut theirs, &[]);
    assert_same(&ours, &theirs, "merged layers");
    assert_eq!(theirs[Path::new("a/gone")].content, b"back");
}

#[test]
fn gnu_tar_writes_what_we_read_in_every_format() {
    if !root() || !installed("tar") {
        return;
    }
    let (source, _) = unpack(&crate::entries::everything());
    let sparse = fs::File::create(source.at("sparse")).unwrap();
    for (offset, byte) in (0..60).map(|n| (n * 100_000, [n as u8; 5])) {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &byte, offset).unwrap();
    }
    drop(sparse);
    let formats: [&[&str]; 5] = [
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--acls"],
    ];
    for format in formats {
        let has_all = format.contains(&"--xattrs");
        let output =
            Command::new("tar").args(["-c", "--numeric-owner"]).args(format).arg("-C").arg(source.dest()).arg(".").output();
        let ground = Ground::new();
        let unpacked = ground.unpack(&output.unwrap().stdout, &options()).unwrap();
        assert!(unpacked.implied.is_empty());
        let (mut ours, mut theirs) = (snapshot(&ground.dest()), snapshot(&source.dest()));
        for node in ours.values_mut().chain(theirs.values_mut()) {
            if !has_all {
                node.xattrs.clear();
            }
            if !format[0].contains("posix") {
                node.mtime.1 = 0;
            }
            // GNU tar does not store lists' attributes as such, and whole seconds before the epoch in octal.
            node.xattrs.retain(|name, _| !name.starts_with(b"system."));
            if node.mtime.0 < 0 {
                node.mtime = (0, 0);
            }
        }
        assert_same(&ours, &theirs, &format.join(" "));
    }
}

/// Whatever mutation is accepted must read as Go reads it.
#[test]
fn what_is_accepted_of_mutated_archives_umoci_unpacks_to_the_same_tree() {
    if !root() || !installed("umoci") {
        return;
    }
    let long = format!("{}\0", "n".repeat(150));
    let original = Layer::new()
        .dir("d", 0o755)
        .pax(&[("path", b"d/by-pax"), ("size", b"700"), ("mtime", b"5.25"), ("uid", b"7")])
        .raw(b'0', "d/a", "", 0o644, &[b'a'; 700])
        .raw(b'L', "././@LongLink", "", 0o644, long.as_bytes())
        .raw(b'0', "short", "", 0o755, b"long")
        .pax(&[("GNU.sparse.size", b"900"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"100,3,200,1")])
        .raw(b'0', "sparse", "", 0o600, b"1234")
        .symlink("s", "d")
        .hard_link("h", "short-or-not")
        .file("s/through", "x");
    let original = original.tar();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut compared = 0;
    for round in 0..150 {
        let mut bytes = original.clone();
        // The hard link's target is missing: give it one in every archive, so that some are fine.
        let at = bytes.windows(12).position(|window| window == b"short-or-not").unwrap();
        bytes[at..at + 12].copy_from_slice(b"sparse\0\0\0\0\0\0");
        for _ in 0..=random(2) {
            // Headers and extension data are where it matters: numbers, types, names, magic.
            let block = random(bytes.len() / 512) * 512;
            let offset = [0, 1, 100, 108, 124, 130, 135, 136, 156, 156, 257, 263, 345, 12, 20, 30][random(16)];
            bytes[block + offset] = b"0123567xLKgS/.\0 = \n\x80"[random(20)];
        }
        fix_checksums(&mut bytes);
        let ground = Ground::new();
        let Ok(unpacked) = ground.unpack(&bytes, &options()) else { continue };
        let temp = TempDir::new().unwrap();
        let rootfs = umoci(temp.path(), &[bytes]).unwrap_or_else(|why| panic!("round {round}: umoci refuses: {why}"));
        let (mut ours, mut theirs) = (snapshot(&ground.dest()), snapshot(&rootfs));
        forget_times(&mut ours, &unpacked.implied);
        forget_times(&mut theirs, &unpacked.implied);
        assert_same(&ours, &theirs, &format!("round {round}"));
        compared += 1;
    }
    assert!(compared > 20, "only {compared} mutations were compared");
}
