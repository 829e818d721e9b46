//! The bounded pipe between the threads of a layer: a fixed set of buffers going round.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};

/// The size of one buffer: large enough that a hand-over costs nothing beside the bytes, small enough
/// that a set of them stays in the cache. A multiple of the tar block size.
pub(super) const BUFFER_BYTES: usize = 128 << 10;

/// How many buffers go round; they bound the memory of the pipe.
const BUFFERS: usize = 4;

/// The writing end.
pub(super) struct Filler {
    empty: Receiver<Vec<u8>>,
    full: Sender<Result<Vec<u8>>>,
}

/// Between the two ends: each buffer passes here.
pub(super) struct Middle {
    filled: Receiver<Result<Vec<u8>>>,
    full: Sender<Result<Vec<u8>>>,
}

/// The reading end, a [`BufRead`]. It carries the crate's own error through [`io::Error::other`].
pub(super) struct Drainer {
    full: Receiver<Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

/// A pipe.
pub(super) fn new() -> (Filler, Middle, Drainer) {
    let (give_empty, empty) = channel();
    let ((fill, filled), (full, take_full)) = (channel(), channel());
    for _ in 0..BUFFERS {
        // The receiver is right here, so this cannot fail; an unsent buffer would only slow the pipe.
        let _ = give_empty.send(Vec::new());
    }
    let drainer = Drainer { full: take_full, empty: give_empty, current: Vec::new(), position: 0 };
    (Filler { empty, full: fill }, Middle { filled, full }, drainer)
}

impl Filler {
    /// An empty buffer of [`BUFFER_BYTES`] zeroes or old bytes, or `None` when the reader is gone.
    pub(super) fn buffer(&self) -> Option<Vec<u8>> {
        let mut buffer = self.empty.recv().ok()?;
        buffer.resize(BUFFER_BYTES, 0);
        Some(buffer)
    }

    /// Hands over a filled buffer or the error that ends the stream; false when the reader is gone.
    pub(super) fn send(&self, item: Result<Vec<u8>>) -> bool {
        self.full.send(item).is_ok()
    }
}

impl Middle {
    /// Lets `each` see what passes, until one of the ends is gone.
    pub(super) fn pass(self, mut each: impl FnMut(&[u8])) {
        for item in self.filled {
            item.iter().for_each(|bytes| each(bytes));
            if self.full.send(item).is_err() {
                return;
            }
        }
    }
}

impl BufRead for Drainer {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() {
            match self.full.recv() {
                Ok(next) => {
                    let old = std::mem::replace(&mut self.current, next.map_err(io::Error::other)?);
                    self.position = 0;
                    if old.capacity() != 0 {
                        let _ = self.empty.send(old); // a writer that is done needs no more buffers
                    }
                }
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, bytes: usize) {
        self.position = self.current.len().min(self.position + bytes);
    }
}

impl Read for Drainer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let bytes = from.len().min(into.len());
        into[..bytes].copy_from_slice(&from[..bytes]);
        self.consume(bytes);
        Ok(bytes)
    }
}

/// The crate's error inside an [`io::Error`] of a [`Drainer`], or an [`Error::Io`].
pub(super) fn unwrap_error(error: io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|source| Error::io("read a layer", source))
}
