//! Blocking HTTP: each thread that talks to a registry owns one single-threaded client.
//!
//! One thread reads a body, hashes it and writes it down; a shared asynchronous runtime would add two
//! thread switches a chunk and gain nothing. The clients of a pool keep their connections, so a thread's
//! next request finds one open.

use std::io::{self, Read};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_runtime::parallel::Cancel;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Request, Response};

use super::timing::Timing;
use super::tls::Certificates;
use crate::config::{Network, Proxy, Tls};
use crate::error::{Error, Result};

/// How long who waits for the network does not look whether it is still wanted.
const CANCEL_LOOK: Duration = Duration::from_millis(100);

/// Redirects followed one after another.
const REDIRECTS_LIMIT: usize = 5;

/// What is said of a proxy that wants credentials (by the library below, too), and of one that does not connect.
const PROXY_WANTS: &str = "proxy authorization required";
const PROXY_REFUSES: &str = "tunnel error: unsuccessful";

/// Bytes read of a body that is sent to the registry at a time.
const UPLOAD_CHUNK_BYTES: usize = 256 << 10;

/// One thread's HTTP client.
struct Client {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Client {
    fn new(pool: &Pool) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let builder = reqwest::Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(pool.timing.connect)
            .default_headers(pool.headers.clone())
            .redirect(redirect_policy())
            .referer(false)
            .tls_info(true)
            .tcp_nodelay(true);
        let builder = if pool.network.proxies.is_empty() {
            builder.no_proxy()
        } else {
            let proxies = Arc::clone(&pool.network.proxies);
            builder.proxy(reqwest::Proxy::custom(move |url| proxies.proxy_for(url).map(|proxy| proxy.url().clone())))
        };
        // Reading the system's certificates takes milliseconds that a plain connection need not pay.
        let no_tls = pool.plain && pool.network.proxies.is_empty();
        let builder = if no_tls { builder.tls_certs_only([]) } else { pool.certificates.apply(builder) };
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
    tls: Tls,
    certificates: Certificates,
    network: Network,
    headers: HeaderMap,
    timing: Timing,
    idle: Mutex<Vec<Client>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// `plain`: no TLS will be spoken.
    pub(super) fn new(plain: bool, tls: &Tls, network: &Network, timing: Timing) -> Result<Self> {
        let (certificates, headers) = (Certificates::read(tls)?, header_map(&network.headers)?);
        Ok(Self { plain, tls: tls.clone(), certificates, network: network.clone(), headers, timing, idle: Mutex::default() })
    }

    /// One for another host. The authorities that count here count there, too, but it is shown and spared nothing.
    pub(super) fn other(&self, plain: bool, host: &str) -> Result<Self> {
        let mut tls = Tls::of_host(host)?;
        tls.authorities.extend_from_slice(&self.tls.authorities);
        Self::new(plain, &tls, &self.network, self.timing)
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for the answer's head. `sent` counts the bytes of its body as they go,
    /// if there is one.
    pub(super) fn send<'a>(
        &'a self,
        cancel: &'a Cancel<'a>,
        sent: Option<&AtomicU64>,
        build: impl FnOnce(&reqwest::Client) -> reqwest::Result<Request>,
    ) -> io::Result<Answer<'a>> {
        let idle = self.idle().pop();
        let client = idle.map_or_else(|| Client::new(self), Ok)?;
        let limit = if sent.is_some() { self.timing.finish } else { self.timing.answer };
        let answered = build(&client.client).map_err(|e| into_io(&e)).and_then(|request| {
            let proxy = self.network.proxies.proxy_for(request.url());
            let execute = client.client.execute(request);
            let answered = client.runtime.block_on(watch(cancel, limit, sent, execute));
            match (answered, proxy) {
                (Err(e), Some(proxy)) => Err(of_proxy(proxy, &e)),
                (Ok(answer), Some(proxy)) if answer.status().as_u16() == 407 => {
                    Err(of_proxy(proxy, &io::Error::other(PROXY_WANTS)))
                }
                (answered, _) => answered,
            }
        });
        match answered {
            Ok(response) => {
                let stall = self.timing.stall;
                Ok(Answer {
                    pool: self,
                    cancel,
                    stall,
                    client: Some(client),
                    response: Some(response),
                    hint: None,
                    chunk: Bytes::new(),
                })
            }
            Err(e) => {
                self.idle().push(client);
                Err(e)
            }
        }
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap> {
    let bad =
        |name: &str| Error::Config { path: "docker's config.json".into(), why: format!("HttpHeaders: {name:?} is no header") };
    let header = |(name, value): &(String, String)| {
        let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
        parsed.ok_or_else(|| bad(name))
    };
    headers.iter().map(header).collect()
}

/// What went wrong on the way through a proxy, which is named.
fn of_proxy(proxy: &Proxy, e: &io::Error) -> io::Error {
    let said = e.to_string();
    let (kind, why) = if said.contains(PROXY_WANTS) {
        let how = "it wants a user name and a password: http://USER:PASSWORD@HOST:PORT gives them";
        (io::ErrorKind::InvalidInput, how.to_owned())
    } else if said.contains(PROXY_REFUSES) {
        (
            e.kind(),
            "it refuses to connect there, or does not take the password; what needs no proxy stands in NO_PROXY".to_owned(),
        )
    } else {
        (e.kind(), said)
    };
    io::Error::new(kind, format!("through the proxy {proxy}: {why}"))
}

/// Waits for `future` while it is wanted, and as long as bytes move or `limit` has not passed without any.
async fn watch<T>(
    cancel: &Cancel<'_>,
    limit: Duration,
    moved: Option<&AtomicU64>,
    future: impl Future<Output = reqwest::Result<T>>,
) -> io::Result<T> {
    let mut future = pin!(future);
    let moved_bytes = || moved.map_or(0, |moved| moved.load(Ordering::Relaxed));
    let (mut since, mut seen_bytes) = (Instant::now(), moved_bytes());
    loop {
        if let Ok(done) = tokio::time::timeout(CANCEL_LOOK.min(limit), &mut future).await {
            return done.map_err(|e| into_io(&e));
        }
        if cancel.is_set() {
            return Err(io::Error::other("cancelled"));
        }
        if moved_bytes() != seen_bytes {
            (since, seen_bytes) = (Instant::now(), moved_bytes());
        }
        if since.elapsed() >= limit {
            let why = format!("nothing came for {:.1} seconds", since.elapsed().as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    }
}

/// An answer whose body is read as it arrives.
pub(super) struct Answer<'a> {
    pool: &'a Pool,
    cancel: &'a Cancel<'a>,
    stall: Duration,
    /// `None` after the body's end.
    client: Option<Client>,
    /// There until it is dropped.
    response: Option<Response>,
    /// What helps, if it says no.
    pub(super) hint: Option<String>,
    chunk: Bytes,
}

impl Answer<'_> {
    pub(super) fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status().as_u16())
    }

    pub(super) fn url(&self) -> Option<&reqwest::Url> {
        self.response.as_ref().map(Response::url)
    }

    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.as_ref()?.headers().get(name)?.to_str().ok()
    }

    /// The certificate the host has shown, in DER; `None` without TLS.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.response.as_ref()?.extensions().get::<reqwest::tls::TlsInfo>()?.peer_certificate()
    }

    /// All values of a header that are text.
    pub(super) fn headers(&self, name: &str) -> Vec<String> {
        let values = self.response.iter().flat_map(|response| response.headers().get_all(name));
        values.filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect()
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
            let (Some(client), Some(response)) = (&self.client, &mut self.response) else { return Ok(0) };
            match client.runtime.block_on(watch(self.cancel, self.stall, None, response.chunk()))? {
                Some(chunk) => self.chunk = chunk,
                None => {
                    self.pool.idle().extend(self.client.take());
                    return Ok(0);
                }
            }
        }
        let n = buffer.len().min(self.chunk.len());
        buffer[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        drop(self.response.take());
        if let Some(client) = self.client.take() {
            // Lets the connection's task see that nobody reads on, and close it: the other side must not
            // wait for as long as this client is idle.
            client.runtime.block_on(tokio::task::yield_now());
            self.pool.idle().push(client);
        }
    }
}

/// A request body read from `reader` as the connection takes it. The file is read on the client's own
/// thread, which has nothing else to do meanwhile. `count` and `sent` are told of the bytes.
pub(super) fn upload_body(
    reader: impl Read + Send + 'static,
    count: Arc<AtomicU64>,
    sent: impl Fn(u64) + Send + 'static,
) -> reqwest::Body {
    struct Chunks<R, F> {
        reader: R,
        count: Arc<AtomicU64>,
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
                    self.count.fetch_add(n as u64, Ordering::Relaxed);
                    (self.sent)(n as u64);
                    Some(Ok(chunk.into()))
                }
                Err(e) => Some(Err(e)),
            }
        }
    }
    reqwest::Body::wrap_stream(futures_util::stream::iter(Chunks { reader, count, sent }))
}

/// The innermost cause: "connection refused" says more than "error sending request". Its kind tells what
/// may pass from what will not: `InvalidInput` is a request that cannot be sent or a redirect that is
/// refused, `InvalidData` TLS that fails.
fn into_io(e: &reqwest::Error) -> io::Error {
    let mut kind = io::ErrorKind::Other;
    let mut cause: &dyn std::error::Error = e;
    while let Some(deeper) = cause.source() {
        cause = deeper;
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind = io.kind();
        }
    }
    if e.is_timeout() {
        kind = io::ErrorKind::TimedOut;
    } else if e.is_builder() || e.is_redirect() {
        kind = io::ErrorKind::InvalidInput;
    }
    io::Error::new(kind, cause.to_string())
}
