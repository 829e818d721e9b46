//! Proxies: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not, by the rules of Go's programs,
//! and where they are not set, docker's `config.json`.
//!
//! This machine is never reached through a proxy.

use std::net::IpAddr;

use reqwest::Url;

use super::docker::ProxyTable;
use super::is_loopback;
use crate::error::{Error, Result};

/// Schemes of proxies.
const SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// Which requests go through which proxy.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// A proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    url: Url,
    set_by: &'static str,
}

/// An entry of `NO_PROXY`. A port is meant only where one is given.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        bits: u32,
    },
    Address(IpAddr, Option<u16>),
    /// What is below `.domain`, and perhaps the domain itself.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Without its credentials.
impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{}://{}{port} ({})", self.url.scheme(), self.url.host_str().unwrap_or_default(), self.set_by)
    }
}

impl Proxy {
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Reads a proxy's URL, which may lack its scheme.
    fn parse(set_by: &'static str, text: &str) -> Result<Self> {
        // The text is not shown: there may be a password in it.
        let bad = |why: &str| Error::Config { path: set_by.into(), why: format!("{why}: it must read [http://]HOST:PORT") };
        let whole = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        let url = whole.map_err(|e| bad(&format!("no proxy's URL ({e})")))?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(bad(&format!("{:?} is no scheme of proxies", url.scheme())));
        }
        Ok(Self { url, set_by })
    }
}

impl Proxies {
    /// Those that the environment sets, and for what it does not set, those of docker's file.
    pub(super) fn load(docker: &ProxyTable) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::from(|capitals| variable(capitals).or_else(|| variable(&capitals.to_ascii_lowercase())), docker)
    }

    fn from(variable: impl Fn(&str) -> Option<String>, docker: &ProxyTable) -> Result<Self> {
        let in_file = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
        let proxy = |name: &'static str, key: &'static str, in_docker: &String| {
            let set = variable(name).map(|value| (name, value)).or_else(|| Some((key, in_file(in_docker)?)));
            set.map(|(set_by, value)| Proxy::parse(set_by, value.trim())).transpose()
        };
        let all = proxy("ALL_PROXY", "allProxy of docker's config.json", &docker.all_proxy)?;
        let http = proxy("HTTP_PROXY", "httpProxy of docker's config.json", &docker.http_proxy)?;
        let https = proxy("HTTPS_PROXY", "httpsProxy of docker's config.json", &docker.https_proxy)?;
        let exceptions = variable("NO_PROXY").or_else(|| in_file(&docker.no_proxy)).unwrap_or_default();
        Ok(Self { http: http.or_else(|| all.clone()), https: https.or(all), exceptions: parse_exceptions(&exceptions) })
    }

    /// The proxy that requests for a URL go through.
    pub(crate) fn proxy_for(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.scheme() == "https" { self.https.as_ref()? } else { self.http.as_ref()? };
        let host = url.host_str()?;
        let address =
            host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let port = url.port_or_known_default();
        let is_excepted = |exception: &Exception| exception.covers(host, address, port);
        (!is_loopback(host) && !self.exceptions.iter().any(is_excepted)).then_some(proxy)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }
}

impl Exception {
    fn covers(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let is_port = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Self::All => true,
            Self::Network { address: network, bits } => {
                address.is_some_and(|address| prefix(address, *bits) == prefix(*network, *bits))
            }
            Self::Address(wanted, wanted_port) => address == Some(*wanted) && is_port(wanted_port),
            Self::Domain { suffix, itself, port } => {
                (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..])) && is_port(port)
            }
        }
    }
}

/// The first bits of an address, and whether it is of version 4.
fn prefix(address: IpAddr, bits: u32) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u32::from(address).checked_shr(32 - bits.min(32)).unwrap_or_default().into()),
        IpAddr::V6(address) => (false, u128::from(address).checked_shr(128 - bits.min(128)).unwrap_or_default()),
    }
}

/// The entries of a list with commas. What is none is passed over, as Go does.
fn parse_exceptions(list: &str) -> Vec<Exception> {
    list.split(',').map(|entry| entry.trim().to_lowercase()).filter_map(|entry| parse_exception(&entry)).collect()
}

fn parse_exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::All);
    }
    if let Some((address, bits)) = entry.split_once('/') {
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        return (bits <= most).then_some(Exception::Network { address, bits });
    }
    let bare =
        |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|address| address.to_canonical());
    if let Ok(address) = bare(entry) {
        return Some(Exception::Address(address, None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Ok(address) = bare(host) {
        return Some(Exception::Address(address, port));
    }
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    let itself = !host.starts_with('.');
    let suffix = if itself { format!(".{host}") } else { host.to_owned() };
    (suffix.len() > 1).then_some(Exception::Domain { suffix, itself, port })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Proxies::from(|name| variables.get(name).map(|value| (*value).to_owned()), &ProxyTable::default())
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.proxy_for(&url.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy_and_all_of_them_the_general_one() {
        let both = proxies(&[("HTTPS_PROXY", "p.example:3128"), ("ALL_PROXY", "socks5://u:hunter2@s.example:1080")]).unwrap();
        assert_eq!(through(&both, "https://r.example").unwrap(), "http://p.example:3128 (HTTPS_PROXY)");
        assert_eq!(through(&both, "http://r.example").unwrap(), "socks5://s.example:1080 (ALL_PROXY)");
        assert_eq!(through(&proxies(&[("HTTP_PROXY", "p:1")]).unwrap(), "https://r.example"), None);
        assert!(!format!("{both:?}").contains("hunter2"));
    }

    #[test]
    fn dockers_file_says_what_the_environment_does_not() {
        let docker = ProxyTable { https_proxy: "http://d:1".into(), no_proxy: "a.example".into(), ..ProxyTable::default() };
        let from_file = Proxies::from(|_| None, &docker).unwrap();
        assert_eq!(through(&from_file, "https://r.example").unwrap(), "http://d:1 (httpsProxy of docker's config.json)");
        assert_eq!(through(&from_file, "https://a.example"), None);
        let overruled = Proxies::from(|name| (name == "HTTPS_PROXY").then(|| "e:2".into()), &docker).unwrap();
        assert_eq!(through(&overruled, "https://r.example").unwrap(), "http://e:2 (HTTPS_PROXY)");
    }

    #[test]
    fn no_proxy_is_read_as_go_does() {
        let cases = [
            ("r.example", "r.example sub.r.example r.example:5000", "notr.example example"),
            (".r.example", "sub.r.example", "r.example"),
            ("*.r.example", "a.b.r.example", "r.example"),
            ("R.Example:5000", "r.example:5000 sub.r.example:5000", "r.example r.example:5001"),
            ("r.example:443", "r.example", "r.example:5000"),
            ("10.1.0.0/16", "10.1.2.3 10.1.255.255:5000", "10.2.0.1 r10.1.2.3.example"),
            ("10.1.2.3", "10.1.2.3 10.1.2.3:5000", "10.1.2.4"),
            ("10.1.2.3:5000", "10.1.2.3:5000", "10.1.2.3"),
            ("fd00::/8, x", "[fd00::1]:5000", "[fe00::1]"),
            ("[fd00::1]:5000", "[fd00::1]:5000", "[fd00::1]"),
            ("fd00::1", "[fd00::1]:5000", "[fd00::2]"),
            (" a.example , , b.example", "a.example b.example", "c.example"),
            ("*", "r.example 10.1.2.3", ""),
            ("0.0.0.0/0", "10.1.2.3", "r.example"),
            ("10.0.0.0/33,:5000,.,r.example:x", "", "10.0.0.1 r.example r.example:5000"),
        ];
        for (list, direct, proxied) in cases {
            let proxies = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", list)]).unwrap();
            for host in direct.split_whitespace() {
                assert_eq!(through(&proxies, &format!("https://{host}/v2/")), None, "{list:?} {host}");
            }
            for host in proxied.split_whitespace() {
                assert!(through(&proxies, &format!("https://{host}/v2/")).is_some(), "{list:?} {host}");
            }
        }
    }

    #[test]
    fn this_machine_is_never_reached_through_a_proxy() {
        let proxies = proxies(&[("ALL_PROXY", "p:1")]).unwrap();
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"] {
            assert_eq!(through(&proxies, &format!("http://{host}/")), None, "{host}");
        }
        assert!(through(&proxies, "http://localhost.evil.example/").is_some());
    }

    #[test]
    fn what_is_no_proxy_is_an_error_that_names_the_variable_and_no_secret() {
        for bad in ["ftp://u:hunter2@p:1", "http://u:hunter2@", "u:hunter2@p:x"] {
            let said = proxies(&[("HTTPS_PROXY", bad)]).unwrap_err().to_string();
            assert!(said.starts_with("HTTPS_PROXY: ") && !said.contains("hunter2"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(list in "[a-z0-9.:/,*\\[\\] é]{0,40}", text in "\\PC{0,30}") {
            for entry in parse_exceptions(&list).iter().chain(&parse_exceptions(&text)) {
                entry.covers("r.example", Some(IpAddr::from([10, 0, 0, 1])), Some(443));
                entry.covers("[::1]", "::1".parse().ok(), None);
            }
            let _ = Proxy::parse("HTTP_PROXY", &text);
        }
    }
}
