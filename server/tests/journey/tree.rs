//! Everything there is to know of a file tree, as data that can be compared.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use longshore_runtime::name::{Algorithm, Digest};

/// One entry of a tree.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: &'static str,
    /// Permissions, setuid, setgid and sticky bits.
    pub mode: u32,
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// All but directories: the number of names. What it is for a directory is the file system's choice.
    pub links: u64,
    /// The first path (in order) of all that are the same file.
    pub first_name: Option<PathBuf>,
    /// All but directories, whose size is the file system's choice.
    pub size: u64,
    pub device: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What a symbolic link says.
    pub target: Option<PathBuf>,
    /// Of a file's content.
    pub digest: Option<Digest>,
}

/// Every entry below `root`, and `root` itself as the empty path.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    let mut add = |path: PathBuf| {
        let full = root.join(&path);
        let metadata = full.symlink_metadata().unwrap();
        if metadata.nlink() > 1 && !metadata.is_dir() {
            inodes.entry((metadata.dev(), metadata.ino())).or_default().push(path.clone());
        }
        nodes.insert(path, node(&full, &metadata));
        metadata.is_dir()
    };
    add(PathBuf::new());
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if add(path.clone()) {
                directories.push(path);
            }
        }
    }
    for mut names in inodes.into_values() {
        names.sort();
        for name in &names {
            nodes.get_mut(name).unwrap().first_name = Some(names[0].clone());
        }
    }
    nodes
}

fn node(path: &Path, metadata: &Metadata) -> Node {
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_file() => "file",
        kind if kind.is_symlink() => "symbolic link",
        kind if kind.is_fifo() => "FIFO",
        kind if kind.is_char_device() => "character device",
        kind if kind.is_block_device() => "block device",
        _ => "socket",
    };
    let directory = metadata.is_dir();
    Node {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        links: if directory { 0 } else { metadata.nlink() },
        first_name: None,
        size: if directory { 0 } else { metadata.size() },
        device: if kind.ends_with("device") { metadata.rdev() } else { 0 },
        xattrs: xattrs(path),
        target: metadata.is_symlink().then(|| std::fs::read_link(path).unwrap()),
        digest: metadata.is_file().then(|| digest(path)),
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (String::from_utf8(name.to_vec()).unwrap(), value(name))).collect()
}

fn digest(path: &Path) -> Digest {
    let (mut file, mut hasher, mut buffer) = (File::open(path).unwrap(), Algorithm::Sha256.hasher(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finish(),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// What differs, a line each; nothing if the trees are the same.
pub fn differences(ours: &BTreeMap<PathBuf, Node>, theirs: &BTreeMap<PathBuf, Node>) -> Vec<String> {
    let missing = theirs.keys().filter(|path| !ours.contains_key(*path)).map(|path| format!("{path:?} is missing"));
    let different = ours.iter().filter_map(|(path, node)| match theirs.get(path) {
        None => Some(format!("{path:?} is too many: {node:?}")),
        Some(other) => (node != other).then(|| format!("{path:?} is {node:?}\n    instead of {other:?}")),
    });
    missing.chain(different).collect()
}
