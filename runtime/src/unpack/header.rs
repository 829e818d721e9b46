//! One 512-byte tar header block, read as Go's `archive/tar` reads it.

/// The size of everything in a tar archive.
pub(super) const BLOCK_BYTES: usize = 512;

/// A block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// The fields of a header. Numbers are as found, not yet checked for range: PAX records may replace
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
}

/// Which dialect the magic names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Header {
    /// The fields of `block`, or the rule it breaks.
    pub(super) fn parse(block: &Block) -> Result<Self, &'static str> {
        check_sum(block)?;
        let format = match (&block[257..263], &block[263..265], &block[508..512]) {
            (b"ustar\0", _, b"tar\0") => Format::Star,
            (b"ustar\0", ..) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            _ => Format::V7,
        };
        let device = match format {
            Format::V7 => (0, 0),
            _ => (number(&block[329..337])?, number(&block[337..345])?),
        };
        let name = text(&block[..100]);
        let path = match prefix(block, format) {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        };
        Ok(Self {
            kind: block[156],
            path,
            link: text(&block[157..257]).to_vec(),
            size: number(&block[124..136])?,
            mode: number(&block[100..108])?,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            mtime: number(&block[136..148])?,
            device,
        })
    }
}

/// The part of the path that stands in the prefix field.
fn prefix(block: &Block, format: Format) -> &[u8] {
    match format {
        Format::V7 => b"",
        Format::Ustar => text(&block[345..500]),
        Format::Star => text(&block[345..476]),
        // GNU has times here. Writers of Go before 1.8 wrote a prefix under the GNU magic; it is one
        // if the times do not parse and it is ASCII.
        Format::Gnu => {
            let time = |field: &[u8]| field[0] == 0 || number(field).is_ok();
            let prefix = text(&block[345..500]);
            if (time(&block[345..357]) && time(&block[357..369])) || !prefix.is_ascii() { b"" } else { prefix }
        }
    }
}

/// Verifies the checksum; old writers summed signed bytes.
fn check_sum(block: &Block) -> Result<(), &'static str> {
    let expected = octal(&block[148..156])?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (index, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if expected == unsigned || expected == signed { Ok(()) } else { Err("its header's checksum is wrong") }
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number: octal, or base 256 (two's complement) when the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    if field.first().is_none_or(|first| first & 0x80 == 0) {
        return octal(field);
    }
    let negative = field[0] & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut value = 0_u64;
    for (index, &byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if index == 0 {
            byte &= 0x7f;
        }
        if value >> 56 != 0 {
            return Err("a number in its header is too large");
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| "a number in its header is too large")?;
    Ok(if negative { !value } else { value })
}

/// A decimal number with an optional sign, as extended headers have them.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An octal number, padded with spaces or NULs; an empty field is 0.
fn octal(field: &[u8]) -> Result<i64, &'static str> {
    const WRONG: &str = "a number in its header is not octal";
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(first) = field.iter().position(|byte| !padding(byte)) else { return Ok(0) };
    let last = field.iter().rposition(|byte| !padding(byte)).unwrap_or(first);
    let digits = text(&field[first..=last]);
    if digits.is_empty() {
        return Err(WRONG);
    }
    let mut value = 0_i64;
    for &digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(WRONG);
        }
        value = value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(WRONG)?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"  644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0"), Ok(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        for bad in [&b"9"[..], b"-1", b"0x1", &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_header_of_another_writer_reads_the_same(
            path in "[a-z]{1,100}", size in 0_u64..1 << 33, mode in 0_u32..0o10000, uid in 0_u64..1 << 32, mtime in 0_u64..1 << 35
        ) {
            let mut theirs = tar::Header::new_ustar();
            theirs.set_path(&path).unwrap();
            theirs.set_size(size);
            theirs.set_mode(mode);
            theirs.set_uid(uid);
            theirs.set_gid(uid / 2);
            theirs.set_mtime(mtime);
            theirs.set_entry_type(tar::EntryType::Regular);
            theirs.set_cksum();
            let ours = Header::parse(theirs.as_bytes()).unwrap();
            prop_assert_eq!(ours.path, path.into_bytes());
            prop_assert_eq!((ours.size, ours.mode), (size.cast_signed(), i64::from(mode)));
            prop_assert_eq!((ours.uid, ours.gid, ours.mtime), (uid.cast_signed(), (uid / 2).cast_signed(), mtime.cast_signed()));
        }

        #[test]
        fn any_block_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 512)) {
            let block: Block = block.try_into().unwrap();
            let _ = Header::parse(&block);
        }
    }
}
