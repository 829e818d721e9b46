//! Blocking HTTP: each thread that talks to a registry owns one single-threaded client.
//!
//! One thread reads a body, hashes it and writes it down; a shared asynchronous runtime would add two
//! thread switches a chunk and gain nothing. The clients of a pool keep their connections, so a thread's
//! next request finds one open.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::BlobRead;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Request, Response, Url};

use super::redirect::{self, Elsewhere, Question};
use super::small;
use super::timing::Timing;
use super::tls::Certificates;
use crate::config::{Endpoint, Network, Proxy, Tls};
use crate::error::{Error, Result};

/// How long who waits for the network does not look whether it is still wanted.
const CANCEL_LOOK: Duration = Duration::from_millis(100);

/// Other hosts that a registry leads to, whose connections are kept.
const STRANGERS_LIMIT: usize = 16;

/// What is said of a proxy that wants credentials (by the library below, too), and of one that does not connect.
const PROXY_WANTS: &str = "proxy authorization required";
const PROXY_REFUSES: &str = "tunnel error: unsuccessful";

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
            .redirect(redirect::policy())
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
        let no_tls = pool.endpoint.plain && pool.network.proxies.is_empty();
        let builder = if no_tls { builder.tls_certs_only([]) } else { pool.certificates.apply(builder) };
        Ok(Self { runtime, client: builder.build().map_err(io::Error::other)? })
    }
}

/// Clients not in use now.
type Idle = Mutex<Vec<Client>>;

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients of one host, and of the others that it leads to.
pub(super) struct Pool {
    endpoint: Endpoint,
    tls: Tls,
    certificates: Certificates,
    network: Network,
    headers: HeaderMap,
    timing: Timing,
    idle: Arc<Idle>,
    /// The shortest time in which an answer has come.
    best_latency_us: AtomicU64,
    /// By the beginning of their URLs. What is set for this host is not theirs.
    strangers: Mutex<HashMap<String, Arc<Self>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    pub(super) fn new(endpoint: Endpoint, tls: &Tls, network: &Network, timing: Timing) -> Result<Self> {
        Ok(Self {
            endpoint,
            tls: tls.clone(),
            certificates: Certificates::read(tls)?,
            network: network.clone(),
            headers: header_map(&network.headers)?,
            timing,
            idle: Arc::default(),
            best_latency_us: AtomicU64::new(u64::MAX),
            strangers: Mutex::default(),
        })
    }

    /// One for a token server. `alike`: on the same host, where the same counts. Elsewhere the authorities that count
    /// here do, too, but it is shown and spared nothing.
    pub(super) fn token_server(&self, endpoint: Endpoint, alike: bool) -> Result<Self> {
        let tls = if alike {
            self.tls.clone()
        } else {
            let mut tls = Tls::of_host(&endpoint.host)?;
            tls.authorities.extend_from_slice(&self.tls.authorities);
            tls
        };
        Self::new(endpoint, &tls, &self.network, self.timing)
    }

    /// The one for a host that this one leads to.
    fn stranger(&self, url: &Url) -> Result<Arc<Self>> {
        let endpoint = Endpoint::of(url);
        let base = endpoint.base();
        if let Some(known) = lock(&self.strangers).get(&base) {
            return Ok(Arc::clone(known));
        }
        let network = Network { headers: Vec::new(), ..self.network.clone() };
        let tls = Tls::of_host(&endpoint.host)?;
        let pool = Arc::new(Self::new(endpoint, &tls, &network, self.timing)?);
        let mut strangers = lock(&self.strangers);
        if strangers.len() >= STRANGERS_LIMIT {
            strangers.clear();
        }
        Ok(Arc::clone(strangers.entry(base).or_insert(pool)))
    }

    /// How long an answer takes at best; `None` if there was none yet.
    pub(super) fn latency(&self) -> Option<Duration> {
        let best_us = self.best_latency_us.load(Ordering::Relaxed);
        (best_us < u64::MAX).then(|| Duration::from_micros(best_us))
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    fn client(&self) -> io::Result<Client> {
        let idle = lock(&self.idle).pop();
        idle.map_or_else(|| Client::new(self), Ok)
    }

    /// Sends a request and waits for the answer's head, wherever redirects lead. `sent` counts the bytes of its body as
    /// they go, if there is one.
    pub(super) fn send<'a>(
        &self,
        cancel: &'a Cancel<'a>,
        sent: Option<&AtomicU64>,
        build: impl FnOnce(&reqwest::Client) -> reqwest::Result<Request>,
    ) -> io::Result<Answer<'a>> {
        let client = self.client()?;
        let built = build(&client.client).map_err(|e| into_io(&e));
        lock(&self.idle).push(client);
        let request = built?;
        let question = Question::of(&request);
        let mut answer = self.send_on(cancel, sent, request)?;
        let mut hops = 0;
        while let Some(target) = redirect::target(&answer)? {
            hops += 1;
            let next = question.at(target, hops)?;
            answer = self.send_on(cancel, None, next)?;
        }
        Ok(answer)
    }

    /// Sends it to whichever host its URL names.
    fn send_on<'a>(&self, cancel: &'a Cancel<'a>, sent: Option<&AtomicU64>, request: Request) -> io::Result<Answer<'a>> {
        if self.endpoint.serves(request.url()) {
            return self.execute(cancel, sent, request);
        }
        let host = Endpoint::of(request.url()).host;
        let elsewhere = |kind, cause| io::Error::new(kind, Elsewhere { host, cause });
        match self.stranger(request.url()) {
            Ok(stranger) => stranger.execute(cancel, sent, request).map_err(|e| elsewhere(e.kind(), e.to_string())),
            Err(e) => Err(elsewhere(io::ErrorKind::InvalidInput, e.to_string())),
        }
    }

    fn execute<'a>(&self, cancel: &'a Cancel<'a>, sent: Option<&AtomicU64>, request: Request) -> io::Result<Answer<'a>> {
        let client = self.client()?;
        let limit = if sent.is_some() { self.timing.finish } else { self.timing.answer };
        let proxy = self.network.proxies.proxy_for(request.url());
        let (began, execute) = (Instant::now(), client.client.execute(request));
        let answered = client.runtime.block_on(watch(cancel, limit, sent, execute));
        if answered.is_ok() && sent.is_none() {
            self.best_latency_us.fetch_min(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        let answered = match (answered, proxy) {
            (Err(e), Some(proxy)) => Err(of_proxy(proxy, &e)),
            (Ok(answer), Some(proxy)) if answer.status().as_u16() == 407 => Err(of_proxy(proxy, &io::Error::other(PROXY_WANTS))),
            (answered, _) => answered,
        };
        match answered {
            Ok(response) => Ok(Answer {
                idle: Arc::clone(&self.idle),
                cancel,
                stall: self.timing.stall,
                small_body: self.timing.small_body,
                client: Some(client),
                response: Some(response),
                hint: None,
                chunk: Bytes::new(),
            }),
            Err(e) => {
                lock(&self.idle).push(client);
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
    /// Where the client belongs.
    idle: Arc<Idle>,
    cancel: &'a Cancel<'a>,
    stall: Duration,
    small_body: Duration,
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

    pub(super) fn url(&self) -> Option<&Url> {
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

    /// How many bytes of the body have come and were not read.
    pub(super) fn at_hand(&self) -> usize {
        self.chunk.len()
    }

    /// Takes of what has come of the body at most `limit_bytes`.
    pub(super) fn take(&mut self, limit_bytes: usize) -> Bytes {
        self.chunk.split_to(self.chunk.len().min(limit_bytes))
    }

    /// The body, small and wanted whole: at most `limit_bytes` of it and one more to show that there is more.
    pub(super) fn body(&mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let within = self.small_body;
        small::read(self, limit_bytes, within)
    }
}

impl BufRead for Answer<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            let (Some(client), Some(response)) = (&self.client, &mut self.response) else { break };
            match client.runtime.block_on(watch(self.cancel, self.stall, None, response.chunk()))? {
                Some(chunk) => self.chunk = chunk,
                None => lock(&self.idle).extend(self.client.take()),
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
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
            lock(&self.idle).push(client);
        }
    }
}

/// A request body read from `reader` as the connection takes it, on the client's own thread, which has nothing else to do
/// meanwhile. `count` and `sent` are told of the bytes.
pub(super) fn upload_body(
    mut reader: impl BlobRead + 'static,
    count: Arc<AtomicU64>,
    sent: impl Fn(u64) + Send + 'static,
) -> reqwest::Body {
    let chunks = std::iter::from_fn(move || match reader.take_bytes() {
        Ok(chunk) if chunk.is_empty() => None,
        Ok(chunk) => {
            count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            sent(chunk.len() as u64);
            Some(Ok(chunk))
        }
        Err(e) => Some(Err(e)),
    });
    reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
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
