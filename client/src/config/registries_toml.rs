//! `registries.toml`: this project's own file of where images really are.
//!
//! ```toml
//! # Ask this host instead of Docker Hub.
//! ["docker.io"]
//! use = "http://127.0.0.1:5000"
//!
//! # Pull from the first of these that has it, else from the registry itself.
//! ["quay.io"]
//! mirrors = ["https://mirror.example", { url = "https://cache.example/quay", capabilities = ["pull"] }]
//!
//! # A part of a registry that is elsewhere, under a certificate of one's own.
//! ["registry.example/team"]
//! rewrite = "other.example:5000/teams/ours"
//! ca = "own-ca.pem"
//! credentials = { helper = "pass" }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::paths::{bad, read_text};
use super::rule::{Capabilities, Connection, Keeper, Mirror, Rule, Scheme, When, is_location, is_prefix};
use super::spelling::one_spelling;
use crate::error::Result;

/// Mirrors of one registry.
const MIRRORS_LIMIT: usize = 16;

/// What may be set for one prefix.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    r#use: Option<String>,
    rewrite: Option<String>,
    #[serde(default)]
    mirrors: Vec<MirrorEntry>,
    plain_http: Option<bool>,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
    credentials: Option<KeeperEntry>,
    token_server: Option<String>,
}

/// A mirror: its URL, or that and more.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a mirror is a URL, or a table { url, capabilities, ca, client-cert, client-key, \
                               insecure-skip-verify, credentials, token-server }"
)]
enum MirrorEntry {
    Url(String),
    Table(MirrorTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct MirrorTable {
    url: String,
    capabilities: Option<Vec<Capability>>,
    ca: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: bool,
    credentials: Option<KeeperEntry>,
    token_server: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Capability {
    Pull,
    Resolve,
    Push,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum KeeperEntry {
    File(PathBuf),
    Helper(String),
}

/// The rules that a file holds.
pub(super) fn read(path: &Path) -> Result<Vec<Rule>> {
    let tables: BTreeMap<String, Table> = toml::from_str(&read_text(path)?).map_err(|e| bad(path, e))?;
    let rule = |(prefix, table): (String, Table)| {
        rule(path, &prefix, table).map_err(|why| bad(path, format_args!("[{prefix:?}] {why}")))
    };
    tables.into_iter().map(rule).collect()
}

/// A table as a rule, or the key that is wrong and why.
fn rule(path: &Path, prefix: &str, table: Table) -> Result<Rule, String> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if !is_prefix(prefix) {
        return Err("must be HOST[:PORT][/PATH] or *.DOMAIN, where a host has a dot, a port, or is localhost".into());
    }
    if table.mirrors.len() > MIRRORS_LIMIT {
        return Err(format!("mirrors: there are more than {MIRRORS_LIMIT}"));
    }
    let client = pair(directory, table.client_cert, table.client_key)?;
    let mut connection = Connection {
        scheme: table.plain_http.map(|plain| if plain { Scheme::Http } else { Scheme::Https }),
        ca: table.ca.map(|path| directory.join(path)),
        client,
        unverified: table.insecure_skip_verify,
        credentials: table.credentials.map(|entry| entry.keeper(directory)).transpose()?,
        token_server: table.token_server.as_deref().map(token_server).transpose()?,
    };
    let location = match (table.r#use, table.rewrite) {
        (Some(_), Some(_)) => return Err("use and rewrite: only one of them can say where the images are".into()),
        (Some(url), None) => {
            let (scheme, location) = parse_url(&url).filter(|(_, location)| !location.contains('/')).ok_or_else(|| {
                format!("use: {url:?} must read http://HOST[:PORT] or https://HOST[:PORT]; a path takes rewrite = \"HOST/PATH\"")
            })?;
            if table.plain_http.is_some() {
                return Err("plain-http: the URL of use says it already".into());
            }
            connection.scheme = Some(scheme);
            Some(location)
        }
        (None, Some(location)) if is_location(&location) => Some(location),
        (None, Some(location)) => {
            return Err(format!(
                "rewrite: {location:?} must read HOST[:PORT][/PATH], where a host has a dot, a port, or is localhost"
            ));
        }
        (None, None) => None,
    };
    if location.is_some() && prefix.starts_with('*') {
        return Err("use and rewrite: all hosts of a domain cannot be one".into());
    }
    let contradicts = connection.scheme == Some(Scheme::Http);
    if contradicts && (connection.ca.is_some() || connection.client.is_some() || connection.unverified) {
        return Err("ca, client-cert and insecure-skip-verify: there are no certificates over plain HTTP".into());
    }
    let mirrors = table.mirrors.into_iter().map(|entry| mirror(directory, entry)).collect::<Result<_, _>>()?;
    Ok(Rule { prefix: one_spelling(prefix), location, connection, mirrors, blocked: false, path: path.to_owned() })
}

fn mirror(directory: &Path, entry: MirrorEntry) -> Result<Mirror, String> {
    let table = match entry {
        MirrorEntry::Table(table) => table,
        MirrorEntry::Url(url) => MirrorTable {
            url,
            capabilities: None,
            ca: None,
            client_cert: None,
            client_key: None,
            insecure_skip_verify: false,
            credentials: None,
            token_server: None,
        },
    };
    let (scheme, location) = parse_url(&table.url)
        .ok_or_else(|| format!("mirrors: {:?} must read http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]", table.url))?;
    let of_mirror = |why: String| format!("mirrors: {:?}: {why}", table.url);
    let may = match table.capabilities {
        Some(list) => Capabilities {
            pull: list.contains(&Capability::Pull),
            resolve: list.contains(&Capability::Resolve),
            push: list.contains(&Capability::Push),
        },
        None => Capabilities { pull: true, resolve: true, push: false },
    };
    let connection = Connection {
        scheme: Some(scheme),
        ca: table.ca.map(|path| directory.join(path)),
        client: pair(directory, table.client_cert, table.client_key).map_err(of_mirror)?,
        unverified: table.insecure_skip_verify,
        credentials: table.credentials.map(|entry| entry.keeper(directory)).transpose().map_err(of_mirror)?,
        token_server: table.token_server.as_deref().map(token_server).transpose().map_err(of_mirror)?,
    };
    Ok(Mirror { location, connection, may, when: When::All })
}

impl KeeperEntry {
    fn keeper(self, directory: &Path) -> Result<Keeper, String> {
        match self {
            Self::File(path) => Ok(Keeper::File(directory.join(path))),
            Self::Helper(name) if name.is_empty() || name.contains('/') => {
                Err(format!("credentials: {name:?} must be the NAME of a program docker-credential-NAME"))
            }
            Self::Helper(name) => Ok(Keeper::Helper(name)),
        }
    }
}

/// The host of a token server.
fn token_server(host: &str) -> Result<String, String> {
    let good = is_location(host) && !host.contains('/');
    if good { Ok(one_spelling(host)) } else { Err(format!("token-server: {host:?} must read HOST[:PORT]")) }
}

/// A certificate and its key, or neither.
fn pair(directory: &Path, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<(PathBuf, PathBuf)>, String> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((directory.join(certificate), directory.join(key)))),
        (None, None) => Ok(None),
        (Some(_), None) => Err("client-cert: client-key must name its private key".into()),
        (None, Some(_)) => Err("client-key: client-cert must name its certificate".into()),
    }
}

/// The scheme of a URL, and what follows, if images can be there.
pub(super) fn parse_url(url: &str) -> Option<(Scheme, String)> {
    let (scheme, rest) = match url.strip_prefix("http://") {
        Some(rest) => (Scheme::Http, rest),
        None => (Scheme::Https, url.strip_prefix("https://")?),
    };
    let location = rest.strip_suffix('/').unwrap_or(rest);
    // A scheme says that it is a host, whatever the host looks like; in a name it must be seen by itself.
    is_location(location).then(|| (scheme, location.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    fn parse(text: &str) -> Result<Vec<Rule>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            ["r.example/team"]
            rewrite = "o.example:5000/x"
            ca = "ca.pem"
            client-cert = "/c.pem"
            client-key = "k.pem"
            insecure-skip-verify = true
            credentials = { helper = "pass" }
            token-server = "api.o.example"
            mirrors = ["http://m.example", { url = "https://n.example/hub/", capabilities = ["pull"], credentials = { file = "a.json" } }]
        "#;
        let rules = parse(text).unwrap();
        let rule = &rules[0];
        let directory = std::env::temp_dir();
        assert_eq!((rule.prefix.as_str(), rule.location.as_deref()), ("r.example/team", Some("o.example:5000/x")));
        assert_eq!(rule.connection.ca, Some(directory.join("ca.pem")));
        assert_eq!(rule.connection.client, Some(("/c.pem".into(), directory.join("k.pem"))));
        assert!(rule.connection.unverified);
        assert_eq!(rule.connection.credentials, Some(Keeper::Helper("pass".into())));
        assert_eq!(rule.connection.token_server.as_deref(), Some("api.o.example"));
        let [first, second] = &rule.mirrors[..] else { panic!("{rule:?}") };
        assert_eq!((first.location.as_str(), first.connection.scheme), ("m.example", Some(Scheme::Http)));
        assert_eq!(first.may, Capabilities { pull: true, resolve: true, push: false });
        assert_eq!((second.location.as_str(), second.connection.scheme), ("n.example/hub", Some(Scheme::Https)));
        assert_eq!(second.may, Capabilities { pull: true, resolve: false, push: false });
        assert_eq!(second.connection.credentials, Some(Keeper::File(directory.join("a.json"))));
    }

    #[test]
    fn a_wrong_setting_is_an_error_that_names_file_key_and_why() {
        for (text, key) in [
            ("[\"docker.io\"]\nuse = \"127.0.0.1:5000\"", "use"),
            ("[\"docker.io\"]\nuse = \"http://h.x/path\"", "use"),
            ("[\"docker.io\"]\nuse = \"http://h.x\"\nrewrite = \"h.x\"", "rewrite"),
            ("[\"docker.io\"]\nuse = \"http://h.x\"\nplain-http = true", "plain-http"),
            ("[\"docker.io\"]\nrewrite = \"https://h.x\"", "rewrite"),
            ("[\"docker.io\"]\nmirror = \"x\"", "mirror"),
            ("[\"docker.io\"]\nmirrors = [\"h.x\"]", "mirrors"),
            ("[\"docker.io\"]\nmirrors = \"http://h.x\"", "mirrors"),
            ("[\"docker.io\"]\nmirrors = [{ url = \"http://h.x\", capabilities = [\"fly\"] }]", "mirrors"),
            ("[\"docker.io\"]\nplain-http = 1", "plain-http"),
            ("[\"docker.io\"]\nplain-http = true\nca = \"x\"", "ca"),
            ("[\"docker.io\"]\nclient-cert = \"x\"", "client-key"),
            ("[\"docker.io\"]\nclient-key = \"x\"", "client-cert"),
            ("[\"docker.io\"]\ncredentials = { helper = \"../x\" }", "credentials"),
            ("[\"docker.io\"]\ncredentials = \"x\"", "credentials"),
            ("[\"docker.io\"]\ntoken-server = \"https://h.x/token\"", "token-server"),
            ("[\"*.r.example\"]\nrewrite = \"h.x\"", "rewrite"),
            ("[\"https://r.example\"]", "https://r.example"),
            ("x", "x"),
        ] {
            let Err(Error::Config { path, why }) = parse(text) else { panic!("{text} is taken") };
            assert!(path.contains(std::env::temp_dir().to_str().unwrap()) && why.contains(key), "{text}: {path}: {why}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}", key in "[a-z-]{0,10}", value in "[\\PC\"\\[{}=,]{0,30}") {
            for text in [text, format!("[\"docker.io\"]\n{key} = {value}"), format!("[\"docker.io\"]\nmirrors = [{value}]")] {
                if let Ok(tables) = toml::from_str::<BTreeMap<String, Table>>(&text) {
                    for (prefix, table) in tables {
                        let _ = rule(Path::new("/"), &prefix, table);
                    }
                }
            }
        }
    }
}
