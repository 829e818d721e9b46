//! Text for people: untrusted text made harmless, sizes, times, columns.

use std::time::{Duration, SystemTime};

/// `text` without anything a terminal would obey: control characters and bidirectional overrides are
/// shown as escapes.
pub fn printable(text: &str) -> String {
    if is_printable(text) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if is_harmless(c) { vec![c] } else { c.escape_default().collect() }).collect()
}

/// `text`, or as much of it as there is room for and an ellipsis.
pub fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// Whether [`printable`] leaves it as it is.
pub fn is_printable(text: &str) -> bool {
    text.chars().all(is_harmless)
}

/// Whether a terminal shows it and does nothing else.
pub(crate) fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As [`printable`], of several lines: they and their tabs stay.
pub fn printable_lines(text: &str) -> String {
    if text.chars().all(|c| matches!(c, '\n' | '\t') || is_harmless(c)) {
        return text.to_owned();
    }
    text.split_inclusive(['\n', '\t'])
        .map(|part| match part.strip_suffix(['\n', '\t']) {
            Some(line) => printable(line) + &part[line.len()..],
            None => printable(part),
        })
        .collect()
}

/// A size as docker prints it: decimal units, three significant digits, no trailing zeros.
pub fn size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes, 1000.0, 999.5, ["B", "kB", "MB", "GB", "TB", "PB"]);
    let decimals = if unit == "B" || value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{}{unit}", bare(&format!("{value:.decimals$}")))
}

/// A number without zeros at the end of its fraction.
fn bare(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// A size of memory as docker prints it: binary units, four significant digits, no trailing zeros.
pub fn binary_size(bytes: u64) -> String {
    let (value, unit) = scaled(bytes, 1024.0, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
    let decimals = [1000.0, 100.0, 10.0].iter().position(|limit| value >= *limit).unwrap_or(3);
    format!("{}{unit}", bare(&format!("{value:.decimals$}")))
}

/// Divides by `step` until it is below `limit`, or there is no larger unit.
fn scaled(bytes: u64, step: f64, limit: f64, units: [&'static str; 6]) -> (f64, &'static str) {
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= limit && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    (value, units[unit])
}

/// How long ago an RFC 3339 time was, as docker prints it; `N/A` for what is no time.
pub fn age(created: Option<&str>) -> String {
    let Some(then) = created.and_then(parse_rfc3339) else { return "N/A".into() };
    let Ok(elapsed) = SystemTime::now().duration_since(then) else { return "Less than a second ago".into() };
    format!("{} ago", rough(elapsed))
}

/// How long it is since an RFC 3339 time, as docker prints it.
pub fn since(time: &str) -> String {
    let elapsed = parse_rfc3339(time).and_then(|then| SystemTime::now().duration_since(then).ok());
    rough(elapsed.unwrap_or_default())
}

/// An RFC 3339 time of UTC as docker's tables have it: `2024-05-06 07:08:09 +0000 UTC`. What is no time stays as it is.
pub fn date(time: &str) -> String {
    match (parse_rfc3339(time), time.get(..10), time.get(11..19)) {
        (Some(_), Some(day), Some(clock)) if time.ends_with(['Z', 'z']) => format!("{day} {clock} +0000 UTC"),
        _ => time.to_owned(),
    }
}

/// By the bounds of docker's own `HumanDuration`.
fn rough(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    // Half an hour more makes it the next one.
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A time that is given, as docker reads it: without a zone in this machine's, with or without seconds, minutes or hours.
pub(crate) fn parse_local(text: &str) -> Option<SystemTime> {
    let (day, rest) = text.split_at_checked(10)?;
    let (clock, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    let clock = match clock.len() {
        0 => "T00:00:00".to_owned(),
        3 => format!("{clock}:00:00"),
        6 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    parse_rfc3339(&if zone.is_empty() { format!("{day}{clock}{}", local_zone()) } else { format!("{day}{clock}{zone}") })
}

/// How far the clocks of this machine are from UTC now, `+02:00`.
fn local_zone() -> String {
    let offset_s = longshore_runtime::clock::local_offset_s();
    let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Reads `2024-05-06T07:08:09[.fraction](Z|+hh:mm)`.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    // A sign would be read as part of a number.
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |range: std::ops::Range<usize>| text.get(range).filter(digits)?.parse::<i64>().ok();
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !text.is_ascii() || !punctuation.iter().all(|&(at, c)| text.as_bytes().get(at) == Some(&c)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // A leap second is one.
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = rest[..rest.len() - zone.len()].trim_start_matches('.');
    // Further digits tell nothing of nanoseconds.
    let nanoseconds = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    let offset = match (zone, zone.split_at_checked(1)) {
        ("Z" | "z", _) => 0,
        (_, Some((sign @ ("+" | "-"), offset))) => {
            let (hours, minutes) = offset.split_once(':')?;
            let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if sign == "-" { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 in the proleptic Gregorian calendar, years counted from March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86400 + hour * 3600 + minute * 60 + second - offset;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanoseconds))
}

/// The narrowest column, and what is between a cell and the next, as with docker.
const COLUMN_MIN: usize = 10;
const COLUMN_GAP: usize = 3;

/// How many columns are aligned.
const COLUMNS_LIMIT: usize = 200;

/// Lines of cells, which end with tabs but for the last of a line, in columns as Go's `tabwriter` makes them: a column is
/// as wide as the widest of the cells one below the other, and ends with the line that has none there.
pub fn columns(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::new();
    align(&lines, &mut Vec::new(), &mut out);
    out
}

/// Writes lines of which the first cells have these widths.
fn align(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has_cell = |line: &Vec<&str>| column < COLUMNS_LIMIT && line.len() > column + 1;
    let mut at = 0;
    while at < lines.len() {
        let block = lines[at..].iter().take_while(|line| has_cell(line)).count();
        if block == 0 {
            for (index, cell) in lines[at].iter().enumerate() {
                let width = widths.get(index).copied().unwrap_or_default();
                out.push_str(cell);
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
            out.push('\n');
            at += 1;
            continue;
        }
        let cells = lines[at..at + block].iter().map(|line| line[column].chars().count() + COLUMN_GAP);
        let width = cells.max().unwrap_or_default().max(COLUMN_MIN);
        widths.push(width);
        align(&lines[at..at + block], widths, out);
        widths.pop();
        at += block;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}c\r\n"), "a\\u{1b}[31mb\\u{202e}c\\r\\n");
        assert_eq!(printable("größe 日本"), "größe 日本");
        assert_eq!(printable_lines("a\tb\u{1b}[31m\nc\r\n\u{7}"), "a\tb\\u{1b}[31m\nc\\r\n\\u{7}");
    }

    #[test]
    fn columns_are_those_of_gos_tabwriter() {
        let cases = [
            ("REPOSITORY\tTAG\tSIZE\nbox\tlatest\t1B\n", "REPOSITORY   TAG       SIZE\nbox          latest    1B\n"),
            (
                "a\tb\nlonger than ten\té\tc\n\td\te",
                "a                 b\nlonger than ten   é         c\n                  d         e\n",
            ),
            // A line without a cell there ends the column.
            ("longer than ten\tx\nplain\na\tx\n", "longer than ten   x\nplain\na         x\n"),
            ("", ""),
            ("a\t\n", "a         \n"),
        ];
        for (text, expected) in cases {
            assert_eq!(columns(text), expected);
        }
    }

    #[test]
    fn sizes_of_memory_read_as_dockers() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (64 << 20, "64MiB"),
            (1_234_567, "1.177MiB"),
            (16_777_216_000, "15.62GiB"),
            (u64::MAX, "16384PiB"),
        ] {
            assert_eq!(binary_size(bytes), text);
        }
    }

    #[test]
    fn sizes_read_as_dockers() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1500, "1.5kB"),
            (999_999, "1MB"),
            (1240, "1.24kB"),
            (72_800_000, "72.8MB"),
            (622_000_000, "622MB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_read_as_dockers() {
        const HOUR: u64 = 3600;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR + 1799, "47 hours"),
            (47 * HOUR + 1800, "2 days"),
            (14 * 24 * HOUR - 1801, "13 days"),
            (14 * 24 * HOUR, "2 weeks"),
            (60 * 24 * HOUR - 1801, "8 weeks"),
            (60 * 24 * HOUR, "2 months"),
            (730 * 24 * HOUR - 1801, "24 months"),
            (730 * 24 * HOUR, "2 years"),
        ] {
            assert_eq!(rough(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn times_that_are_given_need_neither_a_zone_nor_all_of_the_clock() {
        let at = |text: &str| parse_rfc3339(text).unwrap();
        for (given, utc) in [
            ("2026-01-31Z", "2026-01-31T00:00:00Z"),
            ("2026-01-31T12Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:30+02:00", "2026-01-31T10:30:00Z"),
            ("2026-01-31T12:30:15.5-01:00", "2026-01-31T13:30:15.5Z"),
        ] {
            assert_eq!(parse_local(given), Some(at(utc)), "{given}");
        }
        let zone = local_zone();
        let local = |whole: &str| at(&format!("{whole}{zone}"));
        for (given, whole) in [
            ("2026-01-31", "2026-01-31T00:00:00"),
            ("2026-01-31T12", "2026-01-31T12:00:00"),
            ("2026-01-31T12:30", "2026-01-31T12:30:00"),
            ("2026-01-31T12:30:15.5", "2026-01-31T12:30:15.5"),
        ] {
            assert_eq!(parse_local(given), Some(local(whole)), "{given}");
        }
        for bad in
            ["", "2026-1-31", "2026-13-01", "2026-01-32", "2026-01-31T24:00", "2026-01-31 12:00", "2026-01-31T1", "+026-01-31"]
        {
            assert_eq!(parse_local(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_read_with_fractions_and_zones() {
        let seconds = |text| parse_rfc3339(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00.123456789Z"), Some(951_825_600));
        assert_eq!(seconds("2000-02-29T14:00:00+02:00"), Some(951_825_600));
        let nanoseconds = |text| parse_rfc3339(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos());
        assert_eq!(nanoseconds("2000-02-29T12:00:00.123456789Z"), Some(123_456_789));
        assert_eq!(nanoseconds("2000-02-29T12:00:00.5+02:00"), Some(500_000_000));
        assert_eq!(nanoseconds("2000-02-29T12:00:00.0000000019Z"), Some(1));
        assert_eq!(parse_rfc3339("2000-02-29T12:00:"), None);
        for bad in [
            "",
            "yesterday",
            "2000-02-29",
            "2000-02-29T12:00:00",
            "2000-02-29T12:00:00.1.2Z",
            "2000-02-29T12:00:00é",
            "0000-00-00T00:00:00Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(age(None), "N/A");
    }
}
