//! Every request from its headers to its answer's last byte: how many there may be at one time, what
//! is counted of it, and its line in the log.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::metrics::{Metrics, Number};
use crate::api;
use crate::error::{Error, Result};
use crate::limits::{PATH_LIMIT_BYTES, REQUEST_ID_LIMIT_BYTES};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is logged and counted for a request whose client left before there was an answer; nginx has
/// the same.
const UNANSWERED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

/// What a request was about, as far as the log and the metrics want to know; the API leaves it in the
/// extensions of its response.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What kind of endpoint answered.
    pub endpoint: EndpointKind,
    /// Who asked, if they said.
    pub user: Option<Arc<str>>,
}

/// A kind of endpoint, a label of the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndpointKind {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// A list of tags.
    Tags,
    /// A manifest.
    Manifest,
    /// A list of referrers.
    Referrers,
    /// A blob.
    Blob,
    /// An upload session, or the making of one.
    Upload,
    /// The token service.
    Token,
    /// `/livez`, `/readyz`, `/metrics`
    Operation,
    /// Anything else.
    #[default]
    Unknown,
}

impl EndpointKind {
    pub(super) const ALL: [Self; 10] = [
        Self::Base,
        Self::Catalog,
        Self::Tags,
        Self::Manifest,
        Self::Referrers,
        Self::Blob,
        Self::Upload,
        Self::Token,
        Self::Operation,
        Self::Unknown,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Referrers => "referrers",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Token => "token",
            Self::Operation => "operation",
            Self::Unknown => "unknown",
        }
    }
}

/// Watches the requests of a server.
#[derive(Debug)]
pub struct Watch {
    pub(super) metrics: Metrics,
    requests_limit: u64,
    /// The first half of the identifiers given to requests.
    process_id: u32,
    next_id: Number,
}

impl Watch {
    /// Lets in at most `requests_limit` requests at a time.
    ///
    /// # Errors
    /// When the kernel gives no random number.
    pub fn new(requests_limit: usize) -> Result<Self> {
        let mut bytes = [0; 4];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| longshore_runtime::Error::io("get random numbers", e))?;
        Ok(Self {
            metrics: Metrics::default(),
            requests_limit: requests_limit as u64,
            process_id: u32::from_ne_bytes(bytes),
            next_id: Number::default(),
        })
    }

    /// A connection was accepted; it lasts until what is returned is dropped.
    pub fn connected(self: &Arc<Self>, peer: SocketAddr) -> Connection {
        self.metrics.connections.enter();
        self.metrics.connections_accepted.add(1);
        Connection { watch: Arc::clone(self), peer }
    }

    /// The client's own identifier if it is a decent one, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let decent = |id: &&HeaderValue| {
            let id = id.as_bytes();
            (1..=REQUEST_ID_LIMIT_BYTES).contains(&id.len())
                && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        headers.get(REQUEST_ID).filter(decent).cloned().unwrap_or_else(|| {
            let id = format!("{:08x}-{:08x}", self.process_id, self.next_id.enter());
            HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
        })
    }
}

/// See [`Watch::connected`].
#[derive(Debug)]
pub struct Connection {
    watch: Arc<Watch>,
    peer: SocketAddr,
}

impl Connection {
    /// The TLS handshake failed.
    pub(crate) fn handshake_failed(&self, why: &io::Error) {
        self.watch.metrics.handshakes_failed.add(1);
        tracing::debug!(peer = %self.peer, "TLS handshake: {why}");
    }

    /// A request arrived. Its body is counted from now on, and it is in progress until the body of
    /// its answer is dropped.
    pub(crate) fn begin<B: HttpBody>(&self, request: Request<B>) -> (Request<Counted<B>>, InProgress) {
        let watch = &self.watch;
        let admitted = watch.metrics.in_progress.enter() < watch.requests_limit || is_probe(request.uri().path());
        if !admitted {
            // Those turned away must not keep others out.
            watch.metrics.in_progress.leave();
        }
        let received = (!request.body().is_end_stream()).then(Arc::<Number>::default);
        let in_progress = InProgress(Some(Box::new(Record {
            watch: Arc::clone(watch),
            start: Instant::now(),
            admitted,
            id: watch.request_id(request.headers()),
            peer: self.peer,
            method: request.method().clone(),
            uri: request.uri().clone(),
            received: received.clone(),
            sent: 0,
            status: UNANSWERED,
            facts: Facts::default(),
        })));
        (request.map(|body| Counted { body, received }), in_progress)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.metrics.connections.leave();
    }
}

/// Whoever asks whether the server is alive is told so however busy it is.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

/// A request that is being worked on. Ends when it is dropped, which the body of its answer sees to.
#[derive(Debug)]
pub(crate) struct InProgress(Option<Box<Record>>);

#[derive(Debug)]
struct Record {
    watch: Arc<Watch>,
    start: Instant,
    admitted: bool,
    id: HeaderValue,
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    /// Bytes of the request's body, if it has one.
    received: Option<Arc<Number>>,
    sent: u64,
    status: StatusCode,
    facts: Facts,
}

impl InProgress {
    /// The answer, when this is one request too many.
    pub(crate) fn refusal(&self) -> Option<Response<Body>> {
        let record = self.0.as_ref().filter(|record| !record.admitted)?;
        record.watch.metrics.refused.add(1);
        Some(api::error_response(&Error::TooMany("requests")))
    }

    /// Takes the answer along, to its end.
    pub(crate) fn answered<B: HttpBody>(mut self, mut response: Response<B>) -> Response<Observed<B>> {
        if let Some(record) = &mut self.0 {
            record.status = response.status();
            record.facts = response.extensions_mut().remove::<Facts>().unwrap_or_default();
            response.headers_mut().insert(REQUEST_ID, record.id.clone());
        }
        response.map(|body| Observed { body, in_progress: self })
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(record) = self.0.take() {
            record.finish();
        }
    }
}

impl Record {
    fn finish(self) {
        let Self { method, status, facts, sent, peer, .. } = &self;
        let took = self.start.elapsed();
        let received = self.received.as_ref().map_or(0, |received| received.get());
        let metrics = &self.watch.metrics;
        if self.admitted {
            metrics.in_progress.leave();
        }
        metrics.received_bytes.add(received);
        metrics.sent_bytes.add(*sent);
        // A probe that is told "not ready" did not fail; what it found has been logged.
        let failed = status.is_server_error() && facts.endpoint != EndpointKind::Operation;
        metrics.storage_errors.add(failed.into());
        metrics.finished(method, facts.endpoint, *status, took);

        // Without the query, which may hold secrets.
        let path = self.uri.path();
        let path = path.get(..PATH_LIMIT_BYTES).unwrap_or(path);
        let id = self.id.to_str().unwrap_or_default();
        let (status, user, duration_us) = (status.as_u16(), facts.user.as_deref(), took.as_micros());
        // Whoever looks only for what failed wants to know in which request.
        if failed {
            tracing::error!(target: "request", %method, path, status, duration_us, received, sent, %peer, user, id);
        } else {
            tracing::info!(target: "request", %method, path, status, duration_us, received, sent, %peer, user, id);
        }
    }
}

/// The body of a request, counted.
#[derive(Debug)]
pub(crate) struct Counted<B> {
    body: B,
    received: Option<Arc<Number>>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some(received)) = (&frame, &self.received) {
            received.add(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response, counted, and the end of its request.
#[derive(Debug)]
pub(crate) struct Observed<B> {
    body: B,
    in_progress: InProgress,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Observed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(record) = &mut self.in_progress.0 {
            match &frame {
                Some(Ok(frame)) => record.sent += frame.data_ref().map_or(0, Bytes::len) as u64,
                // The headers said otherwise; what counts is how it went.
                Some(Err(_)) => record.status = StatusCode::INTERNAL_SERVER_ERROR,
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
