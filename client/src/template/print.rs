//! Values as Go's `fmt` prints them.

use std::fmt::Write;

use serde_json::{Number, Value as Json};

use super::OUTPUT_LIMIT_BYTES;
use super::evaluate::METHOD;

/// The largest width and precision, as with Go.
const WIDTH_LIMIT: usize = 1_000_000;

/// Go's name for what a document has.
pub(super) fn type_name(value: &Json) -> &'static str {
    match value {
        Json::Null => "nil",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}

/// What an action writes: as `%v`, but for what is not there.
pub(super) fn action(value: &Json) -> String {
    if value.is_null() { "<no value>".into() } else { plain(value) }
}

/// `%v`
pub(super) fn plain(value: &Json) -> String {
    each(value, &|one| match one {
        Json::Null => "<nil>".into(),
        Json::String(text) => text.clone(),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => shortest(float),
            _ => number.to_string(),
        },
        other => other.to_string(),
    })
}

/// Lists as `[a b]`, maps as `map[k:v]` with `one` for what is in them.
fn each(value: &Json, one: &dyn Fn(&Json) -> String) -> String {
    match value {
        Json::Array(list) => format!("[{}]", list.iter().map(|item| each(item, one)).collect::<Vec<_>>().join(" ")),
        Json::Object(map) => {
            let fields = map.iter().filter(|(name, value)| *name != METHOD || !value.is_object());
            let fields = fields.map(|(name, item)| format!("{}:{}", one(&name.as_str().into()), each(item, one)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        other => one(other),
    }
}

/// The fewest digits that are this number, with an exponent for those that are large or small.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let exponent: i32 = text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default();
    if (-4..6).contains(&exponent) { value.to_string() } else { with_exponent(&text) }
}

/// Rust's `1e7` as Go's `1e+07`.
fn with_exponent(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A number without a fraction.
pub(super) fn integer(number: &Number) -> i128 {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).unwrap_or_default()
}

/// With a space between two of which neither is a string.
pub(super) fn print(values: &[&Json]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !value.is_string() && !values[index - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

pub(super) fn println(values: &[&Json]) -> String {
    values.iter().map(|value| plain(value)).collect::<Vec<_>>().join(" ") + "\n"
}

/// What stands between `%` and the letter.
#[derive(Debug, Clone, Copy, Default)]
struct Style {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Writes `values` by a format.
///
/// # Errors
///
/// For widths from the arguments, and for too long a text. What does not fit says so in the text, as with Go.
pub(super) fn printf(format: &str, values: &[&Json]) -> Result<String, String> {
    let mut out = String::new();
    let mut values_left = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (style, bytes) = style(&rest[at + 1..])?;
        rest = &rest[at + 1 + bytes..];
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        match (verb, values_left.as_slice().first()) {
            ('%', _) => out.push('%'),
            (_, None) => write!(out, "%!{verb}(MISSING)").map_err(|e| e.to_string())?,
            (_, Some(value)) => {
                values_left.next();
                out.push_str(&formatted(value, verb, style));
            }
        }
        if out.len() > OUTPUT_LIMIT_BYTES {
            return Err(format!("it makes more than {OUTPUT_LIMIT_BYTES} bytes"));
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = values_left.map(|value| named(value)).collect();
    if !extra.is_empty() {
        write!(out, "%!(EXTRA {})", extra.join(", ")).map_err(|e| e.to_string())?;
    }
    Ok(out)
}

/// `string=x`, as Go says what does not fit.
fn named(value: &Json) -> String {
    if value.is_null() { "<nil>".into() } else { format!("{}={}", type_name(value), plain(value)) }
}

/// Reads flags, width and precision, and says how long they are.
fn style(text: &str) -> Result<(Style, usize), String> {
    let mut style = Style::default();
    let mut at = 0;
    while let Some(flag) = text.as_bytes().get(at) {
        match flag {
            b'-' => style.minus = true,
            b'+' => style.plus = true,
            b'#' => style.sharp = true,
            b' ' => style.space = true,
            b'0' => style.zero = true,
            _ => break,
        }
        at += 1;
    }
    let number = |from: usize| {
        let digits = text[from..].len() - text[from..].trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = if digits == 0 { Ok(0) } else { text[from..from + digits].parse::<usize>() };
        let number = number.ok().filter(|number| *number <= WIDTH_LIMIT);
        number.map(|number| (number, digits)).ok_or_else(|| format!("a width or precision is at most {WIDTH_LIMIT}"))
    };
    let (width, digits) = number(at)?;
    style.width = width;
    at += digits;
    if text[at..].starts_with('.') {
        let (precision, digits) = number(at + 1)?;
        style.precision = Some(precision);
        at += 1 + digits;
    }
    if text[at..].starts_with(['*', '[']) {
        return Err("a width is a number in the format, and arguments are used in their order".into());
    }
    Ok((style, at))
}

/// One value by one verb.
fn formatted(value: &Json, verb: char, style: Style) -> String {
    match (verb, value) {
        ('T', value) => padded(type_name(value).replace("nil", "<nil>"), Style { zero: false, ..style }),
        ('v', Json::Array(_) | Json::Object(_)) if !style.sharp => each(value, &|one| formatted(one, verb, style)),
        ('v', Json::Null) => padded("<nil>".into(), style),
        (_, Json::Null) => format!("%!{verb}(<nil>)"),
        (_, Json::Array(_) | Json::Object(_)) => each(value, &|one| formatted(one, verb, style)),
        (_, Json::Bool(truth)) if matches!(verb, 'v' | 't') => padded(truth.to_string(), Style { zero: false, ..style }),
        (_, Json::String(text)) => string(text, verb, style).unwrap_or_else(|| misfit(value, verb)),
        (_, Json::Number(number)) => match number.as_f64() {
            Some(float) if number.is_f64() => fraction(float, verb, style),
            _ => whole(integer(number), verb, style),
        }
        .unwrap_or_else(|| misfit(value, verb)),
        _ => misfit(value, verb),
    }
}

fn misfit(value: &Json, verb: char) -> String {
    format!("%!{verb}({})", named(value))
}

fn padded(text: String, style: Style) -> String {
    let missing = style.width.saturating_sub(text.chars().count());
    match (style.minus, style.zero) {
        _ if missing == 0 => text,
        (true, _) => text + &" ".repeat(missing),
        (false, true) => "0".repeat(missing) + &text,
        (false, false) => " ".repeat(missing) + &text,
    }
}

fn string(text: &str, verb: char, style: Style) -> Option<String> {
    let cut = |text: &str| style.precision.map_or_else(|| text.to_owned(), |precision| text.chars().take(precision).collect());
    let text = match verb {
        'v' if style.sharp => quoted(text),
        'v' | 's' => cut(text),
        'q' if style.sharp && !text.contains('`') => format!("`{}`", cut(text)),
        'q' => quoted(&cut(text)),
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..style.precision.unwrap_or(usize::MAX).min(text.len())];
            let digits = |byte: &u8| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") };
            let prefix = if style.sharp && !bytes.is_empty() { if verb == 'x' { "0x" } else { "0X" } } else { "" };
            prefix.to_owned() + &bytes.iter().map(digits).collect::<String>()
        }
        _ => return None,
    };
    Some(padded(text, style))
}

/// In quotes, with what is not seen as Go writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() || matches!(c, '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn whole(number: i128, verb: char, style: Style) -> Option<String> {
    let magnitude = number.unsigned_abs();
    let (prefix, digits) = match verb {
        'v' | 'd' => ("", magnitude.to_string()),
        'x' => (if style.sharp { "0x" } else { "" }, format!("{magnitude:x}")),
        'X' => (if style.sharp { "0X" } else { "" }, format!("{magnitude:X}")),
        'o' => (if style.sharp { "0" } else { "" }, format!("{magnitude:o}")),
        'O' => ("0o", format!("{magnitude:o}")),
        'b' => (if style.sharp { "0b" } else { "" }, format!("{magnitude:b}")),
        'c' | 'q' | 'U' => {
            let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            let text = match verb {
                'c' => c.to_string(),
                'q' => quoted(&c.to_string()).replace('\'', "\\'").replace("\\\"", "\"").replacen('"', "'", 1),
                _ => format!("U+{:04X}", u32::from(c)),
            };
            let text = if verb == 'q' { text[..text.len() - 1].to_owned() + "'" } else { text };
            return Some(padded(text, Style { zero: false, ..style }));
        }
        _ => return None,
    };
    let digits = match style.precision {
        Some(0) if number == 0 => String::new(),
        Some(precision) => format!("{digits:0>precision$}"),
        None => digits,
    };
    Some(signed(number < 0, &(prefix.to_owned() + &digits), Style { zero: style.zero && style.precision.is_none(), ..style }))
}

/// With its sign, before which zeros do not stand.
fn signed(negative: bool, digits: &str, style: Style) -> String {
    let sign = match (negative, style.plus, style.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    };
    if style.zero && !style.minus {
        let width = style.width.saturating_sub(sign.len());
        return format!("{sign}{digits:0>width$}");
    }
    padded(format!("{sign}{digits}"), Style { zero: false, ..style })
}

fn fraction(number: f64, verb: char, style: Style) -> Option<String> {
    let magnitude = number.abs();
    let precision = style.precision.unwrap_or(6);
    let digits = match verb {
        'f' | 'F' => format!("{magnitude:.precision$}"),
        'e' => with_exponent(&format!("{magnitude:.precision$e}")),
        'E' => with_exponent(&format!("{magnitude:.precision$e}")).to_uppercase(),
        'v' if style.precision.is_none() => shortest(magnitude),
        'g' if style.precision.is_none() => shortest(magnitude),
        'G' if style.precision.is_none() => shortest(magnitude).to_uppercase(),
        'v' | 'g' => significant(magnitude, precision.max(1)),
        'G' => significant(magnitude, precision.max(1)).to_uppercase(),
        _ => return None,
    };
    Some(signed(number.is_sign_negative(), &digits, style))
}

/// So many digits at most, with an exponent where there are more before the point.
fn significant(number: f64, digits: usize) -> String {
    let scientific = format!("{number:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or_default();
    let bare =
        |text: &str| if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.into() };
    if exponent < -4 || exponent >= i64::try_from(digits).unwrap_or(i64::MAX) {
        return with_exponent(&format!("{}e{exponent}", bare(mantissa)));
    }
    let decimals = usize::try_from(i64::try_from(digits).unwrap_or(i64::MAX) - 1 - exponent).unwrap_or_default();
    bare(&format!("{number:.decimals$}"))
}
