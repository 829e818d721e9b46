//! Redirects: a host's client follows them within the host. To another one the question alone goes on, by a client that
//! shows and trusts nothing of the first host's.
//!
//! **Invariant: no body and no credentials follow a redirect to another host** (CVE-2020-15157).

use std::fmt;
use std::io;

use reqwest::header::{ACCEPT, HeaderMap, HeaderName, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Method, Request, Url};

use super::http::Answer;
use crate::config::Endpoint;

/// Redirects followed one after another, within a host and from one to the next.
const REDIRECTS_LIMIT: usize = 5;

/// What of a request's headers is said to another host, too.
const SAID_ON: [HeaderName; 2] = [ACCEPT, RANGE];

/// What a client follows by itself: a few redirects within a host.
pub(super) fn policy() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().last().is_some_and(|from| from.origin() != attempt.url().origin()) {
            attempt.stop()
        } else if attempt.previous().len() > REDIRECTS_LIMIT {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

/// What of a request may be asked of another host.
pub(super) struct Question {
    method: Method,
    headers: HeaderMap,
}

impl Question {
    pub(super) fn of(request: &Request) -> Self {
        let said_on = |name: HeaderName| Some((name.clone(), request.headers().get(name)?.clone()));
        Self { method: request.method().clone(), headers: SAID_ON.into_iter().filter_map(said_on).collect() }
    }

    /// The same at another host, to which so many redirects have led.
    pub(super) fn at(&self, url: Url, hops: usize) -> io::Result<Request> {
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if hops > REDIRECTS_LIMIT {
            return refused("too many redirects".into());
        }
        // What it holds was meant for the host that it was sent to.
        if self.method != Method::GET && self.method != Method::HEAD {
            let host = Endpoint::of(&url).host;
            return refused(format!("a redirect of a {} request to another host, {host}, is refused", self.method));
        }
        let mut request = Request::new(self.method.clone(), url);
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }
}

/// The other host's URL that an answer leads to; never from HTTPS to plain HTTP.
pub(super) fn target(answer: &Answer<'_>) -> io::Result<Option<Url>> {
    let leads_on = matches!(answer.status(), 301 | 302 | 303 | 307 | 308);
    let Some((from, location)) = answer.url().zip(answer.header("location")).filter(|_| leads_on) else { return Ok(None) };
    let Ok(url) = from.join(location) else { return Ok(None) };
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(url)),
        _ => {
            let why = "a redirect from HTTPS to plain HTTP, or what is neither, is refused";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}

/// What failed at another host.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// `host[:port]`
    pub(super) host: String,
    pub(super) cause: String,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it leads to {}, and there: {}", self.host, self.cause)
    }
}

impl std::error::Error for Elsewhere {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_asked_the_same_without_who_asks_and_sent_nothing() {
        let at = |method: Method, hops| {
            let mut request = Request::new(method, "https://r.example/v2/".parse().unwrap());
            for name in ["accept", "range", "authorization", "cookie", "x-meta-team"] {
                request.headers_mut().insert(HeaderName::from_static(name), "x".parse().unwrap());
            }
            Question::of(&request).at("https://cdn.example/blob".parse().unwrap(), hops)
        };
        let request = at(Method::GET, 1).unwrap();
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "range"]);
        assert!(at(Method::HEAD, REDIRECTS_LIMIT).is_ok() && at(Method::GET, REDIRECTS_LIMIT + 1).is_err());
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(at(method, 1).unwrap_err().to_string().contains("cdn.example"));
        }
    }
}
