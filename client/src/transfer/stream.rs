//! A blob from its source to a connection, with no file in between: read and hashed on a thread of its own, verified before
//! its last bytes are handed on.
//!
//! **Invariant: the end of a blob that is not what its digest promises is never sent**, so that the registry cannot take it
//! for complete. What was handed on before can be asked for again from any offset: the hash is kept every few bytes.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use bytes::Bytes;
use longshore_runtime::name::Hasher;
use longshore_runtime::progress::LayerEvent;

use super::Moving;
use crate::error::{Error, Result};

/// Bytes read and hashed at a time.
const SLICE_BYTES: usize = 256 << 10;

/// Slices that are read ahead.
const AHEAD: usize = 4;

/// The hash is kept whenever so many bytes more have been taken in.
const KEPT_EVERY_BYTES: u64 = 8 << 20;

/// A blob that is read once or several times.
pub(super) struct Stream<'a> {
    moving: &'a Moving<'a>,
    /// The hash of what comes before an offset, in order.
    kept: Mutex<Vec<(u64, Hasher)>>,
    /// Why it cannot be read to its end: that is final.
    failure: Mutex<Option<Error>>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(moving: &'a Moving<'a>) -> Self {
        let kept = Mutex::new(vec![(0, moving.blob.digest.algorithm().hasher())]);
        Self { moving, kept, failure: Mutex::default() }
    }

    /// Why reading failed, if it did.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its bytes from an offset on. They are read on a thread of `scope`.
    pub(super) fn open<'scope>(&'scope self, offset: u64, scope: &'scope Scope<'scope, '_>) -> Result<Slices> {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Err(
                longshore_runtime::Error::invalid(format_args!("blob {}", self.moving.blob.digest), "it cannot be read").into()
            );
        }
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || {
            if let Err(e) = self.read(offset, &sender) {
                let brief = io::Error::other(e.to_string());
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                // Who reads may have left already.
                let _ = sender.send(Err(brief));
            }
        });
        Ok(Slices { receiver, slice: Bytes::new() })
    }

    /// Hands the bytes from `offset` on to `sender`, until it wants no more.
    fn read(&self, offset: u64, sender: &SyncSender<io::Result<Bytes>>) -> Result<()> {
        let blob = self.moving.blob;
        let attempted = || format!("read blob {}", blob.digest);
        let failed = |e| Error::Runtime(longshore_runtime::Error::io(attempted(), e));
        let (mut position, mut hasher) = self.kept_before(offset);
        let mut reader = self.moving.open(position)?;
        let mut buffer = vec![0; SLICE_BYTES];
        while position < blob.size {
            let wanted = usize::try_from(blob.size - position).unwrap_or(usize::MAX).min(SLICE_BYTES);
            let n = fill(&mut reader, &mut buffer[..wanted]).map_err(failed)?;
            if n == 0 {
                let missing = blob.size - position;
                let early = format!("it ended early, {missing} bytes are missing");
                return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, early)));
            }
            hasher.update(&buffer[..n]);
            let begin = position;
            position += n as u64;
            self.keep(position, &hasher);
            if position == blob.size {
                self.check(hasher.clone())?;
            }
            let skipped = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX).min(n);
            if skipped < n && sender.send(Ok(Bytes::copy_from_slice(&buffer[skipped..n]))).is_err() {
                return Ok(());
            }
        }
        if blob.size == 0 { self.check(hasher) } else { Ok(()) }
    }

    fn check(&self, hasher: Hasher) -> Result<()> {
        let expected = &self.moving.blob.digest;
        let got = hasher.finish();
        if got == *expected {
            return Ok(());
        }
        let what = format!("blob {expected}");
        Err(longshore_runtime::Error::Mismatch { what, expected: expected.clone(), got }.into())
    }

    /// The last place at or before an offset whose hash is kept.
    fn kept_before(&self, offset: u64) -> (u64, Hasher) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.partition_point(|(place, _)| *place <= offset);
        kept.get(at.saturating_sub(1)).map_or_else(|| (0, self.moving.blob.digest.algorithm().hasher()), Clone::clone)
    }

    fn keep(&self, place: u64, hasher: &Hasher) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last().is_none_or(|(last, _)| place >= last + KEPT_EVERY_BYTES) {
            kept.push((place, hasher.clone()));
        }
    }
}

/// Reads until the buffer is full or the reader ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// What the thread hands on.
pub(super) struct Slices {
    receiver: Receiver<io::Result<Bytes>>,
    slice: Bytes,
}

impl Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.slice.is_empty() {
            match self.receiver.recv() {
                Ok(slice) => self.slice = slice?,
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.slice.len());
        buffer[..n].copy_from_slice(&self.slice.split_to(n));
        Ok(n)
    }
}

/// Sends a blob as a stream: `send` gets a way to open it at any offset.
pub(super) fn streamed<T>(moving: &Moving<'_>, send: impl FnOnce(&dyn Fn(u64) -> Result<Slices>) -> Result<T>) -> Result<T> {
    moving.report(LayerEvent::Started { total_bytes: moving.blob.size, resumed_bytes: 0 });
    let stream = Stream::new(moving);
    let sent = std::thread::scope(|scope| send(&|offset| stream.open(offset, scope)));
    sent.map_err(|e| stream.take_failure().unwrap_or(e))
}
