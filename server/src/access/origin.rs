//! Where clients reach this registry: what a challenge's realm and service are made of.

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use crate::error::{Error, Result};
use crate::serve::Peer;

/// The longest host and port accepted, in bytes.
const HOST_LIMIT_BYTES: usize = 255 + 6;

/// Scheme and host as the client has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    scheme: &'a str,
    /// `host[:port]`: the name tokens know this registry by.
    pub(super) service: &'a str,
}

impl<'a> Origin<'a> {
    /// Of the URL that is configured, or else of the request itself. Headers of proxies count for
    /// nothing: anybody can send them.
    pub(super) fn of(parts: &'a Parts, public_url: Option<&'a str>) -> Result<Self> {
        if let Some(origin) = public_url.and_then(Self::parse) {
            return Ok(origin);
        }
        let header = || parts.headers.get(HOST).and_then(|value| value.to_str().ok());
        let host = parts.uri.authority().map(Authority::as_str).or_else(header);
        let host = host.filter(|host| is_host(host)).ok_or_else(|| Error::Parameter("the Host header is no host".into()))?;
        let tls = parts.extensions.get::<Peer>().is_some_and(|peer| peer.tls);
        Ok(Self { scheme: if tls { "https" } else { "http" }, service: host })
    }

    /// A URL without a path.
    pub(super) fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let service = rest.strip_suffix('/').unwrap_or(rest);
        (["http", "https"].contains(&scheme) && is_host(service)).then_some(Self { scheme, service })
    }

    /// The challenge of a request that needs an identity, or another one: one scheme only, because
    /// docker's library answers every scheme it is offered and then fails for want of a password, and
    /// containers/image answers the first. Basic is taken unasked.
    pub(super) fn challenge(&self, scope: &str, error: Option<&str>) -> String {
        let Self { scheme, service } = self;
        let mut challenge = format!("Bearer realm=\"{scheme}://{service}/v2/token\",service=\"{service}\"");
        for (name, value) in [("scope", Some(scope).filter(|scope| !scope.is_empty())), ("error", error)] {
            if let Some(value) = value {
                challenge.push_str(&format!(",{name}=\"{value}\""));
            }
        }
        challenge
    }
}

/// Whether a text is `host[:port]` and nothing that could mean more within a header or a URL.
fn is_host(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    plain && text.len() <= HOST_LIMIT_BYTES && text.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, host: Option<&str>) -> Parts {
        let request = host.into_iter().fold(Request::get(uri), |request, host| request.header(HOST, host));
        request.header("x-forwarded-proto", "https").header("x-forwarded-host", "evil").body(()).unwrap().into_parts().0
    }

    fn challenge(parts: &Parts, public_url: Option<&str>) -> Option<String> {
        Origin::of(parts, public_url).ok().map(|origin| origin.challenge("repository:a:pull", None))
    }

    #[test]
    fn the_realm_is_where_the_client_is_already() {
        let said = "Bearer realm=\"http://[::1]:5000/v2/token\",service=\"[::1]:5000\",scope=\"repository:a:pull\"";
        assert_eq!(challenge(&parts("/v2/", Some("[::1]:5000")), None).as_deref(), Some(said));
        let mut over_tls = parts("/v2/", Some("hub.example"));
        over_tls.extensions.insert(Peer { address: ([127, 0, 0, 1], 1).into(), tls: true });
        assert!(challenge(&over_tls, None).unwrap().contains("\"https://hub.example/v2/token\""));
        let http2 = parts("http://hub.example:81/v2/", None);
        assert!(challenge(&http2, None).unwrap().contains("\"http://hub.example:81/v2/token\""));
        let behind = challenge(&parts("/v2/", Some("inside:5000")), Some("https://hub.example/")).unwrap();
        assert!(behind.contains("\"https://hub.example/v2/token\",service=\"hub.example\""));
    }

    #[test]
    fn a_host_that_could_end_the_quotes_or_lead_elsewhere_is_refused() {
        for bad in ["", "a\"", "a\",realm=\"x", "a b", "a/b", "user@a", "a?b", "a#b", ":5000", "a:b:c", "%61", &"a".repeat(300)] {
            assert_eq!(challenge(&parts("/v2/", Some(bad)), None), None, "{bad}");
        }
        assert_eq!(challenge(&parts("/v2/", None), None), None);
        for bad in ["hub.example", "ftp://hub", "https://", "https://hub/path", "https://u@hub"] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
    }
}
