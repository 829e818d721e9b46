//! An image in the making: inodes and names in memory, data of files on disk already.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;

use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

use super::NAME_LIMIT_BYTES;
use super::dirent::Entry;
use super::format::{BLOCK_BYTES, NULL_ADDRESS};
use super::xattr::Xattrs;
use crate::error::{Attempt, Error, Result};

/// Chunks of a sparse file: its chunks are as large as they must be for so many to do. Files up to 256
/// MiB have chunks of one block.
const CHUNKS_LIMIT: u64 = 1 << 16;

/// What a name costs in a map beside its bytes.
const NAME_OVERHEAD_BYTES: usize = 48;

/// An inode of an image in the making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(u32);

impl NodeId {
    pub(crate) const ROOT: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What every inode has.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timespec,
    pub(crate) xattrs: Xattrs,
}

/// An inode's type, and what only that type has. No socket: no archive can hold one.
#[derive(Debug)]
pub(crate) enum Content {
    /// From [`Builder::reserve`].
    File(Data),
    Symlink(Box<[u8]>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    /// From [`Content::directory`].
    Directory(Directory),
}

impl Content {
    /// An empty directory.
    pub(crate) fn directory() -> Self {
        Self::Directory(Directory { above: NodeId::ROOT, entries: BTreeMap::new() })
    }

    pub(crate) fn kind(&self) -> FileType {
        match self {
            Self::File(_) => FileType::RegularFile,
            Self::Symlink(_) => FileType::Symlink,
            Self::CharDevice { .. } => FileType::CharacterDevice,
            Self::BlockDevice { .. } => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
            Self::Directory(_) => FileType::Directory,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::File(Data { blocks: Blocks::Chunks { addresses, .. }, .. }) => size_of_val(&addresses[..]),
            Self::Symlink(target) => target.len(),
            _ => 0,
        }
    }
}

/// Where the data of a file is in the image.
#[derive(Debug)]
pub(crate) struct Data {
    pub(super) size: u64,
    pub(super) blocks: Blocks,
}

#[derive(Debug)]
pub(super) enum Blocks {
    /// One after the other from here on.
    From(u32),
    /// The first block of each chunk of `BLOCK_BYTES << bits`, [`NULL_ADDRESS`] for a hole.
    Chunks { bits: u32, addresses: Box<[u32]> },
}

impl Data {
    /// Where in the image the file's byte `offset` is, and how many bytes after it are in one piece;
    /// `None` in a hole.
    fn locate(&self, offset: u64) -> Option<(u64, u64)> {
        let block_bytes = BLOCK_BYTES as u64;
        match &self.blocks {
            Blocks::From(first) => Some((u64::from(*first) * block_bytes + offset, self.size - offset)),
            Blocks::Chunks { bits, addresses } => {
                let chunk_bytes = block_bytes << bits;
                let address = *addresses.get(usize::try_from(offset / chunk_bytes).ok()?)?;
                let within = offset % chunk_bytes;
                (address != NULL_ADDRESS).then(|| (u64::from(address) * block_bytes + within, chunk_bytes - within))
            }
        }
    }
}

/// A directory's names.
#[derive(Debug)]
pub(crate) struct Directory {
    above: NodeId,
    entries: BTreeMap<Box<[u8]>, NodeId>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) content: Content,
    /// Names that lead here; of a directory only whether there is one.
    pub(super) links: u32,
}

/// An image in the making.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(super) file: File,
    /// Those that lost their last name stay, unreachable.
    pub(super) nodes: Vec<Node>,
    /// The first block nothing is in yet.
    pub(super) next_block: u32,
    /// Whether a file is in chunks.
    pub(super) chunked: bool,
    held_bytes: usize,
    limit_bytes: usize,
}

impl Builder {
    /// An image with an empty root directory, in an empty file, which may take `limit_bytes` of memory.
    pub(crate) fn new(file: File, root: Attributes, limit_bytes: usize) -> Self {
        let root = Node { attributes: root, content: Content::directory(), links: 1 };
        Self { file, nodes: vec![root], next_block: 1, chunked: false, held_bytes: 0, limit_bytes }
    }

    /// What an inode is.
    pub(crate) fn content(&self, node: NodeId) -> &Content {
        &self.nodes[node.index()].content
    }

    /// What an inode has beside its content.
    pub(crate) fn attributes(&self, node: NodeId) -> &Attributes {
        &self.nodes[node.index()].attributes
    }

    /// What `name` leads to in a directory.
    pub(crate) fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.names(directory)?.get(name).copied()
    }

    /// The names of a directory in order; of anything else, none.
    pub(crate) fn entries(&self, directory: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        self.names(directory).into_iter().flatten().map(|(name, node)| (&**name, *node))
    }

    fn names(&self, directory: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match self.content(directory) {
            Content::Directory(Directory { entries, .. }) => Some(entries),
            _ => None,
        }
    }

    /// The names of a directory in order, with `.` and `..` where they belong.
    pub(super) fn all_entries<'a>(&'a self, node: NodeId, directory: &'a Directory) -> impl Iterator<Item = Entry<'a>> {
        let range = move |from: Bound<&'a [u8]>, to: Bound<&'a [u8]>| {
            directory.entries.range::<[u8], _>((from, to)).map(|(name, node)| (&**name, *node))
        };
        range(Bound::Unbounded, Bound::Excluded(b"."))
            .chain([(&b"."[..], node)])
            .chain(range(Bound::Excluded(b"."), Bound::Excluded(b"..")))
            .chain([(&b".."[..], directory.above)])
            .chain(range(Bound::Excluded(b".."), Bound::Unbounded))
    }

    /// Makes something under a name that leads nowhere yet.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a name that is too long, [`Error::Invalid`] when memory is at its limit.
    pub(crate) fn add(&mut self, directory: NodeId, name: &[u8], attributes: Attributes, mut content: Content) -> Result<NodeId> {
        if let Content::Directory(made) = &mut content {
            made.above = directory;
        }
        self.hold(size_of::<Node>() + content.held_bytes() + attributes.xattrs.held_bytes())?;
        let node = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::invalid("layer", "it has too many inodes"))?);
        self.nodes.push(Node { attributes, content, links: 0 });
        self.link(directory, name, node)?;
        Ok(node)
    }

    /// Gives something that is there a further name, which leads nowhere yet.
    ///
    /// # Errors
    ///
    /// As for [`Builder::add`].
    pub(crate) fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        if name.len() > NAME_LIMIT_BYTES {
            return Err(Errno::NAMETOOLONG).attempt(|| format!("name an entry {:?}", String::from_utf8_lossy(name)));
        }
        self.hold(name.len() + NAME_OVERHEAD_BYTES)?;
        if let Content::Directory(Directory { entries, .. }) = &mut self.nodes[directory.index()].content {
            let before = entries.insert(name.into(), node);
            debug_assert!(before.is_none(), "the name was free");
        }
        self.nodes[node.index()].links += 1;
        Ok(())
    }

    /// Takes a name away, and with a directory all that is in it.
    pub(crate) fn remove(&mut self, directory: NodeId, name: &[u8]) {
        let Content::Directory(Directory { entries, .. }) = &mut self.nodes[directory.index()].content else { return };
        let mut gone: Vec<NodeId> = entries.remove(name).into_iter().collect();
        while let Some(node) = gone.pop() {
            let node = &mut self.nodes[node.index()];
            node.links -= 1;
            if let Content::Directory(Directory { entries, .. }) = &mut node.content {
                gone.extend(std::mem::take(entries).into_values());
            }
        }
    }

    /// Replaces what an inode has beside its content.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when memory is at its limit.
    pub(crate) fn set_attributes(&mut self, node: NodeId, attributes: Attributes) -> Result<()> {
        self.hold(attributes.xattrs.held_bytes())?;
        self.nodes[node.index()].attributes = attributes;
        Ok(())
    }

    /// Room in the image for a file of `size` bytes, one file after the other. `runs` are the offsets and
    /// lengths of the data of a sparse file, in order and within `size`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the image would be longer than EROFS can address.
    pub(crate) fn reserve(&mut self, size: u64, runs: Option<impl Iterator<Item = (u64, u64)>>) -> Result<Data> {
        let Some(runs) = runs.filter(|_| size > 0) else {
            return Ok(Data { size, blocks: Blocks::From(self.take_blocks(size)?) });
        };
        let block_bytes = BLOCK_BYTES as u64;
        let bits = (0..).find(|bits| size.div_ceil(block_bytes << bits) <= CHUNKS_LIMIT).unwrap_or_default();
        let chunk_bytes = block_bytes << bits;
        let mut addresses = vec![NULL_ADDRESS; size.div_ceil(chunk_bytes) as usize];
        for (offset, length) in runs.filter(|(_, length)| *length > 0) {
            for chunk in offset / chunk_bytes..=(offset + length - 1) / chunk_bytes {
                let address = &mut addresses[chunk as usize];
                if *address == NULL_ADDRESS {
                    *address = self.take_blocks(chunk_bytes.min(size - chunk * chunk_bytes))?;
                }
            }
        }
        self.chunked = true;
        Ok(Data { size, blocks: Blocks::Chunks { bits, addresses: addresses.into() } })
    }

    /// The first of the next blocks that hold so many bytes.
    pub(super) fn take_blocks(&mut self, bytes: u64) -> Result<u32> {
        let first = self.next_block;
        let next = u32::try_from(bytes.div_ceil(BLOCK_BYTES as u64)).ok().and_then(|blocks| first.checked_add(blocks));
        self.next_block = next
            .filter(|&next| next != NULL_ADDRESS)
            .ok_or_else(|| Error::invalid("layer", "its files are more than an EROFS image can hold"))?;
        Ok(first)
    }

    /// Writes data of a file at `offset`; gives how much of it was written, 0 only where the file has no room.
    ///
    /// # Errors
    ///
    /// The system's own.
    pub(crate) fn write(&self, file: NodeId, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        let Content::File(data) = self.content(file) else { return Ok(0) };
        let Some((position, length)) = data.locate(offset) else { return Ok(0) };
        let bytes = &bytes[..bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        rustix::io::pwrite(&self.file, bytes, position)
    }

    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held_bytes += bytes;
        if self.held_bytes > self.limit_bytes {
            let limit = self.limit_bytes;
            return Err(Error::invalid("layer", format_args!("its metadata needs more than {limit} bytes of memory")));
        }
        Ok(())
    }
}
