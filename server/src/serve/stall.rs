//! A connection on which nothing moves is ended, whatever it is waiting in: before its first byte,
//! inside its headers, between requests, or with a response that nobody reads.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Whether a handler is at work for a connection. While it is, it is not the peer's turn; the
/// handler itself limits how long it waits for a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<()>);

impl Busy {
    /// Busy until the returned value is dropped.
    pub(super) fn enter(&self) -> InHandler {
        InHandler { _count: Arc::clone(&self.0) }
    }

    /// The guard and the service each hold one of it themselves.
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }
}

/// See [`Busy::enter`].
#[derive(Debug)]
pub(super) struct InHandler {
    _count: Arc<()>,
}

/// A stream that fails with `TimedOut` when the peer lets it stall.
pub(super) struct StallGuard<S> {
    stream: S,
    limit: Duration,
    busy: Busy,
    last_moved: Instant,
    /// Fires some time after `last_moved`; set anew only when it fires, not at every byte.
    alarm: Pin<Box<Sleep>>,
}

impl<S> StallGuard<S> {
    pub(super) fn new(stream: S, limit: Duration, busy: Busy) -> Self {
        Self { stream, limit, busy, last_moved: Instant::now(), alarm: Box::pin(tokio::time::sleep(limit)) }
    }

    /// Passes a result on; a pending one fails once it has been so for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_moved = Instant::now();
            return polled;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let due = if self.busy.is_busy() { Instant::now() } else { self.last_moved } + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.watch(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch(cx, polled)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_cut_off_and_a_slow_one_is_not() {
        let (mut peer, stream) = tokio::io::duplex(8);
        let mut guarded = StallGuard::new(stream, LIMIT, Busy::default());
        let mut byte = [0];
        for _ in 0..5 {
            let (read, ()) = tokio::join!(guarded.read(&mut byte), async {
                tokio::time::sleep(LIMIT / 2).await;
                peer.write_all(b"x").await.unwrap();
            });
            assert_eq!(read.unwrap(), 1);
        }
        let start = Instant::now();
        assert_eq!(guarded.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_cut_off() {
        let (_peer, stream) = tokio::io::duplex(8);
        let mut guarded = StallGuard::new(stream, LIMIT, Busy::default());
        assert_eq!(guarded.write_all(&[0; 9]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_may_take_its_time() {
        let (mut peer, stream) = tokio::io::duplex(8);
        let busy = Busy::default();
        let mut guarded = StallGuard::new(stream, LIMIT, busy.clone());
        let in_handler = busy.enter();
        let mut byte = [0];
        let (read, ()) = tokio::join!(guarded.read(&mut byte), async {
            tokio::time::sleep(LIMIT * 3).await;
            drop(in_handler);
            peer.write_all(b"x").await.unwrap();
        });
        assert_eq!(read.unwrap(), 1);
    }
}
