//! Sending a blob: mounted from where it is, in one piece, or, where that does not get through, in chunks
//! from wherever the registry says it stands.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::BlobRead;
use reqwest::{Body, Client, RequestBuilder, Url};

use super::host::{Host, Sending};
use super::http::{Answer, upload_body};
use super::retry::{Retry, transient};
use super::scope::Action;
use crate::error::{Error, Result};

/// A chunk, held in memory while it is sent.
const CHUNK_BYTES: u64 = 8 << 20;

/// The smallest chunk that is tried with a proxy that refuses larger bodies.
const CHUNK_MIN_BYTES: u64 = 64 << 10;

/// The largest chunk a registry may ask for (`OCI-Chunk-Min-Length`).
const CHUNK_MAX_BYTES: u64 = 64 << 20;

/// Whether a blob is there (end-2).
pub(super) fn is_there(host: &Host, digest: &Digest, cancel: &Cancel<'_>) -> Result<bool> {
    let attempted = || format!("look for blob {digest}");
    let url = format!("{}/blobs/{digest}", host.base);
    host.retrying(cancel, || {
        let mut answer = host.send(Action::Push, cancel, attempted, |client| client.head(&url))?;
        if answer.status() == 404 {
            return Ok(false);
        }
        host.expect(&mut answer, &[200], attempted).map(|()| true)
    })
}

/// What is sent.
pub struct Content<'a, R> {
    /// Its digest.
    pub digest: &'a Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Opens it at an offset; called again if bytes must be sent again.
    pub open: &'a dyn Fn(u64) -> Result<R>,
    /// A repository of the same registry that may have it.
    pub mount_from: Option<RepoName>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The registry took it from another repository.
    Mounted,
    /// It travelled.
    Uploaded,
}

/// An upload session (distribution-spec, "Pushing a blob in chunks").
struct Session {
    /// Where it goes on.
    location: Url,
    /// Bytes the registry has.
    offset: u64,
    chunk_min_bytes: u64,
}

/// One blob on its way to one host.
pub(super) struct Upload<'a, R, F> {
    host: &'a Host,
    content: &'a Content<'a, R>,
    sent: F,
    cancel: &'a Cancel<'a>,
    /// Chunks of this size from now on; before, all in one piece.
    chunk_bytes: Option<u64>,
    mount_from: Option<&'a RepoName>,
}

impl<'a, R: BlobRead + 'static, F: Fn(u64) + Clone + Send + 'static> Upload<'a, R, F> {
    pub(super) fn new(host: &'a Host, content: &'a Content<'a, R>, sent: F, cancel: &'a Cancel<'a>) -> Self {
        Self { host, content, sent, cancel, chunk_bytes: None, mount_from: content.mount_from.as_ref() }
    }

    /// Sends it, whatever happens in between. What cannot be sent leaves nothing at the registry.
    pub(super) fn run(mut self) -> Result<Sent> {
        let mut session = None;
        let sent = self.persist(&mut session);
        // Who cannot be reached is not asked once more.
        if let (Err(failure), Some(session)) = (&sent, &session)
            && (self.cancel.is_set() || !matches!(failure, Error::Unreachable { .. }))
        {
            self.abandon(session);
        }
        sent
    }

    fn persist(&mut self, session: &mut Option<Session>) -> Result<Sent> {
        let mut retry = Retry::new(*self.host.pool.timing(), self.cancel);
        let (mut best_offset, mut has_begun) = (0, false);
        loop {
            let failure = match self.go_on(session) {
                Ok(sent) => return Ok(sent),
                Err(failure) => failure,
            };
            // Once only: a registry that begins and begins gets nowhere.
            if session.is_some() && !std::mem::replace(&mut has_begun, true) {
                retry.progressed();
            }
            let refused = match &failure {
                Error::Refused { answer, .. } => answer.status,
                _ => 0,
            };
            match refused {
                413 => self.shrink(failure)?,
                // The session has gone, or stands elsewhere.
                404 | 416 if session.is_some() => retry.wait_at_least(Duration::ZERO, failure, true)?,
                _ => {
                    retry.wait(failure, self.host.is_reached())?;
                    self.chunk_bytes.get_or_insert(CHUNK_BYTES);
                }
            }
            *session = session.take().and_then(|session| self.status(&session));
            // It may have ended well, and only the answer was lost.
            if session.is_none() && is_there(self.host, self.content.digest, self.cancel)? {
                return Ok(Sent::Uploaded);
            }
            let offset = session.as_ref().map_or(0, |session| session.offset);
            if offset > best_offset {
                best_offset = offset;
                retry.progressed();
            }
        }
    }

    /// Starts a session, unless there is one, and sends the rest.
    fn go_on(&mut self, session: &mut Option<Session>) -> Result<Sent> {
        let session = match session {
            Some(session) => session,
            None => match self.start()? {
                Some(started) => session.insert(started),
                None => return Ok(Sent::Mounted),
            },
        };
        match self.chunk_bytes {
            Some(chunk_bytes) => self.send_chunks(session, chunk_bytes)?,
            None => self.send_whole(session)?,
        }
        Ok(Sent::Uploaded)
    }

    fn attempted(&self) -> String {
        format!("upload blob {}", self.content.digest)
    }

    /// Begins an upload (end-4a), asking for a mount first (end-11); `None` when that was done.
    fn start(&mut self) -> Result<Option<Session>> {
        let host = self.host;
        let mut answer = match self.mount_from {
            None => self.post(None)?,
            from => match self.post(from) {
                Ok(answer) if answer.status() == 201 => return Ok(None),
                Ok(answer) if answer.status() == 202 => answer,
                Err(failure) if !is_final_refusal(&failure) => return Err(failure),
                // Who may not read there may well write here.
                refused => {
                    drop(refused);
                    self.post(None)?
                }
            },
        };
        self.mount_from = None;
        host.expect(&mut answer, &[202], || self.attempted())?;
        let chunk_min_bytes = answer.header("oci-chunk-min-length").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        let location = self.location(&answer)?;
        Ok(Some(Session { location, offset: 0, chunk_min_bytes }))
    }

    fn post(&self, mount_from: Option<&RepoName>) -> Result<Answer<'a>> {
        let mut url = format!("{}/blobs/uploads/", self.host.base);
        if let Some(from) = mount_from {
            url = format!("{url}?mount={}&from={from}", self.content.digest);
        }
        let build = |client: &Client| client.post(&url).header("content-length", "0");
        let action = mount_from.map_or(Action::Push, Action::Mount);
        self.host.send(action, self.cancel, || self.attempted(), build)
    }

    /// All of it in the closing request (end-6).
    fn send_whole(&self, session: &Session) -> Result<()> {
        let count = Arc::new(AtomicU64::new(0));
        let body = || Ok(upload_body((self.content.open)(0)?, Arc::clone(&count), self.sent.clone()));
        self.close(session, self.content.size, &count, &body)
    }

    /// The rest of it chunk by chunk (end-5), and the close.
    fn send_chunks(&self, session: &mut Session, chunk_bytes: u64) -> Result<()> {
        let chunk_bytes = chunk_bytes.max(session.chunk_min_bytes.min(CHUNK_MAX_BYTES));
        let mut reader = (self.content.open)(session.offset)?;
        let read_failed = |e| Error::Runtime(longshore_runtime::Error::io(format_args!("read blob {}", self.content.digest), e));
        while session.offset < self.content.size {
            let left_bytes = self.content.size - session.offset;
            let mut chunk = Vec::with_capacity(usize::try_from(chunk_bytes.min(left_bytes)).unwrap_or_default());
            reader.by_ref().take(chunk_bytes).read_to_end(&mut chunk).map_err(read_failed)?;
            if chunk.is_empty() {
                return Err(read_failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.send_chunk(session, &chunk.into())?;
        }
        self.close(session, 0, &AtomicU64::new(0), &|| Ok(Body::from("")))
    }

    fn send_chunk(&self, session: &mut Session, chunk: &bytes::Bytes) -> Result<()> {
        let length = chunk.len() as u64;
        let range = format!("{}-{}", session.offset, session.offset + length - 1);
        let location = session.location.clone();
        let build = |client: &Client| {
            let request = client.patch(location.clone()).header("content-type", "application/octet-stream");
            request.header("content-length", length.to_string()).header("content-range", &range)
        };
        let count = Arc::new(AtomicU64::new(0));
        let body = || Ok(upload_body(std::io::Cursor::new(chunk.clone()), Arc::clone(&count), self.sent.clone()));
        let mut answer = self.exchange(session, build, Some(&Sending { body: &body, count: &count }))?;
        self.host.expect(&mut answer, &[202], || self.attempted())?;
        session.location = self.location(&answer)?;
        session.offset += length;
        Ok(())
    }

    /// Ends the upload (end-6), with a body of `length` bytes.
    fn close(&self, session: &Session, length: u64, count: &AtomicU64, body: &dyn Fn() -> Result<Body>) -> Result<()> {
        let mut location = session.location.clone();
        location.query_pairs_mut().append_pair("digest", self.content.digest.as_str());
        let build = |client: &Client| {
            let request = client.put(location.clone()).header("content-type", "application/octet-stream");
            request.header("content-length", length.to_string())
        };
        let mut answer = self.exchange(session, build, Some(&Sending { body, count }))?;
        self.host.expect(&mut answer, &[201], || self.attempted())
    }

    /// How far the registry says a session is (end-13); `None` if it knows no such session any more.
    fn status(&self, session: &Session) -> Option<Session> {
        let asked = self.host.retrying(self.cancel, || {
            let mut answer = self.exchange(session, |client| client.get(session.location.clone()), None)?;
            self.host.expect(&mut answer, &[204], || self.attempted())?;
            let offset = parse_offset(answer.header("range").unwrap_or_default());
            Ok((offset, self.location(&answer).unwrap_or_else(|_| session.location.clone())))
        });
        let (offset, location) = asked.ok()?;
        let offset = offset.filter(|&offset| offset <= self.content.size)?;
        Some(Session { location, offset, chunk_min_bytes: session.chunk_min_bytes })
    }

    /// Ends a session that nobody goes on with (end-14). A registry that does not do that drops it some time later.
    fn abandon(&self, session: &Session) {
        let (host, cancel) = (self.host, Cancel::default());
        let (trusted, build) = (host.is_own(&session.location), |client: &Client| client.delete(session.location.clone()));
        let _ = host.exchange(Action::Push, &cancel, trusted, || self.attempted(), build, None);
    }

    fn exchange(
        &self,
        session: &Session,
        build: impl Fn(&Client) -> RequestBuilder,
        sending: Option<&Sending<'_>>,
    ) -> Result<Answer<'a>> {
        let trusted = self.host.is_own(&session.location);
        self.host.exchange(Action::Push, self.cancel, trusted, || self.attempted(), build, sending)
    }

    /// Smaller chunks, after a body was too large for somebody on the way.
    fn shrink(&mut self, failure: Error) -> Result<()> {
        match self.chunk_bytes {
            Some(bytes) if bytes / 2 < CHUNK_MIN_BYTES => return Err(failure),
            Some(bytes) => self.chunk_bytes = Some(bytes / 2),
            None => self.chunk_bytes = Some(CHUNK_BYTES.min(self.content.size.div_ceil(2)).max(CHUNK_MIN_BYTES)),
        }
        Ok(())
    }

    /// Where an upload goes on. Another host is allowed by the specification; it gets no credentials
    /// (CVE-2026-50151), and no plain HTTP where the registry speaks HTTPS.
    fn location(&self, answer: &Answer<'_>) -> Result<Url> {
        let broken = |why: String| self.host.broken(&self.attempted(), why);
        let location = answer.header("location").ok_or_else(|| broken("its answer has no Location".into()))?;
        let base = answer.url().ok_or_else(|| broken("its answer has no URL".into()))?;
        let url = base.join(location).map_err(|e| broken(format!("its Location is no URL: {e}")))?;
        if url.scheme() == "https" || (self.host.endpoint.plain && url.scheme() == "http") {
            Ok(url)
        } else {
            Err(broken("its Location leads away from HTTPS; nothing was sent".into()))
        }
    }
}

/// Whether the registry, or its token server, has said no to what is asked, and will again.
fn is_final_refusal(failure: &Error) -> bool {
    matches!(failure, Error::Refused { .. }) && transient(failure).is_none()
}

/// The number of bytes a `Range: 0-LAST` says are there. `0-0` is what registries say of an empty upload,
/// and of one byte: sending that one again is refused, and asked for again.
fn parse_offset(range: &str) -> Option<u64> {
    let (first, last) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0").then(|| if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_range_of_an_upload_says_how_much_is_there() {
        assert_eq!(parse_offset("0-99"), Some(100));
        assert_eq!(parse_offset("bytes=0-99"), Some(100));
        assert_eq!(parse_offset("0-0"), Some(0));
        for bad in ["", "1-99", "0", "0-x", "-5"] {
            assert_eq!(parse_offset(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_range_never_panics(text in "\\PC{0,30}", likely in "[0-9-]{0,30}") {
            let _ = (parse_offset(&text), parse_offset(&likely));
        }
    }
}
