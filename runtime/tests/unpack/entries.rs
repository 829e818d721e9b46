//! Every entry type and all metadata, and how entries meet each other.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use longshore_runtime::unpack::adopt_directory;

use crate::support::*;

/// `security.capability`, version 2: `cap_net_raw+ep`.
const NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access list: owner rwx, user 1000 r-x, group r-x, mask r-x, others none.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 5, 0, 255, 255,
    255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// All the types with all the metadata, for here and for the comparison with peers.
pub(crate) fn everything() -> Layer {
    let mut owned = header(b'0', "dir/owned", "", 0o6755, 5);
    owned.set_uid(1234);
    owned.set_gid(0o7777777);
    let mut layer = Layer::new()
        .dir("./", 0o755)
        .dir("dir/", 0o1777)
        .dir("dir/closed", 0o000)
        .dir("dir/setgid", 0o2775)
        .file("dir/setgid/inherits-nothing", "x")
        .dir("dir/setgid/neither-does-this", 0o755)
        .file("dir/closed/inside", "secret")
        .raw(b'0', "empty", "", 0o600, b"")
        .raw(b'0', "unreadable", "", 0o000, b"data");
    layer.push(&mut owned, b"setid");
    layer
        .hard_link("dir/second-name", "./dir/owned")
        .hard_link("third-name", "/dir/second-name")
        .symlink("link", "dir/owned")
        .symlink("dangling", "/nowhere/at/all")
        .hard_link("linked-link", "link")
        .raw(b'6', "fifo", "", 0o622, b"")
        .device(b'3', "null", 1, 3)
        .device(b'4', "loop", 7, 300)
        .pax(&[
            ("mtime", b"1350244992.023960108"),
            ("SCHILY.xattr.security.capability", NET_RAW),
            ("SCHILY.xattr.user.note", b"a\0b\n"),
        ])
        .raw(b'0', "ping", "", 0o755, b"elf")
        .pax(&[("mtime", b"-1.5"), ("SCHILY.xattr.trusted.note", b"linked")])
        .symlink("old", "ping")
        .pax(&[
            ("mtime", b"1350244992.023960109"),
            ("SCHILY.xattr.system.posix_acl_access", ACL),
            ("SCHILY.xattr.system.posix_acl_default", ACL),
        ])
        .dir("lists", 0o750)
        .file("lists/inherits-no-list", "x")
        .pax(&[
            ("path", format!("long/{}/{}", "d".repeat(200), "f".repeat(200)).as_bytes()),
            ("uid", b"4294967294"),
            ("gid", b"70000"),
        ])
        .file("short", "long name")
        .raw(b'L', "././@LongLink", "", 0o644, format!("gnu/{}\0", "g".repeat(200)).as_bytes())
        .raw(b'K', "././@LongLink", "", 0o644, format!("{}\0", "t".repeat(200)).as_bytes())
        .symlink("short", "short")
}

#[test]
fn every_type_and_all_metadata_arrive() {
    if !crate::needs::root() {
        return;
    }
    let (ground, unpacked) = unpack(&everything());
    let dest = ground.dest();
    let node = |path: &str| node(&dest.join(path));
    assert_eq!(node("dir").mode, 0o1777);
    assert_eq!((node("dir/closed").mode, node("dir/setgid").mode), (0, 0o2775));
    assert_eq!(node("dir/setgid/neither-does-this").mode, 0o755);
    let owned = node("dir/owned");
    assert_eq!((owned.mode, owned.owner, owned.links), (0o6755, (1234, 0o7777777), 3));
    assert_eq!(fs::metadata(ground.at("third-name")).unwrap().ino(), fs::metadata(ground.at("dir/owned")).unwrap().ino());
    assert_eq!((node("linked-link").kind, node("linked-link").links), ("symlink", 2));
    assert_eq!((node("fifo").kind, node("fifo").mode), ("fifo", 0o622));
    assert_eq!((node("null").kind, node("null").device, node("null").mode), ("char device", rustix::fs::makedev(1, 3), 0o640));
    assert_eq!((node("loop").kind, node("loop").device), ("block device", rustix::fs::makedev(7, 300)));
    let ping = node("ping");
    assert_eq!(ping.mtime, (1_350_244_992, 23_960_108));
    assert_eq!(ping.xattrs[&b"security.capability"[..]], NET_RAW);
    assert_eq!(ping.xattrs[&b"user.note"[..]], b"a\0b\n");
    assert_eq!((node("old").mtime, node("old").xattrs.len()), ((-2, 500_000_000), 1));
    let lists = node("lists");
    assert_eq!((lists.mtime, lists.mode), ((1_350_244_992, 23_960_109), 0o750));
    assert_eq!(lists.xattrs[&b"system.posix_acl_default"[..]], ACL);
    assert!(node("lists/inherits-no-list").xattrs.is_empty());
    let long = node(&format!("long/{}/{}", "d".repeat(200), "f".repeat(200)));
    assert_eq!((long.owner, &long.content[..]), ((4_294_967_294, 70_000), &b"long name"[..]));
    assert_eq!(node(&format!("gnu/{}", "g".repeat(200))).content, "t".repeat(200).as_bytes());
    let implied = ["long".into(), PathBuf::from(format!("long/{}", "d".repeat(200))), "gnu".into()];
    let mut expected = implied.to_vec();
    expected.sort();
    assert_eq!(unpacked.implied, expected);
    assert_eq!((unpacked.entries, unpacked.dropped_xattrs), (24, 0));
}

#[test]
fn a_directory_written_into_after_its_entry_keeps_its_mtime() {
    let (ground, _) = unpack(&Layer::new().dir("a", 0o755).dir("a/b", 0o555).file("a/b/c", "x").file("a/d", "y"));
    for path in ["a", "a/b"] {
        assert_eq!(node(&ground.at(path)).mtime, (1_700_000_000, 0), "{path}");
    }
    assert_eq!(node(&ground.at("a/b")).mode, 0o555);
}

#[test]
fn modes_do_not_depend_on_the_destination() {
    let ground = Ground::new();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(ground.dest(), fs::Permissions::from_mode(0o2700)).unwrap();
    ground.unpack(&Layer::new().dir("d", 0o777).raw(b'0', "f", "", 0o666, b"").tar(), &options()).unwrap();
    assert_eq!((node(&ground.at("d")).mode, node(&ground.at("f")).mode, node(&ground.dest()).mode), (0o777, 0o666, 0o755));
}

#[test]
fn an_entry_below_a_symbolic_link_of_the_same_layer_goes_where_it_leads() {
    let layer = Layer::new()
        .dir("usr", 0o755)
        .symlink("bin", "usr/bin")
        .file("bin/sh", "shell")
        .symlink("abs", "/usr/../usr/lib")
        .file("abs/libc", "c")
        .hard_link("abs/ash", "bin/sh");
    let (ground, unpacked) = unpack(&layer);
    assert_eq!(fs::read_to_string(ground.at("usr/bin/sh")).unwrap(), "shell");
    assert_eq!(fs::read_to_string(ground.at("usr/lib/libc")).unwrap(), "c");
    assert_eq!(fs::metadata(ground.at("usr/lib/ash")).unwrap().nlink(), 2);
    assert!(ground.at("bin").is_symlink());
    assert_eq!(unpacked.implied, [Path::new(""), Path::new("usr/bin"), Path::new("usr/lib")]);
}

#[test]
fn a_later_entry_replaces_an_earlier_one_of_any_type() {
    let kinds: [fn(Layer) -> Layer; 5] = [
        |layer| layer.file("x", "file"),
        |layer| layer.dir("x", 0o700).file("x/deep", "").dir("x/deeper", 0o755).file("x/deeper/y", ""),
        |layer| layer.symlink("x", "target"),
        |layer| layer.raw(b'6', "x", "", 0o600, b""),
        |layer| layer.hard_link("x", "target"),
    ];
    let expected = ["file", "directory", "symlink", "fifo", "file"];
    for first in kinds {
        for (second, kind) in kinds.into_iter().zip(expected) {
            let (ground, _) = unpack(&second(first(Layer::new().file("target", "t"))));
            assert_eq!(node(&ground.at("x")).kind, kind);
        }
    }
}

#[test]
fn a_replaced_directory_leaves_no_metadata_behind() {
    let layer = Layer::new().dir("a", 0o755).dir("a/b", 0o755).file("a/b/c", "").file("a", "file").dir("ab", 0o711);
    let (ground, _) = unpack(&layer);
    assert_eq!((node(&ground.at("a")).kind, node(&ground.at("ab")).mode), ("file", 0o711));
}

#[test]
fn a_directory_listed_twice_keeps_its_contents_and_takes_the_later_metadata() {
    let (ground, _) = unpack(&Layer::new().dir("a", 0o700).file("a/b", "x").dir("a", 0o711));
    assert_eq!((node(&ground.at("a")).mode, node(&ground.at("a/b")).kind), (0o711, "file"));
}

#[test]
fn an_implied_directory_adopts_the_metadata_of_a_lower_layer() {
    let lower = Layer::new().pax(&[("mtime", b"7.5"), ("SCHILY.xattr.user.a", b"b")]).dir("etc", 0o2710).symlink("lib", "etc");
    let (lower, _) = unpack(&lower);
    let (upper, unpacked) = unpack(&Layer::new().file("etc/passwd", "root").file("lib/x", ""));
    assert_eq!(unpacked.implied, [Path::new(""), Path::new("etc"), Path::new("lib")]);
    let (from, to) = (fs::File::open(lower.dest()).unwrap(), fs::File::open(upper.dest()).unwrap());
    let (empty, _) = unpack(&Layer::new());
    let between = fs::File::open(empty.dest()).unwrap();
    let adopt = |path: &str| adopt_directory(&[between.as_fd(), from.as_fd()], Path::new(path), to.as_fd()).unwrap();
    assert_eq!((adopt(""), adopt("etc"), adopt("lib")), (true, true, false));
    assert_eq!(node(&upper.at("etc")), node(&lower.at("etc")));
    assert_eq!(node(&upper.at("etc/passwd")).content, b"root");
}

#[test]
fn sparse_files_of_every_format_have_their_holes() {
    let data = [vec![b'a'; 512], vec![b'b'; 100]].concat();
    let map = "2\n1048576\n512\n3145728\n100\n";
    let in_data = [format!("{map}{}", "\0".repeat(512 - map.len())).as_bytes(), &data].concat();
    let mut old = tar::Header::new_gnu();
    old.set_path("old").unwrap();
    old.set_size(612);
    old.set_mode(0o644);
    old.set_uid(0);
    old.set_gid(0);
    old.set_entry_type(tar::EntryType::GNUSparse);
    let gnu = old.as_gnu_mut().unwrap();
    for (run, (offset, length)) in gnu.sparse.iter_mut().zip([(1 << 20, 512), (3 << 20, 100), (4 << 20, 0)]) {
        run.offset[..11].copy_from_slice(format!("{offset:011o}").as_bytes());
        run.numbytes[..11].copy_from_slice(format!("{length:011o}").as_bytes());
    }
    gnu.realsize[..11].copy_from_slice(format!("{:011o}", 4 << 20).as_bytes());
    let mut layer = Layer::new()
        .pax(&[
            ("GNU.sparse.size", b"4194304"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"1048576"),
            ("GNU.sparse.numbytes", b"512"),
            ("GNU.sparse.offset", b"3145728"),
            ("GNU.sparse.numbytes", b"100"),
        ])
        .raw(b'0', "v00", "", 0o644, &data)
        .pax(&[
            ("GNU.sparse.size", b"4194304"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"1048576,512,3145728,100"),
            ("GNU.sparse.name", b"v01"),
        ])
        .raw(b'0', "GNUSparseFile.0/v01", "", 0o644, &data)
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", b"4194304"),
        ])
        .raw(b'0', "GNUSparseFile.0/v10", "", 0o644, &in_data);
    layer.push(&mut old, &data);
    let (ground, _) = unpack(&layer.file("after", "in step"));
    let mut expected = vec![0; 4 << 20];
    expected[1 << 20..][..512].fill(b'a');
    expected[3 << 20..][..100].fill(b'b');
    for path in ["v00", "v01", "v10", "old"] {
        assert!(node(&ground.at(path)).content == expected, "{path}");
        assert!(fs::metadata(ground.at(path)).unwrap().blocks() < 64, "{path} has its holes filled");
    }
    assert_eq!(node(&ground.at("after")).content, b"in step");
    assert!(!ground.at("GNUSparseFile.0").exists() || fs::read_dir(ground.at("GNUSparseFile.0")).unwrap().count() == 0);
}
