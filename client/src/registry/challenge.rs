//! What a registry demands: `WWW-Authenticate` challenges (RFC 9110 section 11.6.1; docker's token specification).

use std::collections::HashMap;

/// A parsed challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The one to answer: a token rather than a password.
    pub(super) fn choose(challenges: &[String]) -> Option<Self> {
        let mut parsed: Vec<Self> = challenges.iter().filter_map(|text| parse_challenge(text)).collect();
        let bearer = parsed.iter().position(|challenge| matches!(challenge, Self::Bearer { .. }));
        (!parsed.is_empty()).then(|| parsed.swap_remove(bearer.unwrap_or(0)))
    }
}

/// Reads `Bearer realm="...",service="...",scope="..."` or `Basic ...` (RFC 9110 section 11.6.1).
fn parse_challenge(text: &str) -> Option<Challenge> {
    let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut values = HashMap::new();
    let mut rest = parameters.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        values.insert(name.trim().to_ascii_lowercase(), value);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge::Bearer { realm: values.remove("realm")?, service: values.remove("service"), scope: values.remove("scope") })
}

/// The text up to the closing quote, escapes undone, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_with_quotes_commas_and_escapes() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) })
        };
        let scope = r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#;
        assert_eq!(parse_challenge(scope), bearer("https://a/t", Some("s"), Some("repository:a/b:pull,push")));
        assert_eq!(parse_challenge(r#"bearer service=x , realm="a\"b""#), bearer("a\"b", Some("x"), None));
        assert_eq!(parse_challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Bearer"), None);
        assert_eq!(parse_challenge("Negotiate abc"), None);
        assert_eq!(parse_challenge("Bearer realm=\"open"), None);
    }

    proptest! {
        #[test]
        fn parsing_a_challenge_never_panics(text in "\\PC{0,60}", tail in "[ =\",\\\\a-z]{0,30}") {
            let _ = parse_challenge(&text);
            let _ = parse_challenge(&format!("Bearer {tail}"));
        }
    }
}
