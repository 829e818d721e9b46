//! POSIX access lists as the kernel would store them: valid, canonical, in agreement with the mode.
//!
//! On a file system that is written to, the kernel does this when a list is set and the mode changed
//! (`fs/posix_acl.c`). An image is written without it, so it is done here: what a layer holds must not
//! depend on its form.

use rustix::io::Errno;

/// Of `struct posix_acl_xattr_header`
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;

/// `struct posix_acl_xattr_entry`
const ENTRY_BYTES: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The id of entries that name nobody.
const NO_ID: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// The access list to store for something of this `mode`; `None` if the mode says it all.
///
/// # Errors
///
/// Those of `setxattr(2)`: `EINVAL` for a malformed list, `EOPNOTSUPP` for one of another version.
pub(super) fn access(value: &[u8], mode: u32) -> Result<Option<Vec<u8>>, Errno> {
    let Some(mut entries) = parse(value)? else { return Ok(None) };
    if entries.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER)) {
        return Ok(None);
    }
    let masked = entries.iter().any(|entry| entry.tag == MASK);
    for entry in &mut entries {
        let shift = match entry.tag {
            USER_OBJ => 6,
            GROUP_OBJ if !masked => 3,
            MASK => 3,
            OTHER => 0,
            _ => continue,
        };
        entry.permissions = (mode >> shift & 7) as u16;
    }
    Ok(Some(encode(&entries)))
}

/// The list that a directory hands down; `None` for an empty one, which is none.
///
/// # Errors
///
/// As for [`access`].
pub(super) fn default(value: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    Ok(parse(value)?.map(|entries| encode(&entries)))
}

/// The entries, if they are complete, in order and name somebody where they must.
fn parse(value: &[u8]) -> Result<Option<Vec<Entry>>, Errno> {
    let (header, rest) = value.split_first_chunk::<HEADER_BYTES>().ok_or(Errno::INVAL)?;
    if u32::from_le_bytes(*header) != VERSION {
        return Err(Errno::OPNOTSUPP);
    }
    if !rest.len().is_multiple_of(ENTRY_BYTES) {
        return Err(Errno::INVAL);
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let entries: Vec<Entry> = rest
        .chunks_exact(ENTRY_BYTES)
        .map(|raw| Entry {
            tag: u16::from_le_bytes([raw[0], raw[1]]),
            permissions: u16::from_le_bytes([raw[2], raw[3]]),
            id: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect();
    if is_valid(&entries) { Ok(Some(entries)) } else { Err(Errno::INVAL) }
}

fn is_valid(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let names_somebody = count(USER) + count(GROUP) > 0;
    // The tags' values are in the order that entries must have.
    entries.is_sorted_by_key(|entry| entry.tag)
        && entries.iter().all(|entry| {
            let known = matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER);
            known && entry.permissions <= 7 && (entry.id != NO_ID || !matches!(entry.tag, USER | GROUP))
        })
        && [USER_OBJ, GROUP_OBJ, OTHER].into_iter().all(|tag| count(tag) == 1)
        && (count(MASK) == 1 || count(MASK) == 0 && !names_somebody)
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        let id = if matches!(entry.tag, USER | GROUP) { entry.id } else { NO_ID };
        value.extend_from_slice(&entry.tag.to_le_bytes());
        value.extend_from_slice(&entry.permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |&(tag, permissions, id): &(u16, u16, u32)| Entry { tag, permissions, id };
        let mut value = encode(&entries.iter().map(entry).collect::<Vec<_>>());
        for (raw, (_, _, id)) in value[HEADER_BYTES..].chunks_exact_mut(ENTRY_BYTES).zip(entries) {
            raw[4..].copy_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn the_mode_reaches_the_list_through_the_mask() {
        let asked = list(&[(USER_OBJ, 7, 0), (USER, 5, 1000), (GROUP_OBJ, 5, 0), (MASK, 7, 3), (OTHER, 0, 0)]);
        let stored = list(&[(USER_OBJ, 6, NO_ID), (USER, 5, 1000), (GROUP_OBJ, 5, NO_ID), (MASK, 4, NO_ID), (OTHER, 1, NO_ID)]);
        assert_eq!(access(&asked, 0o641), Ok(Some(stored)));
    }

    #[test]
    fn a_list_that_says_what_the_mode_says_is_not_stored() {
        let minimal = list(&[(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 0, NO_ID)]);
        assert_eq!(access(&minimal, 0o750), Ok(None));
        assert_eq!(default(&minimal), Ok(Some(minimal)));
        assert_eq!((access(&[2, 0, 0, 0], 0o750), default(&[2, 0, 0, 0])), (Ok(None), Ok(None)));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let good = [(USER_OBJ, 7, 0), (USER, 5, 1), (GROUP_OBJ, 5, 0), (GROUP, 5, 1), (MASK, 7, 0), (OTHER, 0, 0)];
        assert!(default(&list(&good)).is_ok());
        for left_out in [0, 2, 4, 5] {
            let mut bad = good.to_vec();
            bad.remove(left_out);
            assert_eq!(default(&list(&bad)), Err(Errno::INVAL), "{bad:?}");
        }
        let mut swapped = good;
        swapped.swap(1, 2);
        let (mut twice, mut nobody, mut more) = (good.to_vec(), good, good);
        twice.push(good[5]);
        nobody[1].2 = NO_ID;
        more[0].1 = 8;
        for bad in [list(&swapped), list(&twice), list(&nobody), list(&more), list(&good)[..11].to_vec(), vec![2, 0], vec![]] {
            assert_eq!(default(&bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(default(&[1, 0, 0, 0]), Err(Errno::OPNOTSUPP));
    }
}
