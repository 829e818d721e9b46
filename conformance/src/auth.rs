//! Proving who asks: challenges (RFC 9110 section 11.6.1), Basic (RFC 7617), and Bearer tokens as
//! docker's token specification has them.
//!
//! **Invariant: credentials go to the registry's own origin, or to a token server over HTTPS, and
//! nowhere else.**

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use reqwest::{Method, Url};

use crate::credentials::Credentials;
use crate::http::{Exchange, Request};

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme, in lowercase.
    pub scheme: String,
    /// Its parameters, their names in lowercase.
    pub parameters: BTreeMap<String, String>,
}

/// What a registry has asked for, and the answers that satisfied it.
#[derive(Default)]
pub(crate) struct Session {
    credentials: Option<Credentials>,
    /// `Authorization` values by what a request is about to do.
    headers: RefCell<BTreeMap<String, String>>,
    /// Tokens by what they were asked for.
    tokens: RefCell<BTreeMap<String, String>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(...)")
    }
}

/// What answers a challenge.
pub(crate) enum Answer {
    /// This `Authorization` value.
    Header(String),
    /// Whatever token this request brings, to be kept for `wanted`.
    Ask {
        /// The request to the token server.
        request: Request,
        /// What [`Session::keep_token`] keeps it for.
        wanted: String,
    },
}

impl Session {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        Self { credentials, ..Self::default() }
    }

    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The `Authorization` value that worked for such a request before.
    pub(crate) fn header(&self, method: &Method, url: &Url) -> Option<String> {
        self.headers.borrow().get(&purpose(method, url)).cloned()
    }

    /// Keeps what worked.
    pub(crate) fn keep_header(&self, method: &Method, url: &Url, header: String) {
        self.headers.borrow_mut().insert(purpose(method, url), header);
    }

    /// Keeps a token for what it was asked for.
    pub(crate) fn keep_token(&self, wanted: String, token: String) {
        self.tokens.borrow_mut().insert(wanted, token);
    }

    /// Forgets a token that did not work.
    pub(crate) fn forget_token(&self, header: &str) {
        self.tokens.borrow_mut().retain(|_, token| header.strip_prefix("Bearer ") != Some(token));
    }

    /// What there is to answer `refused`, a 401 of the registry at `registry` to such a request; in words why
    /// there is nothing.
    pub(crate) fn answer(&self, registry: &Url, refused: &Exchange, method: &Method, url: &Url) -> Result<Answer, String> {
        let challenges = refused.challenges();
        let of = |scheme| challenges.iter().find(|challenge| challenge.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            let scope = wanted_scope(bearer.parameters.get("scope"), method, url);
            let request = token_request(registry, bearer, scope.as_deref(), self.credentials())?;
            let wanted = format!("{:?} {scope:?}", bearer.parameters);
            let known = self.tokens.borrow().get(&wanted).map(|token| Answer::Header(format!("Bearer {token}")));
            return Ok(known.unwrap_or(Answer::Ask { request, wanted }));
        }
        if of("basic").is_none() {
            return Err("there is no challenge for Basic or Bearer in it".into());
        }
        let credentials = self.credentials().ok_or("there are no credentials to answer it with")?;
        Ok(Answer::Header(credentials.basic()))
    }
}

/// The path up to the repository's name and with it, and what a request is about to do there.
fn place_and_action<'a>(method: &Method, url: &'a Url) -> (&'a str, &'static str) {
    let path = url.path();
    let ends = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().filter_map(|part| path.rfind(part));
    let action = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    (&path[..ends.max().unwrap_or(path.len())], action)
}

/// What a request is about to do: the repository, whether it reads, writes or deletes, and where it mounts from.
fn purpose(method: &Method, url: &Url) -> String {
    let (place, action) = place_and_action(method, url);
    let from = url.query_pairs().find(|(name, _)| name == "from").map(|(_, value)| value.into_owned());
    format!("{action} {place} {}", from.unwrap_or_default())
}

/// The scope to ask a token for: what the challenge says, else what clients ask for then; and a mount needs
/// to read its source, which not every challenge says.
fn wanted_scope(challenged: Option<&String>, method: &Method, url: &Url) -> Option<String> {
    let (place, action) = place_and_action(method, url);
    let repository = place.strip_prefix("/v2/").filter(|repository| !repository.is_empty());
    let own = || repository.map(|repository| format!("repository:{repository}:{action}"));
    let scope = challenged.cloned().or_else(own)?;
    let from = url.query_pairs().find(|(name, _)| name == "from").map(|(_, source)| format!("repository:{source}:pull"));
    Some(match from {
        Some(from) if !scope.split(' ').any(|one| one == from) => format!("{scope} {from}"),
        _ => scope,
    })
}

/// Whether the credentials for a registry may go to a token server.
fn may_ask(registry: &Url, realm: &Url) -> bool {
    realm.scheme() == "https" || realm.origin() == registry.origin()
}

/// The request for a token that a Bearer challenge asks for, with `scope` in it and the credentials, if any.
///
/// # Errors
/// In words, when the challenge has no usable realm, or credentials must not go there.
pub(crate) fn token_request(
    registry: &Url,
    challenge: &Challenge,
    scope: Option<&str>,
    credentials: Option<&Credentials>,
) -> Result<Request, String> {
    let realm = challenge.parameters.get("realm").ok_or("its Bearer challenge has no realm")?;
    let mut url = Url::parse(realm).map_err(|e| format!("its realm {realm:?} is no URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its realm {realm:?} is no HTTP URL"));
    }
    if credentials.is_some() && !may_ask(registry, &url) {
        return Err(format!("its realm {realm:?} is on another origin and without TLS: credentials do not go there"));
    }
    if let Some(service) = challenge.parameters.get("service") {
        url.query_pairs_mut().append_pair("service", service);
    }
    // Several scopes are several parameters (docker's token specification, "Requesting a Token").
    for scope in scope.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    let request = Request::new(Method::GET, url).anonymous();
    Ok(match credentials {
        Some(credentials) => request.authorization(credentials.basic()),
        None => request,
    })
}

/// The token in a token server's answer.
pub(crate) fn token_of(answer: &Exchange) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
    let member = |name: &str| document[name].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
    member("token").or_else(|| member("access_token")).filter(|_| answer.status() == 200)
}

/// Reads the challenges of a header, which may hold several.
pub(crate) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    for item in items(header) {
        let name_end = item.find('=').unwrap_or(item.len());
        let (parameter, scheme) = match item[..name_end].trim_end().split_once(char::is_whitespace) {
            Some((scheme, _)) => (item[scheme.len()..].trim_start(), Some(scheme)),
            None if name_end == item.len() => ("", Some(item)),
            None => (item, None),
        };
        if let Some(scheme) = scheme {
            found.push(Challenge { scheme: scheme.to_ascii_lowercase(), parameters: BTreeMap::new() });
        }
        if let (Some((name, value)), Some(challenge)) = (parameter.split_once('='), found.last_mut()) {
            challenge.parameters.insert(name.trim().to_ascii_lowercase(), unquoted(value.trim()));
        }
    }
    found
}

/// The parts between commas that are not in quotes.
fn items(header: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escape) = (Vec::new(), 0, false, false);
    for (at, c) in header.char_indices() {
        match c {
            '"' if !escape => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&header[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escape = quoted && c == '\\' && !escape;
    }
    parts.push(&header[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// A parameter's value without its quotes and escapes.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let (mut text, mut characters) = (String::new(), inner.chars());
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => text.extend(characters.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn challenges_are_read_with_quotes_commas_and_escapes() {
        let read = |header| {
            let show = |c: Challenge| (c.scheme, c.parameters.into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>());
            challenges(header).into_iter().map(show).collect::<Vec<_>>()
        };
        let pair = |scheme: &str, parameters: &[&str]| (scheme.to_owned(), parameters.iter().map(ToString::to_string).collect());
        let bearer = r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push""#;
        assert_eq!(read(bearer), [pair("bearer", &["realm=https://a/t", "scope=repository:a/b:pull,push", "service=s"])]);
        let both = r#"BASIC realm="x, y", Bearer service=z , realm="a\"b""#;
        assert_eq!(read(both), [pair("basic", &["realm=x, y"]), pair("bearer", &["realm=a\"b", "service=z"])]);
        assert_eq!(read("Negotiate"), [pair("negotiate", &[])]);
        assert_eq!(read("Bearer realm=\"open"), [pair("bearer", &["realm=open"])]);
        assert_eq!(read(""), []);
    }

    #[test]
    fn credentials_go_to_the_registrys_origin_or_over_tls_only() {
        let credentials = Credentials::new("u", "p");
        let ask = |registry: &str, realm: &str| {
            let challenge = challenges(&format!("Bearer realm=\"{realm}\"")).remove(0);
            token_request(&url(registry), &challenge, None, Some(&credentials))
        };
        for (registry, realm) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token"),
            ("http://reg.example", "http://reg.example:80/token"),
            ("https://reg.example", "https://auth.example/token"),
            ("http://reg.example:5000", "https://reg.example/token"),
        ] {
            assert!(ask(registry, realm).is_ok(), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
            ("https://reg.example", "http://reg.example/token"),
            ("https://reg.example", "http://auth.example/token"),
            ("https://reg.example", "ftp://reg.example/token"),
            ("https://reg.example", "/token"),
        ] {
            assert!(ask(registry, realm).is_err(), "{registry} {realm}");
        }
    }

    #[test]
    fn a_header_is_kept_for_one_repository_and_one_kind_of_request() {
        let session = Session::new(None);
        let at = |path: &str| url(&format!("http://reg.example/v2/{path}"));
        session.keep_header(&Method::GET, &at("a/blobs/sha256:0"), "Bearer x".into());
        assert_eq!(session.header(&Method::HEAD, &at("a/manifests/v1")).as_deref(), Some("Bearer x"));
        assert_eq!(session.header(&Method::PUT, &at("a/manifests/v1")), None);
        assert_eq!(session.header(&Method::DELETE, &at("a/manifests/v1")), None);
        assert_eq!(session.header(&Method::GET, &at("a/blobs/manifests/v1")), None);
        assert_eq!(session.header(&Method::GET, &at("")), None);
        session.keep_header(&Method::POST, &at("a/blobs/uploads/?mount=x&from=b"), "Bearer y".into());
        assert_eq!(session.header(&Method::POST, &at("a/blobs/uploads/")), None);
    }

    #[test]
    fn a_token_is_asked_for_with_the_scope_that_is_needed() {
        let scope = |challenged: &str, method, path: &str| {
            let challenged = Some(challenged.to_owned()).filter(|scope| !scope.is_empty());
            wanted_scope(challenged.as_ref(), &method, &url(&format!("http://reg.example/v2/{path}")))
        };
        assert_eq!(scope("x:y:z", Method::GET, "a/tags/list").as_deref(), Some("x:y:z"));
        assert_eq!(scope("", Method::GET, "a/tags/list").as_deref(), Some("repository:a:pull"));
        assert_eq!(scope("", Method::PUT, "a/b/manifests/v1").as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(scope("", Method::GET, ""), None);
        let mount = "a/blobs/uploads/?mount=sha256:0&from=b";
        let both = "repository:a:pull,push repository:b:pull";
        assert_eq!(scope("repository:a:pull,push", Method::POST, mount).as_deref(), Some(both));
        assert_eq!(scope(both, Method::POST, mount).as_deref(), Some(both));
    }

    #[test]
    fn nothing_of_a_session_is_printed() {
        let session = Session::new(Some(Credentials::new("u", "hunter2")));
        session.keep_token("x".into(), "hunter2".into());
        assert!(!format!("{session:?}").contains("hunter2"));
    }
}
