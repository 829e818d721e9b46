//! EROFS images: a read-only file system in one file, which Linux mounts without a loop device.
//!
//! An image is made in one pass, without compression. The data of files is written as it comes, one
//! file after the other, each from a block of its own on. Inodes and names are kept in memory
//! ([`tree`]), bounded by a limit, until the last entry is known; then they are laid out and written
//! behind the data ([`layout`]), and the superblock into the first block at last:
//!
//! ```text
//! block 0          1024 bytes for whoever makes the image, the superblock
//! blocks 1 to d    data of files, in the order they came
//! blocks d to m    directories that do not fit beside their inode
//! blocks m to end  inodes, each with its attributes, and a small directory, link target or chunk table
//! ```
//!
//! Every inode is of the extended kind (64 bytes: owners of 32 bits, times with nanoseconds) and begins at a
//! multiple of 64, so that none crosses a block. A sparse file is a chunk-based inode whose holes have
//! no address. The features asked of the kernel are none, or chunk-based files (Linux 5.15); mounting
//! from a file is what needs Linux 6.12.
//!
//! The format: Linux' `Documentation/filesystems/erofs.rst` and `fs/erofs/erofs_fs.h`.

mod acl;
mod dirent;
mod format;
mod layout;
mod mount;
mod share;
mod tree;
mod xattr;

pub use mount::{mount, open_layer, probe};

pub(crate) use format::NOTE_BYTES;
pub(crate) use share::Shared;
pub(crate) use tree::{Attributes, Builder, Content, NodeId};
pub(crate) use xattr::Xattrs;

/// The longest name of a directory entry (`EROFS_NAME_LEN`).
pub(crate) const NAME_LIMIT_BYTES: usize = 255;
