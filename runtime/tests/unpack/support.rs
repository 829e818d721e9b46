//! Archives built entry by entry, unpacking beside a canary in both forms, and snapshots of trees.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use longshore_runtime::Result;
use longshore_runtime::name::Algorithm;
use longshore_runtime::unpack::{Options, Owners, Unpacked, unpack_layer};
use tempfile::TempDir;

/// Options that work for whoever runs the tests.
pub(crate) fn options() -> Options {
    let owners = if crate::needs::is_root() { Owners::Keep } else { Owners::Squash };
    Options { userxattr: !crate::needs::is_root(), owners, ..Options::default() }
}

/// An archive in the making; later calls add entries after earlier ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    pub(crate) bytes: Vec<u8>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.raw(b'5', path, "", mode, b"")
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path, "", 0o644, content.as_bytes())
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path, target, 0o644, b"")
    }

    pub(crate) fn device(mut self, kind: u8, path: &str, major: u32, minor: u32) -> Self {
        let mut header = header(kind, path, "", 0o640, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.push(&mut header, b"");
        self
    }

    /// An entry of any type, its name written as it is.
    pub(crate) fn raw(mut self, kind: u8, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = header(kind, path, link, mode, data.len() as u64);
        self.push(&mut header, data);
        self
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.raw(b'x', "PaxHeaders/x", "", 0o644, &data)
    }

    pub(crate) fn push(&mut self, header: &mut tar::Header, data: &[u8]) {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// The whole archive.
    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

pub(crate) fn header(kind: u8, path: &str, link: &str, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header
}

pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A directory to unpack into with a canary beside it.
pub(crate) struct Ground {
    pub(crate) temp: TempDir,
    before: BTreeMap<PathBuf, Node>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let temp = TempDir::new().unwrap();
        fs::create_dir(temp.path().join("dest")).unwrap();
        fs::create_dir_all(temp.path().join("outside/below")).unwrap();
        fs::write(temp.path().join("outside/canary"), "alive").unwrap();
        fs::write(temp.path().join("outside/below/canary"), "alive").unwrap();
        let before = snapshot(&temp.path().join("outside"));
        Self { temp, before }
    }

    pub(crate) fn dest(&self) -> PathBuf {
        self.temp.path().join("dest")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dest().join(path)
    }

    /// Unpacks into the directory; and as an image, of which the same must become.
    pub(crate) fn unpack(&self, compressed: &[u8], options: &Options) -> Result<Unpacked> {
        let dest = File::open(self.dest()).unwrap();
        let result = unpack_layer(compressed, Algorithm::Sha256, Algorithm::Sha256, dest.as_fd(), options);
        self.assert_nothing_outside();
        crate::image::assert_same(compressed, options, &result, &self.dest());
        result
    }

    /// Whatever was unpacked, nothing beside the destination changed.
    pub(crate) fn assert_nothing_outside(&self) {
        assert_eq!(snapshot(&self.temp.path().join("outside")), self.before, "something outside was touched");
        let mut names: Vec<_> = fs::read_dir(self.temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["dest", "outside"], "something appeared beside the destination");
    }
}

/// Unpacks an archive that must be fine.
pub(crate) fn unpack(layer: &Layer) -> (Ground, Unpacked) {
    let ground = Ground::new();
    let unpacked = ground.unpack(&layer.tar(), &options()).unwrap();
    (ground, unpacked)
}

/// Unpacks an archive that must be refused, for the reason given.
pub(crate) fn refuse(layer: &Layer, why: &str) {
    refuse_bytes(&layer.tar(), &options(), why);
}

pub(crate) fn refuse_bytes(compressed: &[u8], options: &Options, why: &str) {
    let error = Ground::new().unpack(compressed, options).expect_err("it must be refused");
    assert!(matches!(error, longshore_runtime::Error::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error} does not say {why:?}");
}

/// Everything about a file that must survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) content: Vec<u8>,
}

/// All of a tree, its root under the empty path.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let node = node(&path);
        if node.kind == "directory" {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        nodes.insert(path.strip_prefix(root).unwrap().to_path_buf(), node);
    }
    nodes
}

pub(crate) fn node(path: &Path) -> Node {
    let metadata = path.symlink_metadata().unwrap();
    let kind = metadata.file_type();
    let (kind, content) = if kind.is_dir() {
        ("directory", Vec::new())
    } else if kind.is_symlink() {
        ("symlink", fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec())
    } else if kind.is_file() {
        ("file", fs::read(path).unwrap())
    } else if kind.is_fifo() {
        ("fifo", Vec::new())
    } else if kind.is_char_device() {
        ("char device", Vec::new())
    } else {
        ("block device", Vec::new())
    };
    let is_directory = kind == "directory";
    Node {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        // A directory's count differs between file systems.
        links: if is_directory { 0 } else { metadata.nlink() },
        device: if kind.ends_with("device") { metadata.rdev() } else { 0 },
        xattrs: xattrs(path),
        content,
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}
