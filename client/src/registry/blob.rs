//! Fetching a blob, or a range of one: a reader that goes on where it stopped, at the same host or the next.
//!
//! A blob is known by its digest and size, so what a server says about it (`ETag`, `Content-Length`) is
//! never needed; `Content-Range` must be what was asked for. Nothing past the range is ever handed out.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::Digest;
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::BlobRead;

use super::host::{Host, broken_off};
use super::http::Answer;
use super::retry::{Retry, transient};
use super::scope::Action;
use crate::error::{Error, Result};

/// A connection that brings less than this while it may be silent is as good as silent.
const FLOOR_BYTES: u64 = 4 << 10;

/// Which bytes are wanted.
pub(super) enum Wanted {
    /// From an offset to the end: a host without ranges may send those before, too.
    From(u64),
    /// Just these.
    Range(Range<u64>),
}

/// A blob's bytes, from the first of `hosts` that has them.
pub(super) struct Blob<'a> {
    hosts: &'a [Host],
    blob: Descriptor,
    /// What is still to come.
    range: Range<u64>,
    /// Whether only a range is wanted, not the bytes before it.
    exact: bool,
    cancel: &'a Cancel<'a>,
    retry: Retry<'a>,
    answer: Option<Answer<'a>>,
    /// What the answer's `Content-Length` leaves to be read, if it has one.
    answer_left_bytes: Option<u64>,
    /// Its ranges are not what was asked for: it is asked for all.
    without_range: bool,
    /// Bytes that have come since the last failure, but for those of a connection that brought next to nothing.
    moved_bytes: u64,
    window: Window,
}

/// What a connection has brought since it was last looked at, and how long that was waited for. What the reader does
/// meanwhile does not count.
#[derive(Debug, Default)]
struct Window {
    waited: Duration,
    bytes: u64,
}

impl Window {
    /// Has bytes of an answer at hand; `None` of one that brings next to nothing.
    fn fill(&mut self, answer: &mut Answer<'_>, stall: Duration) -> io::Result<Option<usize>> {
        if answer.at_hand() > 0 {
            return Ok(Some(answer.at_hand()));
        }
        if self.waited >= stall {
            if self.bytes < FLOOR_BYTES {
                return Ok(None);
            }
            *self = Self::default();
        }
        let began = Instant::now();
        let n = answer.fill_buf()?.len();
        self.waited += began.elapsed();
        self.bytes += n as u64;
        Ok(Some(n))
    }

    fn too_slow(&self) -> io::Error {
        let why = format!("{} bytes came in {:.1} seconds", self.bytes, self.waited.as_secs_f32());
        io::Error::new(io::ErrorKind::TimedOut, why)
    }
}

impl<'a> Blob<'a> {
    /// Asks for the bytes; `None` if only the range is wanted and a host sends all.
    pub(super) fn open(hosts: &'a [Host], blob: &Descriptor, wanted: Wanted, cancel: &'a Cancel<'a>) -> Result<Option<Self>> {
        let (range, exact) = match wanted {
            Wanted::From(offset) => (offset..blob.size, false),
            Wanted::Range(range) => (range, true),
        };
        let retry = Retry::new(*hosts[0].pool.timing(), cancel);
        let mut opened = Self {
            hosts,
            blob: blob.clone(),
            range,
            exact,
            cancel,
            retry,
            answer: None,
            answer_left_bytes: None,
            without_range: false,
            moved_bytes: 0,
            window: Window::default(),
        };
        opened.skip_down();
        while !opened.range.is_empty() {
            match opened.connect() {
                Ok(true) => break,
                Ok(false) => return Ok(None),
                Err(failure) => opened.recover(failure)?,
            }
        }
        Ok(Some(opened))
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.blob.digest
    }

    /// How many hosts there are from the one that is read from to the last.
    pub(super) fn hosts_left(&self) -> usize {
        self.hosts.len()
    }

    fn host(&self) -> &'a Host {
        &self.hosts[0]
    }

    fn attempted(&self) -> String {
        format!("get blob {}", self.blob.digest)
    }

    /// Mirrors that failed others, or are for other things, are not asked. There always remains the registry itself.
    fn skip_down(&mut self) {
        while self.hosts.len() > 1 && (self.hosts[0].is_down() || !self.hosts[0].may.pull) {
            self.hosts = &self.hosts[1..];
        }
    }

    /// Asks for what is still to come; `false` if the host has no ranges and nothing less will do.
    fn connect(&mut self) -> Result<bool> {
        let host = self.host();
        let Range { start, end } = self.range;
        let url = format!("{}/blobs/{}", host.base, self.blob.digest);
        let range = match (start, end == self.blob.size) {
            (0, true) => None,
            _ if self.without_range => None,
            (_, true) => Some(format!("bytes={start}-")),
            _ => Some(format!("bytes={start}-{}", end - 1)),
        };
        let build = |client: &reqwest::Client| match &range {
            Some(range) => client.get(&url).header("range", range),
            None => client.get(&url),
        };
        let mut answer = host.send(Action::Pull, self.cancel, || self.attempted(), build)?;
        host.expect(&mut answer, &[200, 206], || self.attempted())?;
        if answer.status() == 206 {
            let header = answer.header("content-range").unwrap_or_default();
            if parse_content_range(header).is_none_or(|sent| !sent.answers(&self.range, self.blob.size)) {
                if self.exact {
                    return Ok(false);
                }
                if self.hosts.len() == 1 && !self.without_range {
                    self.without_range = true;
                    drop(answer);
                    return self.connect();
                }
                let why = format!("asked for bytes {start} to {} of {}, it sent {header:?}", end - 1, self.blob.size);
                return Err(host.broken(&self.attempted(), why));
            }
        } else if start > 0 {
            if self.exact {
                return Ok(false);
            }
            // It does not do ranges and sends all of it.
            self.skip(&mut answer, start)?;
        }
        let length = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
        let skipped_bytes = if answer.status() == 206 { 0 } else { start };
        self.answer_left_bytes = length.map(|length| length.saturating_sub(skipped_bytes));
        self.window = Window::default();
        self.answer = Some(answer);
        Ok(true)
    }

    /// Reads what is here already.
    fn skip(&self, answer: &mut Answer<'_>, bytes: u64) -> Result<()> {
        let broken = |e| broken_off(&self.host().endpoint.host, &e);
        let (mut window, mut left_bytes) = (Window::default(), bytes);
        while left_bytes > 0 {
            match window.fill(answer, self.host().pool.timing().stall).map_err(broken)? {
                None => return Err(broken(window.too_slow())),
                Some(0) => return Err(broken(ended_early(left_bytes))),
                Some(n) => {
                    let skipped = within(n, left_bytes);
                    answer.consume(skipped);
                    left_bytes -= skipped as u64;
                }
            }
        }
        Ok(())
    }

    /// Has some of the bytes at hand that are still to come.
    fn fill(&mut self) -> Result<()> {
        if self.answer.is_none() && !self.connect()? {
            return Err(self.host().broken(&self.attempted(), "it served a range before, and does not now".into()));
        }
        let (host, stall) = (&self.host().endpoint.host, self.host().pool.timing().stall);
        let Some(answer) = &mut self.answer else { return Ok(()) };
        match self.window.fill(answer, stall).map_err(|e| broken_off(host, &e))? {
            Some(0) => Err(broken_off(host, &ended_early(self.range.end - self.range.start))),
            Some(_) => Ok(()),
            None => {
                self.moved_bytes -= self.window.bytes;
                Err(broken_off(host, &self.window.too_slow()))
            }
        }
    }

    /// How many of the bytes at hand are wanted, once there are some; 0 at the end.
    fn ready(&mut self) -> io::Result<usize> {
        if self.range.is_empty() {
            return Ok(0);
        }
        while let Err(failure) = self.fill() {
            self.recover(failure).map_err(io::Error::other)?;
        }
        let at_hand = self.answer.as_ref().map_or(0, Answer::at_hand);
        Ok(within(at_hand, self.range.end - self.range.start))
    }

    /// Counts bytes that were taken.
    fn took(&mut self, n: usize) {
        self.range.start += n as u64;
        self.moved_bytes += n as u64;
        self.answer_left_bytes = self.answer_left_bytes.map(|left| left.saturating_sub(n as u64));
        if self.range.is_empty()
            && let Some(mut answer) = self.answer.take()
            && self.answer_left_bytes == Some(0)
        {
            // Read to its end it leaves a connection for the next request.
            let _ = answer.fill_buf();
        }
    }

    /// After a failure: the next host, or a wait and the same again, or the end.
    fn recover(&mut self, failure: Error) -> Result<()> {
        self.answer = None;
        let moved_bytes = std::mem::take(&mut self.moved_bytes);
        if moved_bytes > 0 {
            self.retry.progressed();
        }
        let may_pass = transient(&failure).is_some();
        if self.hosts.len() > 1 && (moved_bytes == 0 || !may_pass) {
            if may_pass {
                self.host().set_down();
            }
            self.hosts = &self.hosts[1..];
            self.skip_down();
            return Ok(());
        }
        self.retry.wait(failure, self.host().is_reached())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = if buffer.is_empty() { 0 } else { self.ready()?.min(buffer.len()) };
        let Some(answer) = self.answer.as_mut().filter(|_| n > 0) else { return Ok(0) };
        let n = answer.read(&mut buffer[..n])?;
        self.took(n);
        Ok(n)
    }
}

impl BlobRead for Blob<'_> {
    fn take_bytes(&mut self) -> io::Result<Bytes> {
        let n = self.ready()?;
        let taken = self.answer.as_mut().map_or_else(Bytes::new, |answer| answer.take(n));
        self.took(taken.len());
        Ok(taken)
    }
}

/// How many bytes are to be taken, where no more than `limit_bytes` are wanted.
fn within(bytes: usize, limit_bytes: u64) -> usize {
    bytes.min(usize::try_from(limit_bytes).unwrap_or(usize::MAX))
}

fn ended_early(missing_bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("it ended {missing_bytes} bytes early"))
}

/// A `Content-Range` (RFC 9110 section 14.4): first and last byte, and of how many.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    /// Whether it begins what was asked for, of a blob of `size` bytes. It may end earlier.
    fn answers(&self, asked: &Range<u64>, size: u64) -> bool {
        self.first == asked.start && self.last >= self.first && self.total.is_none_or(|total| total == size)
    }
}

fn parse_content_range(header: &str) -> Option<ContentRange> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse().ok();
    let total = if total.trim() == "*" { None } else { Some(number(total)?) };
    Some(ContentRange { first: number(first)?, last: number(last)?, total })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_content_range_must_be_what_was_asked_for() {
        let answers = |header: &str| parse_content_range(header).is_some_and(|sent| sent.answers(&(10..20), 100));
        for good in ["bytes 10-19/100", "bytes 10-19/*", "bytes 10-12/100", "bytes 10-99/100"] {
            assert!(answers(good), "{good}");
        }
        for bad in ["bytes 9-19/100", "bytes 0-19/100", "bytes 10-19/101", "bytes 10-9/100", "bytes */100", "10-19/100", ""] {
            assert!(!answers(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_content_range_never_panics(text in "\\PC{0,30}", tail in "[0-9*/ -]{0,30}") {
            let _ = parse_content_range(&text);
            let _ = parse_content_range(&format!("bytes {tail}"));
        }
    }
}
