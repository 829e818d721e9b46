//! One spelling of each host for what rules are about: `R.example:443` is `r.example`, whoever writes it.
//!
//! The image keeps the name that it was given. A host that is spelt otherwise must not get around a rule.

use longshore_runtime::name::{DEFAULT_REGISTRY, Reference};
use reqwest::Url;

use super::{Endpoint, is_loopback};

/// The full name of an image, as rules are about it.
pub(super) fn full_name(image: &Reference) -> String {
    one_spelling(&image.to_string())
}

/// `HOST[:PORT][/...]` or `*.DOMAIN`, with the host in its one spelling.
pub(crate) fn one_spelling(name: &str) -> String {
    let (host, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    format!("{}{rest}", host_spelling(host))
}

fn host_spelling(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    // This machine is spoken to in the clear or not: which port is the usual one is not certain.
    if is_loopback(&host) {
        return host;
    }
    let host = match Url::parse(&format!("https://{host}")) {
        Ok(url) if !host.starts_with('*') => Endpoint::of(&url).host,
        _ => host,
    };
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.into(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_spelling_and_what_may_be_another_stays() {
        for (name, expected) in [
            ("R.Example", "r.example"),
            ("r.example:443/Team/app:1", "r.example/Team/app:1"),
            ("r.example:80/app", "r.example:80/app"),
            ("R.example:5000/app", "r.example:5000/app"),
            ("Registry-1.docker.io:443/library/a:1", "docker.io/library/a:1"),
            ("[2001:DB8:0::1]:443/a", "[2001:db8::1]/a"),
            ("10.1/a", "10.0.0.1/a"),
            ("*.Lab.example", "*.lab.example"),
            ("LOCALHOST:443/a", "localhost:443/a"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(one_spelling(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn spelling_never_panics_and_is_its_own(name in "\\PC{0,30}", likely in "[*a-zA-Z0-9.:\\[\\]/@-]{0,30}") {
            for name in [name, likely] {
                let once = one_spelling(&name);
                prop_assert_eq!(one_spelling(&once), once);
            }
        }
    }
}
