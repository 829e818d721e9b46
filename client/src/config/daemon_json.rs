//! docker's `daemon.json`, the parts that are about registries: `registry-mirrors` and `insecure-registries`.
//!
//! There is no daemon here; who set one up has said all the same where images come from. Everything else in it is passed
//! over, and so are networks (`10.0.0.0/8`) among insecure registries: a name does not say which one it is in.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::paths::{bad, config_home, etc, read};
use super::registries_toml::parse_url;
use super::rule::{Capabilities, Connection, Mirror, Rule, Scheme, When, is_location};
use super::spelling::one_spelling;
use crate::error::Result;

/// Mirrors, or insecure registries.
const ENTRIES_LIMIT: usize = 1024;

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Document {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// The rules of the user's own daemon, else of the machine's; none if there is no file.
pub(super) fn load() -> Result<Vec<Rule>> {
    let files = [config_home(), Some(etc())].into_iter().flatten().map(|directory| directory.join("docker/daemon.json"));
    files.into_iter().find(|path| path.exists()).map_or_else(|| Ok(Vec::new()), |path| parse(&path, &read(&path)?))
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Rule>> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|e| bad(path, e))?;
    if document.registry_mirrors.len().max(document.insecure_registries.len()) > ENTRIES_LIMIT {
        return Err(bad(path, format_args!("registry-mirrors, insecure-registries: there are more than {ENTRIES_LIMIT}")));
    }
    let mut rules = Vec::new();
    for host in document.insecure_registries {
        // docker takes a URL, too, and means its host.
        let host = host.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
        let is_network = host.contains('/');
        if is_network {
            continue;
        }
        if !is_location(host) {
            return Err(bad(path, format_args!("insecure-registries: {host:?} must read HOST[:PORT]")));
        }
        let connection = Connection { scheme: Some(Scheme::Either), unverified: true, ..Connection::default() };
        rules.push(rule(path, host, connection, Vec::new()));
    }
    let mut mirrors = Vec::new();
    for url in document.registry_mirrors {
        let (scheme, location) = parse_url(&url).ok_or_else(|| {
            bad(path, format_args!("registry-mirrors: {url:?} must read http://HOST[:PORT] or https://HOST[:PORT]"))
        })?;
        // Over TLS without a look at the certificate, where the host is called insecure.
        let host = one_spelling(&location);
        let insecure = rules.iter().find(|rule| rule.prefix == host).map(|rule| rule.connection.clone()).unwrap_or_default();
        let connection =
            Connection { scheme: Some(scheme), unverified: insecure.unverified && scheme == Scheme::Https, ..insecure };
        let may = Capabilities { pull: true, resolve: true, push: false };
        mirrors.push(Mirror { location, connection, may, when: When::All });
    }
    if !mirrors.is_empty() {
        rules.push(rule(path, "docker.io", Connection::default(), mirrors));
    }
    Ok(rules)
}

fn rule(path: &Path, prefix: &str, connection: Connection, mirrors: Vec<Mirror>) -> Rule {
    Rule { prefix: one_spelling(prefix), location: None, connection, mirrors, blocked: false, path: PathBuf::from(path) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mirrors_are_docker_hubs_and_insecure_hosts_may_speak_plain_http() {
        let json = br#"{"storage-driver":"overlay2","registry-mirrors":["https://m.example/","http://10.0.0.1:5000"],
            "insecure-registries":["m.example","http://r.example:5000","10.0.0.0/8"]}"#;
        let rules = parse(Path::new("/d"), json).unwrap();
        let prefixes: Vec<_> = rules.iter().map(|rule| rule.prefix.as_str()).collect();
        assert_eq!(prefixes, ["m.example", "r.example:5000", "docker.io"]);
        assert!(rules[1].connection.scheme == Some(Scheme::Either) && rules[1].connection.unverified);
        let mirrors: Vec<_> = rules[2]
            .mirrors
            .iter()
            .map(|mirror| (&*mirror.location, mirror.connection.scheme, mirror.connection.unverified))
            .collect();
        assert_eq!(mirrors, [("m.example", Some(Scheme::Https), true), ("10.0.0.1:5000", Some(Scheme::Http), false)]);
        assert!(parse(Path::new("/d"), b" ").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        for (json, key) in [
            (r#"{"registry-mirrors":["m.example"]}"#, "registry-mirrors"),
            (r#"{"insecure-registries":["a b"]}"#, "insecure-registries"),
            (r#"{"registry-mirrors":"https://m.example"}"#, "invalid type"),
        ] {
            let said = parse(Path::new("/d.json"), json.as_bytes()).err().unwrap().to_string();
            assert!(said.starts_with("/d.json: ") && said.contains(key), "{said}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}", entry in "[a-z0-9:/. é-]{0,30}") {
            let json = serde_json::json!({ "registry-mirrors": [&entry], "insecure-registries": [&entry] }).to_string();
            let _ = (parse(Path::new("/d"), text.as_bytes()), parse(Path::new("/d"), json.as_bytes()));
        }
    }
}
