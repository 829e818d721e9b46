//! PAX extended header records (POSIX pax, "pax Extended Header"), as Go's `archive/tar` reads them.

use super::Limits;
use super::header::{Header, decimal};
use super::sparse::PaxSparse;

/// The prefix of records that hold extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an extended header says about the entry after it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<i64>,
    uid: Option<i64>,
    gid: Option<i64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

impl Pax {
    /// Reads all records. Of a key that stands twice the last counts; an empty value leaves the
    /// header's field as it is; unknown keys are ignored.
    pub(super) fn parse(mut records: &[u8], limits: &Limits) -> Result<Self, String> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("its PAX records are malformed")?;
            records = rest;
            pax.take(key, value, limits)?;
        }
        let bytes: usize = pax.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits.xattr_bytes {
            return Err(format!("its extended attributes take more than {} bytes", limits.xattr_bytes));
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), String> {
        let names_a_path = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if if names_a_path { value.contains(&0) } else { key.contains(&0) } {
            return Err("a PAX record has a NUL in it".into());
        }
        if self.sparse.take(key, value, limits)? || value.is_empty() {
            return Ok(());
        }
        let bad = || format!("its PAX record {:?} is not a number", String::from_utf8_lossy(key));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
            b"uid" => self.uid = Some(decimal(value).ok_or_else(bad)?),
            b"gid" => self.gid = Some(decimal(value).ok_or_else(bad)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty()) {
                    self.xattrs.retain(|(known, _)| known != name);
                    if self.xattrs.len() == limits.xattrs {
                        return Err(format!("it has more than {} extended attributes", limits.xattrs));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Replaces the fields of `header` this extended header speaks of.
    pub(super) fn apply(&mut self, header: &mut Header) {
        header.path = self.path.take().unwrap_or_else(|| std::mem::take(&mut header.path));
        header.link = self.link.take().unwrap_or_else(|| std::mem::take(&mut header.link));
        header.size = self.size.unwrap_or(header.size);
        header.uid = self.uid.unwrap_or(header.uid);
        header.gid = self.gid.unwrap_or(header.gid);
    }
}

/// The first record, `length SP key=value LF`, and what is after it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let body = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some((&body[..equals], &body[equals + 1..], &records[length..]))
}

/// Seconds with an optional fraction, which is cut to nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let seconds = decimal(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    // A fraction of a negative time counts away from zero; the kernel wants it to count forward.
    if whole.starts_with(b"-") && nanoseconds != 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_the_epoch() {
        assert_eq!(time(b"1350244992.023960108"), Some((1_350_244_992, 23_960_108)));
        assert_eq!(time(b"5."), Some((5, 0)));
        assert_eq!(time(b"5.1234567899"), Some((5, 123_456_789)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-0.5"), Some((-1, 500_000_000)));
        for bad in [&b""[..], b".5", b"1.-5", b"1e3", b"99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_record_that_lies_about_its_length_is_refused() {
        for bad in [&b"11 path=a\n"[..], b"8 path=a\n", b"9 path=a ", b"-9 path=a\n", b"5 =a\n", b"7 path\n", b"x"] {
            assert!(Pax::parse(bad, &Limits::default()).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(Pax::parse(b"9 path=a\n", &Limits::default()).is_ok());
    }

    proptest! {
        #[test]
        fn any_records_are_read_or_refused(records in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&records, &Limits::default());
        }
    }
}
