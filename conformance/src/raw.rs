//! Requests byte for byte, each on a TCP connection of its own: what an HTTP library would tidy up or refuse.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http::{Answer, Exchange, Registry};
use crate::limits::{ANSWER_LIMIT_BYTES, CONNECT_TIMEOUT, HEAD_LIMIT_BYTES, RAW_QUIET, RAW_TIMEOUT, READ_BUFFER_BYTES};
use crate::outcome::{Finding, Outcome};

/// What is sent: a request's first line and headers as they are, and what follows.
#[derive(Debug, Clone)]
pub(crate) struct RawRequest {
    head: Vec<u8>,
    body: Vec<u8>,
    answers: usize,
}

/// What came back on the connection.
#[derive(Debug)]
pub(crate) struct RawAnswers {
    /// The request, and the first answer.
    pub(crate) exchange: Exchange,
    /// The statuses of further answers.
    pub(crate) further: Vec<u16>,
    /// Whether the registry closed the connection.
    pub(crate) closed: bool,
}

impl RawRequest {
    /// `METHOD target` as HTTP/1.1, without any header.
    pub(crate) fn new(method: &str, target: &[u8]) -> Self {
        let head = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"].concat();
        Self { head, body: Vec::new(), answers: 1 }
    }

    /// With a header more.
    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    /// With bytes that follow the head, whatever its headers say.
    #[must_use]
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Listening for up to so many answers, instead of one.
    #[must_use]
    pub(crate) fn answers(mut self, answers: usize) -> Self {
        self.answers = answers;
        self
    }
}

/// What a peer that speaks HTTP is known by in a `Host` header.
pub(crate) fn host(registry: &Registry) -> String {
    let host = registry.url().host_str().unwrap_or_default();
    registry.url().port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// A connection to the registry. Not offered over TLS, where nothing raw can be sent.
pub(crate) fn connect(registry: &Registry) -> Outcome<TcpStream> {
    if registry.url().scheme() != "http" {
        return Err(Finding::NotOffered("plain HTTP: what rconform sends byte for byte it does not send over TLS".into()));
    }
    let fail = |why: String| Exchange::raw(Vec::new(), 0, registry.url().clone(), Err(why)).fail("a connection");
    let addresses = registry.url().socket_addrs(|| None).map_err(|e| fail(e.to_string()))?;
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(e) => why = format!("connect to {address}: {e}"),
        }
    }
    Err(fail(why))
}

/// Sends `request` and reads what comes. The exchange may have no answer: a closed connection is one way
/// to refuse.
pub(crate) fn send(registry: &Registry, request: &RawRequest) -> Outcome<RawAnswers> {
    let stream = connect(registry)?;
    let head = [&request.head[..], b"\r\n"].concat();
    let deadline = Instant::now() + RAW_TIMEOUT;
    let mut received = Received::default();
    let read = std::thread::scope(|scope| {
        // Written beside the reading: who refuses early closes the connection, and its answer would be lost.
        scope.spawn(|| {
            let _ = stream.set_write_timeout(Some(RAW_TIMEOUT));
            let mut stream = &stream;
            let _ = stream.write_all(&head).and_then(|()| stream.write_all(&request.body));
        });
        let read = received.read(&stream, request.answers, deadline);
        let _ = stream.shutdown(Shutdown::Both);
        read
    });
    let mut answers = received.answers;
    let first = if answers.is_empty() {
        Err(read.err().unwrap_or_else(|| "the connection was closed without one".into()))
    } else {
        Ok(answers.remove(0))
    };
    let exchange = Exchange::raw(request.head.clone(), request.body.len(), registry.url().clone(), first);
    Ok(RawAnswers { exchange, further: answers.iter().map(|answer| answer.status).collect(), closed: received.closed })
}

#[derive(Debug, Default)]
struct Received {
    answers: Vec<Answer>,
    bytes: Vec<u8>,
    total_bytes: usize,
    closed: bool,
}

impl Received {
    /// Reads up to `wanted` answers, until the deadline, or until all is quiet after the first; in words
    /// what went wrong.
    fn read(&mut self, mut stream: &TcpStream, wanted: usize, deadline: Instant) -> Result<(), String> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            while let Some(answer) = self.next()? {
                // A 1xx is no answer yet.
                if answer.status >= 200 {
                    self.answers.push(answer);
                }
            }
            if self.closed || (wanted == 1 && !self.answers.is_empty()) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if self.answers.is_empty() { left } else { left.min(RAW_QUIET) };
            if patience.is_zero() {
                return Err(format!("there was none within {RAW_TIMEOUT:?}"));
            }
            let _ = stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))));
            match stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(n) => self.take(&buffer[..n])?,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !self.answers.is_empty() => {
                    return Ok(());
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => self.closed = true,
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.total_bytes += bytes.len();
        if self.total_bytes > ANSWER_LIMIT_BYTES {
            return Err(format!("the answer is over {ANSWER_LIMIT_BYTES} bytes"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole answer in what was received (RFC 9112 section 6.3).
    fn next(&mut self) -> Result<Option<Answer>, String> {
        let Some(head_bytes) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            let over = self.bytes.len() > HEAD_LIMIT_BYTES;
            return if over { Err("the answer's head does not end".into()) } else { Ok(None) };
        };
        let (status, headers) = parse_head(&self.bytes[..head_bytes]).ok_or("the answer is not HTTP")?;
        let rest = &self.bytes[head_bytes + 4..];
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let chunked = text("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"));
        let length = text("content-length").and_then(|value| value.parse::<usize>().ok());
        let taken = match (status, length) {
            (100..=199 | 204 | 304, _) => Some((Vec::new(), 0)),
            _ if chunked => dechunk(rest),
            (_, Some(length)) => rest.get(..length).map(|body| (body.to_vec(), length)),
            (_, None) => self.closed.then(|| (rest.to_vec(), rest.len())),
        };
        // Closed in the middle: what there is of it is shown.
        let taken = taken.or_else(|| self.closed.then(|| (rest.to_vec(), rest.len())));
        let Some((body, body_bytes)) = taken else { return Ok(None) };
        self.bytes.drain(..head_bytes + 4 + body_bytes);
        Ok(Some(Answer { status, headers, body }))
    }
}

fn parse_head(head: &[u8]) -> Option<(u16, HeaderMap)> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let status = first.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((status, headers))
}

/// The content of a whole chunked body and how many bytes it took; `None` while it is not whole.
fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            // Trailers are not expected: the next line is empty.
            return bytes.get(at..at + 2).map(|_| (content, at + 2));
        }
        content.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, closed: bool) -> Vec<(u16, String)> {
        let mut received = Received { bytes: text.as_bytes().to_vec(), closed, ..Received::default() };
        let mut found = Vec::new();
        while let Some(answer) = received.next().unwrap() {
            found.push((answer.status, String::from_utf8(answer.body).unwrap()));
        }
        found
    }

    #[test]
    fn answers_come_apart_by_length_by_chunks_and_by_the_end() {
        let lengths = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(lengths, false), [(200, "ab".into()), (404, String::new())]);
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\nHTTP/1.1 204 x\r\n\r\n";
        assert_eq!(read(chunks, false), [(200, "abc".into()), (204, String::new())]);
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nabc", false), []);
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nabc", true), [(200, "abc".into())]);
    }

    #[test]
    fn what_is_not_http_is_said_to_be_so() {
        for text in ["SSH-2.0\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"] {
            let mut received = Received { bytes: text.into(), ..Received::default() };
            assert!(received.next().is_err(), "{text:?}");
        }
    }
}
