//! The registry protocol, as a client speaks it (distribution-spec 1.1): one repository of one registry.

mod auth;
mod http;
mod login;

use std::io::Read;

use longshore_runtime::image::media_type;
use longshore_runtime::name::{Digest, MANIFEST_LIMIT_BYTES, Reference};
use longshore_runtime::{RawManifest, Source};
use reqwest::{Body, Client, RequestBuilder, Url};

use self::auth::{Action, Auth, authority};
use self::http::{Answer, Pool};
pub use self::login::log_in;
use crate::config::{Endpoint, Registries};
use crate::error::{self, Error, Result};

/// The longest error body read, in bytes.
const ERROR_LIMIT_BYTES: usize = 16 << 10;

/// One repository of a registry. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Repository {
    endpoint: Endpoint,
    name: String,
    /// `scheme://host/v2/name`
    base: String,
    pool: Pool,
    auth: Auth,
}

impl Repository {
    /// The repository a reference names, reached as configured. Opens no connection yet.
    pub fn new(registries: &Registries, reference: &Reference) -> Self {
        let endpoint = registries.endpoint(reference.registry());
        let name = reference.repository().to_string();
        Self {
            base: format!("{}/v2/{name}", endpoint.base()),
            pool: Pool::new(endpoint.plain),
            auth: Auth::new(reference.registry(), endpoint.clone(), &name),
            name,
            endpoint,
        }
    }

    /// `host[:port]` the requests go to.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// The manifest or index under a tag or digest (end-3).
    pub fn get_manifest(&self, identifier: &str) -> Result<RawManifest> {
        let attempted = || format!("get manifest {identifier}");
        let accept = media_type::MANIFESTS.join(", ");
        let url = format!("{}/manifests/{identifier}", self.base);
        let mut answer = self.send(Action::Pull, attempted, |client| client.get(&url).header("accept", &accept))?;
        self.expect(&mut answer, &[200], attempted)?;
        let media_type = answer.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let bytes = answer.body(MANIFEST_LIMIT_BYTES).map_err(|e| self.broken(&attempted(), e.to_string()))?;
        if bytes.len() > MANIFEST_LIMIT_BYTES {
            return Err(self.broken(&attempted(), "it is longer than 4 MiB".into()));
        }
        Ok(RawManifest { media_type, digest: Digest::of(&bytes), bytes })
    }

    /// A blob's bytes from `offset` on (end-2).
    pub fn get_blob(&self, digest: &Digest, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        let attempted = || format!("get blob {digest}");
        let url = format!("{}/blobs/{digest}", self.base);
        let mut answer = self.send(Action::Pull, attempted, |client| match offset {
            0 => client.get(&url),
            _ => client.get(&url).header("range", format!("bytes={offset}-")),
        })?;
        self.expect(&mut answer, &[200, 206], attempted)?;
        if offset > 0 && answer.status() == 206 {
            let range = answer.header("content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {offset}-")) {
                return Err(self.broken(&attempted(), format!("asked for bytes from {offset}, it sent {range:?}")));
            }
        } else if offset > 0 {
            // It does not do ranges and sends all of it: skip what is here already.
            std::io::copy(&mut (&mut answer).take(offset), &mut std::io::sink())
                .map_err(|e| self.broken(&attempted(), e.to_string()))?;
        }
        Ok(Box::new(answer))
    }

    /// Whether a blob is there (end-2).
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let attempted = || format!("look for blob {digest}");
        let url = format!("{}/blobs/{digest}", self.base);
        let mut answer = self.send(Action::Push, attempted, |client| client.head(&url))?;
        if answer.status() == 404 {
            return Ok(false);
        }
        self.expect(&mut answer, &[200], attempted).map(|()| true)
    }

    /// Uploads a blob of `size` bytes in one stream (end-4a, end-6). `open` is called again if the bytes
    /// must be sent again; `sent` is told how many bytes were handed to the connection.
    pub fn put_blob<R: Read + Send + 'static>(
        &self,
        digest: &Digest,
        size: u64,
        open: impl Fn() -> Result<R>,
        sent: impl Fn(u64) + Clone + Send + 'static,
    ) -> Result<()> {
        let attempted = || format!("upload blob {digest}");
        let start = format!("{}/blobs/uploads/", self.base);
        let mut answer = self.send(Action::Push, attempted, |client| client.post(&start).header("content-length", "0"))?;
        self.expect(&mut answer, &[202], attempted)?;
        let mut location = self.location(&answer, attempted)?;
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        // Drop the answer first: its connection carries the upload.
        drop(answer);
        let trusted = self.is_own(&location);
        let put = |client: &Client| {
            let request = client.put(location.clone()).header("content-type", "application/octet-stream");
            request.header("content-length", size.to_string())
        };
        let mut answer =
            self.send_body(Action::Push, trusted, attempted, put, || Ok(Some(http::upload_body(open()?, sent.clone()))))?;
        self.expect(&mut answer, &[201], attempted)
    }

    /// Stores a manifest or index under a tag or digest (end-7), byte for byte.
    pub fn put_manifest(&self, identifier: &str, manifest: &RawManifest) -> Result<()> {
        let attempted = || format!("put manifest {identifier}");
        let url = format!("{}/manifests/{identifier}", self.base);
        let mut answer = self.send(Action::Push, attempted, |client| {
            client.put(&url).header("content-type", &manifest.media_type).body(manifest.bytes.clone())
        })?;
        self.expect(&mut answer, &[201], attempted)?;
        match answer.header("docker-content-digest") {
            Some(digest) if digest != manifest.digest.as_str() => {
                Err(self.broken(&attempted(), format!("it stored {digest:?} where {} was sent", manifest.digest)))
            }
            _ => Ok(()),
        }
    }

    /// Where an upload goes on. Another host is allowed by the specification; it gets no credentials
    /// (CVE-2026-50151), and no plain HTTP where the registry speaks HTTPS.
    fn location(&self, answer: &Answer<'_>, attempted: impl Fn() -> String) -> Result<Url> {
        let location = answer.header("location").ok_or_else(|| self.broken(&attempted(), "its answer has no Location".into()))?;
        let url = answer.url().join(location).map_err(|e| self.broken(&attempted(), format!("its Location is no URL: {e}")))?;
        if url.scheme() == "https" || (self.endpoint.plain && url.scheme() == "http") {
            Ok(url)
        } else {
            Err(self.broken(&attempted(), "its Location leads away from HTTPS; nothing was sent".into()))
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        authority(url) == self.endpoint.host && (url.scheme() == "http") == self.endpoint.plain
    }

    fn send(
        &self,
        action: Action,
        attempted: impl Fn() -> String,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer<'_>> {
        self.send_body(action, true, attempted, build, || Ok(None))
    }

    /// Sends a request; answers one challenge and sends it again, its body made anew.
    fn send_body(
        &self,
        action: Action,
        trusted: bool,
        attempted: impl Fn() -> String,
        build: impl Fn(&Client) -> RequestBuilder,
        body: impl Fn() -> Result<Option<Body>>,
    ) -> Result<Answer<'_>> {
        let mut retried = false;
        loop {
            let authorization = if trusted { self.auth.header(action) } else { None };
            let body = body()?;
            let sent = self.pool.send(|client| {
                let mut request = build(client);
                if let Some(body) = body {
                    request = request.body(body);
                }
                if let Some(value) = authorization {
                    request = request.header("authorization", value);
                }
                request.build()
            });
            let answer = sent.map_err(|e| Error::Unreachable { host: self.endpoint.host.clone(), why: e.to_string() })?;
            if answer.status() != 401 || retried || !trusted {
                return Ok(answer);
            }
            let challenges = answer.headers("www-authenticate");
            drop(answer);
            retried = true;
            if !self.auth.answer(&self.pool, &challenges, action)? {
                let answer = error::Answer { status: 401, code: String::new(), message: String::new() };
                return Err(self.refused(&attempted(), answer));
            }
        }
    }

    fn expect(&self, answer: &mut Answer<'_>, statuses: &[u16], attempted: impl Fn() -> String) -> Result<()> {
        let status = answer.status();
        if statuses.contains(&status) {
            return Ok(());
        }
        let body = answer.body(ERROR_LIMIT_BYTES).unwrap_or_default();
        Err(self.refused(&attempted(), error::Answer::parse(status, &body)))
    }

    fn refused(&self, attempted: &str, answer: error::Answer) -> Error {
        Error::Refused { host: self.endpoint.host.clone(), attempted: format!("{attempted} in {}", self.name), answer }
    }

    fn broken(&self, attempted: &str, why: String) -> Error {
        Error::Protocol { host: self.endpoint.host.clone(), attempted: format!("{attempted} in {}", self.name), why }
    }
}

impl Source for Repository {
    fn manifest(&self, reference: &Reference) -> longshore_runtime::Result<RawManifest> {
        Ok(self.get_manifest(reference.identifier())?)
    }

    fn blob(&self, _: &Reference, digest: &Digest, offset: u64) -> longshore_runtime::Result<Box<dyn Read + Send + '_>> {
        Ok(self.get_blob(digest, offset)?)
    }
}
