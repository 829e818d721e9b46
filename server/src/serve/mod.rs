//! Connections: accepting, limits, and an orderly end. `axum::serve` sets no timer, so a client
//! that never ends its headers would be waited for without end.

mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::stall::{Busy, StallGuard};
use crate::limits::{Limits, SHUTDOWN_GRACE};

/// The connection a request came by; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: SocketAddr,
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

/// Serves `app` on `listener` until `shutdown`; then finishes the requests in flight.
pub async fn run(listener: TcpListener, app: Router, limits: &Limits, shutdown: impl Future<Output = ()>) -> Ended {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(limits.streams);
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, peer, permit) = accept(&listener, &connections) => {
                spawn(stream, Connection { peer, tls: false }, permit, &app, &builder, &graceful, limits);
            }
        }
    }
    drop(listener);
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
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn spawn(
    stream: TcpStream,
    connection: Connection,
    permit: Option<OwnedSemaphorePermit>,
    app: &Router,
    builder: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    limits: &Limits,
) {
    // Without it a small response may wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let busy = Busy::default();
    let stream = TokioIo::new(StallGuard::new(stream, limits.idle_timeout(), busy.clone()));
    let app = app.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection);
        let (mut app, in_handler) = (app.clone(), busy.enter());
        async move {
            let response = tower_call(&mut app, request).await;
            drop(in_handler);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = builder.serve_connection(stream, service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!("connection ended: {e}");
        }
        drop(permit);
    });
}

async fn tower_call(app: &mut Router, request: Request<Incoming>) -> http::Response<axum::body::Body> {
    use tower_service::Service;
    // A router is always ready, and infallible.
    match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
