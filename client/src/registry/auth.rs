//! Proving who asks: `WWW-Authenticate` challenges, Basic, and Bearer tokens (distribution-spec,
//! "Authentication"; docker's token specification).
//!
//! **Invariant: credentials go to the registry's own host, or to a token server within its domain,
//! and nowhere else** (CVE-2020-15157, CVE-2026-48978).

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use longshore_runtime::parallel::Cancel;
use reqwest::Url;
use serde::Deserialize;

use super::host::{broken_off, said_no, unreachable};
use super::http::Pool;
use crate::config::Endpoint;
use crate::credentials::{self, Credentials};
use crate::error::{Error, Result};

/// The longest token answer read, in bytes.
const TOKEN_LIMIT_BYTES: usize = 1 << 20;

/// What a request is about to do in a repository; the scope of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Pull,
    Push,
    Delete,
    /// To list the repositories of the whole registry.
    Catalog,
    /// Nothing but to show who asks.
    LogIn,
}

/// A registry's authentication for one repository.
#[derive(Debug)]
pub(super) struct Auth {
    registry: String,
    endpoint: Endpoint,
    repository: String,
    credentials: OnceLock<Option<Credentials>>,
    headers: Mutex<HashMap<Action, String>>,
}

/// A parsed `WWW-Authenticate` challenge.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Auth {
    pub(super) fn new(registry: &str, endpoint: Endpoint, repository: &str) -> Self {
        let (registry, repository) = (registry.into(), repository.into());
        Self { registry, endpoint, repository, credentials: OnceLock::new(), headers: Mutex::default() }
    }

    /// With these credentials, whatever is kept; for no repository.
    pub(super) fn with_credentials(registry: &str, endpoint: Endpoint, credentials: Credentials) -> Self {
        let credentials = OnceLock::from(Some(credentials));
        Self { credentials, ..Self::new(registry, endpoint, "") }
    }

    /// The `Authorization` value that worked for this action before.
    pub(super) fn header(&self, action: Action) -> Option<String> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).get(&action).cloned()
    }

    /// Answers the challenges of a 401 to a request that had `sent` as its `Authorization`; `false` when there is
    /// nothing else to offer.
    pub(super) fn answer(&self, pool: &Pool, challenges: &[String], action: Action, sent: Option<&str>) -> Result<bool> {
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|text| parse_challenge(text)).collect();
        let bearer = parsed.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match bearer.or(parsed.first()) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                Some(format!("Bearer {}", self.token(pool, realm, service.as_deref(), scope.as_deref(), action)?))
            }
            Some(Challenge::Basic) => self.credentials()?.and_then(|credentials| credentials.basic()),
            None => None,
        };
        let Some(value) = value else { return Ok(false) };
        let is_news = sent.is_none_or(|sent| sent != value);
        self.headers.lock().unwrap_or_else(PoisonError::into_inner).insert(action, value);
        Ok(is_news)
    }

    fn credentials(&self) -> Result<Option<Credentials>> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.clone());
        }
        let found = credentials::find(&self.registry, &self.repository)?;
        Ok(self.credentials.get_or_init(|| found).clone())
    }

    fn token(&self, pool: &Pool, realm: &str, service: Option<&str>, scope: Option<&str>, action: Action) -> Result<String> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let attempted = || "fetch an access token".to_owned();
        let protocol = |why: String| Error::Protocol { host: self.endpoint.host.clone(), attempted: attempted(), why };
        let url = Url::parse(realm).map_err(|e| protocol(format!("its token realm is no URL: {e}")))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let same_host = self.endpoint.host == authority(&url);
        if url.scheme() != "https" && !same_host {
            return Err(protocol("its token realm is neither HTTPS nor on the registry's own host; nothing was sent".into()));
        }
        let trusted = same_host || in_trust_domain(&self.registry, &host);
        let credentials = if trusted { self.credentials()? } else { None };
        let own_scope = match action {
            Action::Pull => Some(format!("repository:{}:pull", self.repository)),
            Action::Push => Some(format!("repository:{}:pull,push", self.repository)),
            Action::Delete => Some(format!("repository:{}:pull,delete", self.repository)),
            Action::Catalog => Some("registry:catalog:*".into()),
            Action::LogIn => None,
        };
        let scope = scope.filter(|s| s.contains(':')).map(str::to_owned).or(own_scope);
        let mut query: Vec<_> = scope.map(|scope| ("scope", scope)).into_iter().collect();
        if let Some(service) = service {
            query.push(("service", service.to_owned()));
        }
        let cancel = Cancel::default();
        let mut answer = pool
            .send(&cancel, None, |client| match &credentials {
                Some(Credentials::IdentityToken(token)) => {
                    query.extend([
                        ("grant_type", "refresh_token".into()),
                        ("refresh_token", token.clone()),
                        ("client_id", "longshore".into()),
                    ]);
                    client
                        .post(url.clone())
                        .header("content-type", "application/x-www-form-urlencoded")
                        .body(encode(&url, &query))
                        .build()
                }
                other => {
                    let mut with_query = url.clone();
                    with_query.query_pairs_mut().extend_pairs(&query);
                    let request = client.get(with_query);
                    match other.as_ref().and_then(Credentials::basic) {
                        Some(basic) => request.header("authorization", basic),
                        None => request,
                    }
                    .build()
                }
            })
            .map_err(|e| unreachable(&authority(&url), &e))?;
        let status = answer.status();
        if status != 200 {
            return Err(Error::Refused { host: authority(&url), attempted: attempted(), answer: said_no(&mut answer) });
        }
        let body = answer.body(TOKEN_LIMIT_BYTES).map_err(|e| broken_off(&authority(&url), &e))?;
        // Not the parser's own message: it may quote the token.
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| protocol("the token server's answer is not the JSON expected".into()))?;
        let token = if token.token.is_empty() { token.access_token } else { token.token };
        if token.is_empty() { Err(protocol("the token server's answer holds no token".into())) } else { Ok(token) }
    }
}

fn encode(base: &Url, query: &[(&str, String)]) -> String {
    let mut url = base.clone();
    url.set_query(None);
    url.query_pairs_mut().extend_pairs(query);
    url.query().unwrap_or_default().to_owned()
}

/// `host[:port]` of a URL, the port only where the URL names one.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a token server on `realm_host` may see the credentials of `registry`: one is the other's
/// host or a subdomain of it (`auth.docker.io` for `docker.io`, `gitlab.com` for `registry.gitlab.com`).
fn in_trust_domain(registry: &str, realm_host: &str) -> bool {
    let registry = registry.split(':').next().unwrap_or_default();
    let is_domain = |name: &str| name.contains('.') && name.parse::<std::net::IpAddr>().is_err();
    let below =
        |name: &str, domain: &str| is_domain(domain) && name.strip_suffix(domain).is_some_and(|prefix| prefix.ends_with('.'));
    below(realm_host, registry) || below(registry, realm_host)
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

    #[test]
    fn cve_2026_48978_a_realm_outside_the_registrys_domain_gets_no_credentials() {
        assert!(in_trust_domain("docker.io", "auth.docker.io"));
        assert!(in_trust_domain("registry.gitlab.com", "gitlab.com"));
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

    proptest! {
        #[test]
        fn parsing_a_challenge_never_panics(text in "\\PC{0,60}", tail in "[ =\",\\\\a-z]{0,30}") {
            let _ = parse_challenge(&text);
            let _ = parse_challenge(&format!("Bearer {tail}"));
        }
    }
}
