//! `Range` of downloads (RFC 9110 section 14.2) and `Content-Range` of uploaded chunks
//! (distribution-spec, "Pushing a blob in chunks").

use std::ops::Range;

/// The most ranges of one list that are looked at; a longer list is ignored (CVE-2011-3192).
const RANGES_LIMIT: usize = 16;

/// What a `Range` header asks of content of a known size.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: there is no header, or one that a server may ignore: another unit, malformed, or
    /// ranges with bytes between them, which would need a body of several parts.
    Whole,
    /// These bytes; not empty, and within the content.
    Part(Range<u64>),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads a `Range` header for content of `size` bytes. Ranges of a list that overlap or touch are
/// served as the one they make (RFC 9110 section 15.3.7.2).
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((unit, set)) = header.and_then(|header| header.split_once('=')) else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.split(',').count() > RANGES_LIMIT {
        return Wanted::Whole;
    }
    let mut parts = Vec::new();
    for spec in set.split(',') {
        match one(spec.trim(), size) {
            Some(One::Part(range)) => parts.push(range),
            Some(One::Beyond) => {}
            // Backwards is invalid, and an invalid set may be refused (RFC 9110 section 14.2).
            Some(One::Backwards) => return Wanted::Unsatisfiable,
            None => return Wanted::Whole,
        }
    }
    parts.sort_unstable_by_key(|range| range.start);
    let joined = parts.into_iter().try_fold(None::<Range<u64>>, |sum, part| match sum {
        None => Some(Some(part)),
        Some(sum) if part.start <= sum.end => Some(Some(sum.start..sum.end.max(part.end))),
        Some(_) => None,
    });
    match joined {
        Some(Some(range)) => Wanted::Part(range),
        Some(None) => Wanted::Unsatisfiable,
        None => Wanted::Whole,
    }
}

/// One range of a list.
enum One {
    Part(Range<u64>),
    Beyond,
    Backwards,
}

/// `None` when it does not follow the grammar.
fn one(spec: &str, size: u64) -> Option<One> {
    let (first, last) = spec.split_once('-')?;
    let within = |start: u64, end: u64| if start < end { One::Part(start..end) } else { One::Beyond };
    if first.is_empty() {
        // The last n bytes.
        return Some(within(size.saturating_sub(number(last)?), size));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(within(first, size));
    }
    let last = number(last)?;
    Some(if last < first { One::Backwards } else { within(first, last.saturating_add(1).min(size)) })
}

/// Reads a chunk's `Content-Range`: `first-last` as the specification has it, or `bytes
/// first-last/any` as HTTP has it. `None` when it is neither.
pub(super) fn chunk(header: &str) -> Option<Range<u64>> {
    let header = header.trim();
    let range = match header.strip_prefix("bytes ") {
        Some(rest) => rest.split_once('/').map_or(rest, |(range, _)| range),
        None => header,
    };
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then(|| Some(first..last.checked_add(1)?)).flatten()
}

/// Digits and nothing else: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_is_cut_to_the_content() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-4", Wanted::Part(2..5)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=9-99", Wanted::Part(9..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-10", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::Unsatisfiable),
            ("bytes=0-1,3-2", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=0-1,2-4", Wanted::Part(0..5)),
            ("bytes=5-, 0-3, 2-6", Wanted::Part(0..10)),
            ("bytes=10-11,4-4,20-", Wanted::Part(4..5)),
            ("bytes=10-11,20-", Wanted::Unsatisfiable),
            ("bytes=0-1,,2-3", Wanted::Whole),
            ("bytes=0-1,x", Wanted::Whole),
            ("BYTES=0-1", Wanted::Part(0..2)),
            ("bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("bytes=0-99999999999999999999999", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_chunk_says_where_it_stands() {
        assert_eq!(chunk("0-4"), Some(0..5));
        assert_eq!(chunk("bytes 5-9/*"), Some(5..10));
        assert_eq!(chunk("bytes 5-9/100"), Some(5..10));
        for bad in ["", "-", "5-4", "a-b", "0-", "-4", "+0-4", "0-18446744073709551615", "0-4-5", "bytes */10"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_part_always_lies_within(header in "(bytes=)?[0-9,+-]{0,24}", size: u64) {
            if let Wanted::Part(range) = wanted(Some(&header), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }

        #[test]
        fn a_chunk_never_panics_and_is_never_empty(header in "\\PC{0,40}") {
            if let Some(range) = chunk(&header) {
                prop_assert!(range.start < range.end);
            }
        }

        #[test]
        fn well_formed_ranges_mean_what_they_say(first in 0u64..100, length in 1u64..100, size in 1u64..200) {
            let last = first + length - 1;
            prop_assert_eq!(chunk(&format!("{first}-{last}")), Some(first..first + length));
            let expected = if first < size { Wanted::Part(first..(last + 1).min(size)) } else { Wanted::Unsatisfiable };
            prop_assert_eq!(wanted(Some(&format!("bytes={first}-{last}")), size), expected);
        }

        #[test]
        fn a_list_stands_for_the_bytes_of_its_ranges(list in prop::collection::vec((0u64..20, 0u64..6), 1..6), size in 0u64..20) {
            let header: Vec<_> = list.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let named = |byte: u64| list.iter().any(|(first, more)| (*first..=first + more).contains(&byte));
            let bytes: Vec<u64> = (0..size).filter(|byte| named(*byte)).collect();
            let expected = match (bytes.first(), bytes.last()) {
                (Some(first), Some(last)) if last - first + 1 == bytes.len() as u64 => Wanted::Part(*first..last + 1),
                (Some(_), Some(_)) => Wanted::Whole,
                _ => Wanted::Unsatisfiable,
            };
            prop_assert_eq!(wanted(Some(&format!("bytes={}", header.join(", "))), size), expected);
        }
    }
}
