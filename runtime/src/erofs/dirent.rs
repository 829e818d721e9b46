//! The data of directories: names in order, as many to a block as fit.

use super::NodeId;
use super::format::{BLOCK_BYTES, DIRENT_BYTES};

/// An entry before it is encoded.
pub(super) type Entry<'a> = (&'a [u8], NodeId);

/// How large a directory's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Blocks before the last.
    pub(super) whole_blocks: u32,
    /// Bytes used of the last block.
    pub(super) last_bytes: usize,
}

impl Size {
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.whole_blocks) * BLOCK_BYTES as u64 + self.last_bytes as u64
    }
}

/// The size of a directory with these entries, in their order.
pub(super) fn size<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Size {
    let mut size = Size { whole_blocks: 0, last_bytes: 0 };
    for (name, _) in entries {
        let bytes = DIRENT_BYTES + name.len();
        if size.last_bytes + bytes > BLOCK_BYTES {
            size.whole_blocks += 1;
            size.last_bytes = 0;
        }
        size.last_bytes += bytes;
    }
    size
}

/// Gives each block's entries to `each`, in order.
pub(super) fn for_each_block<'a, E>(
    entries: impl Iterator<Item = Entry<'a>>,
    mut each: impl FnMut(&[Entry<'a>]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut block, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let more = DIRENT_BYTES + entry.0.len();
        if bytes + more > BLOCK_BYTES {
            each(&block)?;
            block.clear();
            bytes = 0;
        }
        bytes += more;
        block.push(entry);
    }
    each(&block)
}

/// A block's bytes, as many as it uses: the fixed parts of all entries (`struct erofs_dirent`), then their
/// names. `describe` gives an entry's inode number and type.
pub(super) fn encode(block: &[Entry<'_>], describe: impl Fn(NodeId) -> (u64, u8)) -> Vec<u8> {
    let mut name_at = block.len() * DIRENT_BYTES;
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    for &(name, node) in block {
        let (nid, kind) = describe(node);
        bytes.extend_from_slice(&nid.to_le_bytes());
        bytes.extend_from_slice(&(name_at as u16).to_le_bytes());
        bytes.extend_from_slice(&[kind, 0]);
        name_at += name.len();
    }
    block.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
    bytes
}
