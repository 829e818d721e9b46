//! What a template can call: Go's functions, and docker's.

use std::cmp::Ordering;

use serde_json::Value as Json;

use super::evaluate::{METHOD, Value};
use super::{OUTPUT_LIMIT_BYTES, STEPS_LIMIT, print};
use crate::json;

macro_rules! functions {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A function, known by its name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function { $($variant),* }

        impl Function {
            pub(super) fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

functions! {
    And "and", Or "or", Not "not",
    Eq "eq", Ne "ne", Lt "lt", Le "le", Gt "gt", Ge "ge",
    Len "len", Index "index", Slice "slice",
    Print "print", Println "println", Printf "printf",
    Html "html", Urlquery "urlquery",
    ToJson "json", Split "split", Join "join",
    Lower "lower", Upper "upper", Title "title", Pad "pad", Truncate "truncate",
}

impl Function {
    /// Whether an argument is the result, whatever follows.
    pub(super) fn is_decided_by(self, truth: bool) -> bool {
        matches!((self, truth), (Self::And, false) | (Self::Or, true))
    }
}

/// Calls a function. `headings`: what changes the looks of a text leaves it as it is.
pub(super) fn call<'a>(function: Function, mut arguments: Vec<Value<'a>>, headings: bool) -> Result<Value<'a>, String> {
    use Function as F;
    let looks = matches!(function, F::ToJson | F::Split | F::Join | F::Lower | F::Upper | F::Title | F::Truncate | F::Pad);
    if headings && looks && !arguments.is_empty() {
        let text = arguments.iter().position(|argument| argument.json().is_string()).unwrap_or_default();
        return Ok(arguments.swap_remove(text));
    }
    if matches!(function, F::And | F::Or) {
        return arguments.pop().ok_or_else(|| "it wants an argument".into());
    }
    if function == F::Not {
        let [argument] = arguments.as_slice() else { return Err(count(1, arguments.len())) };
        return Ok(Value::owned((!argument.is_true()).into()));
    }
    let given: Vec<&Json> = arguments.iter().map(Value::json).collect();
    let result = match function {
        F::Eq => equal(&given)?.into(),
        F::Ne => (!equal(exactly::<2>(&given)?)?).into(),
        F::Lt => less(exactly(&given)?)?.is_lt().into(),
        F::Le => less(exactly(&given)?)?.is_le().into(),
        F::Gt => less(exactly(&given)?)?.is_gt().into(),
        F::Ge => less(exactly(&given)?)?.is_ge().into(),
        F::Len => length(exactly::<1>(&given)?[0])?.into(),
        F::Index => index(&given)?,
        F::Slice => slice(&given)?,
        F::Print => print::print(&given).into(),
        F::Println => print::println(&given).into(),
        F::Printf => {
            let (format, rest) = given.split_first().ok_or("it wants a format")?;
            print::printf(text(format)?, rest)?.into()
        }
        F::Html => escape_html(&one_text(&given)).into(),
        F::Urlquery => escape_query(&one_text(&given)).into(),
        F::ToJson => to_json(exactly::<1>(&given)?[0]).into(),
        F::Split => {
            let [whole, separator] = exactly(&given)?;
            split(text(whole)?, text(separator)?)?.into()
        }
        F::Join => join(exactly(&given)?)?.into(),
        F::Lower => text(exactly::<1>(&given)?[0])?.to_lowercase().into(),
        F::Upper => text(exactly::<1>(&given)?[0])?.to_uppercase().into(),
        F::Title => title(text(exactly::<1>(&given)?[0])?).into(),
        F::Pad => pad(exactly(&given)?)?.into(),
        F::Truncate => {
            let [whole, length] = exactly(&given)?;
            truncate(text(whole)?, number(length)?).into()
        }
        F::And | F::Or | F::Not => unreachable!("they are done"),
    };
    match &result {
        Json::String(text) if text.len() > OUTPUT_LIMIT_BYTES => Err(format!("it makes more than {OUTPUT_LIMIT_BYTES} bytes")),
        _ => Ok(Value::owned(result)),
    }
}

fn count(wanted: usize, given: usize) -> String {
    format!("it wants {wanted} arguments and was given {given}")
}

fn exactly<'g, 'j, const N: usize>(given: &'g [&'j Json]) -> Result<&'g [&'j Json; N], String> {
    given.try_into().map_err(|_| count(N, given.len()))
}

fn text(value: &Json) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("it wants a string and was given {}", print::type_name(value)))
}

/// A length or a position.
fn number(value: &Json) -> Result<usize, String> {
    let number = value.as_i64().ok_or_else(|| format!("it wants a number and was given {}", print::type_name(value)))?;
    usize::try_from(number).map_err(|_| format!("{number} is out of range"))
}

/// Whether the first is one of the others.
fn equal(given: &[&Json]) -> Result<bool, String> {
    let Some((first, others)) = given.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("it wants two arguments".into());
    };
    for other in others {
        let same = match (first, other) {
            (Json::Null, other) | (other, Json::Null) => other.is_null(),
            (Json::Array(_) | Json::Object(_), _) | (_, Json::Array(_) | Json::Object(_)) => {
                return Err(format!("{} cannot be compared", print::type_name(first)));
            }
            (Json::Number(a), Json::Number(b)) if a.is_f64() != b.is_f64() => return Err(incompatible(first, other)),
            (a, b) if std::mem::discriminant(*a) != std::mem::discriminant(*b) => return Err(incompatible(first, other)),
            (a, b) => a == b,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn incompatible(a: &Json, b: &Json) -> String {
    format!("{} and {} cannot be compared", print::type_name(a), print::type_name(b))
}

fn less([a, b]: &[&Json; 2]) -> Result<Ordering, String> {
    let order = match (a, b) {
        (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
        (Json::Number(x), Json::Number(y)) if x.is_f64() && y.is_f64() => {
            x.as_f64().zip(y.as_f64()).and_then(|(x, y)| x.partial_cmp(&y))
        }
        (Json::Number(x), Json::Number(y)) if !x.is_f64() && !y.is_f64() => print::integer(x).partial_cmp(&print::integer(y)),
        _ => None,
    };
    order.ok_or_else(|| incompatible(a, b))
}

fn length(value: &Json) -> Result<usize, String> {
    match value {
        Json::String(text) => Ok(text.len()),
        Json::Array(list) => Ok(list.len()),
        Json::Object(map) => Ok(map.len()),
        other => Err(format!("{} has no length", print::type_name(other))),
    }
}

/// `index .Ports "80/tcp" 0`
fn index(given: &[&Json]) -> Result<Json, String> {
    let (&whole, keys) = given.split_first().ok_or("it wants an argument")?;
    let mut value = whole.clone();
    for &key in keys {
        value = match (value, key) {
            (Json::Object(mut map), Json::String(key)) => match map.remove(key) {
                Some(value) => value,
                // With docker the value of a map of texts is one.
                None if map.values().all(Json::is_string) => Json::String(String::new()),
                None => Json::Null,
            },
            // A map of docker's that is not there has nothing in it.
            (Json::Null, Json::String(_)) => Json::String(String::new()),
            (Json::Array(mut list), key @ Json::Number(_)) => match number(key)? {
                at if at < list.len() => list.swap_remove(at),
                at => return Err(format!("{at} is out of range: there are {}", list.len())),
            },
            (Json::String(text), key @ Json::Number(_)) => match text.as_bytes().get(number(key)?) {
                Some(byte) => (*byte).into(),
                None => return Err(format!("{} is out of range", print::plain(key))),
            },
            (value, key) => {
                return Err(format!("{} has no index of type {}", print::type_name(&value), print::type_name(key)));
            }
        };
    }
    Ok(value)
}

fn slice(given: &[&Json]) -> Result<Json, String> {
    let (&whole, bounds) = given.split_first().ok_or("it wants an argument")?;
    let bounds: Vec<usize> = bounds.iter().map(|bound| number(bound)).collect::<Result<_, _>>()?;
    let length = length(whole)?;
    let (from, to) = match bounds.as_slice() {
        [] => (0, length),
        [from] => (*from, length),
        [from, to] => (*from, *to),
        [from, to, _] if whole.is_array() => (*from, *to),
        _ => return Err("it has too many bounds".into()),
    };
    let invalid = || format!("from {from} to {to} is out of range: it is {length} long");
    match whole {
        Json::Array(list) => list.get(from..to).map(|part| part.to_vec().into()).ok_or_else(invalid),
        Json::String(text) => text.get(from..to).map(Json::from).ok_or_else(invalid),
        other => Err(format!("{} has no parts", print::type_name(other))),
    }
}

/// What `html` and `urlquery` are given, as one text.
fn one_text(given: &[&Json]) -> String {
    let shown: Vec<Json> = given.iter().map(|&one| if one.is_null() { print::action(one).into() } else { one.clone() }).collect();
    print::print(&shown.iter().collect::<Vec<_>>())
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A document as docker prints it: without what is a method there.
pub(crate) fn to_json(value: &Json) -> String {
    match value {
        Json::Object(map) if map.get(METHOD).is_some_and(Json::is_object) => {
            let fields = map.iter().filter(|(name, _)| *name != METHOD);
            json::compact(&Json::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect()))
        }
        other => json::compact(other),
    }
}

fn split(whole: &str, separator: &str) -> Result<Vec<String>, String> {
    let parts: Vec<String> = match separator {
        // Each character.
        "" => whole.chars().take(STEPS_LIMIT + 1).map(String::from).collect(),
        _ => whole.split(separator).take(STEPS_LIMIT + 1).map(str::to_owned).collect(),
    };
    if parts.len() > STEPS_LIMIT { Err(format!("there are more than {STEPS_LIMIT} parts")) } else { Ok(parts) }
}

fn join([list, separator]: &[&Json; 2]) -> Result<String, String> {
    let separator = text(separator)?;
    match list {
        Json::Null => Ok(String::new()),
        Json::Array(list) => Ok(list.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(separator)),
        other => Err(format!("it wants a list of strings and was given {}", print::type_name(other))),
    }
}

/// The first letter of each word as a capital.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let separates = if before.is_ascii() { !before.is_ascii_alphanumeric() && before != '_' } else { before.is_whitespace() };
        if separates {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

fn pad([whole, before, behind]: &[&Json; 3]) -> Result<String, String> {
    let (whole, before, behind) = (text(whole)?, number(before)?, number(behind)?);
    if before.max(behind) > OUTPUT_LIMIT_BYTES {
        return Err(format!("more than {OUTPUT_LIMIT_BYTES} spaces"));
    }
    Ok(if whole.is_empty() { String::new() } else { format!("{}{whole}{}", " ".repeat(before), " ".repeat(behind)) })
}

/// So many bytes, or as many fewer as make whole characters.
fn truncate(whole: &str, length: usize) -> &str {
    &whole[..whole.floor_char_boundary(length)]
}
