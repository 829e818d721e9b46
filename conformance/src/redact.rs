//! Text as it may be printed: nothing secret in it, nothing a terminal would obey.

/// Parts of the names of parameters and JSON members whose values are secret.
const SECRET_NAMES: [&str; 10] =
    ["token", "secret", "password", "signature", "credential", "state", "jwt", "authorization", "apikey", "api_key"];

/// Names that are secret as a whole.
const SECRET_WHOLE_NAMES: [&str; 3] = ["sig", "key", "auth"];

/// What stands in a secret's place.
pub(crate) const REMOVED: &str = "(removed)";

/// `text` without control characters.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// Whether a header's whole value is secret.
pub(crate) fn is_secret_header(name: &str) -> bool {
    let secret = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-auth-token", "x-registry-auth"];
    secret.iter().any(|s| name.eq_ignore_ascii_case(s))
}

/// `text` with the values of secret query parameters, JSON members and user information in URLs removed.
pub(crate) fn without_secrets(text: &str) -> String {
    without_members(&without_parameters(&without_user_information(text)))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part)) || SECRET_WHOLE_NAMES.contains(&name.as_str())
}

/// `scheme://user:password@host` loses what is before the host.
fn without_user_information(text: &str) -> String {
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| "/?#\"'<> ,".contains(c) || c.is_whitespace()).unwrap_or(part.len());
        let host = part[..end].rfind('@').map_or(0, |at| at + 1);
        shown.push_str("://");
        if host > 0 {
            shown.push_str(REMOVED);
            shown.push('@');
        }
        shown.push_str(&part[host..]);
    }
    shown
}

/// `?name=value` and `&name=value` lose the value when the name is a secret's.
fn without_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['?', '&']) {
        shown.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let name_end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-.%".contains(c))).unwrap_or(rest.len());
        if rest[name_end..].starts_with('=') && is_secret(&rest[..name_end]) {
            let value = &rest[name_end + 1..];
            let value_end = value.find(|c: char| "&#\"'<>;,\\".contains(c) || c.is_whitespace()).unwrap_or(value.len());
            shown.push_str(&rest[..=name_end]);
            shown.push_str(REMOVED);
            rest = &value[value_end..];
        }
    }
    shown.push_str(rest);
    shown
}

/// `"name": "value"` loses the value when the name is a secret's; the text may be cut off anywhere.
fn without_members(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        let (name, after) = quoted(&rest[at + 1..]);
        let value = after.trim_start().strip_prefix(':').map(str::trim_start).and_then(|value| value.strip_prefix('"'));
        match value.filter(|_| is_secret(name)) {
            Some(value) => {
                shown.push_str(&rest[..rest.len() - value.len()]);
                shown.push_str(REMOVED);
                let (_, after) = quoted(value);
                if !after.is_empty() || value.ends_with('"') {
                    shown.push('"');
                }
                rest = after;
            }
            None => {
                let end = rest.len() - after.len();
                shown.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    shown.push_str(rest);
    shown
}

/// What stands before the closing quote, and what after it.
fn quoted(text: &str) -> (&str, &str) {
    let mut escape = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escape => return (&text[..at], &text[at + 1..]),
            '\\' => escape = !escape,
            _ => escape = false,
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_wherever_they_stand() {
        for (text, shown) in [
            ("/v2/a/blobs/uploads/1?_state=hunter2&digest=sha256:0", "/v2/a/blobs/uploads/1?_state=(removed)&digest=sha256:0"),
            ("https://s3/x?X-Amz-Signature=hunter2", "https://s3/x?X-Amz-Signature=(removed)"),
            ("<https://u:hunter2@host/x>; rel=next", "<https://(removed)@host/x>; rel=next"),
            (r#"{"token":"hunter2","expires_in":300}"#, r#"{"token":"(removed)","expires_in":300}"#),
            (r#"{ "access_token" : "hunter\"hunter2" , "a":"b"}"#, r#"{ "access_token" : "(removed)" , "a":"b"}"#),
            (r#"{"refresh_token":"hunter2 and no en"#, r#"{"refresh_token":"(removed)"#),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "/v2/a/tags/list?n=2&last=v1",
            "/v2/a/blobs/uploads/?mount=sha256:0&from=b",
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
            r#"Bearer realm="http://127.0.0.1:5000/v2/token",service="x""#,
            "a \" alone",
            "",
        ] {
            assert_eq!(without_secrets(text), text);
        }
    }
}
