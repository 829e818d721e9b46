//! The registry and repository a load goes to, and requests to them as bytes.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, ensure};
use reqwest::Url;

/// Where a load goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    host: String,
    pub(super) repository: String,
    /// The value of `Authorization`.
    authorization: Option<String>,
}

impl Target {
    pub(super) fn new(url: &Url, repository: String, authorization: Option<String>) -> anyhow::Result<Self> {
        ensure!(url.scheme() == "http", "a load is put on plain HTTP: {url} is not");
        let is_value = |value: &String| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        ensure!(
            authorization.as_ref().is_none_or(is_value),
            "what is to go into the header Authorization has other characters than ASCII"
        );
        let name = url.host_str().with_context(|| format!("{url} names no host"))?;
        let port = url.port_or_known_default().unwrap_or(80);
        let mut addresses = (name.trim_matches(['[', ']']), port).to_socket_addrs().with_context(|| format!("look up {name}"))?;
        let address = addresses.next().with_context(|| format!("{name} has no address"))?;
        Ok(Self { address, host: format!("{name}:{port}"), repository, authorization })
    }

    /// The repository below this one.
    pub(super) fn below(&self, name: &str) -> Self {
        Self { repository: format!("{}/{name}", self.repository), ..self.clone() }
    }

    /// `/v2/REPOSITORY/path`.
    pub(super) fn path(&self, path: &str) -> String {
        format!("/v2/{}/{path}", self.repository)
    }

    /// A request without a body.
    pub(super) fn request(&self, method: &str, path: &str) -> Vec<u8> {
        let mut request = Vec::new();
        self.write_head(&mut request, method, path, None);
        request
    }

    /// A request with a body.
    pub(super) fn request_with(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        self.write_head(&mut request, method, path, Some((content_type, body.len() as u64)));
        request.extend_from_slice(body);
        request
    }

    /// Writes the head of a request into an emptied buffer; `body` is its type and length.
    pub(super) fn write_head(&self, buffer: &mut Vec<u8>, method: &str, path: &str, body: Option<(&str, u64)>) {
        let mut head = String::with_capacity(256 + path.len());
        let _ = write!(head, "{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(authorization) = &self.authorization {
            let _ = write!(head, "Authorization: {authorization}\r\n");
        }
        if path.contains("/manifests/") && matches!(method, "GET" | "HEAD") {
            let _ = write!(head, "Accept: {}\r\n", super::MANIFEST_TYPE);
        }
        match body {
            Some((content_type, length)) => {
                let _ = write!(head, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
            }
            None if matches!(method, "POST" | "PUT" | "PATCH") => head.push_str("Content-Length: 0\r\n"),
            None => {}
        }
        head.push_str("\r\n");
        buffer.clear();
        buffer.extend_from_slice(head.as_bytes());
    }

    /// The path of a `Location`, which may be a whole URL on the same server.
    pub(super) fn path_of<'a>(&self, location: &'a str) -> anyhow::Result<&'a str> {
        if location.starts_with('/') {
            return Ok(location);
        }
        let rest = location.strip_prefix("http://").and_then(|rest| rest.strip_prefix(self.host.as_str()));
        rest.filter(|rest| rest.starts_with('/'))
            .with_context(|| format!("{location:?} leads to another server than {}", self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> anyhow::Result<Target> {
        Target::new(&url.parse().unwrap(), "a/b".into(), None)
    }

    #[test]
    fn requests_are_whole() {
        let target = at("http://127.0.0.1:5000").unwrap();
        let get = String::from_utf8(target.request("GET", &target.path("manifests/v1"))).unwrap();
        assert!(get.starts_with("GET /v2/a/b/manifests/v1 HTTP/1.1\r\nHost: 127.0.0.1:5000\r\nAccept: "), "{get}");
        assert!(get.ends_with("\r\n\r\n"));
        let post = String::from_utf8(target.request("POST", "/x")).unwrap();
        assert!(post.contains("\r\nContent-Length: 0\r\n"), "{post}");
        let put = String::from_utf8(target.request_with("PUT", "/x", "a/b", b"body")).unwrap();
        assert!(put.contains("\r\nContent-Type: a/b\r\nContent-Length: 4\r\n") && put.ends_with("\r\n\r\nbody"), "{put}");
    }

    #[test]
    fn every_request_says_who_asks_and_nothing_else() {
        let with = |value: &str| Target::new(&"http://127.0.0.1:5000".parse().unwrap(), "a".into(), Some(value.into()));
        let target = with("Basic eDp5").unwrap();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
            let request = String::from_utf8(target.below("b").request(method, "/v2/a/b/x")).unwrap();
            assert!(request.contains("\r\nAuthorization: Basic eDp5\r\n"), "{request}");
        }
        for bad in ["Basic x\r\nX-Other: y", "Basic \0", "Basic \u{e4}"] {
            let said = format!("{:#}", with(bad).unwrap_err());
            assert!(!said.contains("Basic"), "a secret is not repeated: {said}");
        }
    }

    #[test]
    fn a_location_is_followed_on_the_same_server_only() {
        let target = at("http://[::1]:5000/").unwrap();
        assert_eq!(target.address, "[::1]:5000".parse().unwrap());
        assert_eq!(target.path_of("/v2/x?y=1").unwrap(), "/v2/x?y=1");
        assert_eq!(target.path_of("http://[::1]:5000/v2/x").unwrap(), "/v2/x");
        for elsewhere in ["http://[::1]:50001/x", "https://[::1]:5000/x", "http://elsewhere/x", "v2/x"] {
            assert!(target.path_of(elsewhere).is_err(), "{elsewhere}");
        }
        assert!(at("https://127.0.0.1:5000").is_err());
    }
}
