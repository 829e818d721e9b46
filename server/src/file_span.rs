//! Bytes of an open file, on their way to a peer.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, fadvise, sendfile};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

/// A range of a file that nobody changes while it is read; a cheap handle.
#[derive(Debug, Clone)]
pub struct FileSpan {
    file: Arc<File>,
    range: Range<u64>,
}

impl FileSpan {
    /// Bytes `range` of `file`.
    pub fn new(file: File, range: Range<u64>) -> Self {
        Self { file: Arc::new(file), range }
    }

    /// The number of bytes.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Cuts off the first `limit` bytes, or all there are.
    pub fn split_front(&mut self, limit: usize) -> Self {
        let end = self.range.start.saturating_add(limit as u64).min(self.range.end);
        let front = self.range.start..end;
        self.range.start = end;
        Self { file: Arc::clone(&self.file), range: front }
    }

    /// Reads all of it, without clearing the buffer first.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter.
    pub fn read(&self) -> io::Result<Bytes> {
        let length = usize::try_from(self.len()).map_err(io::Error::other)?;
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let at = self.range.start + buffer.len() as u64;
            match pread(&self.file, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        buffer.truncate(length);
        Ok(buffer.into())
    }

    /// Has the kernel begin to read all of it into the page cache.
    pub fn read_ahead(&self) {
        // A hint: where it is not taken, reading takes longer.
        let _ = fadvise(&self.file, self.range.start, std::num::NonZeroU64::new(self.len()), Advice::WillNeed);
    }

    /// Whether it can be read without waiting for a disk, judged by its last byte: files are read
    /// and cached forwards. No, where the file system cannot tell.
    pub fn is_cached(&self) -> bool {
        let mut byte = [0];
        let last = self.range.end.saturating_sub(1);
        preadv2(&self.file, &mut [IoSliceMut::new(&mut byte)], last, ReadWriteFlags::NOWAIT).is_ok()
    }

    /// Hands at most `limit` bytes from the front to a socket, as many as it takes at once
    /// (sendfile(2)), and cuts them off. Gives how many.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes none now; `UnexpectedEof` when the file is shorter.
    pub fn send(&mut self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        let length = usize::try_from(self.len()).unwrap_or(usize::MAX).min(limit);
        match rustix::io::retry_on_intr(|| sendfile(&socket, &self.file, Some(&mut self.range.start), length))? {
            0 if length > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }
}
