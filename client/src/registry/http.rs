//! Blocking HTTP: each thread that talks to a registry owns one single-threaded client.
//!
//! One thread reads a body, hashes it and writes it down; a shared asynchronous runtime would add two
//! thread switches a chunk and gain nothing. The clients of a pool keep their connections, so a thread's
//! next request finds one open.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Request, Response};

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence in the middle of a body or before an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Redirects followed one after another.
const REDIRECTS_LIMIT: usize = 5;

/// Bytes read of a body that is sent to the registry at a time.
const UPLOAD_CHUNK_BYTES: usize = 256 << 10;

/// One thread's HTTP client.
struct Client {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Client {
    fn new(plain: bool) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let builder = reqwest::Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirect_policy())
            .referer(false)
            .tcp_nodelay(true);
        // Reading the system's certificates takes milliseconds that a plain connection need not pay.
        let builder = if plain { builder.tls_certs_only([]) } else { builder };
        Ok(Self { runtime, client: builder.build().map_err(io::Error::other)? })
    }
}

/// Follows a few redirects, never from HTTPS to plain HTTP. reqwest drops `Authorization` by itself when
/// the host changes (CVE-2020-15157).
fn redirect_policy() -> Policy {
    Policy::custom(|attempt| {
        let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS_LIMIT {
            attempt.error("too many redirects")
        } else if was_secure && attempt.url().scheme() != "https" {
            attempt.error("a redirect from HTTPS to plain HTTP is refused")
        } else {
            attempt.follow()
        }
    })
}

/// Clients not in use now.
pub(super) struct Pool {
    plain: bool,
    idle: Mutex<Vec<Client>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// `plain`: no TLS will be spoken.
    pub(super) fn new(plain: bool) -> Self {
        Self { plain, idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for the answer's head.
    pub(super) fn send(&self, build: impl FnOnce(&reqwest::Client) -> reqwest::Result<Request>) -> io::Result<Answer<'_>> {
        let idle = self.idle().pop();
        let client = idle.map_or_else(|| Client::new(self.plain), Ok)?;
        let sent =
            build(&client.client).and_then(|request| client.runtime.block_on(async { client.client.execute(request).await }));
        match sent {
            Ok(response) => Ok(Answer { pool: self, client: Some(client), response, chunk: Bytes::new() }),
            Err(e) => {
                self.idle().push(client);
                Err(into_io(&e))
            }
        }
    }
}

/// An answer whose body is read as it arrives.
pub(super) struct Answer<'a> {
    pool: &'a Pool,
    client: Option<Client>,
    response: Response,
    chunk: Bytes,
}

impl Answer<'_> {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn url(&self) -> &reqwest::Url {
        self.response.url()
    }

    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub(super) fn headers(&self, name: &str) -> Vec<String> {
        self.response.headers().get_all(name).iter().filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect()
    }

    /// The body, at most `limit_bytes` of it and one more to show that there is more.
    pub(super) fn body(&mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.take(limit_bytes as u64 + 1).read_to_end(&mut body)?;
        Ok(body)
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(client) = &self.client else { return Ok(0) };
            match client.runtime.block_on(self.response.chunk()).map_err(|e| into_io(&e))? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.pool.idle().push(client);
        }
    }
}

/// A request body read from `reader` as the connection takes it. The file is read on the client's own
/// thread, which has nothing else to do meanwhile.
pub(super) fn upload_body(reader: impl Read + Send + 'static, sent: impl Fn(u64) + Send + 'static) -> reqwest::Body {
    struct Chunks<R, F> {
        reader: R,
        sent: F,
    }
    impl<R: Read, F: Fn(u64)> Iterator for Chunks<R, F> {
        type Item = io::Result<Bytes>;

        fn next(&mut self) -> Option<Self::Item> {
            let mut chunk = vec![0; UPLOAD_CHUNK_BYTES];
            match self.reader.read(&mut chunk) {
                Ok(0) => None,
                Ok(n) => {
                    chunk.truncate(n);
                    (self.sent)(n as u64);
                    Some(Ok(chunk.into()))
                }
                Err(e) => Some(Err(e)),
            }
        }
    }
    reqwest::Body::wrap_stream(futures_util::stream::iter(Chunks { reader, sent }))
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn into_io(e: &reqwest::Error) -> io::Error {
    let kind = if e.is_timeout() { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
    let mut cause: &dyn std::error::Error = e;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    io::Error::new(kind, cause.to_string())
}
