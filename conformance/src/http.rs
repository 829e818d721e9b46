//! One blocking exchange with a registry, kept so that it can be shown.

use std::fmt;

use anyhow::Context as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::limits::{ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT, EXCHANGE_TIMEOUT, REDIRECT_LIMIT, SHOWN_BODY_LIMIT_CHARS};
use crate::outcome::Outcome;

/// A registry and the means to speak to it, one request at a time.
#[derive(Debug)]
pub struct Registry {
    base: Url,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A request and what came back.
#[derive(Debug, Clone)]
pub struct Exchange {
    request: Request,
    url: Url,
    answer: Result<Answer, String>,
}

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body. `target` is a path on the registry (`/v2/...`) or a whole URL, as a
    /// `Location` may be.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: Vec::new() }
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
}

impl Registry {
    /// A registry by its base URL, without `/v2/`.
    pub fn new(base: Url) -> anyhow::Result<Self> {
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
        Ok(Self { base, client, runtime })
    }

    /// The base URL.
    pub fn url(&self) -> &Url {
        &self.base
    }

    /// Sends `request`. No answer at all (a refused or broken connection, a timeout, an answer that is
    /// not HTTP or over the limit) is a failure of the registry: every request here can be answered.
    pub fn send(&self, request: Request) -> Outcome<Exchange> {
        let (url, answer) = match self.base.join(&request.target) {
            Ok(url) => (url.clone(), self.runtime.block_on(self.answer(&request, url)).map_err(|e| format!("{e:#}"))),
            Err(e) => (self.base.clone(), Err(format!("{:?} is no URL: {e}", request.target))),
        };
        let exchange = Exchange { request, url, answer };
        if exchange.answer.is_ok() { Ok(exchange) } else { Err(exchange.fail("an answer")) }
    }

    async fn answer(&self, request: &Request, url: Url) -> anyhow::Result<Answer> {
        let mut builder = self.client.request(request.method.clone(), url);
        for (name, value) in &request.headers {
            builder = builder.header(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
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
        let values = self.answer.as_ref().ok()?.headers.get_all(name);
        let values: Vec<_> = values.iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(", "))
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
/// terminal as it is.
impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "> {} {}", self.request.method, escaped(self.url.as_str()))?;
        for (name, value) in &self.request.headers {
            writeln!(f, "> {name}: {}", shown(name, value))?;
        }
        if !self.request.body.is_empty() {
            writeln!(f, "> ({} bytes)", self.request.body.len())?;
        }
        let answer = match &self.answer {
            Ok(answer) => answer,
            Err(why) => return writeln!(f, "< no answer: {}", escaped(why)),
        };
        writeln!(f, "< {}", answer.status)?;
        for (name, value) in &answer.headers {
            writeln!(f, "< {name}: {}", shown(name.as_str(), &String::from_utf8_lossy(value.as_bytes())))?;
        }
        if !answer.body.is_empty() {
            let text = String::from_utf8_lossy(&answer.body);
            let start: String = text.chars().take(SHOWN_BODY_LIMIT_CHARS).collect();
            writeln!(f, "< ({} bytes) {}", answer.body.len(), escaped(start.trim_end()))?;
        }
        Ok(())
    }
}

/// A header's value as it may be printed.
fn shown(name: &str, value: &str) -> String {
    let secret = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
    if secret.iter().any(|s| name.eq_ignore_ascii_case(s)) { "(removed)".to_owned() } else { escaped(value) }
}

fn escaped(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_exchange_holds_no_secret_and_no_terminal_escape() {
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", HeaderValue::from_static("session=hunter2"));
        let exchange = Exchange {
            request: Request::new(Method::GET, "/v2/").header("Authorization", "Basic hunter2"),
            url: Url::parse("http://registry.test/v2/").unwrap(),
            answer: Ok(Answer { status: 200, headers, body: b"\x1b[2J\x07".to_vec() }),
        };
        let text = exchange.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        assert!(text.contains("\\u{1b}[2J"), "{text}");
    }
}
