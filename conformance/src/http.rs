//! One blocking exchange with a registry, kept so that it can be shown.

use std::fmt;

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::auth::{self, Answer as LoginAnswer, Challenge, Session};
use crate::credentials::Credentials;
use crate::limits::{ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT, EXCHANGE_TIMEOUT, REDIRECT_LIMIT, SHOWN_BODY_LIMIT_CHARS};
use crate::outcome::Outcome;
use crate::redact::{REMOVED, escaped, is_secret_header, without_secrets};

/// A registry and the means to speak to it, one request at a time.
#[derive(Debug)]
pub struct Registry {
    base: Url,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    session: Session,
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    who: Who,
}

/// Whom a request says it is from.
#[derive(Clone, PartialEq, Eq)]
enum Who {
    /// Whoever the registry was given credentials for, when it asks.
    Anyone,
    /// Nobody, and a 401 is the answer.
    Nobody,
    /// Whoever this `Authorization` value is of.
    Bearer(String),
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Who(...)")
    }
}

/// A request and what came back.
#[derive(Debug, Clone)]
pub struct Exchange {
    sent: Sent,
    url: Url,
    answer: Result<Answer, String>,
    /// What else is to be known of it, such as why a 401 was not answered.
    note: Option<String>,
}

#[derive(Debug, Clone)]
enum Sent {
    Request(Request),
    /// The head of a request that was sent as it is, and the length of what followed.
    Raw {
        head: Vec<u8>,
        body_bytes: usize,
    },
}

/// A status, headers and a body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request without a body. `target` is a path on the registry (`/v2/...`) or a whole URL, as a
    /// `Location` may be.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: Vec::new(), who: Who::Anyone }
    }

    /// The request with a header more.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The request with a body and its type.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = self.header("Content-Type", content_type);
        request.body = body.into();
        request
    }

    /// The request without credentials, whatever the answer.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.who = Who::Nobody;
        self
    }

    /// The request with this `Authorization` value, whatever the answer.
    #[must_use]
    pub fn authorization(mut self, value: impl Into<String>) -> Self {
        self.who = Who::Bearer(value.into());
        self
    }
}

impl Registry {
    /// A registry by its base URL, without `/v2/`, to be spoken to without credentials.
    pub fn new(base: Url) -> anyhow::Result<Self> {
        Self::with_credentials(base, None)
    }

    /// A registry by its base URL, without `/v2/`, and the credentials for when it asks for some.
    pub fn with_credentials(base: Url, credentials: Option<Credentials>) -> anyhow::Result<Self> {
        let named = !base.username().is_empty() || base.password().is_some();
        anyhow::ensure!(!named, "no user and no password in the URL, please: they would be printed; see --user");
        let settings = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(EXCHANGE_TIMEOUT)
                .redirect(reqwest::redirect::Policy::limited(REDIRECT_LIMIT))
                .user_agent(concat!("rconform/", env!("CARGO_PKG_VERSION")))
        };
        // A machine without certificate authorities can still speak plain HTTP: trust none there.
        let client = settings().build().or_else(|_| settings().tls_certs_only([]).build()).context("set up HTTP")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("set up HTTP")?;
        Ok(Self { base, client, runtime, session: Session::new(credentials) })
    }

    /// The base URL.
    pub fn url(&self) -> &Url {
        &self.base
    }

    /// The credentials it was given.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.session.credentials()
    }

    /// Sends `request`, and once more with credentials if the registry asks for them. No answer at all (a
    /// refused or broken connection, a timeout, an answer that is not HTTP or over the limit) is a failure
    /// of the registry: every request here can be answered.
    pub fn send(&self, request: Request) -> Outcome<Exchange> {
        let url = match self.base.join(&request.target) {
            Ok(url) => url,
            Err(e) => {
                let answer = Err(format!("{:?} is no URL: {e}", request.target));
                let exchange = Exchange { sent: Sent::Request(request), url: self.base.clone(), answer, note: None };
                return Err(exchange.fail("an answer"));
            }
        };
        // A Location may lead anywhere: no credentials go there.
        let known = match &request.who {
            Who::Bearer(value) => Some(value.clone()),
            Who::Anyone if self.is_own(&url) => self.session.header(&request.method, &url),
            Who::Anyone | Who::Nobody => None,
        };
        let mut exchange = self.transmit(&request, &url, known.as_deref())?;
        if exchange.status() != 401 || request.who != Who::Anyone || !self.is_own(&url) {
            return Ok(exchange);
        }
        if let Some(known) = &known {
            self.session.forget_token(known);
        }
        match self.log_in(&exchange, &request.method, &url) {
            Ok(header) if known.as_ref() == Some(&header) => {}
            Ok(header) => {
                exchange = self.transmit(&request, &url, Some(&header))?;
                if exchange.status() != 401 {
                    self.session.keep_header(&request.method, &url, header);
                }
            }
            Err(why) => exchange.note = Some(format!("the 401 was not answered: {why}")),
        }
        Ok(exchange)
    }

    /// The `Authorization` value that answers a 401; in words why there is none.
    fn log_in(&self, refused: &Exchange, method: &Method, url: &Url) -> Result<String, String> {
        let (request, wanted) = match self.session.answer(&self.base, refused, method, url)? {
            LoginAnswer::Header(header) => return Ok(header),
            LoginAnswer::Ask { request, wanted } => (request, wanted),
        };
        let asked = self.send(request).map_err(|_| "its token server does not answer".to_owned())?;
        let token = auth::token_of(&asked);
        let token = token.ok_or_else(|| format!("its token server answers {} and no token", asked.status()))?;
        let header = format!("Bearer {token}");
        self.session.keep_token(wanted, token);
        Ok(header)
    }

    /// The `Authorization` value that requests with `method` to `target` carry, if any is needed.
    pub(crate) fn known_authorization(&self, method: &Method, target: &str) -> Option<String> {
        self.session.header(method, &self.base.join(target).ok()?)
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    fn transmit(&self, request: &Request, url: &Url, authorization: Option<&str>) -> Outcome<Exchange> {
        let answer = self.runtime.block_on(self.answer(request, url.clone(), authorization)).map_err(|e| format!("{e:#}"));
        let mut shown = request.clone();
        if authorization.is_some() {
            shown = shown.header("Authorization", REMOVED);
        }
        let exchange = Exchange { sent: Sent::Request(shown), url: url.clone(), answer, note: None };
        if exchange.answer.is_ok() { Ok(exchange) } else { Err(exchange.fail("an answer")) }
    }

    async fn answer(&self, request: &Request, url: Url, authorization: Option<&str>) -> anyhow::Result<Answer> {
        let mut builder = self.client.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            builder = builder.header(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::from_str(authorization)?;
            value.set_sensitive(true);
            builder = builder.header("Authorization", value);
        }
        // A request that may have a body says its length even when that is 0.
        if matches!(request.method, Method::POST | Method::PUT | Method::PATCH) {
            builder = builder.header("Content-Length", request.body.len()).body(request.body.clone());
        }
        let mut response = builder.send().await?;
        let mut answer = Answer { status: response.status().as_u16(), headers: response.headers().clone(), body: Vec::new() };
        while let Some(chunk) = response.chunk().await? {
            answer.body.extend_from_slice(&chunk);
            anyhow::ensure!(answer.body.len() <= ANSWER_LIMIT_BYTES, "the answer is over {ANSWER_LIMIT_BYTES} bytes");
        }
        Ok(answer)
    }
}

impl Exchange {
    /// An exchange of bytes: the request as it was sent, up to its body, and the first answer.
    pub(crate) fn raw(head: Vec<u8>, body_bytes: usize, url: Url, answer: Result<Answer, String>) -> Self {
        Self { sent: Sent::Raw { head, body_bytes }, url, answer, note: None }
    }

    /// The same with something more to be known of it.
    #[must_use]
    pub(crate) fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The status code, 0 when there was no answer.
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |a| a.status)
    }

    /// A header of the answer, when it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.as_ref().ok()?.headers.get(name)?.to_str().ok()
    }

    /// A header that may be there several times, as the one list it stands for (RFC 9110 section 5.3);
    /// `None` when it is not there.
    pub fn all_of(&self, name: &str) -> Option<String> {
        let values = self.each_of(name);
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Every value of a header, those that are no text left out.
    pub fn each_of(&self, name: &str) -> Vec<&str> {
        let values = self.answer.iter().flat_map(|answer| answer.headers.get_all(name));
        values.filter_map(|value| value.to_str().ok()).collect()
    }

    /// The challenges of a 401.
    pub fn challenges(&self) -> Vec<Challenge> {
        self.each_of("WWW-Authenticate").into_iter().flat_map(auth::challenges).collect()
    }

    /// The body of the answer.
    pub fn body(&self) -> &[u8] {
        self.answer.as_ref().map_or(&[], |a| &a.body)
    }

    /// The URL a relative or absolute reference (a `Location`) in this answer stands for.
    pub fn resolve(&self, location: &str) -> Outcome<Url> {
        self.url.join(location).map_err(|e| self.fail(format_args!("a URL in the answer ({location:?}: {e})")))
    }
}

/// The exchange as text, several lines. What came from the registry is escaped: it must not reach a
/// terminal as it is. Secrets of both sides are removed.
impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sent {
            Sent::Request(request) => {
                writeln!(f, "> {} {}", request.method, shown(self.url.as_str()))?;
                for (name, value) in &request.headers {
                    writeln!(f, "> {name}: {}", shown_header(name, value))?;
                }
                shown_length(f, request.body.len())?;
            }
            Sent::Raw { head, body_bytes } => {
                let text = String::from_utf8_lossy(head);
                for line in text.trim_end().split("\r\n") {
                    let secret = line.split_once(':').filter(|(name, _)| is_secret_header(name));
                    let line = secret.map_or_else(|| line.to_owned(), |(name, _)| format!("{name}: {REMOVED}"));
                    writeln!(f, "> {}", shown(&cut(&line)))?;
                }
                shown_length(f, *body_bytes)?;
            }
        }
        match &self.answer {
            Ok(answer) => answer.fmt(f)?,
            Err(why) => writeln!(f, "< no answer: {}", shown(why))?,
        }
        self.note.as_ref().map_or(Ok(()), |note| writeln!(f, "({})", shown(note)))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "< {}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "< {name}: {}", shown_header(name.as_str(), &String::from_utf8_lossy(value.as_bytes())))?;
        }
        if self.body.is_empty() {
            return Ok(());
        }
        // Cut first: a body may have megabytes. What is secret in what is left is recognised without its end.
        let text = String::from_utf8_lossy(&self.body);
        writeln!(f, "< ({} bytes) {}", self.body.len(), shown(cut(&text).trim_end()))
    }
}

fn shown_length(f: &mut fmt::Formatter<'_>, body_bytes: usize) -> fmt::Result {
    if body_bytes == 0 { Ok(()) } else { writeln!(f, "> ({body_bytes} bytes)") }
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    text.chars().take(SHOWN_BODY_LIMIT_CHARS).collect()
}

/// Text as it may be printed.
fn shown(text: &str) -> String {
    escaped(&without_secrets(text))
}

/// A header's value as it may be printed.
fn shown_header(name: &str, value: &str) -> String {
    if is_secret_header(name) { REMOVED.to_owned() } else { shown(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_exchange_holds_no_secret_and_no_terminal_escape() {
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", HeaderValue::from_static("session=hunter2"));
        headers.insert("location", HeaderValue::from_static("/v2/a/blobs/uploads/1?_state=hunter2"));
        let url = Url::parse("http://registry.test/v2/?access_token=hunter2").unwrap();
        let answer = Answer { status: 200, headers, body: b"\x1b[2J\x07{\"token\":\"hunter2\"}".to_vec() };
        let request = Request::new(Method::GET, "/v2/").header("Authorization", "Basic hunter2").authorization("Basic hunter2");
        let head = b"GET /v2/?token=hunter2 HTTP/1.1\r\nAuthorization: Basic hunter2\r\n\r\n".to_vec();
        for sent in [Sent::Request(request), Sent::Raw { head, body_bytes: 0 }] {
            let note = Some("http://u:hunter2@host".to_owned());
            let exchange = Exchange { sent, url: url.clone(), answer: Ok(answer.clone()), note };
            let text = exchange.to_string();
            assert!(!text.contains("hunter2"), "{text}");
            assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
            assert!(text.contains("\\u{1b}[2J"), "{text}");
            assert!(text.contains("Authorization: (removed)"), "{text}");
        }
    }
}
