//! Until when a certificate is good (RFC 5280 section 4.1.2.5). Only that is read of it: whether it is to be believed is for
//! TLS to say, which has done so before.

use std::time::SystemTime;

use crate::text::parse_rfc3339;

/// Tags of DER (X.690 section 8.1.2).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity; `None` if it is none.
pub(super) fn not_after(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // The serial number, the signature's algorithm, who signed.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else { return None };
    let (_, _, after) = element(validity)?;
    let (kind, time, _) = element(after)?;
    parse_time(kind, std::str::from_utf8(time).ok()?)
}

/// The first element's tag and content, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| (length << 8) | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn parse_time(kind: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (century, rest) = match (kind, digits.len()) {
        (UTC_TIME, 12) => (if digits < "5" { "20" } else { "19" }, digits),
        (GENERALIZED_TIME, 14) => digits.split_at(2),
        _ => return None,
    };
    let [year, month, day, hour, minute, second] = [0, 2, 4, 6, 8, 10].map(|at| &rest[at..at + 2]);
    parse_rfc3339(&format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    }

    fn certificate(version: bool, after: &[u8]) -> Vec<u8> {
        let validity = der(SEQUENCE, &[der(UTC_TIME, b"200101000000Z"), after.to_vec()].concat());
        let version = if version { der(VERSION, &[2, 1, 2]) } else { Vec::new() };
        let fields =
            [version, der(2, &[1]), der(SEQUENCE, &[]), der(SEQUENCE, b"issuer"), validity, der(SEQUENCE, b"x")].concat();
        der(SEQUENCE, &[der(SEQUENCE, &fields), der(SEQUENCE, &[])].concat())
    }

    #[test]
    fn the_end_of_a_certificate_is_found_in_both_forms_of_time() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(not_after(&certificate(true, &der(UTC_TIME, b"300101000000Z"))), at(1_893_456_000));
        assert_eq!(not_after(&certificate(false, &der(GENERALIZED_TIME, b"20500101000000Z"))), at(2_524_608_000));
        assert_eq!(not_after(&certificate(true, &der(UTC_TIME, b"990101000000Z"))), at(915_148_800));
        for bad in [&b"3001010000Z"[..], b"300101000000", b"300101000000+0100"] {
            assert_eq!(not_after(&certificate(true, &der(UTC_TIME, bad))), None);
        }
    }

    proptest! {
        #[test]
        fn reading_a_certificate_never_panics(bytes in any::<Vec<u8>>(), cut in 0_usize..120, at in 0_usize..120, byte in any::<u8>()) {
            let mut whole = certificate(true, &der(UTC_TIME, b"300101000000Z"));
            if let Some(changed) = whole.get_mut(at) {
                *changed = byte;
            }
            let _ = (not_after(&bytes), not_after(&whole), not_after(&whole[..cut.min(whole.len())]));
        }
    }
}
