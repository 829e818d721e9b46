//! `registries.toml`: where a registry's requests really go.
//!
//! ```toml
//! # Ask this host instead of Docker Hub.
//! ["docker.io"]
//! use = "http://127.0.0.1:5000"
//!
//! # Pull from the first of these that has it, else from the registry itself.
//! ["quay.io"]
//! mirrors = ["https://mirror.example", "http://127.0.0.1:5000"]
//! ```
//!
//! Read from `$LONGSHORE_REGISTRIES`, else from `longshore/registries.toml` below the XDG configuration
//! directory, else from `/etc/longshore/registries.toml`; the first that exists counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The host that serves Docker Hub's API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// The longest configuration file read, in bytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Mirrors of one registry.
const MIRRORS_LIMIT: usize = 16;

/// Settings by registry name, `host[:port]` as references spell it.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Registries(BTreeMap<String, Settings>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `http://` or `https://`, and a host with an optional port.
    r#use: Option<String>,
    /// The same, several.
    #[serde(default)]
    mirrors: Vec<String>,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`
    pub host: String,
    /// Whether requests go over plain HTTP.
    pub plain: bool,
}

impl Endpoint {
    /// The beginning of every URL, without a slash at its end.
    pub fn base(&self) -> String {
        format!("{}://{}", if self.plain { "http" } else { "https" }, self.host)
    }
}

impl Registries {
    /// Reads the first configuration file that exists; none is fine.
    pub fn load() -> Result<Self> {
        match find_file("LONGSHORE_REGISTRIES", "registries.toml") {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::Config { path: path.display().to_string(), why };
        let registries: Self = toml::from_str(&read_text(path)?).map_err(|e| bad(e.to_string()))?;
        for (name, settings) in &registries.0 {
            if settings.mirrors.len() > MIRRORS_LIMIT {
                return Err(bad(format!("{name:?} has more than {MIRRORS_LIMIT} mirrors")));
            }
            let urls = settings.r#use.iter().map(|url| ("use", url)).chain(settings.mirrors.iter().map(|url| ("mirrors", url)));
            for (key, url) in urls {
                if parse_endpoint(url).is_none() {
                    return Err(bad(format!("{key}: {url:?} of {name:?} must read http://host[:port] or https://host[:port]")));
                }
            }
        }
        Ok(registries)
    }

    /// The hosts that are asked for what `registry` has, each with the name its credentials are kept under:
    /// its own. The mirrors come first and the registry last.
    pub(crate) fn hosts(&self, registry: &str) -> Vec<(Endpoint, String)> {
        let settings = self.0.get(registry);
        let own_name = |endpoint: Endpoint| (endpoint.clone(), endpoint.host);
        let mirrors = settings.iter().flat_map(|settings| &settings.mirrors).filter_map(|url| parse_endpoint(url));
        let last = match settings.and_then(|settings| parse_endpoint(settings.r#use.as_ref()?)) {
            Some(instead) => own_name(instead),
            None => (self.endpoint(registry), registry.to_owned()),
        };
        mirrors.map(own_name).chain([last]).collect()
    }

    /// Where requests for `registry` go. Without a setting: over HTTPS, except to this machine itself.
    pub fn endpoint(&self, registry: &str) -> Endpoint {
        if let Some(endpoint) = self.0.get(registry).and_then(|settings| parse_endpoint(settings.r#use.as_ref()?)) {
            return endpoint;
        }
        if registry == longshore_runtime::name::DEFAULT_REGISTRY {
            return Endpoint { host: DOCKER_HUB_API.into(), plain: false };
        }
        Endpoint { host: registry.into(), plain: is_loopback(registry) }
    }
}

/// The configuration file that counts: that which `variable` names, else the user's own, else the machine's.
pub(crate) fn find_file(variable: &str, name: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config_home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let usual = [config_home, Some("/etc".into())].into_iter().flatten().map(|dir| dir.join("longshore").join(name));
    set(variable).or_else(|| usual.into_iter().find(|path| path.exists()))
}

/// A configuration file's text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?;
    String::from_utf8(bytes).map_err(|e| Error::Config { path: path.display().to_string(), why: e.to_string() })
}

fn parse_endpoint(url: &str) -> Option<Endpoint> {
    let (plain, rest) = match url.strip_prefix("http://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("https://")?),
    };
    let host = rest.trim_end_matches('/');
    // A host is good if it can stand in a reference.
    let reference: longshore_runtime::name::Reference = format!("{host}/a").parse().ok()?;
    (!host.contains('/') && (reference.registry() == host || !host.contains(['.', ':'])))
        .then(|| Endpoint { host: host.into(), plain })
}

/// Whether a `host[:port]` is this machine by name or address.
pub fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Registries> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Registries::read(file.path())
    }

    #[test]
    fn a_registry_can_be_served_by_another_host() {
        let registries = parse("[\"docker.io\"]\nuse = \"http://127.0.0.1:5000\"\n").unwrap();
        assert_eq!(registries.endpoint("docker.io").base(), "http://127.0.0.1:5000");
        assert_eq!(registries.endpoint("quay.io").base(), "https://quay.io");
    }

    #[test]
    fn mirrors_are_asked_in_order_and_the_registry_last_each_with_its_own_credentials() {
        let text = "[\"docker.io\"]\nmirrors = [\"https://m.example\", \"http://127.0.0.1:1\"]\n[\"quay.io\"]\nuse = \"https://q.example\"\n";
        let registries = parse(text).unwrap();
        let hosts = |registry| -> Vec<(String, String)> {
            registries.hosts(registry).into_iter().map(|(endpoint, name)| (endpoint.base(), name)).collect()
        };
        let pair = |base: &str, name: &str| (base.to_owned(), name.to_owned());
        assert_eq!(
            hosts("docker.io"),
            [
                pair("https://m.example", "m.example"),
                pair("http://127.0.0.1:1", "127.0.0.1:1"),
                pair("https://registry-1.docker.io", "docker.io"),
            ]
        );
        assert_eq!(hosts("quay.io"), [pair("https://q.example", "q.example")]);
        assert_eq!(hosts("ghcr.io"), [pair("https://ghcr.io", "ghcr.io")]);
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let registries = Registries::default();
        for host in ["localhost:5000", "localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(registries.endpoint(host).plain, "{host}");
        }
        for host in ["localhost.evil.example", "10.0.0.1:5000", "docker.io", "[::2]:5000"] {
            assert!(!registries.endpoint(host).plain, "{host}");
        }
        assert_eq!(registries.endpoint("docker.io").host, DOCKER_HUB_API);
    }

    #[test]
    fn a_wrong_setting_is_an_error_not_ignored() {
        for bad in [
            "[\"docker.io\"]\nuse = \"127.0.0.1:5000\"",
            "[\"docker.io\"]\nuse = \"http://h/path\"",
            "[\"docker.io\"]\nmirror = \"x\"",
            "[\"docker.io\"]\nmirrors = [\"http://h/path\"]",
            "[\"docker.io\"]\nmirrors = \"http://h\"",
            "x",
        ] {
            assert!(matches!(parse(bad), Err(Error::Config { .. })), "{bad}");
        }
    }
}
