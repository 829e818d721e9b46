//! Extended attributes beside an inode, taken and refused as `setxattr(2)` would.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::acl;
use super::format::XATTR_HEADER_BYTES;

/// The longest name the kernel takes, its prefix included.
const NAME_LIMIT_BYTES: usize = 255;

/// The longest value; the kernel would take one byte more, which the format cannot say.
const VALUE_LIMIT_BYTES: usize = u16::MAX as usize;

/// What the count of four-byte units in an inode can say, the header's unit taken off.
const ENTRIES_LIMIT_BYTES: usize = (u16::MAX as usize - 1) * UNIT_BYTES;

/// What attributes are aligned to and counted in.
const UNIT_BYTES: usize = 4;

/// Prefixes that have a number (`EROFS_XATTR_INDEX_*`).
const USER: u8 = 1;
const ACCESS_LIST: u8 = 2;
const DEFAULT_LIST: u8 = 3;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

/// An inode's attributes, encoded (`struct erofs_xattr_entry` each).
#[derive(Debug, Clone, Default)]
pub(crate) struct Xattrs(Vec<u8>);

impl Xattrs {
    /// Adds an attribute of something of this type and mode. The caller sees to it that no name comes twice.
    ///
    /// # Errors
    ///
    /// Those of `setxattr(2)` on a file system with all the attributes there are: `EOPNOTSUPP` where the
    /// kernel knows no such attribute, `EPERM` for `user.*` on what is neither file nor directory,
    /// `EACCES` for a default list on something else than a directory, `EINVAL` for a malformed value,
    /// `ERANGE` and `E2BIG` for one that is too long.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8], kind: FileType, mode: u32) -> Result<(), Errno> {
        if name.len() > NAME_LIMIT_BYTES {
            return Err(Errno::RANGE);
        }
        if value.len() > VALUE_LIMIT_BYTES {
            return Err(Errno::TOOBIG);
        }
        match name {
            b"system.posix_acl_access" | b"system.posix_acl_default" if kind == FileType::Symlink => Err(Errno::OPNOTSUPP),
            b"system.posix_acl_access" => match acl::access(value, mode)? {
                Some(list) => self.put(ACCESS_LIST, b"", &list),
                None => Ok(()),
            },
            b"system.posix_acl_default" => match acl::default(value)? {
                Some(_) if kind != FileType::Directory => Err(Errno::ACCESS),
                Some(list) => self.put(DEFAULT_LIST, b"", &list),
                None => Ok(()),
            },
            b"security.capability" if !is_capability(value) => Err(Errno::INVAL),
            _ => {
                let prefixed = |prefix: &[u8], index| Some((index, name.strip_prefix(prefix)?));
                let (index, rest) = prefixed(b"user.", USER)
                    .or_else(|| prefixed(b"trusted.", TRUSTED))
                    .or_else(|| prefixed(b"security.", SECURITY))
                    .ok_or(Errno::OPNOTSUPP)?;
                if rest.is_empty() {
                    return Err(Errno::INVAL);
                }
                if index == USER && !matches!(kind, FileType::RegularFile | FileType::Directory) {
                    return Err(Errno::PERM);
                }
                self.put(index, rest, value)
            }
        }
    }

    fn put(&mut self, index: u8, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let mut entry = vec![name.len() as u8, index];
        entry.extend_from_slice(&(value.len() as u16).to_le_bytes());
        entry.extend_from_slice(name);
        entry.extend_from_slice(value);
        entry.resize(entry.len().next_multiple_of(UNIT_BYTES), 0);
        if self.0.len() + entry.len() > ENTRIES_LIMIT_BYTES {
            return Err(Errno::NOSPC);
        }
        self.0.extend_from_slice(&entry);
        Ok(())
    }

    /// Bytes in memory, and nearly as many on disk.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.len()
    }

    /// Bytes behind the inode.
    pub(super) fn disk_bytes(&self) -> usize {
        if self.0.is_empty() { 0 } else { XATTR_HEADER_BYTES + self.0.len() }
    }

    /// The inode's `i_xattr_icount`: the header counts as one, whatever its size.
    pub(super) fn count(&self) -> u16 {
        if self.0.is_empty() { 0 } else { (1 + self.0.len() / UNIT_BYTES) as u16 }
    }

    /// What stands behind the inode: nothing, or a header of zeroes (no shared attributes, no filter) and
    /// the entries.
    pub(super) fn encode(&self) -> Vec<u8> {
        if self.0.is_empty() { Vec::new() } else { [&[0; XATTR_HEADER_BYTES][..], &self.0].concat() }
    }
}

/// Whether the kernel takes this for the capabilities of a file (`struct vfs_cap_data`, revisions 2 and 3).
fn is_capability(value: &[u8]) -> bool {
    const EFFECTIVE: u32 = 1;
    let Some(magic) = value.first_chunk() else { return false };
    matches!((u32::from_le_bytes(*magic) & !EFFECTIVE, value.len()), (0x0200_0000, 20) | (0x0300_0000, 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(name: &[u8], value: &[u8], kind: FileType) -> Result<Xattrs, Errno> {
        let mut xattrs = Xattrs::default();
        xattrs.push(name, value, kind, 0o644).map(|()| xattrs)
    }

    #[test]
    fn an_entry_is_its_prefix_s_number_name_and_value_padded_to_four() {
        let xattrs = push(b"user.ab", b"xyz", FileType::RegularFile).unwrap();
        assert_eq!(xattrs.encode(), b"\0\0\0\0\0\0\0\0\0\0\0\0\x02\x01\x03\0abxyz\0\0\0");
        assert_eq!((xattrs.count(), xattrs.disk_bytes()), (1 + 12 / 4, 24));
        assert_eq!((Xattrs::default().count(), Xattrs::default().disk_bytes()), (0, 0));
    }

    #[test]
    fn what_setxattr_refuses_is_refused() {
        let long = [b"user.".to_vec(), vec![b'a'; 251]].concat();
        let file = FileType::RegularFile;
        assert_eq!(push(&long, b"", file).unwrap_err(), Errno::RANGE);
        assert_eq!(push(b"user.a", &vec![0; 65_536], file).unwrap_err(), Errno::TOOBIG);
        assert_eq!(push(b"user.", b"1", file).unwrap_err(), Errno::INVAL);
        assert_eq!(push(b"user.a", b"1", FileType::Symlink).unwrap_err(), Errno::PERM);
        assert_eq!(push(b"system.nfs4_acl", b"1", file).unwrap_err(), Errno::OPNOTSUPP);
        assert_eq!(push(b"a", b"1", file).unwrap_err(), Errno::OPNOTSUPP);
        assert_eq!(push(b"security.capability", &[1; 20], file).unwrap_err(), Errno::INVAL);
        let mut xattrs = Xattrs::default();
        for n in 0..3 {
            assert!(xattrs.push(format!("user.{n}").as_bytes(), &[0; 65_535], file, 0).is_ok());
        }
        assert_eq!(xattrs.push(b"user.3", &[0; 65_535], file, 0), Err(Errno::NOSPC));
    }
}
