//! A blob's bytes in order, from wherever they are: what an earlier download left, the source, or what
//! helpers fetched ahead; kept on disk as they pass.

use std::io::{self, Read};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::crew::Transfer;
use super::pace::{Pace, Verdict};
use super::plan::{CHUNK_BYTES, ClaimId, Next};
use crate::error::{Error, Result};
use crate::progress::LayerEvent;
use crate::source::BlobReader;

/// How long a wait for a helper's bytes goes on before the pace is looked at.
const WAIT: Duration = Duration::from_millis(100);

/// Reads exactly the blob's size, or fails. Every byte handed out is in the partial file.
pub(super) struct Download<'scope, 'env> {
    transfer: &'env Transfer<'env>,
    scope: &'scope Scope<'scope, 'env>,
    position: u64,
    own: Option<Own<'env>>,
    /// A range failed where everything from there on may not.
    whole_only: bool,
    pace: Pace,
    /// Why reading failed, in full: an `io::Error` cannot carry it through a decoder.
    failure: Option<Error>,
}

/// A connection of the reader's own.
struct Own<'a> {
    bytes: BlobReader<'a>,
    is_range: bool,
    claim: ClaimId,
    left_bytes: u64,
}

impl<'scope, 'env> Download<'scope, 'env> {
    /// Reads `transfer`'s blob from its beginning; `scope` is where helpers will run.
    pub(super) fn new(transfer: &'env Transfer<'env>, scope: &'scope Scope<'scope, 'env>) -> Self {
        Self { transfer, scope, position: 0, own: None, whole_only: false, pace: Pace::new(Instant::now()), failure: None }
    }

    /// Why reading failed, if it did.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let transfer = self.transfer;
        if self.position == transfer.descriptor.size || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if transfer.cancel.is_set() {
                return Err(self.failed(io::Error::other("cancelled")));
            }
            let next = transfer.plan().next(self.position);
            match (next, &self.own) {
                (Next::Here(end), _) => {
                    self.hang_up();
                    let end = usize::try_from(end - self.position).unwrap_or(usize::MAX).min(buffer.len());
                    return match transfer.partial.read_at(&mut buffer[..end], self.position)? {
                        0 => Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "its file was cut off"))),
                        n => Ok(n),
                    };
                }
                (Next::Claimed(id), Some(own)) if own.claim == id => match self.fetch(buffer)? {
                    0 => {} // It was taken away.
                    n => return Ok(n),
                },
                (Next::Claimed(id), _) => self.wait(id)?,
                (Next::Free(end), _) => self.connect(end)?,
            }
        }
    }

    /// Begins to fetch what nobody else does, up to `end` or, with helpers at work, the next chunk.
    fn connect(&mut self, end: u64) -> Result<()> {
        let transfer = self.transfer;
        let chunk_end = (self.position / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES);
        let end = if transfer.helpers() > 0 { end.min(chunk_end) } else { end };
        let range = self.position..end;
        let claim = transfer.plan().claim(range.clone(), Instant::now());
        let job = transfer.job;
        let range = if end < transfer.descriptor.size && !self.whole_only {
            // What fails as a range need not fail from here to the end.
            job.source.blob_range(job.reference, transfer.descriptor, range, &transfer.cancel).unwrap_or_default()
        } else {
            None
        };
        let is_range = range.is_some();
        let opened = match range {
            Some(bytes) => Ok(bytes),
            None => job.source.blob(job.reference, transfer.descriptor, self.position, &transfer.cancel),
        };
        match opened {
            Ok(bytes) => {
                self.own = Some(Own { bytes, is_range, claim, left_bytes: end - self.position });
                Ok(())
            }
            Err(e) => {
                transfer.plan().release(claim);
                Err(e)
            }
        }
    }

    /// Reads from the own connection; 0 bytes when its claim is gone.
    fn fetch(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(own) = &mut self.own else { return Ok(0) };
        let wanted = usize::try_from(own.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let began = Instant::now();
        let read = loop {
            match own.bytes.read(&mut buffer[..wanted]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.pace.waited(began.elapsed());
        let failed = !matches!(read, Ok(1..));
        if failed && own.is_range && !self.transfer.cancel.is_set() {
            self.whole_only = true;
            self.hang_up();
            return Ok(0);
        }
        let n = match read {
            Ok(0) => return Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "its bytes ended early"))),
            Ok(n) => n,
            Err(e) => return Err(self.failed(e)),
        };
        let (kept, left_bytes) = self.transfer.keep(own.claim, self.position, &buffer[..n])?;
        own.left_bytes = left_bytes;
        if left_bytes == 0 {
            self.own = None;
        }
        self.keep_pace(self.position + kept as u64)?;
        Ok(kept)
    }

    /// Gives the own connection up, and what it was to fetch.
    fn hang_up(&mut self) {
        if let Some(own) = self.own.take() {
            self.transfer.plan().release(own.claim);
        }
    }

    /// Waits for bytes that a helper fetches; takes them over when nothing comes.
    fn wait(&mut self, claim: ClaimId) -> Result<()> {
        self.hang_up();
        let began = Instant::now();
        self.transfer.wait_for_news(WAIT);
        self.pace.waited(began.elapsed());
        self.transfer.plan().release_stalled(claim, Instant::now());
        self.keep_pace(self.position)
    }

    /// Has more connections fetch, where that helps.
    fn keep_pace(&mut self, position: u64) -> Result<()> {
        let transfer = self.transfer;
        let arrived_bytes = transfer.plan().arrived_bytes();
        let left_bytes = transfer.descriptor.size - position;
        let Verdict::Connections(wanted) = self.pace.judge(arrived_bytes, left_bytes, Instant::now()) else { return Ok(()) };
        if !transfer.allows_helpers() {
            return Ok(());
        }
        transfer.begin_ranges()?;
        if let Some(own) = &mut self.own {
            let end = (position / CHUNK_BYTES + 2) * CHUNK_BYTES;
            transfer.plan().shorten(own.claim, end);
            own.left_bytes = own.left_bytes.min(end - position);
        }
        transfer.engage(self.scope, wanted);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        let descriptor = self.transfer.descriptor;
        let (here, total) = (self.position, descriptor.size);
        let attempted = format!("fetch layer {} ({here} of {total} bytes are here; pull again to resume)", descriptor.digest);
        Error::io(attempted, source)
    }
}

impl Read for Download<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.next(buffer) {
            Ok(n) => {
                self.position += n as u64;
                self.transfer.report(LayerEvent::Moved(n as u64));
                Ok(n)
            }
            Err(e) => {
                let brief = io::Error::other(e.to_string());
                self.failure = Some(e);
                Err(brief)
            }
        }
    }
}

impl Drop for Download<'_, '_> {
    fn drop(&mut self) {
        self.transfer.end();
    }
}
