//! Percent-encoding and query parameters.

use http::Uri;

use crate::error::{Error, Result};

/// The text that percent-encoding stands for, decoded once; `None` when an escape is broken or the
/// outcome is not UTF-8 or has a NUL.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Text as a query parameter's value.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A query parameter, decoded.
///
/// # Errors
/// [`Error::Parameter`] when it is not readable, or is there more than once: who judges the request
/// and who carries it out must not read two different ones.
pub(super) fn parameter(uri: &Uri, name: &str) -> Result<Option<String>> {
    let mut found = values(uri, name);
    let value = found.next().transpose()?;
    if found.next().is_some() {
        return Err(Error::Parameter(format!("query parameter {name} is there more than once")));
    }
    Ok(value)
}

/// Every value of a query parameter, decoded, in order.
pub(super) fn parameters(uri: &Uri, name: &str) -> Result<Vec<String>> {
    values(uri, name).collect()
}

fn values(uri: &Uri, name: &str) -> impl Iterator<Item = Result<String>> {
    let pairs = uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let values = pairs.filter(move |(key, _)| *key == name);
    values.map(move |(_, value)| percent_decode(value).ok_or_else(|| unreadable(name)))
}

/// A query parameter that is a number of entries. One too large to hold is as good as any large one.
pub(super) fn count(uri: &Uri, name: &str) -> Result<Option<usize>> {
    let Some(text) = parameter(uri, name)? else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Parameter(format!("query parameter {name} must be a number")));
    }
    Ok(Some(text.parse().unwrap_or(usize::MAX)))
}

fn unreadable(name: &str) -> Error {
    Error::Parameter(format!("query parameter {name} is not readable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once() {
        let uri: Uri =
            "/v2/a?x=sha256%3Aab&n=5&m=99999999999999999999999&empty&bad=%4&nul=%00&neg=-1&z=%2541&two=1&two=1".parse().unwrap();
        assert_eq!(parameter(&uri, "x").unwrap().unwrap(), "sha256:ab");
        assert_eq!(parameter(&uri, "z").unwrap().unwrap(), "%41");
        assert_eq!(parameter(&uri, "empty").unwrap().unwrap(), "");
        assert_eq!(parameter(&uri, "absent").unwrap(), None);
        assert!(parameter(&uri, "two").is_err());
        assert!(parameter(&uri, "bad").is_err() && parameter(&uri, "nul").is_err());
        assert_eq!(count(&uri, "n").unwrap(), Some(5));
        assert_eq!(count(&uri, "m").unwrap(), Some(usize::MAX));
        assert!(count(&uri, "neg").is_err() && count(&uri, "empty").is_err());
    }
}
