//! A stored blob as a response body: read in large chunks, one ahead of the one being sent.

use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::buffer::spare_capacity;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::limits::READ_CHUNK_BYTES;

/// Bytes of a blob, on their way out.
#[derive(Debug)]
pub enum BlobBody {
    /// Read already.
    Whole(Option<Bytes>),
    /// Read as it is drained. No thread is held while the peer is slow: each chunk is its own
    /// short call in the blocking pool.
    Chunks(Chunks),
}

/// A file being read chunk by chunk.
#[derive(Debug)]
pub struct Chunks {
    file: Arc<File>,
    /// What no read has been started for.
    unread: Range<u64>,
    /// The read under way, and how many bytes it gives.
    ahead: Option<(JoinHandle<io::Result<Bytes>>, u64)>,
}

impl BlobBody {
    /// `range` of `file`, the first chunk's read already started.
    pub(super) fn of_file(file: File, range: Range<u64>) -> Self {
        let mut chunks = Chunks { file: Arc::new(file), unread: range, ahead: None };
        chunks.start_read();
        Self::Chunks(chunks)
    }
}

impl Chunks {
    fn start_read(&mut self) {
        let Range { start, end } = self.unread;
        let length = (end - start).min(READ_CHUNK_BYTES as u64);
        if length > 0 {
            let file = Arc::clone(&self.file);
            self.unread.start += length;
            self.ahead = Some((spawn_blocking(move || read_exact_at(&file, start, length)), length));
        }
    }
}

/// Exactly `length` bytes of `file` from `offset` on, without clearing the buffer first.
pub(super) fn read_exact_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(length);
    Ok(buffer.into())
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunks = match self.get_mut() {
            Self::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Chunks(chunks) => chunks,
        };
        let Some((read, _)) = &mut chunks.ahead else { return Poll::Ready(None) };
        let read = std::task::ready!(Pin::new(read).poll(cx));
        chunks.ahead = None;
        let chunk = read.map_err(io::Error::other).flatten();
        if chunk.is_ok() {
            chunks.start_read();
        }
        Poll::Ready(Some(chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Chunks(chunks) => {
                let ahead = chunks.ahead.as_ref().map_or(0, |(_, length)| *length);
                ahead + (chunks.unread.end - chunks.unread.start)
            }
        })
    }
}
