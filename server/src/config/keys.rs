//! Every key of the configuration and what it may be.

use std::net::SocketAddr;

use toml::Value;

/// A key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// From the top: `limits.manifest_bytes`.
    pub path: &'static str,
    /// What its value may be.
    pub kind: Kind,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IP address and a port.
    Address,
    /// True or false.
    Switch,
    /// A file or directory. One in the file is relative to the file's directory.
    Path,
    /// An `http` or `https` URL.
    Url,
    /// A whole number of these bounds, inclusive.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// `[[access.rules]]`: in the file only.
    Rules,
}

const DAY_S: u64 = 24 * 3600;

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// Every key there is.
pub const KEYS: &[Key] = &[
    key("listen", Kind::Address),
    key("insecure", Kind::Switch),
    key("data", Kind::Path),
    key("tls.certificate", Kind::Path),
    key("tls.key", Kind::Path),
    key("access.htpasswd", Kind::Path),
    key("access.token_lifetime_s", Kind::Number(1, DAY_S)),
    key("access.public_url", Kind::Url),
    key("access.rules", Kind::Rules),
    key("limits.manifest_bytes", Kind::Number(1, 64 << 20)),
    key("limits.manifest_descriptors", Kind::Number(1, 100_000)),
    key("limits.uploads", Kind::Number(1, 1_000_000)),
    key("limits.chunk_min_bytes", Kind::Number(0, 1 << 30)),
    key("limits.upload_expiry_s", Kind::Number(1, 3650 * DAY_S)),
    key("limits.connections", Kind::Number(1, 1_000_000)),
    key("limits.requests", Kind::Number(1, 1_000_000)),
    key("limits.streams", Kind::Number(1, 10_000)),
    key("limits.header_timeout_s", Kind::Number(1, 3600)),
    key("limits.idle_timeout_s", Kind::Number(1, DAY_S)),
    key("limits.page_entries", Kind::Number(1, 10_000)),
    key("limits.catalog_entries", Kind::Number(1, 10_000)),
    key("limits.sparse_manifests", Kind::Switch),
    key("limits.journal_rewrite_bytes", Kind::Number(1, 1 << 40)),
    key("gc.interval_s", Kind::Number(1, 365 * DAY_S)),
    key("gc.grace_s", Kind::Number(1, 365 * DAY_S)),
    key("gc.untagged_after_s", Kind::Number(1, 3650 * DAY_S)),
    key("log.level", Kind::Word(&["error", "warn", "info", "debug"])),
    key("log.format", Kind::Word(&["text", "json"])),
];

impl Key {
    /// The variable that overrides it, `RHUB_LIMITS_MANIFEST_BYTES`; none for what is no single value.
    pub fn variable(&self) -> Option<String> {
        (self.kind != Kind::Rules).then(|| format!("RHUB_{}", self.path.replace('.', "_").to_uppercase()))
    }
}

impl Kind {
    /// The value a text from the environment or a flag stands for. [`Self::refuses`] judges it.
    pub(super) fn read(self, text: &str) -> Value {
        let parsed = match self {
            Self::Switch => text.parse().ok().map(Value::Boolean),
            Self::Number(..) => text.parse().ok().map(Value::Integer),
            _ => None,
        };
        parsed.unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// What was expected, if `value` is not that.
    pub(super) fn refuses(self, value: &Value) -> Option<String> {
        let fits = match (self, value) {
            (Self::Address, Value::String(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::Switch, Value::Boolean(_)) | (Self::Rules, Value::Array(_)) => true,
            (Self::Path, Value::String(text)) => !text.is_empty() && !text.contains('\0'),
            (Self::Url, Value::String(text)) => is_url(text),
            (Self::Number(least, most), Value::Integer(number)) => {
                u64::try_from(*number).is_ok_and(|n| (least..=most).contains(&n))
            }
            (Self::Word(words), Value::String(text)) => words.contains(&text.as_str()),
            _ => false,
        };
        (!fits).then(|| self.expected())
    }

    fn expected(self) -> String {
        match self {
            Self::Address => "an IP address and a port, \"127.0.0.1:5000\" or \"[::1]:5000\"".into(),
            Self::Switch => "true or false".into(),
            Self::Path => "a path".into(),
            Self::Url => "a URL, \"https://registry.example\", without a path".into(),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Word(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Rules => "tables [[access.rules]]".into(),
        }
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.strip_suffix('/').unwrap_or(rest).parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| !authority.as_str().contains('@'))
}

/// The known key that `path` was most likely meant to be.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |known: &str| {
        // Right name, wrong table: as near as a slip of the finger.
        if last(known) == last(path) { 1 } else { strsim::damerau_levenshtein(known, path) }
    };
    let (distance, key) = KEYS.iter().map(|key| (distance(key.path), key.path)).min()?;
    (distance <= 2.max(path.len() / 4)).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Config, Gc, Tls, access};
    use super::*;

    /// The dotted paths of all values in a table.
    fn leaves(prefix: &str, table: &toml::Table, paths: &mut BTreeSet<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) => leaves(&path, inner, paths),
                _ => drop(paths.insert(path)),
            }
        }
    }

    #[test]
    fn the_keys_are_those_of_the_struct() {
        let whole = Config {
            tls: Some(Tls { certificate: "c".into(), key: "k".into() }),
            access: Some(access::Settings {
                htpasswd: Some("h".into()),
                public_url: Some("u".into()),
                ..access::Settings::default()
            }),
            gc: Gc { untagged_after_s: Some(1), ..Gc::default() },
            ..Config::default()
        };
        let mut paths = BTreeSet::new();
        leaves("", &toml::Table::try_from(whole).unwrap(), &mut paths);
        assert_eq!(paths, KEYS.iter().map(|key| key.path.to_owned()).collect());
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let variables: BTreeSet<_> = KEYS.iter().filter_map(Key::variable).collect();
        assert_eq!(variables.len(), KEYS.len() - 1);
        assert!(variables.contains("RHUB_LIMITS_MANIFEST_BYTES") && variables.contains("RHUB_LISTEN"));
    }

    #[test]
    fn every_default_is_allowed() {
        let defaults = toml::Table::try_from(Config { data: "d".into(), ..Config::default() }).unwrap();
        for key in KEYS {
            let value = key.path.split('.').try_fold(&Value::Table(defaults.clone()), |value, name| value.get(name)).cloned();
            assert_eq!(value.and_then(|value| key.kind.refuses(&value)), None, "{}", key.path);
        }
    }

    #[test]
    fn slips_are_recognised_and_nonsense_is_not() {
        assert_eq!(nearest("limits.manifest_byte"), Some("limits.manifest_bytes"));
        assert_eq!(nearest("limit.uploads"), Some("limits.uploads"));
        assert_eq!(nearest("htpasswd"), Some("access.htpasswd"));
        assert_eq!(nearest("lisen"), Some("listen"));
        assert_eq!(nearest("colour"), None);
    }

    #[test]
    fn bounds_and_forms_are_checked() {
        let refuses = |kind: Kind, text: &str| kind.refuses(&kind.read(text)).is_some();
        for (kind, good, bad) in [
            (Kind::Number(1, 10), &["1", "10"][..], &["0", "11", "-1", "1.5", "x", "", "99999999999999999999"][..]),
            (Kind::Switch, &["true", "false"], &["yes", "1", ""]),
            (Kind::Address, &["127.0.0.1:0", "[::1]:5000"], &["localhost:5000", "127.0.0.1", ":5000"]),
            (Kind::Url, &["https://a", "http://a:5000/"], &["a", "https://", "https://u@a", "https://a/b", "ftp://a"]),
            (Kind::Word(&["text", "json"]), &["text"], &["Text", ""]),
        ] {
            good.iter().for_each(|text| assert!(!refuses(kind, text), "{kind:?} {text}"));
            bad.iter().for_each(|text| assert!(refuses(kind, text), "{kind:?} {text}"));
        }
    }
}
