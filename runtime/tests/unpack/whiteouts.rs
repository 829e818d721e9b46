//! Whiteouts and opaque directories (image-spec layer.md#whiteouts), each layer by itself.

use longshore_runtime::unpack::Options;

use crate::support::*;

fn opaque(ground: &Ground, path: &str) -> bool {
    let name: &[u8] = if crate::needs::is_root() { b"trusted.overlay.opaque" } else { b"user.overlay.opaque" };
    xattrs(&ground.at(path)).get(name).is_some_and(|value| value == b"y")
}

fn is_whiteout(ground: &Ground, path: &str) -> bool {
    let node = node(&ground.at(path));
    (node.kind, node.device) == ("char device", 0)
}

#[test]
fn whiteouts_and_opaque_marks_are_in_overlayfs_terms() {
    let (ground, unpacked) =
        unpack(&Layer::new().dir("a", 0o750).file("a/.wh.gone", "").dir("b", 0o755).file("b/.wh..wh..opq", ""));
    assert!(is_whiteout(&ground, "a/gone"));
    assert!(opaque(&ground, "b") && !opaque(&ground, "a"));
    assert_eq!(std::fs::read_dir(ground.at("b")).unwrap().count(), 0);
    assert_eq!(unpacked.entries, 4);
}

#[test]
fn rootless_marks_are_user_attributes() {
    let ground = Ground::new();
    let layer = Layer::new().dir("b", 0o555).file("b/.wh..wh..opq", "").file("b/.wh.x", "");
    ground.unpack(&layer.tar(), &Options { userxattr: true, ..options() }).unwrap();
    assert_eq!(xattrs(&ground.at("b")).keys().collect::<Vec<_>>(), [b"user.overlay.opaque"]);
}

#[test]
fn entries_of_the_same_layer_survive_whiteouts_in_either_order() {
    let whiteout = |layer: Layer| layer.file(".wh.f", "").file(".wh.d", "").file("o/.wh..wh..opq", "");
    let entries = |layer: Layer| layer.file("f", "new").dir("d", 0o700).file("d/x", "").dir("o", 0o700).file("o/y", "");
    for layer in [whiteout(entries(Layer::new())), entries(whiteout(Layer::new()))] {
        let (ground, _) = unpack(&layer);
        assert_eq!(node(&ground.at("f")).content, b"new");
        assert_eq!((node(&ground.at("d/x")).kind, node(&ground.at("o/y")).kind), ("file", "file"));
        assert_eq!((node(&ground.at("d")).mode, node(&ground.at("o")).mode), (0o700, 0o700));
        assert!(opaque(&ground, "d"), "a directory whited out and made anew shows nothing from below");
        assert!(opaque(&ground, "o"));
    }
}

#[test]
fn a_whited_out_directory_implied_by_its_contents_is_opaque() {
    for layer in [Layer::new().file(".wh.d", "").file("d/x", ""), Layer::new().file("d/x", "").file(".wh.d", "")] {
        let (ground, _) = unpack(&layer);
        assert_eq!(node(&ground.at("d/x")).kind, "file");
        assert!(opaque(&ground, "d"));
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_of_the_same_layer_is_opaque() {
    let (ground, _) = unpack(&Layer::new().file("d", "hides what is below").dir("d", 0o755));
    assert!(opaque(&ground, "d"));
}

#[test]
fn aufs_metadata_is_ignored() {
    let (ground, _) = unpack(&Layer::new().file(".wh..wh.aufs", "").dir(".wh..wh.plnk", 0o700).file(".wh..wh.plnk/1.2", "x"));
    assert_eq!(std::fs::read_dir(ground.dest()).unwrap().count(), 0);
}

#[test]
fn a_whiteout_of_no_name_or_of_the_directory_itself_is_refused() {
    for path in ["a/.wh.", "a/.wh..", "a/.wh..."] {
        refuse(&Layer::new().dir("a", 0o755).file(path, ""), "a whiteout of no name");
    }
}

#[test]
fn a_forged_whiteout_is_refused() {
    for layer in [
        Layer::new().device(b'3', "etc/passwd", 0, 0),
        Layer::new().file(".wh.a", "").hard_link("b", "a"), // a link to a real one
    ] {
        assert!(Ground::new().unpack(&layer.tar(), &options()).is_err());
    }
    refuse(&Layer::new().device(b'3', "etc/passwd", 0, 0), "0:0");
}

#[test]
fn a_device_number_that_overflows_into_a_whiteout_is_refused() {
    refuse(&Layer::new().device(b'3', "x", 1 << 12, 0), "device number is out of range");
    refuse(&Layer::new().device(b'3', "x", 0, 1 << 20), "device number is out of range");
}

#[test]
fn overlay_attributes_from_an_archive_are_left_out() {
    let forged: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let (ground, unpacked) = unpack(&Layer::new().pax(&forged).dir("d", 0o755).pax(&forged).file("f", ""));
    for path in ["d", "f"] {
        assert_eq!(xattrs(&ground.at(path)).keys().collect::<Vec<_>>(), [b"user.kept"], "{path}");
    }
    assert_eq!(unpacked.dropped_xattrs, 6);
}
