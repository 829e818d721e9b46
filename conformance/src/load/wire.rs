//! HTTP/1.1 as little as a load generator needs: prepared bytes out, the head of the answer read, its
//! body counted. What the server sends is bounded and never trusted with a length of memory.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::limits::{HEAD_LIMIT_BYTES, READ_BUFFER_BYTES};

/// What the head of an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    pub(super) location: Option<String>,
}

/// An answer; its body went to the sink.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) body_bytes: u64,
}

/// One connection, opened when first needed and again after the server closed it.
#[derive(Debug)]
pub(super) struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// Bytes sent and received, all connections together: whether anything moves.
    moved: Rc<Cell<u64>>,
    buffer: Box<[u8]>,
    /// What was received and not yet looked at.
    filled: std::ops::Range<usize>,
}

impl Connection {
    pub(super) fn new(address: SocketAddr, moved: Rc<Cell<u64>>) -> Self {
        Self { address, stream: None, moved, buffer: vec![0; READ_BUFFER_BYTES].into(), filled: 0..0 }
    }

    /// Sends a request and takes its answer; `sink` gets the body's bytes. After a failure the
    /// connection is of no use any more: [`Self::close`] it.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        is_head: bool,
        sink: &mut impl FnMut(&[u8]),
    ) -> anyhow::Result<Answer> {
        self.send(request).await?;
        self.receive(is_head, sink).await
    }

    /// The next request has a new connection.
    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    /// Sends bytes, of which an answer need not come yet.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.address).await.with_context(|| format!("connect to {}", self.address))?;
            stream.set_nodelay(true)?;
            self.filled = 0..0;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { bail!("no connection") };
        stream.write_all(bytes).await.context("send a request")?;
        self.moved.set(self.moved.get() + bytes.len() as u64);
        Ok(())
    }

    pub(super) async fn receive(&mut self, is_head: bool, sink: &mut impl FnMut(&[u8])) -> anyhow::Result<Answer> {
        let head = loop {
            let (head, length) = match parse_head(&self.buffer[self.filled.clone()])? {
                Some(parsed) => parsed,
                None => {
                    ensure!(self.filled.len() < HEAD_LIMIT_BYTES, "the head of an answer is over {HEAD_LIMIT_BYTES} bytes");
                    self.fill().await?;
                    continue;
                }
            };
            self.filled.start += length;
            // "Continue" and its like are no answers.
            if head.status >= 200 {
                break head;
            }
        };
        let body_bytes = match head {
            _ if is_head || matches!(head.status, 204 | 304) => 0,
            Head { chunked: true, .. } => self.chunks(sink).await?,
            Head { length: Some(length), .. } => self.take(length, sink).await?,
            Head { length: None, .. } => bail!("an answer whose body ends with the connection cannot be measured"),
        };
        if head.close {
            self.close();
        }
        Ok(Answer { head, body_bytes })
    }

    /// Passes exactly `length` bytes to the sink.
    async fn take(&mut self, length: u64, sink: &mut impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let mut left = length;
        while left > 0 {
            if self.filled.is_empty() {
                self.fill().await?;
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.filled.len());
            sink(&self.buffer[self.filled.start..self.filled.start + n]);
            self.filled.start += n;
            left -= n as u64;
        }
        Ok(length)
    }

    async fn chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> anyhow::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).with_context(|| format!("{line:?} is no size of a chunk"))?;
            if size == 0 {
                // Trailers, and the empty line after them.
                while !self.line().await?.is_empty() {}
                return Ok(total);
            }
            total += self.take(size, sink).await?;
            ensure!(self.line().await?.is_empty(), "a chunk is longer than its size");
        }
    }

    /// The next line, without its end.
    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            let received = &self.buffer[self.filled.clone()];
            if let Some(end) = received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&received[..end]).into_owned();
                self.filled.start += end + 2;
                return Ok(line);
            }
            ensure!(received.len() < HEAD_LIMIT_BYTES, "a line of an answer is over {HEAD_LIMIT_BYTES} bytes");
            self.fill().await?;
        }
    }

    /// Receives something more.
    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.end == self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        let Some(stream) = &mut self.stream else { bail!("no connection") };
        let n = stream.read(&mut self.buffer[self.filled.end..]).await.context("receive an answer")?;
        ensure!(n > 0, "the server closed the connection in the middle of an answer");
        self.filled.end += n;
        self.moved.set(self.moved.get() + n as u64);
        Ok(())
    }
}

/// The head at the beginning of `bytes` and how long it is; `None` when it is not all there yet.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(Head, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| text(code).parse().ok());
    let Some(status) = status else { bail!("{:?} is no status line", text(status_line)) };
    let mut head = Head { status, close: status_line.starts_with(b"HTTP/1.0"), ..Head::default() };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { bail!("{:?} is no header", text(line)) };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = text(value).parse().ok();
            head.length = Some(length.with_context(|| format!("{:?} is no Content-Length", text(value)))?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.close |= value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"location") {
            head.location = Some(text(value).into());
        }
    }
    Ok(Some((head, end + 4)))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or("(not UTF-8)")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_all_there() {
        let head = b"HTTP/1.1 202 Accepted\r\nContent-LENGTH: 12\r\nlocation: /v2/x\r\nConnection: Close\r\n\r\nbody";
        for cut in 0..head.len() - 4 {
            assert_eq!(parse_head(&head[..cut]).unwrap(), None, "{cut}");
        }
        let (parsed, length) = parse_head(head).unwrap().unwrap();
        let expected = Head { status: 202, length: Some(12), chunked: false, close: true, location: Some("/v2/x".into()) };
        assert_eq!((parsed, length), (expected, head.len() - 4));
        for bad in ["HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "\r\n\r\n"] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").is_err());
    }

    /// What a client makes of a server that sends just these bytes, in pieces, to every connection.
    fn answers(sent: &'static [u8], piece: usize, is_head: bool) -> anyhow::Result<(u16, Vec<u8>)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let _ = stream.read(&mut [0; 100]).unwrap();
            for part in sent.chunks(piece) {
                // The client may have had enough.
                let _ = stream.write_all(part);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut body = Vec::new();
        let mut connection = Connection::new(address, Rc::default());
        let answer =
            runtime.block_on(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", is_head, &mut |part| body.extend_from_slice(part)));
        drop(connection);
        server.join().unwrap();
        answer.map(|answer| (answer.head.status, body))
    }

    #[test]
    fn bodies_of_every_form_are_taken_whole() {
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\nA;x=y\r\n0123456789\r\n0\r\nt: r\r\n\r\n";
        let continued = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        for piece in [1, 7, 1000] {
            assert_eq!(answers(chunked, piece, false).unwrap(), (200, b"wiki0123456789".to_vec()));
            assert_eq!(answers(continued, piece, false).unwrap(), (200, b"body".to_vec()));
        }
        assert_eq!(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", 9, true).unwrap(), (200, vec![]));
        assert_eq!(answers(b"HTTP/1.1 204 No Content\r\n\r\n", 9, false).unwrap(), (204, vec![]));
    }

    #[test]
    fn a_broken_answer_is_an_error_and_not_a_hang() {
        for bad in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nlonger\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nuntil it closes",
            b"HTTP/1.1 200",
        ] {
            assert!(answers(bad, 1000, false).is_err(), "{:?}", text(bad));
        }
        let endless: &'static [u8] = vec![b'x'; 2 * HEAD_LIMIT_BYTES].leak();
        assert!(answers(endless, 1 << 20, false).unwrap_err().to_string().contains("over"));
    }
}
