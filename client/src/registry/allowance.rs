//! How many requests a registry grants, as the headers of its answers say.

use std::fmt;

/// How many pulls a registry grants, as its headers say; what they do not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Pulls in a window of time.
    pub limit: Option<u64>,
    /// Those that are left.
    pub remaining: Option<u64>,
    /// The window in seconds.
    pub window_s: Option<u64>,
    /// Seconds until it begins anew.
    pub reset_s: Option<u64>,
    /// For whom it counts: an address or an account.
    pub source: Option<String>,
}

impl Allowance {
    /// Reads `RateLimit-Limit: 100;w=21600` and its like: Docker Hub's headers, the IETF draft's of either form, and
    /// with `X-` those of others.
    pub(super) fn of(header: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| header(name).or_else(|| header(&format!("x-{name}")));
        let first = |text: &str| text.split([';', ',']).next().and_then(|number| number.trim().parse().ok());
        let parameter = |text: &str, name: &str| {
            let mut parts = text.split([';', ',']).map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.trim().parse().ok())
        };
        let number = |name: &str| either(name).and_then(|text| first(&text));
        let window = |name: &str| either(name).and_then(|text| parameter(&text, "w="));
        let structured = |name: &str| header("ratelimit").and_then(|text| parameter(&text, name));
        let policy = |name: &str| header("ratelimit-policy").and_then(|text| parameter(&text, name));
        Self {
            limit: number("ratelimit-limit").or_else(|| policy("q=")),
            remaining: number("ratelimit-remaining").or_else(|| structured("r=")),
            window_s: window("ratelimit-limit").or_else(|| window("ratelimit-remaining")).or_else(|| policy("w=")),
            reset_s: number("ratelimit-reset").or_else(|| structured("t=")),
            source: header("docker-ratelimit-source"),
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.remaining, self.limit) {
            (Some(left), Some(limit)) => write!(f, "{left} of {limit} requests left")?,
            (Some(left), None) => write!(f, "{left} requests left")?,
            (None, Some(limit)) => write!(f, "{limit} requests granted")?,
            (None, None) => return Ok(()),
        }
        match (self.window_s, self.reset_s) {
            (_, Some(seconds)) => write!(f, ", anew in {seconds} seconds"),
            (Some(seconds), None) => write!(f, " of those in {seconds} seconds"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[(&str, &str)]) -> Allowance {
        let headers: HashMap<String, String> = headers.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        Allowance::of(|name| headers.get(name).cloned())
    }

    #[test]
    fn allowances_are_read_in_each_of_the_forms_registries_use() {
        let hub = read(&[
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "76;w=21600"),
            ("docker-ratelimit-source", "192.0.2.1"),
        ]);
        let expected = Allowance { limit: Some(100), remaining: Some(76), window_s: Some(21600), ..Allowance::default() };
        assert_eq!(hub.to_string(), "76 of 100 requests left of those in 21600 seconds");
        assert_eq!(hub, Allowance { source: Some("192.0.2.1".into()), ..expected.clone() });
        let old = [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "60")];
        let expected_old = Allowance { limit: Some(5000), remaining: Some(0), reset_s: Some(60), ..Allowance::default() };
        assert_eq!(read(&old), expected_old);
        assert_eq!(expected_old.to_string(), "0 of 5000 requests left, anew in 60 seconds");
        assert_eq!(Allowance::default().to_string(), "");
        let new = [("ratelimit-policy", "\"a\";q=100;w=21600"), ("ratelimit", "\"a\";r=76;t=30")];
        assert_eq!(read(&new), Allowance { reset_s: Some(30), ..expected });
        assert_eq!(read(&[("ratelimit-limit", "many")]), Allowance::default());
    }

    proptest! {
        #[test]
        fn reading_an_allowance_never_panics(text in "\\PC{0,40}", likely in "[0-9;=, wqrt\"]{0,20}") {
            for value in [text.as_str(), likely.as_str()] {
                read(&[("ratelimit-limit", value), ("ratelimit", value), ("ratelimit-policy", value)]);
            }
        }
    }
}
