//! docker's `config.json`, the parts that are about how registries are reached: `proxies` and `HttpHeaders`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::paths::{bad, docker_config, read};
use crate::error::Result;

/// The headers that docker passes on to registries; the others are for its daemon.
const PASSED_ON: &str = "x-meta-";

/// Headers passed on.
const HEADERS_LIMIT: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DockerConfig {
    proxies: BTreeMap<String, ProxyTable>,
    #[serde(rename = "HttpHeaders")]
    headers: BTreeMap<String, String>,
}

/// Its proxies.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyTable {
    pub(super) http_proxy: String,
    pub(super) https_proxy: String,
    pub(super) all_proxy: String,
    pub(super) no_proxy: String,
}

impl DockerConfig {
    pub(super) fn load() -> Result<Self> {
        docker_config().filter(|path| path.exists()).map_or_else(|| Ok(Self::default()), |path| Self::parse(&path, &read(&path)?))
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // Not the parser's own message: it may quote a secret.
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|e| bad(path, format_args!("it is not the JSON expected, line {} column {}", e.line(), e.column())))?;
        if config.headers.len() > HEADERS_LIMIT {
            return Err(bad(path, format_args!("HttpHeaders: there are more than {HEADERS_LIMIT}")));
        }
        Ok(config)
    }

    /// The proxies for every daemon: those for one are about a machine that is not this one.
    pub(super) fn proxies(&self) -> ProxyTable {
        self.proxies.get("default").cloned().unwrap_or_default()
    }

    /// The headers that every request to a registry has.
    pub(super) fn headers(self) -> Vec<(String, String)> {
        self.headers.into_iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with(PASSED_ON)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_headers_are_read_and_the_rest_is_passed_over() {
        let json = br#"{"auths":{},"proxies":{"default":{"httpsProxy":"http://p:1","noProxy":"x"},"tcp://d":{"httpProxy":"q"}},
            "HttpHeaders":{"X-Meta-Team":"a","User-Agent":"b","Authorization":"c"}}"#;
        let config = DockerConfig::parse(Path::new("/c"), json).unwrap();
        let proxies = config.proxies();
        assert_eq!((&*proxies.https_proxy, &*proxies.no_proxy, &*proxies.http_proxy), ("http://p:1", "x", ""));
        assert_eq!(config.headers(), [("X-Meta-Team".to_owned(), "a".to_owned())]);
        assert!(DockerConfig::parse(Path::new("/c"), b"").is_ok());
        let said = DockerConfig::parse(Path::new("/c"), br#"{"HttpHeaders":{"X-Meta-A":["hunter2"]}}"#).unwrap_err().to_string();
        assert!(said.starts_with("/c: ") && !said.contains("hunter2"), "{said}");
    }
}
