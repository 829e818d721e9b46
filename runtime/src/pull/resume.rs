//! A blob's bytes from wherever they are: first what an earlier download left, then the source,
//! kept on disk as they pass.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::Job;
use crate::error::{Error, Result};
use crate::image::Descriptor;
use crate::progress::LayerEvent;

/// Failed reads in a row, without one byte in between, before a download gives up.
const RETRIES_WITHOUT_PROGRESS: u32 = 4;

/// Reads exactly `descriptor.size` bytes, or fails. Every byte handed out is in `partial`.
pub(super) struct Resuming<'a> {
    job: &'a Job<'a>,
    descriptor: &'a Descriptor,
    partial: &'a File,
    /// Bytes in `partial` when this began.
    resumed_bytes: u64,
    position_bytes: u64,
    remote: Option<Box<dyn Read + Send + 'a>>,
    retries: u32,
    /// Why reading failed, in full: an `io::Error` cannot carry it through a decoder.
    failure: Option<Error>,
}

impl<'a> Resuming<'a> {
    pub(super) fn new(job: &'a Job<'a>, descriptor: &'a Descriptor, partial: &'a File) -> Result<Self> {
        let io_error = |e| Error::io("inspect a partial download", e);
        let mut resumed_bytes = partial.metadata().map_err(io_error)?.len();
        if resumed_bytes > descriptor.size {
            partial.set_len(0).map_err(io_error)?;
            resumed_bytes = 0;
        }
        job.progress.layer(&descriptor.digest, LayerEvent::Started { total_bytes: descriptor.size, resumed_bytes });
        Ok(Self { job, descriptor, partial, resumed_bytes, position_bytes: 0, remote: None, retries: 0, failure: None })
    }

    /// Why reading failed, if it did.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let name = || format!("layer {}", self.descriptor.digest);
        if self.job.cancelled.load(Ordering::Relaxed) {
            return Err(Error::io(format_args!("fetch {}", name()), io::Error::other("cancelled")));
        }
        if self.position_bytes < self.resumed_bytes {
            let end = buffer.len().min((self.resumed_bytes - self.position_bytes).try_into().unwrap_or(usize::MAX));
            return self
                .partial
                .read_at(&mut buffer[..end], self.position_bytes)
                .map_err(|e| Error::io(format_args!("read the partial download of {}", name()), e));
        }
        let left_bytes = self.descriptor.size - self.position_bytes;
        let end = buffer.len().min(left_bytes.try_into().unwrap_or(usize::MAX));
        if end == 0 {
            return Ok(0);
        }
        loop {
            let failed = match self.connect()?.read(&mut buffer[..end]) {
                Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ended {left_bytes} bytes early")),
                Ok(n) => {
                    self.retries = 0;
                    self.partial
                        .write_all_at(&buffer[..n], self.position_bytes)
                        .map_err(|e| Error::io(format_args!("keep {} in the image store", name()), e))?;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            self.remote = None;
            self.retries += 1;
            if self.retries > RETRIES_WITHOUT_PROGRESS {
                let (here, total) = (self.position_bytes, self.descriptor.size);
                return Err(Error::io(
                    format_args!("fetch {} ({here} of {total} bytes are here; pull again to resume)", name()),
                    failed,
                ));
            }
        }
    }

    fn connect(&mut self) -> Result<&mut (dyn Read + Send + 'a)> {
        let remote = match self.remote.take() {
            Some(remote) => remote,
            None => self.job.source.blob(self.job.reference, &self.descriptor.digest, self.position_bytes)?,
        };
        Ok(&mut **self.remote.insert(remote))
    }
}

impl Read for Resuming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.next(buffer) {
            Ok(n) => {
                self.position_bytes += n as u64;
                self.job.progress.layer(&self.descriptor.digest, LayerEvent::Moved(n as u64));
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
