//! A blob's bytes in order, from wherever they are: what an earlier download left, the source, or what
//! helpers fetched ahead; kept on disk as they pass.

use std::io::{self, Read};
use std::thread::Scope;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::FAR;
use super::crew::Transfer;
use super::pace::{Pace, Verdict};
use super::plan::{CHUNK_BYTES, ClaimId, Next};
use crate::error::{Error, Result};
use crate::progress::LayerEvent;
use crate::source::{BlobRead, BlobReader};

/// Bytes read at a time of what is here.
const HERE_BYTES: u64 = 256 << 10;

/// How long a wait for a helper's bytes goes on before the pace is looked at.
const WAIT: Duration = Duration::from_millis(100);

/// Reads exactly the blob's size, or fails. Every byte handed out is in the partial file.
pub(crate) struct Download<'scope, 'env> {
    transfer: &'env Transfer<'env>,
    scope: &'scope Scope<'scope, 'env>,
    position: u64,
    /// What comes before `position` and was not read.
    at_hand: Bytes,
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
    /// What has come and was not claimed any more: the next bytes, should they be.
    rest: Bytes,
    is_range: bool,
    claim: ClaimId,
    /// What of its claim has not come.
    left_bytes: u64,
}

impl<'scope, 'env> Download<'scope, 'env> {
    /// Reads `transfer`'s blob from its beginning; `scope` is where helpers will run.
    pub(crate) fn new(transfer: &'env Transfer<'env>, scope: &'scope Scope<'scope, 'env>) -> Self {
        Self {
            transfer,
            scope,
            position: 0,
            at_hand: Bytes::new(),
            own: None,
            whole_only: false,
            pace: Pace::new(Instant::now(), transfer.fetching.source.latency() >= FAR),
            failure: None,
        }
    }

    /// Whether reading failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Why reading failed, if it did.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> Result<Bytes> {
        let transfer = self.transfer;
        if self.position == transfer.descriptor.size {
            return Ok(Bytes::new());
        }
        loop {
            if transfer.cancel.is_set() {
                return Err(self.failed(io::Error::other("cancelled")));
            }
            let next = transfer.plan().next(self.position);
            match (next, &self.own) {
                (Next::Here(end), _) => {
                    self.hang_up();
                    return self.read_here(end);
                }
                (Next::Claimed(id), Some(own)) if own.claim == id => {
                    let bytes = self.fetch()?;
                    // None: it was taken away.
                    if !bytes.is_empty() {
                        return Ok(bytes);
                    }
                }
                (Next::Claimed(id), _) => self.wait(id)?,
                (Next::Free(end), _) => self.connect(end)?,
            }
        }
    }

    /// Reads some of what is here up to `end`.
    fn read_here(&self, end: u64) -> Result<Bytes> {
        let mut bytes = vec![0; (end - self.position).min(HERE_BYTES) as usize];
        match self.transfer.partial.read_at(&mut bytes, self.position)? {
            0 => Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "its file was cut off"))),
            n => {
                bytes.truncate(n);
                Ok(bytes.into())
            }
        }
    }

    /// Begins to fetch what nobody else does, up to `end` or, with helpers at work, the next chunk: by the connection there
    /// is, if that goes on to the blob's end.
    fn connect(&mut self, end: u64) -> Result<()> {
        let transfer = self.transfer;
        let chunk_end = (self.position / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES);
        let end = if transfer.helpers() > 0 { end.min(chunk_end) } else { end };
        let range = self.position..end;
        let claim = transfer.plan().claim(range.clone(), Instant::now());
        if let Some(own) = self.own.as_mut().filter(|own| !own.is_range) {
            (own.claim, own.left_bytes) = (claim, end - self.position);
            return Ok(());
        }
        let fetching = transfer.fetching;
        let range = if end < transfer.descriptor.size && !self.whole_only {
            // What fails as a range need not fail from here to the end.
            fetching.source.blob_range(fetching.reference, transfer.descriptor, range, &transfer.cancel).unwrap_or_default()
        } else {
            None
        };
        let is_range = range.is_some();
        let opened = match range {
            Some(bytes) => Ok(bytes),
            None => fetching.source.blob(fetching.reference, transfer.descriptor, self.position, &transfer.cancel),
        };
        match opened {
            Ok(bytes) => {
                self.own = Some(Own { bytes, rest: Bytes::new(), is_range, claim, left_bytes: end - self.position });
                Ok(())
            }
            Err(e) => {
                transfer.plan().release(claim);
                Err(e)
            }
        }
    }

    /// Reads from the own connection; no bytes when its claim is gone.
    fn fetch(&mut self) -> Result<Bytes> {
        let Some(own) = &mut self.own else { return Ok(Bytes::new()) };
        let began = Instant::now();
        let read = loop {
            if !own.rest.is_empty() {
                break Ok(std::mem::take(&mut own.rest));
            }
            match own.bytes.take_bytes() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.pace.waited(began.elapsed());
        let failed = !matches!(&read, Ok(bytes) if !bytes.is_empty());
        if failed && own.is_range && !self.transfer.cancel.is_set() {
            self.whole_only = true;
            self.hang_up();
            return Ok(Bytes::new());
        }
        let mut bytes = match read {
            Ok(none) if none.is_empty() => {
                return Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "its bytes ended early")));
            }
            Ok(bytes) => bytes,
            Err(e) => return Err(self.failed(e)),
        };
        let (kept, left_bytes) = self.transfer.keep(own.claim, self.position, &bytes)?;
        own.left_bytes = left_bytes;
        own.rest = bytes.split_off(kept);
        if left_bytes == 0 && own.is_range {
            self.own = None;
        }
        self.keep_pace(self.position + kept as u64)?;
        Ok(bytes)
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
        let attempted = format!("fetch blob {} ({here} of {total} bytes are here; run it again to resume)", descriptor.digest);
        Error::io(attempted, source)
    }
}

impl Read for Download<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_hand.is_empty() {
            self.at_hand = self.take_bytes()?;
        }
        let n = (&self.at_hand[..]).read(buffer)?;
        self.at_hand.advance(n);
        Ok(n)
    }
}

impl BlobRead for Download<'_, '_> {
    fn take_bytes(&mut self) -> io::Result<Bytes> {
        if !self.at_hand.is_empty() {
            return Ok(std::mem::take(&mut self.at_hand));
        }
        match self.next() {
            Ok(bytes) => {
                self.position += bytes.len() as u64;
                self.transfer.report(LayerEvent::Moved(bytes.len() as u64));
                Ok(bytes)
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
