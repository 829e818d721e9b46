//! Connections: accepting, limits, and an orderly end. `axum::serve` sets no timer, so a client
//! that never ends its headers would be waited for without end.

mod sendfile;
mod stall;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::sendfile::{FileBody, Files, Sending};
use self::stall::{Busy, StallGuard};
pub use self::tls::Tls;
use crate::file_span::FileSpan;
use crate::limits::{Limits, SHUTDOWN_GRACE};
use crate::operation::{Connection, Counted, Watch};

/// Who is at the other end of a connection; an extension of every request that came by it.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// From where.
    pub address: SocketAddr,
    /// Whether nobody between could read along.
    pub tls: bool,
}

/// How the serving ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request in flight was answered.
    Finished,
    /// Some took longer than [`SHUTDOWN_GRACE`] and were broken off.
    BrokenOff,
}

/// What is served, and how.
#[derive(Debug)]
pub struct Front {
    /// The application.
    pub app: Router,
    /// Without it, plain HTTP.
    pub tls: Option<Tls>,
    /// Sees every connection and request.
    pub watch: Arc<Watch>,
}

/// Serves on `listener` until `shutdown`; then finishes the requests in flight.
pub async fn run(listener: TcpListener, front: Front, limits: &Limits, shutdown: impl Future<Output = ()>) -> Ended {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout()).writev(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(limits.streams);
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections));
    let (serving, stopped) = watch::channel(());
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, peer, permit) = accept(&listener, &connections) => {
                let handshake = Handshake { tls: front.tls.clone(), limit: limits.header_timeout(), stopped: stopped.clone() };
                let served = Served {
                    connection: front.watch.connected(peer),
                    app: front.app.clone(),
                    builder: builder.clone(),
                    peer: Peer { address: peer, tls: front.tls.is_some() },
                    watcher: graceful.watcher(),
                    first_request: limits.header_timeout(),
                    idle: limits.idle_timeout(),
                };
                spawn(stream, permit, handshake, served);
            }
        }
    }
    drop((listener, serving));
    match tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await {
        Ok(()) => Ended::Finished,
        Err(_) => Ended::BrokenOff,
    }
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, limit: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = Arc::clone(limit).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            // The peer was gone before it was accepted.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            // Out of descriptors or memory: others have to end first.
            Err(e) => {
                tracing::error!("accept a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What comes before a connection's first request.
struct Handshake {
    tls: Option<Tls>,
    limit: Duration,
    /// Closed when the server stops: it does not wait for those that have not asked for anything yet.
    stopped: watch::Receiver<()>,
}

/// What a connection is served with.
struct Served {
    connection: Connection,
    peer: Peer,
    app: Router,
    builder: Builder<TokioExecutor>,
    watcher: Watcher,
    /// How long the first request is waited for; hyper sets no limit until it knows the version.
    first_request: Duration,
    idle: Duration,
}

fn spawn(stream: TcpStream, permit: Option<OwnedSemaphorePermit>, mut handshake: Handshake, served: Served) {
    // Without it a small response may wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    tokio::spawn(async move {
        match handshake.tls {
            None => {
                let files = Files::default();
                served.run(Sending::new(stream, files.clone()), Some(files)).await;
            }
            Some(tls) => tokio::select! {
                stream = tls.accept(stream, handshake.limit) => match stream {
                    Ok(stream) => served.run(stream, None).await,
                    Err(e) => served.connection.handshake_failed(&e),
                },
                _ = handshake.stopped.changed() => {}
            },
        }
        drop(permit);
    });
}

impl Served {
    /// Serves a connection to its end; one that can send files has `files`.
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, files: Option<Files>) {
        let Self { connection, peer, app, builder, watcher, first_request, idle } = self;
        let busy = Busy::default();
        let asked = Arc::new(AtomicBool::new(false));
        let has_asked = Arc::clone(&asked);
        let stream = TokioIo::new(StallGuard::new(stream, idle, busy.clone()));
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            has_asked.store(true, Relaxed);
            let (mut app, in_handler) = (app.clone(), busy.enter());
            let files = files.clone().filter(|_| request.version() < Version::HTTP_2);
            let (request, in_progress) = connection.begin(request);
            async move {
                let response = match in_progress.refusal() {
                    Some(refusal) => refusal,
                    None => tower_call(&mut app, request).await,
                };
                drop(in_handler);
                Ok::<_, Infallible>(in_progress.answered(match files {
                    Some(files) => with_file(response, files),
                    None => response,
                }))
            }
        });
        let serving = watcher.watch(builder.serve_connection(stream, service).into_owned());
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = tokio::time::sleep(first_request) => {
                if !asked.load(Relaxed) {
                    return;
                }
                serving.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!("connection ended: {e}");
        }
    }
}

/// A response whose body is a file, with a body for the connection that has `files`.
fn with_file(mut response: Response<Body>, files: Files) -> Response<Body> {
    match response.extensions_mut().remove::<FileSpan>() {
        Some(span) => response.map(|_| Body::new(FileBody::new(files, span))),
        None => response,
    }
}

async fn tower_call(app: &mut Router, request: Request<Counted<Incoming>>) -> Response<Body> {
    use tower_service::Service;
    // A router is always ready, and infallible.
    match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
