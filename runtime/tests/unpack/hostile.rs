//! Archives that try to leave their directory, to confuse readers, or to exhaust the machine.

use std::fs;

use longshore_runtime::unpack::{Limits, Options};

use crate::support::*;

/// Unpacks something hostile that may pass or be refused, but must stay inside (`Ground` looks).
fn stays_inside(layer: &Layer) -> Ground {
    let ground = Ground::new();
    let _ = ground.unpack(&layer.tar(), &options());
    ground
}

#[test]
fn absolute_names_and_dots_stay_inside() {
    let layer = Layer::new().file("/abs", "a").file("../../up", "b").file("x/../../../y", "c").file("./z/./w", "d");
    let (ground, _) = unpack(&layer);
    for (path, content) in [("abs", "a"), ("up", "b"), ("y", "c"), ("z/w", "d")] {
        assert_eq!(fs::read_to_string(ground.at(path)).unwrap(), content);
    }
}

#[test]
fn cve_2018_20990_no_write_through_a_symbolic_link_that_leads_out() {
    for target in ["../outside", "/proc/self/cwd", "..", "/../../outside", "../../../../../../../../outside"] {
        let ground = stays_inside(&Layer::new().symlink("out", target).file("out/canary", "dead").dir("out/new", 0o777));
        assert!(ground.at("out").is_symlink());
    }
    // The link resolves inside, so the file is there.
    let ground = stays_inside(&Layer::new().symlink("out", "../outside").file("out/canary", "dead"));
    assert_eq!(fs::read_to_string(ground.at("outside/canary")).unwrap(), "dead");
}

#[test]
fn cve_2018_20990_no_write_below_a_symbolic_link_that_leads_out() {
    let ground = Ground::new();
    let outside = ground.temp.path().join("outside");
    for target in ["../outside", outside.to_str().unwrap()] {
        let layer = Layer::new().symlink("out", target).file("out/below/canary", "dead").dir("out/below", 0o777);
        let layer = layer.hard_link("stolen", "out/below/canary").file("out/below/new", "");
        let ground = stays_inside(&layer);
        assert_eq!(node(&ground.at("stolen")).content, b"dead", "the link is to the file inside");
    }
    // Not even where the same name exists outside only.
    let layer = Layer::new().symlink("out", outside.to_str().unwrap()).hard_link("stolen", "out/below/canary");
    assert!(ground.unpack(&layer.tar(), &options()).is_err());
}

#[test]
fn cve_2021_32760_no_chmod_through_a_hard_link_or_symbolic_link() {
    let absolute = |ground: &Ground| ground.temp.path().join("outside/canary").to_str().unwrap().to_owned();
    for relative in [true, false] {
        let ground = Ground::new();
        let target = if relative { "../outside/canary".to_owned() } else { absolute(&ground) };
        let layer = Layer::new().symlink("s", &target).hard_link("h", "s").raw(b'0', "h", "", 0o4777, b"replaced").raw(
            b'0',
            "s",
            "",
            0o4777,
            b"replaced",
        );
        ground.unpack(&layer.tar(), &options()).unwrap();
        assert_eq!((node(&ground.at("s")).kind, node(&ground.at("h")).kind), ("file", "file"));
    }
}

#[test]
fn cve_2021_38511_a_directory_entry_over_a_symbolic_link_replaces_the_link() {
    let ground = stays_inside(&Layer::new().symlink("d", "../outside").dir("d", 0o777).file("d/canary", "dead"));
    assert_eq!(node(&ground.at("d")).kind, "directory");
    assert_eq!(fs::read_to_string(ground.at("d/canary")).unwrap(), "dead");
}

#[test]
fn cve_2026_33056_no_mode_change_through_a_symbolic_link() {
    let ground = Ground::new();
    let outside = ground.temp.path().join("outside").to_str().unwrap().to_owned();
    ground.unpack(&Layer::new().symlink("d", &outside).dir("d", 0o777).tar(), &options()).unwrap();
    assert_eq!((node(&ground.at("d")).kind, node(&ground.at("d")).mode), ("directory", 0o777));
}

#[test]
fn cve_2026_50162_a_directory_replaced_by_a_symbolic_link_is_not_written_through() {
    // The parent's descriptor is cached by then, and its metadata is pending.
    let layer = Layer::new()
        .dir("d", 0o755)
        .dir("d/e", 0o755)
        .file("d/e/first", "")
        .symlink("d", "../outside")
        .file("d/e/second", "x")
        .file("d/canary", "dead");
    let ground = stays_inside(&layer);
    assert!(ground.at("d").is_symlink());
    assert_eq!(fs::read_to_string(ground.at("outside/e/second")).unwrap(), "x");
}

#[test]
fn cve_2026_50163_hard_links_do_not_leave_the_layer() {
    refuse(&Layer::new().hard_link("h", "../outside/canary"), "which this layer does not have");
    refuse(&Layer::new().symlink("out", "../outside").hard_link("h", "out/canary"), "which this layer does not have");
    refuse(&Layer::new().hard_link("h", "/etc/passwd"), "which this layer does not have");
    refuse(&Layer::new().hard_link("h", "h"), "which this layer does not have");
    refuse(&Layer::new().file("h", "").hard_link("h", "h"), "which this layer does not have");
    refuse(&Layer::new().dir("d", 0o755).hard_link("h", "d"), "a hard link to a directory");
    refuse(&Layer::new().hard_link("h", "."), "a hard link to the layer's root");
    refuse(&Layer::new().dir("d", 0o755).file("d/f", "").hard_link("d", "d/f"), "which this layer does not have");
}

#[test]
fn the_root_cannot_be_replaced() {
    for layer in
        [Layer::new().symlink("/", "../outside"), Layer::new().file("a/..", ""), Layer::new().raw(b'0', ".", "", 0o644, b"")]
    {
        refuse(&layer, "replace the layer's root");
    }
}

#[test]
fn a_file_is_no_parent_and_symbolic_link_loops_end() {
    refuse(&Layer::new().file("f", "").file("f/x", ""), "no directory");
    refuse(&Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", ""), "maze");
    refuse(&Layer::new().symlink("a", "a/a").file("a/x", ""), "maze");
}

#[test]
fn cve_2025_62518_a_pax_size_that_disagrees_counts_as_in_go() {
    // By the ustar size 0 the smuggled header would be an entry; by the PAX size it is file content.
    let smuggled = Layer::new().file("smuggled", "").bytes;
    let mut layer = Layer::new().pax(&[("size", b"512")]);
    layer.push(&mut header(b'0', "carrier", "", 0o644, 0), &smuggled);
    let (ground, unpacked) = unpack(&layer);
    assert_eq!(node(&ground.at("carrier")).content, smuggled);
    assert!(!ground.at("smuggled").exists());
    assert_eq!(unpacked.entries, 1);
}

#[test]
fn cve_2026_33055_a_pax_size_does_not_reach_extension_headers() {
    let long = format!("{}\0", "n".repeat(150));
    let layer = Layer::new().pax(&[("size", b"3")]).raw(b'L', "././@LongLink", "", 0o644, long.as_bytes()).file("short", "abc");
    let (ground, _) = unpack(&layer);
    assert_eq!(node(&ground.at(&"n".repeat(150))).content, b"abc");
}

#[test]
fn a_size_on_an_entry_without_data_does_not_skip_headers() {
    let mut layer = Layer::new();
    layer.push(&mut header(b'5', "dir", "", 0o755, 512), b"");
    let (_, unpacked) = unpack(&layer.file("next", ""));
    assert_eq!(unpacked.entries, 2);
}

#[test]
fn doubtful_extension_headers_are_refused() {
    refuse(&Layer::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", ""), "two extension headers");
    refuse(&Layer::new().pax(&[("path", b"a")]), "no entry after it");
    refuse(&Layer::new().pax(&[("path", b"a")]).raw(b'g', "g", "", 0, b"").file("c", ""), "global header");
    refuse(&Layer::new().pax(&[("path", b"a\0b")]).file("c", ""), "NUL");
    refuse(&Layer::new().pax(&[("size", b"-1")]).file("c", ""), "negative");
    refuse(&Layer::new().pax(&[("uid", b"4294967295")]).file("c", ""), "owner is out of range");
    refuse(&Layer::new().pax(&[("gid", b"-1")]).file("c", ""), "group is out of range");
    refuse(&Layer::new().raw(b'M', "multi", "", 0, b""), "not supported");
}

#[test]
fn lying_sparse_maps_are_refused() {
    let sparse = |map: &str, size: &str| {
        let blocks = (map.split(',').count() / 2).to_string();
        let records: [(&str, &[u8]); 3] = [
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", blocks.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        Layer::new().pax(&records).file("s", "1234")
    };
    refuse(&sparse("0,2,1,2", "10"), "out of order");
    refuse(&sparse("0,4", "3"), "beyond the file's size");
    refuse(&sparse("0,3", "10"), "speaks of 3 bytes");
    refuse(&sparse("0,5", "10"), "speaks of 5 bytes");
    refuse(&sparse("0", "10"), "as many runs as it says");
    refuse(&sparse("0,4", "9223372036854775807"), "exceed");
}

fn limited(layer: &Layer, change: impl FnOnce(&mut Limits), why: &str) {
    let mut limits = Limits::default();
    change(&mut limits);
    refuse_bytes(&layer.tar(), &Options { limits, ..options() }, why);
}

#[test]
fn cve_2017_14992_every_limit_holds() {
    let files = (0..20).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), "0123456789"));
    limited(&files, |limits| limits.entries = 19, "more than 19 entries");
    limited(&files, |limits| limits.unpacked_bytes = 10_000, "unpacks to more than 10000 bytes");
    limited(&files, |limits| limits.file_bytes = 199, "exceed 199 bytes");
    let deep = Layer::new().file("a/b/c/d/e", "");
    limited(&deep, |limits| limits.path_depth = 4, "more than 4 components");
    limited(&deep, |limits| limits.path_bytes = 8, "exceeds 8 bytes");
    limited(&deep, |limits| limits.metadata_bytes = 200, "200 bytes of memory");
    let deeper_by_link =
        Layer::new().dir("a/b", 0o755).symlink("l", "a/b").dir("l/c", 0o755).symlink("m", "l/c").file("m/d/e/f", "");
    limited(&deeper_by_link, |limits| limits.path_depth = 4, "more than 4 components");
    let long = Layer::new().pax(&[("path", &b"x/".repeat(3000)[..])]).file("a", "");
    refuse(&long, "exceeds 4095 bytes");
    refuse(&Layer::new().pax(&[("linkpath", &b"x/".repeat(3000)[..])]).symlink("a", "b"), "too long");
    let attributes = Layer::new().pax(&[("SCHILY.xattr.user.a", b"12345"), ("SCHILY.xattr.user.b", b"")]).file("f", "");
    limited(&attributes, |limits| limits.xattr_bytes = 10, "attributes take more than 10 bytes");
    limited(&attributes, |limits| limits.xattrs = 0, "more than 0 extended attributes");
    limited(&attributes, |limits| limits.extension_bytes = 20, "exceeds 20 bytes");
    let sparse = Layer::new()
        .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,2,4,2")])
        .file("s", "1234");
    limited(&sparse, |limits| limits.sparse_runs = 1, "more than 1 runs");
}

#[test]
fn a_device_bomb_is_bounded_by_the_entry_limit() {
    let bomb = (0..64).fold(Layer::new(), |layer, n| layer.device(b'4', &format!("d{n}"), 8, n));
    limited(&bomb, |limits| limits.entries = 63, "more than 63 entries");
}

#[test]
fn an_extension_header_of_a_huge_size_is_refused_before_it_is_read() {
    let mut layer = Layer::new();
    layer.push(&mut header(b'x', "pax", "", 0o644, 8 << 30), b"");
    refuse(&layer, "exceeds 1048576 bytes");
}

#[test]
fn terminal_escapes_in_names_are_escaped_in_errors() {
    let error = Ground::new().unpack(&Layer::new().hard_link("\x1b[31mred", "a").tar(), &options()).unwrap_err();
    assert!(!error.to_string().contains('\x1b'), "{error}");
}
