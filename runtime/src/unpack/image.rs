//! A layer as an EROFS image: entries become inodes and names in memory, data goes to the image's file.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::erofs::{Attributes, Builder, Content, NodeId, Xattrs};
use crate::error::{Attempt, Error, Result};
use crate::name::Digest;

use super::adopt;
use super::metadata::{Metadata, attempted, is_foreign};
use super::sparse::Run;
use super::target::{Found, Place, Target, check_path, join};
use super::{Options, Owners};

/// A layer's image, complete but for its metadata: until [`PendingImage::finish`] its file is no
/// image. Meanwhile implied directories can take their metadata from lower layers.
#[derive(Debug)]
pub struct PendingImage {
    builder: Builder,
    opaque: Vec<NodeId>,
    opaque_name: &'static str,
    implied: Vec<(PathBuf, NodeId)>,
}

impl PendingImage {
    /// As [`super::adopt_directory`], for one of this image's implied directories.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a lower layer cannot be read.
    pub fn adopt_directory(&mut self, below: &[BorrowedFd<'_>], path: &Path) -> Result<bool> {
        let Some(&(_, node)) = self.implied.iter().find(|(implied, _)| implied == path) else { return Ok(false) };
        let Some(metadata) = adopt::find(below, path)? else { return Ok(false) };
        let mut dropped = 0;
        let kind = FileType::Directory;
        let attributes =
            attributes(&metadata, (metadata.uid, metadata.gid), kind, path.as_os_str().as_encoded_bytes(), &mut dropped)?;
        self.builder.set_attributes(node, attributes)?;
        Ok(true)
    }

    /// Writes the metadata. `name`, the layer's DiffID, makes the file system's UUID; `note` is kept in front
    /// of the superblock, as far as it fits into 1024 bytes. Nothing is synced.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when writing fails.
    pub fn finish(mut self, name: &Digest, note: &[u8]) -> Result<()> {
        for node in std::mem::take(&mut self.opaque) {
            let mut attributes = self.builder.attributes(node).clone();
            let mark = attributes.xattrs.push(self.opaque_name.as_bytes(), b"y", FileType::Directory, attributes.mode);
            mark.attempt(|| "mark a directory of a layer as opaque")?;
            self.builder.set_attributes(node, attributes)?;
        }
        let mut uuid = [0; 16];
        for (byte, digits) in uuid.iter_mut().zip(name.hex().as_bytes().chunks_exact(2)) {
            *byte = std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default();
        }
        self.builder.finish(uuid, note)
    }
}

/// A layer image being written.
pub(super) struct Image<'a> {
    builder: Builder,
    options: &'a Options,
    implied: HashSet<NodeId>,
    opaque: HashSet<NodeId>,
    dropped_xattrs: u64,
    /// Of this process, for layers whose owners are squashed.
    own: (u32, u32),
}

/// A directory of an image: its inode, and its path free of symbolic links.
pub(super) struct Inside {
    node: NodeId,
    path: Vec<u8>,
    /// The inodes of the directories above it, the root first.
    above: Vec<NodeId>,
}

impl<'a> Image<'a> {
    /// In an empty file.
    pub(super) fn new(file: File, options: &'a Options) -> Result<Self> {
        if file.metadata().attempt(|| "look at the file for a layer's image")?.len() > 0 {
            return Err(Error::io("write the image of a layer", Errno::EXIST));
        }
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = if options.owners == Owners::Squash { own } else { (0, 0) };
        let root = attributes(&Metadata::implied(), owner, FileType::Directory, b"", &mut 0)?;
        let builder = Builder::new(file, root, options.limits.metadata_bytes);
        let implied = HashSet::from([NodeId::ROOT]);
        Ok(Self { builder, options, implied, opaque: HashSet::new(), dropped_xattrs: 0, own })
    }

    /// What is left to be done; the implied directories, parents first; how many attributes were left out.
    pub(super) fn finish(self) -> (PendingImage, Vec<PathBuf>, u64) {
        let mut implied = Vec::new();
        let mut opaque = Vec::new();
        let mut ahead = vec![(Vec::new(), NodeId::ROOT)];
        while let Some((path, node)) = ahead.pop() {
            let children = self.builder.entries(node);
            let directories = children.filter(|(_, child)| self.builder.content(*child).kind() == FileType::Directory);
            ahead.extend(directories.map(|(name, child)| (join(&path, name), child)));
            if self.opaque.contains(&node) {
                opaque.push(node);
            }
            if self.implied.contains(&node) {
                implied.push((path, node));
            }
        }
        implied.sort();
        let implied: Vec<_> = implied.into_iter().map(|(path, node)| (PathBuf::from(OsString::from_vec(path)), node)).collect();
        let paths = implied.iter().map(|(path, _)| path.clone()).collect();
        let opaque_name = if self.options.userxattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        (PendingImage { builder: self.builder, opaque, opaque_name, implied }, paths, self.dropped_xattrs)
    }

    fn attributes(&mut self, metadata: &Metadata, kind: FileType, path: &[u8]) -> Result<Attributes> {
        let owner = if self.options.owners == Owners::Squash { self.own } else { (metadata.uid, metadata.gid) };
        attributes(metadata, owner, kind, path, &mut self.dropped_xattrs)
    }

    /// Makes something, in the place of what is there.
    fn put(&mut self, place: &Place<Inside>, metadata: &Metadata, content: Content) -> Result<NodeId> {
        let attributes = self.attributes(metadata, content.kind(), &place.path)?;
        self.builder.remove(place.parent.node, &place.name);
        self.builder.add(place.parent.node, &place.name, attributes, content)
    }

    /// Makes a directory where nothing is.
    fn add_directory(&mut self, parent: &Inside, name: &[u8], metadata: &Metadata) -> Result<NodeId> {
        let path = join(&parent.path, name);
        check_path(&path, &self.options.limits)?;
        let attributes = self.attributes(metadata, FileType::Directory, &path)?;
        self.builder.add(parent.node, name, attributes, Content::directory())
    }

    fn is_whiteout(&self, node: NodeId) -> bool {
        matches!(self.builder.content(node), Content::CharDevice { major: 0, minor: 0 })
    }
}

/// What an inode has beside its content; attributes it cannot have are left out and counted, or are an
/// error, as [`super::Unpacked::dropped_xattrs`] says.
fn attributes(metadata: &Metadata, (uid, gid): (u32, u32), kind: FileType, path: &[u8], dropped: &mut u64) -> Result<Attributes> {
    let mut xattrs = Xattrs::default();
    for (name, value) in &metadata.xattrs {
        if is_foreign(name) {
            *dropped += 1;
            continue;
        }
        match xattrs.push(name, value, kind, metadata.mode) {
            Err(Errno::OPNOTSUPP) => *dropped += 1,
            result => result.attempt(|| format!("{} {:?}", attempted("set on", path), String::from_utf8_lossy(name)))?,
        }
    }
    Ok(Attributes { mode: metadata.mode, uid, gid, mtime: metadata.mtime, xattrs })
}

impl Target for Image<'_> {
    type Directory = Inside;
    type File = NodeId;

    fn root(&self) -> Result<Inside> {
        Ok(Inside { node: NodeId::ROOT, path: Vec::new(), above: Vec::new() })
    }

    fn above(&self, mut directory: Inside) -> Result<Inside> {
        if let Some(node) = directory.above.pop() {
            directory.node = node;
            directory.path.truncate(directory.path.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
        }
        Ok(directory)
    }

    fn look(&self, directory: &Inside, name: &[u8]) -> Result<Found<Inside>> {
        let Some(node) = self.builder.lookup(directory.node, name) else { return Ok(Found::Nothing) };
        Ok(match self.builder.content(node) {
            Content::Directory(_) => Found::Directory(directory.below(name, node)),
            Content::Symlink(link) => Found::Symlink(link.to_vec()),
            _ if self.is_whiteout(node) => Found::Whiteout,
            _ => Found::Other,
        })
    }

    fn make_implied(&mut self, directory: &Inside, name: &[u8], over_whiteout: bool) -> Result<Inside> {
        if over_whiteout {
            self.builder.remove(directory.node, name);
        }
        let node = self.add_directory(directory, name, &Metadata::implied())?;
        self.implied.insert(node);
        if over_whiteout {
            self.opaque.insert(node);
        }
        Ok(directory.below(name, node))
    }

    fn set_root(&mut self, metadata: Metadata) -> Result<()> {
        let attributes = self.attributes(&metadata, FileType::Directory, b"")?;
        self.implied.remove(&NodeId::ROOT);
        self.builder.set_attributes(NodeId::ROOT, attributes)
    }

    fn set_opaque(&mut self, directory: &Inside) -> Result<()> {
        self.opaque.insert(directory.node);
        Ok(())
    }

    fn whiteout(&mut self, directory: &Inside, name: &[u8]) -> Result<()> {
        match self.builder.lookup(directory.node, name) {
            Some(node) if self.builder.content(node).kind() == FileType::Directory => {
                self.opaque.insert(node);
            }
            Some(_) => {}
            None => {
                let whiteout = Content::CharDevice { major: 0, minor: 0 };
                let metadata = Metadata { mode: 0, ..Metadata::implied() };
                let attributes = self.attributes(&metadata, FileType::CharacterDevice, name)?;
                self.builder.add(directory.node, name, attributes, whiteout)?;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, place: &Place<Inside>, metadata: Metadata) -> Result<()> {
        let there = self.builder.lookup(place.parent.node, &place.name);
        if let Some(node) = there.filter(|node| self.builder.content(*node).kind() == FileType::Directory) {
            let attributes = self.attributes(&metadata, FileType::Directory, &place.path)?;
            self.implied.remove(&node);
            return self.builder.set_attributes(node, attributes);
        }
        self.builder.remove(place.parent.node, &place.name);
        let node = self.add_directory(&place.parent, &place.name, &metadata)?;
        if there.is_some() {
            self.opaque.insert(node);
        }
        Ok(())
    }

    fn create_file(&mut self, place: &Place<Inside>, metadata: &Metadata, size: u64, runs: Option<&[Run]>) -> Result<NodeId> {
        let runs = runs.map(|runs| runs.iter().map(|run| (run.offset, run.length)));
        let data = self.builder.reserve(size, runs)?;
        self.put(place, metadata, Content::File(data))
    }

    fn write(&mut self, file: &NodeId, data: &[u8], offset: u64) -> rustix::io::Result<usize> {
        self.builder.write(*file, data, offset)
    }

    fn finish_file(&mut self, _: NodeId, _: &Place<Inside>, _: &Metadata, _: Option<u64>) -> Result<()> {
        Ok(())
    }

    fn hard_link(&mut self, place: &Place<Inside>, from: &Inside, name: &[u8]) -> Result<bool> {
        self.builder.remove(place.parent.node, &place.name);
        // If `from` went with what was there, it has no names any more.
        let Some(node) = self.builder.lookup(from.node, name) else { return Ok(false) };
        self.builder.link(place.parent.node, &place.name, node)?;
        Ok(true)
    }

    fn symlink(&mut self, place: &Place<Inside>, metadata: &Metadata, link: &[u8]) -> Result<()> {
        self.put(place, metadata, Content::Symlink(link.into())).map(drop)
    }

    fn device(&mut self, place: &Place<Inside>, metadata: &Metadata, kind: FileType, (major, minor): (u32, u32)) -> Result<()> {
        let content = match kind {
            FileType::CharacterDevice => Content::CharDevice { major, minor },
            FileType::BlockDevice => Content::BlockDevice { major, minor },
            _ => Content::Fifo,
        };
        self.put(place, metadata, content).map(drop)
    }
}

impl Inside {
    fn below(&self, name: &[u8], node: NodeId) -> Self {
        let above = self.above.iter().copied().chain([self.node]).collect();
        Self { node, path: join(&self.path, name), above }
    }
}
