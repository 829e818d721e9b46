//! Where everything goes behind the data of files, and its writing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::FileType;

use super::dirent;
use super::format::{BLOCK_BYTES, INODE_BYTES, Inode, Layout, SLOT_BYTES, Superblock, device_number};
use super::tree::{Blocks, Builder, Content, Data, Node, NodeId};
use crate::error::{Attempt, Error, Result};

/// How much is written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Where an inode and its outer data are.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// In slots from the first block of inodes; 0 for an inode that has no place, [`MET`] for one that will.
    nid: u32,
    /// Of a directory or link whose data is not all beside the inode.
    first_block: u32,
}

/// No inode is there: the first has number 2.
const MET: u32 = 1;

/// What an inode needs beside itself and its attributes.
struct Shape {
    layout: Layout,
    size: u64,
    /// Blocks elsewhere.
    outer_blocks: u32,
    /// Bytes right behind the attributes.
    inner_bytes: usize,
}

impl Builder {
    /// Writes everything that is not there yet. `note` is for the first [`super::NOTE_BYTES`] of the image.
    ///
    /// Until this has returned the file is no image, and nothing is synced.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::Invalid`] when the image would be longer than EROFS can address.
    pub(crate) fn finish(mut self, uuid: [u8; 16], note: &[u8]) -> Result<()> {
        let mut places = vec![Place { nid: 0, first_block: 0 }; self.nodes.len()];
        let outer_begins = u64::from(self.next_block) * BLOCK_BYTES as u64;
        let (order, inodes_bytes) = self.lay_out(&mut places)?;
        let meta_block = self.take_blocks(inodes_bytes)?;
        let mut out = Sequential { file: &self.file, position: outer_begins, pending: Vec::new() };
        for &node in &order {
            self.write_outer(node, &places, &mut out)?;
        }
        let meta_begins = u64::from(meta_block) * BLOCK_BYTES as u64;
        for (number, &node) in order.iter().enumerate() {
            out.zeroes_to(meta_begins + u64::from(places[node.index()].nid) * SLOT_BYTES)?;
            self.write_inode(node, number as u32 + 1, &places, &mut out)?;
        }
        out.zeroes_to(u64::from(self.next_block) * BLOCK_BYTES as u64)?;
        out.flush()?;
        let superblock = Superblock {
            root_nid: places[NodeId::ROOT.index()].nid as u16,
            inodes: order.len() as u64,
            blocks: self.next_block,
            meta_block,
            chunked: self.chunked,
            uuid,
        };
        self.file.write_all_at(&superblock.encode(note), 0).attempt(|| "write the superblock of a layer's image")
    }

    /// Gives every inode that can be reached its place: the root first, then each directory's children
    /// together. The inodes in that order, and how many bytes they span.
    fn lay_out(&mut self, places: &mut [Place]) -> Result<(Vec<NodeId>, u64)> {
        let mut order = vec![NodeId::ROOT];
        // Inode 0 would be no inode to `readdir(3)`.
        let mut position = INODE_BYTES as u64;
        let mut at = 0;
        while let Some(&node) = order.get(at) {
            at += 1;
            let shape = self.shape(node);
            let head_bytes = INODE_BYTES + self.attributes(node).xattrs.disk_bytes();
            let bytes = (head_bytes + shape.inner_bytes) as u64;
            let left_bytes = BLOCK_BYTES as u64 - position % BLOCK_BYTES as u64;
            if shape.layout == Layout::Inline && bytes > left_bytes {
                position += left_bytes; // what is inline may not cross a block
            }
            let nid = u32::try_from(position / SLOT_BYTES)
                .map_err(|_| Error::invalid("layer", "its inodes are more than an EROFS image can hold"))?;
            let first_block = self.take_blocks(u64::from(shape.outer_blocks) * BLOCK_BYTES as u64)?;
            places[node.index()] = Place { nid, first_block };
            position = (position + bytes).next_multiple_of(INODE_BYTES as u64);
            // A file with several names is met several times; a directory has one.
            let children = self.entries(node).map(|(_, child)| child);
            order.extend(children.filter(|child| {
                let nid = &mut places[child.index()].nid;
                let first = *nid == 0;
                *nid = if first { MET } else { *nid };
                first
            }));
        }
        Ok((order, position))
    }

    fn shape(&self, node: NodeId) -> Shape {
        let Node { attributes, content, .. } = &self.nodes[node.index()];
        let beside = |bytes: usize| INODE_BYTES + attributes.xattrs.disk_bytes() + bytes <= BLOCK_BYTES;
        match content {
            Content::Directory(directory) => {
                let size = dirent::size(self.all_entries(node, directory));
                if beside(size.last_bytes) {
                    Shape {
                        layout: Layout::Inline,
                        size: size.bytes(),
                        outer_blocks: size.whole_blocks,
                        inner_bytes: size.last_bytes,
                    }
                } else {
                    Shape { layout: Layout::Plain, size: size.bytes(), outer_blocks: size.whole_blocks + 1, inner_bytes: 0 }
                }
            }
            Content::Symlink(target) => {
                let size = target.len() as u64;
                if beside(target.len()) {
                    Shape { layout: Layout::Inline, size, outer_blocks: 0, inner_bytes: target.len() }
                } else {
                    Shape { layout: Layout::Plain, size, outer_blocks: 1, inner_bytes: 0 }
                }
            }
            Content::File(Data { size, blocks: Blocks::Chunks { addresses, .. } }) => {
                Shape { layout: Layout::Chunks, size: *size, outer_blocks: 0, inner_bytes: size_of_val(&addresses[..]) }
            }
            Content::File(Data { size, .. }) => Shape { layout: Layout::Plain, size: *size, outer_blocks: 0, inner_bytes: 0 },
            _ => Shape { layout: Layout::Plain, size: 0, outer_blocks: 0, inner_bytes: 0 },
        }
    }

    /// Writes the blocks of a directory or link that are not beside its inode.
    fn write_outer(&self, node: NodeId, places: &[Place], out: &mut Sequential<'_>) -> Result<()> {
        let mut left = self.shape(node).outer_blocks;
        match self.content(node) {
            Content::Directory(directory) if left > 0 => dirent::for_each_block(self.all_entries(node, directory), |block| {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                out.block(&self.encode_dirents(block, places))
            }),
            Content::Symlink(target) if left > 0 => out.block(target),
            _ => Ok(()),
        }
    }

    fn write_inode(&self, node: NodeId, number: u32, places: &[Place], out: &mut Sequential<'_>) -> Result<()> {
        let shape = self.shape(node);
        let Node { attributes, content, links } = &self.nodes[node.index()];
        let first_block = if shape.outer_blocks > 0 { places[node.index()].first_block } else { 0 };
        let (union, inner) = match content {
            Content::File(Data { blocks: Blocks::From(first), .. }) => (*first, Vec::new()),
            Content::File(Data { blocks: Blocks::Chunks { bits, addresses }, .. }) => {
                (*bits, addresses.iter().flat_map(|address| address.to_le_bytes()).collect())
            }
            Content::Symlink(target) if shape.inner_bytes > 0 => (first_block, target.to_vec()),
            Content::Directory(directory) if shape.layout == Layout::Inline => {
                let mut last = Vec::new();
                dirent::for_each_block(self.all_entries(node, directory), |block| {
                    last.clear();
                    last.extend_from_slice(block);
                    Ok::<_, Error>(())
                })?;
                (first_block, self.encode_dirents(&last, places))
            }
            Content::CharDevice { major, minor } | Content::BlockDevice { major, minor } => {
                (device_number(*major, *minor), Vec::new())
            }
            _ => (first_block, Vec::new()),
        };
        let subdirectories =
            self.entries(node).filter(|(_, child)| self.content(*child).kind() == FileType::Directory).count() as u32;
        let kind = content.kind();
        // A symbolic link's permissions are always these.
        let permissions = if kind == FileType::Symlink { 0o777 } else { attributes.mode & 0o7777 };
        let inode = Inode {
            layout: shape.layout,
            xattr_count: attributes.xattrs.count(),
            mode: (kind.as_raw_mode() | permissions) as u16,
            size: shape.size,
            union,
            number,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: (attributes.mtime.tv_sec, attributes.mtime.tv_nsec as u32),
            links: if kind == FileType::Directory { 2 + subdirectories } else { *links },
        };
        out.write(&inode.encode())?;
        out.write(&attributes.xattrs.encode())?;
        out.write(&inner)
    }

    fn encode_dirents(&self, block: &[dirent::Entry<'_>], places: &[Place]) -> Vec<u8> {
        dirent::encode(block, |node| {
            let kind = match self.content(node).kind() {
                FileType::RegularFile => 1,
                FileType::Directory => 2,
                FileType::CharacterDevice => 3,
                FileType::BlockDevice => 4,
                FileType::Fifo => 5,
                FileType::Symlink => 7,
                FileType::Socket | FileType::Unknown => 0,
            };
            (places[node.index()].nid.into(), kind)
        })
    }
}

/// Writes one thing after the other, in large pieces.
struct Sequential<'a> {
    file: &'a File,
    /// Where `pending` begins.
    position: u64,
    pending: Vec<u8>,
}

impl Sequential<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
    }

    /// The same, filled up to a whole block.
    fn block(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        let end = (self.position + self.pending.len() as u64).next_multiple_of(BLOCK_BYTES as u64);
        self.zeroes_to(end)
    }

    /// Zeroes up to a position in the image, which is a few blocks ahead at most.
    fn zeroes_to(&mut self, position: u64) -> Result<()> {
        let ahead = position.saturating_sub(self.position + self.pending.len() as u64);
        self.pending.resize(self.pending.len() + ahead as usize, 0);
        if self.pending.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(&self.pending, self.position).attempt(|| "write the metadata of a layer's image")?;
        self.position += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
