//! Reading requests, strictly, and writing responses.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use super::Fault;

/// The most bytes of a request's head.
const HEAD_LIMIT_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Every value of the parameter `tag`.
    pub(super) tags: Vec<String>,
    /// Every value of the parameter `scope`.
    pub(super) scopes: Vec<String>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
    /// What is wrong with it as HTTP.
    pub(super) flaw: Option<Flaw>,
}

/// What a server must not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    HeadTooLarge,
    HostMissing,
    LengthAndChunks,
    LengthMalformed,
    TargetHasControls,
    TwoLengths,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// The body is not sent and the connection closed before it.
    pub(super) broken: bool,
}

impl Response {
    pub(super) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn without(&mut self, name: &str) {
        self.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
    }

    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.without(name);
        self.headers.push((name, value.into()));
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name))
    }
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }
}

/// The next request; `None` when the client went away before it was whole.
pub(super) fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
        if head[before..].trim_ascii().is_empty() {
            break;
        }
    }
    let too_large = head.len() > HEAD_LIMIT_BYTES;
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().splitn(2, ' ');
    let (Some(method), Some(rest)) = (words.next(), words.next()) else { return Ok(None) };
    let target = rest.rsplit_once(' ').map_or(rest, |(target, _)| target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = || query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let all = |name: &str| pairs().filter(|(key, _)| key == name).map(|(_, value)| value).collect();
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: pairs().collect(),
        tags: all("tag"),
        scopes: all("scope"),
        ..Request::default()
    };
    let mut lengths = Vec::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        if name == "content-length" {
            lengths.push(value.to_owned());
        }
        let all = request.headers.entry(name).or_default();
        *all = if all.is_empty() { value.to_owned() } else { format!("{all}, {value}") };
    }
    request.flaw = if too_large { Some(Flaw::HeadTooLarge) } else { flaw(&request, &lengths) };
    let length = lengths.first().and_then(|length| length.parse().ok()).unwrap_or(0_usize);
    // What is wrong cannot be read either.
    if request.flaw.is_none() && request.headers.contains_key("transfer-encoding") {
        request.body = read_chunks(reader)?;
    } else if request.flaw.is_none() {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

fn flaw(request: &Request, lengths: &[String]) -> Option<Flaw> {
    let malformed = |length: &String| length.is_empty() || length.len() > 15 || !length.bytes().all(|b| b.is_ascii_digit());
    if request.path.contains(char::is_control) {
        Some(Flaw::TargetHasControls)
    } else if !request.headers.contains_key("host") {
        Some(Flaw::HostMissing)
    } else if lengths.iter().any(malformed) {
        Some(Flaw::LengthMalformed)
    } else if lengths.len() > 1 {
        Some(Flaw::TwoLengths)
    } else if !lengths.is_empty() && request.headers.contains_key("transfer-encoding") {
        Some(Flaw::LengthAndChunks)
    } else {
        None
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size + 2, 0);
        reader.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(body);
        }
    }
}

pub(super) fn write_response(
    stream: &mut impl Write,
    request: &Request,
    response: &Response,
    fault: Option<Fault>,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !(request.method == "HEAD" && fault == Some(Fault::HeadWithoutLength)) && response.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    // Whoever answers what was smuggled says nothing of an end.
    let smuggled = fault == Some(Fault::AnswersWhatWasSmuggled) && request.flaw == Some(Flaw::LengthAndChunks);
    if !smuggled {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" && !response.broken {
        stream.write_all(&response.body)?;
    }
    if smuggled {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}
