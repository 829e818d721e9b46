//! EROFS' structures on disk, as far as an uncompressed image has them (`fs/erofs/erofs_fs.h`). All
//! numbers are little-endian.

/// The size of a block, of data and of directories: what every architecture's kernel can mount.
pub(crate) const BLOCK_BYTES: usize = 1 << BLOCK_BITS;

const BLOCK_BITS: u8 = 12;

/// What lies before the superblock, free for whoever makes the image.
pub(crate) const NOTE_BYTES: usize = 1024;

/// `struct erofs_inode_extended`
pub(super) const INODE_BYTES: usize = 64;

/// `struct erofs_dirent`
pub(super) const DIRENT_BYTES: usize = 12;

/// `struct erofs_xattr_ibody_header`
pub(super) const XATTR_HEADER_BYTES: usize = 12;

/// What inode numbers count in.
pub(super) const SLOT_BYTES: u64 = 32;

/// A chunk that is a hole, in an array of block addresses.
pub(super) const NULL_ADDRESS: u32 = u32::MAX;

const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;
const INCOMPAT_CHUNKED_FILE: u32 = 4;

/// What the superblock says of the whole image (`struct erofs_super_block`).
#[derive(Debug)]
pub(super) struct Superblock {
    /// Of the root directory, relative to `meta_block`.
    pub(super) root_nid: u16,
    pub(super) inodes: u64,
    /// Blocks of the whole image.
    pub(super) blocks: u32,
    /// Where inode 0 would be.
    pub(super) meta_block: u32,
    /// Whether a file is chunk-based.
    pub(super) chunked: bool,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// The image's first block: `note`, cut to [`NOTE_BYTES`], then the superblock with its checksum.
    pub(super) fn encode(&self, note: &[u8]) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let note = &note[..note.len().min(NOTE_BYTES)];
        block[..note.len()].copy_from_slice(note);
        let superblock = &mut block[NOTE_BYTES..];
        let mut put = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &self.root_nid.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(48, &self.uuid);
        put(80, &(if self.chunked { INCOMPAT_CHUNKED_FILE } else { 0 }).to_le_bytes());
        // Of the block from the superblock on, with zeroes in place of the checksum itself.
        let checksum = crc32c(superblock);
        superblock[4..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

/// How an inode's data is found (`i_format`, data layout).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Whole blocks from an address on.
    Plain = 0,
    /// The same, but what does not fill a block is behind the inode.
    Inline = 2,
    /// Chunks, each with an address.
    Chunks = 4,
}

/// An inode (`struct erofs_inode_extended`).
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) layout: Layout,
    /// `i_xattr_icount`
    pub(super) xattr_count: u16,
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) size: u64,
    /// The first block, the device number, or the chunk format.
    pub(super) union: u32,
    /// The 32-bit number, for old programs.
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn encode(&self) -> [u8; INODE_BYTES] {
        const EXTENDED: u16 = 1;
        let mut bytes = [0; INODE_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &(EXTENDED | (self.layout as u16) << 1).to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.union.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.0.to_le_bytes());
        put(40, &self.mtime.1.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// A device number as inodes have it (Linux' `new_encode_dev`).
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

/// CRC-32C (RFC 3720, Castagnoli) without the final inversion, which EROFS leaves out. One block an image:
/// a table would be longer than the wait.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_published_vectors() {
        // RFC 3720, B.4
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn device_numbers_have_twelve_and_twenty_bits() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(0xfff, 0xf_ffff), u32::MAX);
        assert_eq!(device_number(7, 300), 0x10_072c);
    }
}
