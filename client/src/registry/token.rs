//! Access tokens: fetched from the token server a registry names (docker's token specification; OAuth2 as
//! docker's registries speak it), and kept in this process for as long as they are good.
//!
//! **Invariant: credentials go to the registry's own host, or to a token server within its domain,
//! and nowhere else** (CVE-2020-15157, CVE-2026-48978).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use longshore_runtime::parallel::Cancel;
use reqwest::Url;
use serde::Deserialize;

use super::host::{broken_off, said_no, unreachable};
use super::http::{Answer, Pool};
use super::scope::Scopes;
use crate::config::{Endpoint, is_loopback};
use crate::credentials::Credentials;
use crate::error::{Error, Result};

/// The longest token answer read, in bytes.
const TOKEN_LIMIT_BYTES: usize = 1 << 20;

/// How long a token is good whose server does not say so, or says less, as docker has it.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

/// A token is not used in the last part of its life: clocks differ, and a request takes time.
const MARGIN: Duration = Duration::from_secs(10);

/// Tokens kept at a time.
const TOKENS_LIMIT: usize = 1024;

/// Who this is, for token servers.
const CLIENT_ID: &str = "longshore";

/// Tokens of this process.
static TOKENS: Mutex<Option<HashMap<Wanted, Token>>> = Mutex::new(None);

/// A token that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scopes: Scopes,
    pub(super) credentials: Option<Credentials>,
}

struct Token {
    value: String,
    until: Instant,
}

/// What a token server answers.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

fn with_tokens<T>(look: impl FnOnce(&mut HashMap<Wanted, Token>) -> T) -> T {
    look(TOKENS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The registry that a token is for.
#[derive(Debug)]
pub(super) struct Registry<'a> {
    /// The name its credentials are kept under.
    pub(super) name: &'a str,
    pub(super) endpoint: &'a Endpoint,
    pub(super) pool: &'a Pool,
    /// The token server that sees its credentials, as configured.
    pub(super) token_server: Option<&'a str>,
}

impl Registry<'_> {
    /// Whether the token server at `realm` may see the registry's credentials.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] for one that nothing at all is sent to.
    pub(super) fn trusts(&self, realm: &str) -> Result<bool> {
        let url = self.realm(realm)?;
        let host = url.host_str().unwrap_or_default();
        let is_configured = self.token_server.is_some_and(|configured| configured == Endpoint::of(&url).host);
        Ok(is_configured || self.is_own(host) || in_trust_domain(self.name, host))
    }

    /// A token, one that was fetched before if it is still good.
    pub(super) fn token(&self, wanted: &Wanted) -> Result<String> {
        let now = Instant::now();
        let kept = with_tokens(|tokens| tokens.get(wanted).filter(|token| token.until > now).map(|token| token.value.clone()));
        if let Some(value) = kept {
            return Ok(value);
        }
        let answer = self.fetch(wanted)?;
        let value = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if value.is_empty() {
            return Err(self.broken("the token server's answer holds no token".into()));
        }
        // Counted from when it was asked for, by this machine's clock alone.
        let until = now + Duration::from_secs(answer.expires_in.min(1 << 31)).max(LIFETIME_MIN) - MARGIN;
        with_tokens(|tokens| {
            if tokens.len() >= TOKENS_LIMIT {
                tokens.clear();
            }
            tokens.insert(wanted.clone(), Token { value: value.clone(), until });
        });
        Ok(value)
    }

    /// The URL of a realm, if it is one that may be asked.
    fn realm(&self, realm: &str) -> Result<Url> {
        let url = Url::parse(realm).map_err(|e| self.broken(format!("its token realm is no URL: {e}")))?;
        let own = self.is_own(url.host_str().unwrap_or_default());
        if url.scheme() != "https" && !(own && url.scheme() == "http" && self.endpoint.plain) {
            let why = "its token realm is neither HTTPS nor plain HTTP on the registry's own host that is plain itself";
            return Err(self.broken(format!("{why}; nothing was sent")));
        }
        if !own && is_inside(url.host_str().unwrap_or_default()) && !is_inside(host_of(&self.endpoint.host)) {
            return Err(self.broken("its token realm is an address of this machine or network; nothing was sent".into()));
        }
        Ok(url)
    }

    /// Whether a token server is on the registry's own host, at whatever port.
    fn is_own(&self, host: &str) -> bool {
        host_of(&self.endpoint.host).eq_ignore_ascii_case(host)
    }

    fn fetch(&self, wanted: &Wanted) -> Result<TokenAnswer> {
        let url = self.realm(&wanted.realm)?;
        let host = Endpoint::of(&url).host;
        let plain = url.scheme() == "http";
        let is_alike = self.is_own(url.host_str().unwrap_or_default()) && plain == self.endpoint.plain;
        let server = || self.pool.token_server(Endpoint::of(&url), is_alike);
        let other = if self.endpoint.serves(&url) { None } else { Some(server()?) };
        let pool = other.as_ref().unwrap_or(self.pool);
        let cancel = Cancel::default();
        let ask = |form: Option<&[(&str, &str)]>| {
            let sent = pool.send(&cancel, None, |client| match form {
                Some(form) => {
                    let request = client.post(url.clone()).header("content-type", "application/x-www-form-urlencoded");
                    request.body(wanted.form(&url, form)).build()
                }
                None => {
                    let request = client.get(wanted.query(&url));
                    match wanted.credentials.as_ref().and_then(Credentials::basic) {
                        Some(basic) => request.header("authorization", basic).build(),
                        None => request.build(),
                    }
                }
            });
            let answer = sent.map_err(|e| unreachable(&host, &e))?;
            if wanted.credentials.is_some() && answer.url().is_some_and(|at| at.origin() != url.origin()) {
                return Err(self.broken("its token server leads to another host, which gets no credentials".into()));
            }
            Ok(answer)
        };
        let mut answer = match &wanted.credentials {
            Some(Credentials::IdentityToken(token)) => ask(Some(&[("grant_type", "refresh_token"), ("refresh_token", token)]))?,
            Some(Credentials::Basic { user, password }) => {
                let answer = ask(None)?;
                // It has the other way only.
                if matches!(answer.status(), 404 | 405) {
                    drop(answer);
                    ask(Some(&[("grant_type", "password"), ("username", user), ("password", password)]))?
                } else {
                    answer
                }
            }
            None => ask(None)?,
        };
        self.read(&host, wanted, &mut answer)
    }

    fn read(&self, host: &str, wanted: &Wanted, answer: &mut Answer<'_>) -> Result<TokenAnswer> {
        if answer.status() != 200 {
            let scopes = wanted.scopes.to_string();
            let attempted =
                if scopes.is_empty() { "fetch an access token".into() } else { format!("fetch an access token for {scopes}") };
            return Err(Error::Refused { host: host.into(), attempted, answer: said_no(answer) });
        }
        let body = answer.body(TOKEN_LIMIT_BYTES).map_err(|e| broken_off(host, &e))?;
        // Not the parser's own message: it may quote the token.
        serde_json::from_slice(&body).map_err(|_| self.broken("the token server's answer is not the JSON expected".into()))
    }

    fn broken(&self, why: String) -> Error {
        Error::Protocol { host: self.endpoint.host.clone(), attempted: "fetch an access token".into(), why }
    }
}

impl Wanted {
    /// Forgets the token, if it is this one: it was not taken.
    pub(super) fn forget(&self, value: &str) {
        with_tokens(|tokens| {
            if tokens.get(self).is_some_and(|token| token.value == value) {
                tokens.remove(self);
            }
        });
    }

    fn query(&self, realm: &Url) -> Url {
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.scopes.texts().map(|scope| ("scope", scope)));
            query.extend_pairs(self.service.iter().map(|service| ("service", service)));
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        url
    }

    /// The body of a request by OAuth2 (RFC 6749): several scopes are one value there.
    fn form(&self, realm: &Url, grant: &[(&str, &str)]) -> String {
        let mut url = realm.clone();
        url.set_query(None);
        let scopes = self.scopes.to_string();
        let mut pairs = grant.to_vec();
        pairs.push(("client_id", CLIENT_ID));
        pairs.extend(self.service.iter().map(|service| ("service", service.as_str())));
        pairs.extend(Some(("scope", scopes.as_str())).filter(|(_, scopes)| !scopes.is_empty()));
        url.query_pairs_mut().extend_pairs(pairs);
        url.query().unwrap_or_default().to_owned()
    }
}

/// A `host[:port]` without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

/// Whether a host is an address that only this machine or its network has: a registry elsewhere has no business there.
fn is_inside(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    is_loopback(host)
        || bare.parse::<IpAddr>().is_ok_and(|address| match address.to_canonical() {
            IpAddr::V4(address) => {
                address.is_private() || address.is_link_local() || address.is_unspecified() || address.is_loopback()
            }
            IpAddr::V6(address) => {
                address.is_unique_local() || address.is_unicast_link_local() || address.is_unspecified() || address.is_loopback()
            }
        })
}

/// Whether a token server on `realm_host` may see the credentials of `registry`: one is the other's
/// host or a subdomain of it (`auth.docker.io` for `docker.io`, `gitlab.com` for `registry.gitlab.com`).
fn in_trust_domain(registry: &str, realm_host: &str) -> bool {
    let registry = &host_of(registry).to_ascii_lowercase();
    let is_domain = |name: &str| name.contains('.') && name.parse::<IpAddr>().is_err();
    let below =
        |name: &str, domain: &str| is_domain(domain) && name.strip_suffix(domain).is_some_and(|prefix| prefix.ends_with('.'));
    below(realm_host, registry) || below(registry, realm_host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Network, Tls};
    use crate::registry::timing::Timing;

    #[test]
    fn cve_2026_48978_a_realm_outside_the_registrys_domain_gets_no_credentials() {
        assert!(in_trust_domain("docker.io", "auth.docker.io"));
        assert!(in_trust_domain("registry.gitlab.com", "gitlab.com") && in_trust_domain("Registry.GitLab.com", "gitlab.com"));
        for (registry, realm) in [
            ("docker.io", "evil.example"),
            ("docker.io", "evildocker.io"),
            ("example.co.uk", "evil.co.uk"),
            ("localhost:5000", "evil.localhost"),
            ("reg.example", "example"),
            ("10.0.0.1:5000", "1.10.0.0.1"),
        ] {
            assert!(!in_trust_domain(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn cve_2020_13788_what_a_realm_may_be_depends_on_what_the_registry_is() {
        let trusts = |host: &str, plain: bool, realm: &str| {
            let endpoint = Endpoint { host: host.into(), plain };
            let pool = Pool::new(endpoint.clone(), &Tls::default(), &Network::default(), Timing::from_environment()).unwrap();
            Registry { name: host, endpoint: &endpoint, pool: &pool, token_server: Some("api.example:8443") }
                .trusts(realm)
                .map_err(|_| "refused")
        };
        for (host, plain, realm, expected) in [
            ("r.example", false, "https://r.example/token", Ok(true)),
            ("r.example:5000", false, "https://r.example:5001/token", Ok(true)),
            ("r.example", false, "https://auth.r.example/token", Ok(true)),
            ("r.example", false, "https://other.example/token", Ok(false)),
            ("r.example", false, "https://api.example:8443/token", Ok(true)),
            ("r.example", false, "https://api.example/token", Ok(false)),
            ("r.example", false, "http://api.example:8443/token", Err("refused")),
            // An HTTPS registry never has its tokens fetched in the clear.
            ("r.example", false, "http://r.example/token", Err("refused")),
            ("127.0.0.1:5000", true, "http://127.0.0.1:5001/token", Ok(true)),
            ("127.0.0.1:5000", true, "http://127.0.0.2:5001/token", Err("refused")),
            ("[::1]:5000", true, "http://[::1]:5001/token", Ok(true)),
            ("r.example", true, "ftp://r.example/token", Err("refused")),
            // Nor is one outside let reach inside.
            ("r.example", false, "https://169.254.169.254/token", Err("refused")),
            ("r.example", false, "https://10.0.0.1/token", Err("refused")),
            ("r.example", false, "https://[::ffff:127.0.0.1]/token", Err("refused")),
            ("r.example", false, "https://[fd00::1]/token", Err("refused")),
            ("r.example", false, "https://localhost:1/token", Err("refused")),
            ("10.0.0.2:5000", false, "https://10.0.0.1/token", Ok(false)),
        ] {
            assert_eq!(trusts(host, plain, realm), expected, "{host} {realm}");
        }
    }

    #[test]
    fn the_ways_to_ask_name_every_scope() {
        let mut scopes = Scopes::default();
        scopes.add("repository:b:pull,push repository:a:pull");
        let wanted = Wanted { realm: String::new(), service: Some("s v".into()), scopes, credentials: None };
        let realm = Url::parse("https://r.example/token?x=y").unwrap();
        assert_eq!(
            wanted.query(&realm).as_str(),
            "https://r.example/token?x=y&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull%2Cpush&service=s+v"
        );
        assert_eq!(
            wanted.form(&realm, &[("grant_type", "password")]),
            "grant_type=password&client_id=longshore&service=s+v&scope=repository%3Aa%3Apull+repository%3Ab%3Apull%2Cpush"
        );
    }
}
