//! File bodies on a plain HTTP/1 connection, sent by the kernel (sendfile(2)): they are not copied
//! into this process at all.
//!
//! hyper writes slices of memory and knows no files. So the body of such a response consists of
//! *placeholders*, slices of one block of memory that nobody ever reads or writes, and what each
//! stands for waits in a queue that the body shares with its connection. hyper hands a body's
//! slices on as they are, if the stream takes several at once, and [`Sending`] knows a placeholder
//! by its address: where one would be written, it sends the queue's file. A placeholder for which
//! no file waits is an error that ends the connection.
//!
//! A worker thread must not wait for a disk. So what is not in the page cache is read by a thread of
//! the blocking pool, and goes out as ordinary bytes; meanwhile the kernel reads on.
//!
//! Measured against reading (`crate::blob`, 256 KiB at once) and nginx with sendfile on, client and
//! server on the same two cores, medians of alternating runs, nginx = 1:
//!
//! | 1 GiB to | | reading | this, windows of 256 KiB, 1, 2, 4 MiB |
//! |---|---|---|---|
//! | 1 client | server CPU | 2.3 to 3.6 | 0.83 to 0.87, all the same |
//! | 16 clients | server CPU | 1.6 to 2.1 | 0.63, 0.58, 0.60, 0.58 |
//! | 16 clients | CPU with the clients' | 1.3 | 0.66 to 0.78 |
//! | 16 clients | peak memory, MiB | 40 | 8 to 12 |

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::file_span::FileSpan;
use crate::limits::SENDFILE_WINDOW_BYTES;

/// Zeros the kernel never had to make: allocated, and not touched.
static PLACEHOLDER: LazyLock<Bytes> = LazyLock::new(|| vec![0; SENDFILE_WINDOW_BYTES].into());

fn is_placeholder(slice: &[u8]) -> bool {
    PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr())
}

/// What the placeholders on their way through one connection stand for, in order. Locked by the one
/// task that drives the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Files(Arc<Mutex<VecDeque<FileSpan>>>);

impl Files {
    fn push(&self, span: FileSpan) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(span);
    }
}

/// A connection that sends files in the places of placeholders.
#[derive(Debug)]
pub(super) struct Sending {
    stream: TcpStream,
    files: Files,
}

impl Sending {
    pub(super) fn new(stream: TcpStream, files: Files) -> Self {
        Self { stream, files }
    }

    /// Sends at most `length` bytes of the first file that waits.
    fn poll_send(&self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        let mut files = self.files.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(span) = files.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a placeholder stands for no file")));
        };
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || span.send(&self.stream, length)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => {
                    if span.is_empty() {
                        files.pop_front();
                    }
                    return Poll::Ready(sent);
                }
            }
        }
    }
}

impl AsyncWrite for Sending {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match slices.iter().position(|slice| is_placeholder(slice)) {
            Some(0) => this.poll_send(cx, slices[0].len()),
            Some(n) => Pin::new(&mut this.stream).poll_write_vectored(cx, &slices[..n]),
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Sending {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

/// A file as the body of a response on the connection that has `files`.
#[derive(Debug)]
pub(super) struct FileBody {
    files: Files,
    unsent: FileSpan,
    /// A read of bytes that were not in the page cache.
    read: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn new(files: Files, span: FileSpan) -> Self {
        Self { files, unsent: span, read: None }
    }

    fn start_read(&self, window: FileSpan) -> JoinHandle<io::Result<Bytes>> {
        let next = self.unsent.clone().split_front(SENDFILE_WINDOW_BYTES);
        spawn_blocking(move || {
            let bytes = window.read();
            next.read_ahead();
            bytes
        })
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.read.is_none() {
            let window = this.unsent.split_front(SENDFILE_WINDOW_BYTES);
            if window.is_empty() {
                return Poll::Ready(None);
            }
            if window.is_cached() {
                let placeholder = PLACEHOLDER.slice(..usize::try_from(window.len()).map_err(io::Error::other)?);
                this.files.push(window);
                return Poll::Ready(Some(Ok(Frame::data(placeholder))));
            }
            this.read = Some(this.start_read(window));
        }
        let Some(read) = &mut this.read else { return Poll::Ready(None) };
        let bytes = ready!(Pin::new(read).poll(cx)).map_err(io::Error::other).flatten();
        this.read = None;
        Poll::Ready(Some(bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.unsent.is_empty()
    }

    /// Right while no read is under way, which is when hyper asks: before the first frame.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent.len())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use http_body_util::BodyExt;
    use rustix::fs::{Advice, fadvise};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn connection() -> (TcpStream, Sending, Files) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let files = Files::default();
        (peer, Sending::new(listener.accept().await.unwrap().0, files.clone()), files)
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[tokio::test]
    async fn a_placeholder_without_a_file_ends_the_connection_and_reaches_nobody() {
        for before in [b"".as_slice(), b"head"] {
            let (mut peer, mut sending, _files) = connection().await;
            let slices = [IoSlice::new(before), IoSlice::new(&PLACEHOLDER[..9])];
            let slices = &slices[usize::from(before.is_empty())..];
            if !before.is_empty() {
                assert_eq!(sending.write_vectored(slices).await.unwrap(), before.len());
            }
            assert!(sending.write_vectored(&slices[slices.len() - 1..]).await.is_err());
            assert!(sending.write(&PLACEHOLDER[3..4]).await.is_err());
            drop(sending);
            let mut got = Vec::new();
            peer.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, before);
        }
    }

    #[tokio::test]
    async fn placeholders_are_replaced_each_by_its_file() {
        let (mut peer, mut sending, files) = connection().await;
        files.push(FileSpan::new(file(b"0123456789"), 2..5));
        files.push(FileSpan::new(file(b"abc"), 0..3));
        let slices = [IoSlice::new(b"<"), IoSlice::new(&PLACEHOLDER[..3]), IoSlice::new(&PLACEHOLDER[..3]), IoSlice::new(b">")];
        for (n, length) in [1, 3, 3, 1].into_iter().enumerate() {
            assert_eq!(sending.write_vectored(&slices[n..]).await.unwrap(), length);
        }
        drop(sending);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"<234abc>");
    }

    #[tokio::test]
    async fn what_is_not_in_the_page_cache_is_read_and_what_is_there_is_not() {
        let content: Vec<u8> = (0..SENDFILE_WINDOW_BYTES + 9).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let file = file(&content);
        let body = || FileBody::new(Files::default(), FileSpan::new(file.try_clone().unwrap(), 0..content.len() as u64));
        let placeholders = body().collect().await.unwrap().to_bytes();
        assert_eq!(placeholders.len(), content.len());
        assert!(placeholders.iter().all(|&byte| byte == 0), "it was just written, so it is cached");
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let span = FileSpan::new(file.try_clone().unwrap(), 0..1);
        // A file system in memory drops nothing.
        if !span.is_cached() {
            assert!(body().frame().await.unwrap().unwrap().into_data().unwrap() == content[..SENDFILE_WINDOW_BYTES]);
        }
    }
}
