//! What differs between two trees of files, each made of layers as overlayfs would make it: nothing is mounted for it but
//! layers that are EROFS images.
//!
//! **Invariant: a path of a tree is opened below its layer's root by the kernel, and no symbolic link in it is followed**:
//! a container may write there meanwhile.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Dir, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::erofs::open_layer;
use crate::error::{Attempt, Error, Result};
use crate::launch::open_in;

/// Differences that are listed.
const CHANGES_LIMIT: usize = 1 << 20;

/// How deep is looked.
const DEPTH_LIMIT: usize = 500;

/// Bytes of two files compared at a time.
const COMPARED_BYTES: usize = 64 << 10;

/// The marks of a directory that hides what lower layers have in it.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// How something differs, as docker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is new.
    Added,
    /// It is another, or something in it is.
    Changed,
    /// It is gone.
    Deleted,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How it differs.
    pub kind: Kind,
    /// Where, from the root; a slash first.
    pub path: Vec<u8>,
}

/// When files of two trees are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// If they are of the same layer: one that was written again is another, as docker has it.
    Layer,
    /// If they have the same content, permissions and owners.
    Content,
}

/// The root directory of a layer, opened once.
#[derive(Debug, Clone)]
pub struct Layer(Rc<OwnedFd>);

impl Layer {
    /// A layer in either form, or a directory of changes.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(Rc::new(open_layer(path)?)))
    }

    fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = std::ffi::CString::new(if path.is_empty() { b"." } else { path }).map_err(|_| Errno::INVAL)?;
        open_in(self.0.as_fd(), &path, flags | OFlags::NOFOLLOW, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn is_opaque(&self, path: &[u8]) -> bool {
        let mut value = [0; 1];
        let directory = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY);
        directory.is_ok_and(|fd| {
            OPAQUE.iter().any(|name| rustix::fs::fgetxattr(&fd, *name, &mut value[..]) == Ok(1) && value == *b"y")
        })
    }

    /// The same layer.
    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// What is in a place of a tree.
struct Node {
    stat: Stat,
    kind: FileType,
    /// The layer it is in; of a directory all it is made of, the top one first.
    layers: Vec<Layer>,
}

impl Node {
    /// What the layers, the top one first, have at `path`, if they have anything.
    fn find(layers: &[Layer], path: &[u8]) -> Result<Option<Self>> {
        let mut found: Option<Self> = None;
        for layer in layers {
            let stat = match layer.at(path, OFlags::PATH).and_then(|fd| rustix::fs::fstat(&fd)) {
                // A name of more than the kernel takes cannot be looked at: as if it were not there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
                stat => stat.attempt(|| format!("look at {:?} in a layer", String::from_utf8_lossy(path)))?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            match &mut found {
                None if is_whiteout => return Ok(None),
                None => found = Some(Self { stat, kind, layers: vec![layer.clone()] }),
                Some(upper) if kind == FileType::Directory => upper.layers.push(layer.clone()),
                Some(_) => return Ok(found),
            }
            if kind != FileType::Directory || layer.is_opaque(path) {
                return Ok(found);
            }
        }
        Ok(found)
    }

    fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// The names in a directory; those of whiteouts, too.
    fn names(&self, path: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
        let attempted = || format!("read directory {:?} of a layer", String::from_utf8_lossy(path));
        let mut names = BTreeSet::new();
        for layer in &self.layers {
            let directory = match layer.at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                directory => directory.attempt(attempted)?,
            };
            for entry in Dir::new(directory).attempt(attempted)? {
                let entry = entry.attempt(attempted)?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    names.insert(name.to_vec());
                }
            }
        }
        Ok(names)
    }

    /// Whether both are made of the same layers: then all below them is the same.
    fn is(&self, other: &Self) -> bool {
        self.layers.len() == other.layers.len() && self.layers.iter().zip(&other.layers).all(|(one, other)| one.is(other))
    }

    fn has_same_metadata(&self, other: &Self) -> bool {
        let of = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
        of(&self.stat) == of(&other.stat)
    }

    fn has_same_content(&self, other: &Self, path: &[u8]) -> Result<bool> {
        let attempted = || format!("compare file {:?}", String::from_utf8_lossy(path));
        match self.kind {
            FileType::RegularFile if self.stat.st_size != other.stat.st_size => Ok(false),
            FileType::RegularFile => {
                let open = |node: &Self| node.layers[0].at(path, OFlags::RDONLY).map(File::from).attempt(attempted);
                same_bytes([&open(self)?, &open(other)?]).attempt(attempted)
            }
            FileType::Symlink => {
                let target = |node: &Self| {
                    let link = node.layers[0].at(path, OFlags::PATH)?;
                    rustix::fs::readlinkat(&link, "", Vec::new())
                };
                Ok(target(self).attempt(attempted)? == target(other).attempt(attempted)?)
            }
            _ => Ok(self.stat.st_rdev == other.stat.st_rdev),
        }
    }
}

fn same_bytes(files: [&File; 2]) -> std::io::Result<bool> {
    let mut buffers = [Vec::with_capacity(COMPARED_BYTES), Vec::with_capacity(COMPARED_BYTES)];
    loop {
        for (buffer, file) in buffers.iter_mut().zip(files) {
            buffer.clear();
            file.take(COMPARED_BYTES as u64).read_to_end(buffer)?;
        }
        if buffers[0] != buffers[1] {
            return Ok(false);
        }
        if buffers[0].is_empty() {
            return Ok(true);
        }
    }
}

/// Compares two trees, each given as its layers, the top one first. A directory differs if something in it does, or its
/// permissions or owners. What `ignored` names by its path, and all below it, is left out. Sorted by path.
///
/// # Errors
///
/// [`Error::Invalid`] for more than a million differences.
pub fn compare(before: &[Layer], after: &[Layer], same: Same, ignored: &dyn Fn(&[u8]) -> bool) -> Result<Vec<Change>> {
    let mut comparison = Comparison { same, ignored, changes: Vec::new() };
    comparison.children(Node::find(before, b"")?.as_ref(), Node::find(after, b"")?.as_ref(), b"", 0)?;
    comparison.changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(comparison.changes)
}

struct Comparison<'a> {
    same: Same,
    ignored: &'a dyn Fn(&[u8]) -> bool,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    /// What differs in a directory, which may be missing on one side. Whether anything does.
    fn children(&mut self, before: Option<&Node>, after: Option<&Node>, path: &[u8], depth: usize) -> Result<bool> {
        if depth > DEPTH_LIMIT {
            return Err(Error::invalid("tree of files", "its directories are nested more than 500 deep"));
        }
        let names = |node: Option<&Node>| node.map_or(Ok(BTreeSet::new()), |node| node.names(path));
        let known = self.changes.len();
        for name in names(before)?.union(&names(after)?) {
            let child = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
            if !(self.ignored)(&child) {
                let find = |node: Option<&Node>| node.map_or(Ok(None), |node| Node::find(&node.layers, &child));
                self.child(find(before)?, find(after)?, &child, depth)?;
            }
        }
        Ok(self.changes.len() > known)
    }

    fn child(&mut self, before: Option<Node>, after: Option<Node>, path: &[u8], depth: usize) -> Result<()> {
        match (before, after) {
            (None, None) => Ok(()),
            (Some(_), None) => self.note(Kind::Deleted, path),
            (None, Some(after)) => {
                self.note(Kind::Added, path)?;
                self.below(None, &after, path, depth).map(drop)
            }
            (Some(before), Some(after)) if before.is(&after) => Ok(()),
            (Some(before), Some(after)) if before.is_directory() && after.is_directory() => {
                let differs = self.below(Some(&before), &after, path, depth)? || !before.has_same_metadata(&after);
                if differs { self.note(Kind::Changed, path) } else { Ok(()) }
            }
            (Some(before), Some(after)) => {
                let is_same = self.same == Same::Content
                    && before.has_same_metadata(&after)
                    && before.kind == after.kind
                    && before.has_same_content(&after, path)?;
                if is_same {
                    return Ok(());
                }
                self.note(Kind::Changed, path)?;
                self.below(None, &after, path, depth).map(drop)
            }
        }
    }

    fn below(&mut self, before: Option<&Node>, after: &Node, path: &[u8], depth: usize) -> Result<bool> {
        if after.is_directory() { self.children(before, Some(after), path, depth + 1) } else { Ok(false) }
    }

    fn note(&mut self, kind: Kind, path: &[u8]) -> Result<()> {
        if self.changes.len() >= CHANGES_LIMIT {
            return Err(Error::invalid("tree of files", "more than a million files differ"));
        }
        self.changes.push(Change { kind, path: [b"/", path].concat() });
        Ok(())
    }
}

/// The path as text for people.
impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letter = match self.kind {
            Kind::Added => 'A',
            Kind::Changed => 'C',
            Kind::Deleted => 'D',
        };
        write!(f, "{letter} {}", OsStr::from_bytes(&self.path).to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn layer(files: &[(&str, &str)]) -> (tempfile::TempDir, Layer) {
        let directory = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let layer = Layer::open(directory.path()).unwrap();
        (directory, layer)
    }

    fn lines(before: &[Layer], after: &[Layer], same: Same) -> Vec<String> {
        compare(before, after, same, &|path| path == b"proc").unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_container_did_is_listed_with_the_directories_above_it() {
        let (_lower, lower) = layer(&[("etc/passwd", "a"), ("etc/keep", "b"), ("var/x/y", "c"), ("file", "d")]);
        let (upper_dir, upper) = layer(&[("etc/passwd", "ab"), ("new/sub/f", "e"), ("proc/1", ""), ("file/now", "a directory")]);
        symlink("/etc", upper_dir.path().join("link")).unwrap();
        let after = [upper, lower.clone()];
        let expected = ["A /link", "A /new", "A /new/sub", "A /new/sub/f", "C /etc", "C /etc/passwd", "C /file", "A /file/now"];
        let mut expected = expected.to_vec();
        expected.sort_by(|one, other| one[2..].cmp(&other[2..]));
        assert_eq!(lines(std::slice::from_ref(&lower), &after, Same::Layer), expected);
        assert_eq!(lines(&after, &after, Same::Layer), Vec::<String>::new());
        // A directory that was only copied up is no change; one with other permissions is.
        std::fs::create_dir_all(upper_dir.path().join("var/x")).unwrap();
        assert_eq!(lines(std::slice::from_ref(&lower), &after, Same::Layer), expected);
        std::fs::set_permissions(upper_dir.path().join("var/x"), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(lines(&[lower], &after, Same::Layer).ends_with(&["C /var".into(), "C /var/x".into()]));
    }

    #[test]
    fn images_differ_where_their_files_do() {
        let (_one, one) = layer(&[("same", "a"), ("other", "b"), ("gone/x", "c"), ("longer", "d")]);
        let (_two, two) = layer(&[("same", "a"), ("other", "B"), ("longer", "dd")]);
        assert_eq!(
            lines(std::slice::from_ref(&one), std::slice::from_ref(&two), Same::Content),
            ["D /gone", "C /longer", "C /other"]
        );
        assert_eq!(lines(&[two], &[one], Same::Content), ["A /gone", "A /gone/x", "C /longer", "C /other"]);
    }
}
