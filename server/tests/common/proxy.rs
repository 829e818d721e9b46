//! A network that is against everybody: a proxy before a registry that breaks, stalls, lies and refuses, as
//! its seed says, and counts what passes; or that has a long way and little bandwidth a connection.

// Each program uses its part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much passes at a time.
const SLICE_BYTES: usize = 64 << 10;

/// How long a stalled connection is kept, unless its client leaves before.
const STALL: Duration = Duration::from_secs(20);

/// What can happen to one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection ends before, or in, the answer's head.
    BeforeHead,
    InHead,
    /// It ends after one byte of the body, a few, or all but one.
    FirstByte,
    Middle,
    LastByte,
    /// It is reset after a few.
    Reset,
    /// Nothing comes any more, or a byte now and then.
    Stall,
    SlowLoris,
    /// 429, without and with `Retry-After`.
    TooMany,
    TooManyAfter(u64),
    ServerError,
    /// 502 with a page of HTML, as proxies have it.
    BadGateway,
    /// A chunked body that ends in the middle of a chunk.
    TruncatedChunk,
    /// A `Content-Length` that is too small (and kept to), or too large.
    ShortLength,
    LongLength,
    /// 200 and everything where a range was asked for.
    NoRange,
    /// A `Content-Range` of another offset or another size than was asked for.
    OtherOffset,
    OtherSize,
    /// More bytes than there are.
    MoreBytes,
    /// Another `ETag` each time.
    NewETag,
    /// One byte is another.
    WrongByte,
    /// To this host, to another host, or round and round.
    RedirectHere,
    RedirectAway,
    RedirectLoop,
    /// The connection ends after a part of the request's body has passed.
    CutRequest,
}

/// What a patient client comes through. Each lets little pass: many of them fit into one blob.
pub const PASSING: [Fault; 15] = [
    Fault::BeforeHead,
    Fault::InHead,
    Fault::FirstByte,
    Fault::Middle,
    Fault::Middle,
    Fault::Reset,
    Fault::Stall,
    Fault::SlowLoris,
    Fault::TooMany,
    Fault::TooManyAfter(0),
    Fault::ServerError,
    Fault::BadGateway,
    Fault::TruncatedChunk,
    Fault::ShortLength,
    Fault::LongLength,
];

/// A way with this much delay, and bandwidth for each connection.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    pub latency: Duration,
    pub bytes_per_second: u64,
}

/// Which requests meet which faults.
#[derive(Default)]
pub struct Weather {
    /// Drawn from in an order made of the seed, for each path.
    pub faults: Vec<Fault>,
    pub seed: u64,
    /// Faults for each blob, and for each other path.
    pub blob_faults: usize,
    pub other_faults: usize,
    /// Only this path meets any.
    pub only: Option<String>,
    pub link: Option<Link>,
    /// Bodies of requests longer than this are refused with 413.
    pub request_limit_bytes: Option<u64>,
    /// Where [`Fault::RedirectAway`] leads.
    pub elsewhere: Option<String>,
}

/// A request as it came, and what went back.
#[derive(Debug, Clone)]
pub struct Passed {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub fault: Option<Fault>,
    /// Bytes of the request's body that were announced, and of the answer's that went back.
    pub request_bytes: u64,
    pub body_bytes: u64,
    pub at: Instant,
}

/// The proxy. Its threads end with the test's process.
pub struct Proxy {
    pub address: String,
    state: Arc<State>,
}

struct State {
    upstream: String,
    weather: Mutex<Weather>,
    drawn: Mutex<HashMap<String, usize>>,
    passed: Mutex<Vec<Passed>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    body_bytes: AtomicU64,
    calm: AtomicBool,
}

impl Proxy {
    pub fn start(upstream: &str, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            upstream: upstream.into(),
            weather: Mutex::new(weather),
            drawn: Mutex::default(),
            passed: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            body_bytes: AtomicU64::new(0),
            calm: AtomicBool::new(false),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                std::thread::spawn(move || state.serve(&connection));
            }
        });
        Self { address, state }
    }

    /// Changes what happens from now on; faults are counted anew.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.state.drawn.lock().unwrap().clear();
        change(&mut self.state.weather.lock().unwrap());
    }

    /// No faults any more.
    pub fn calm(&self) {
        self.state.calm.store(true, Ordering::Relaxed);
    }

    pub fn passed(&self) -> Vec<Passed> {
        self.state.passed.lock().unwrap().clone()
    }

    /// How often each fault has happened.
    pub fn injected(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        self.passed().iter().filter_map(|passed| passed.fault).for_each(|fault| *counts.entry(fault).or_default() += 1);
        counts
    }

    /// Bytes of bodies that went to clients.
    pub fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::Relaxed)
    }

    /// The most answers that were on their way at a time.
    pub fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::Relaxed)
    }
}

/// SplitMix64.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A request's or an answer's head.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> Option<Self> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line).ok().filter(|&n| n > 0)?;
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let headers = lines.get(1..)?.iter().filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Self { first: lines[0].clone(), headers })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.into(), value.into()));
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|(key, _)| key != name);
    }

    fn length(&self) -> u64 {
        self.get("content-length").map_or(0, |length| length.parse().unwrap())
    }

    fn text(&self) -> String {
        let mut text = format!("{}\r\n", self.first);
        self.headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text + "\r\n"
    }
}

/// The end of a connection.
struct End;

type Flow = Result<(), End>;

impl State {
    fn serve(&self, connection: &TcpStream) {
        connection.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(connection);
        while let Some(request) = Head::read(&mut reader) {
            if self.exchange(connection, &mut reader, request).is_err() {
                break;
            }
        }
        let _ = connection.shutdown(Shutdown::Both);
    }

    /// The fault a request meets, in the order that its path and the seed give.
    fn draw(&self, path: &str) -> Option<Fault> {
        let weather = self.weather.lock().unwrap();
        let limit = if path.contains("/blobs/") { weather.blob_faults } else { weather.other_faults };
        let mut drawn = self.drawn.lock().unwrap();
        let count = drawn.entry(path.into()).or_default();
        let is_spared = weather.only.as_ref().is_some_and(|only| only != path);
        if is_spared || self.calm.load(Ordering::Relaxed) || weather.faults.is_empty() || *count >= limit {
            return None;
        }
        let (round, place) = (*count / weather.faults.len(), *count % weather.faults.len());
        *count += 1;
        // A deck for each round: no fault comes often in a row.
        let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let mut state = path.bytes().fold(weather.seed, hash) ^ round as u64;
        let mut deck = weather.faults.clone();
        for at in (1..deck.len()).rev() {
            deck.swap(at, usize::try_from(random(&mut state) % (at as u64 + 1)).unwrap());
        }
        Some(deck[place])
    }

    fn exchange(&self, client: &TcpStream, reader: &mut impl Read, mut request: Head) -> Flow {
        let mut words = request.first.split(' ').map(str::to_owned);
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Err(End) };
        let plain_path = path.split('?').next().unwrap().to_owned();
        let may_be_cut = matches!(method.as_str(), "PUT" | "PATCH") && request.length() > 0;
        let fault = self.draw(&plain_path).filter(|fault| *fault != Fault::CutRequest || may_be_cut);
        let header = |name| request.get(name).map(str::to_owned);
        let at = self.note(Passed {
            method: method.clone(),
            path,
            range: header("range"),
            authorization: header("authorization"),
            fault,
            request_bytes: request.length(),
            body_bytes: 0,
            at: Instant::now(),
        });
        let (link, limit, elsewhere) = {
            let weather = self.weather.lock().unwrap();
            (weather.link, weather.request_limit_bytes, weather.elsewhere.clone())
        };
        if let Some(link) = link {
            std::thread::sleep(link.latency);
        }
        if limit.is_some_and(|limit| request.length() > limit) {
            // As nginx does it: it answers at once.
            let _ = write(client, b"HTTP/1.1 413 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            discard_body(reader, &request);
            return Err(End);
        }
        if fault == Some(Fault::NoRange) {
            request.remove("range");
        }
        let mut out = Out { state: self, client, at, link, started: Instant::now(), sent_bytes: 0 };
        match fault {
            Some(fault @ (Fault::TooMany | Fault::TooManyAfter(_) | Fault::ServerError | Fault::BadGateway)) => {
                discard_body(reader, &request);
                out.refuse(fault, &method)
            }
            Some(fault @ (Fault::RedirectHere | Fault::RedirectAway | Fault::RedirectLoop)) => {
                out.redirect(fault, &plain_path, elsewhere.as_deref())
            }
            Some(Fault::BeforeHead) => Err(End),
            other => self.forward(&mut out, reader, request, other, &method),
        }
    }

    fn note(&self, passed: Passed) -> usize {
        let mut all = self.passed.lock().unwrap();
        all.push(passed);
        all.len() - 1
    }

    fn forward(&self, out: &mut Out<'_>, reader: &mut impl Read, mut request: Head, fault: Option<Fault>, method: &str) -> Flow {
        request.set("connection", "close");
        let mut upstream = TcpStream::connect(&self.upstream).map_err(|_| End)?;
        write(&upstream, request.text().as_bytes())?;
        let mut body = reader.take(request.length());
        if fault == Some(Fault::CutRequest) {
            let _ = std::io::copy(&mut (&mut body).take(request.length() / 3), &mut upstream);
            // What has passed is to arrive: the registry sees an end, and takes down what came.
            let _ = upstream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut upstream, &mut std::io::sink());
            return Err(End);
        }
        std::io::copy(&mut body, &mut upstream).map_err(|_| End)?;
        let mut upstream = BufReader::new(upstream);
        let answer = Head::read(&mut upstream).ok_or(End)?;
        let _open = Open::new(self);
        out.answer(answer, &mut upstream, fault, method)
    }
}

fn discard_body(reader: &mut impl Read, request: &Head) {
    let _ = std::io::copy(&mut reader.take(request.length()), &mut std::io::sink());
}

fn write(mut to: &TcpStream, bytes: &[u8]) -> Flow {
    to.write_all(bytes).map_err(|_| End)
}

/// An answer on its way.
struct Open<'a>(&'a State);

impl<'a> Open<'a> {
    fn new(state: &'a State) -> Self {
        let now = state.open.fetch_add(1, Ordering::Relaxed) + 1;
        state.most_open.fetch_max(now, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What goes to the client.
struct Out<'a> {
    state: &'a State,
    client: &'a TcpStream,
    at: usize,
    link: Option<Link>,
    started: Instant,
    sent_bytes: u64,
}

impl Out<'_> {
    fn refuse(&self, fault: Fault, method: &str) -> Flow {
        let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
        let (status, header, body) = match fault {
            Fault::TooManyAfter(seconds) => (429, format!("retry-after: {seconds}\r\n"), ""),
            Fault::TooMany => (429, String::new(), ""),
            Fault::ServerError => (500, String::new(), ""),
            _ => (502, "content-type: text/html\r\n".into(), page),
        };
        let head = format!("HTTP/1.1 {status} X\r\n{header}content-length: {}\r\n\r\n", body.len());
        write(self.client, head.as_bytes())?;
        write(self.client, if method == "HEAD" { b"" } else { body.as_bytes() })
    }

    fn redirect(&self, fault: Fault, path: &str, elsewhere: Option<&str>) -> Flow {
        let here = self.client.local_addr().map_err(|_| End)?.to_string();
        let host = if fault == Fault::RedirectAway { elsewhere.unwrap() } else { &here };
        let head = format!("HTTP/1.1 307 X\r\nlocation: http://{host}{path}\r\ncontent-length: 0\r\n\r\n");
        write(self.client, head.as_bytes())
    }

    fn answer(&mut self, mut head: Head, body: &mut impl Read, fault: Option<Fault>, method: &str) -> Flow {
        let has_body = method != "HEAD";
        let length = if has_body { head.length() } else { 0 };
        // A 200th: many faults fit into a blob.
        let few = (length / 200).max(2).min(length);
        head.set("connection", "keep-alive");
        let mut passing = length;
        match fault {
            Some(Fault::InHead) => {
                let text = head.text();
                write(self.client, &text.as_bytes()[..text.len() / 2])?;
                return Err(End);
            }
            Some(Fault::FirstByte) => passing = length.min(1),
            Some(Fault::SlowLoris) => passing = length.min(2),
            Some(Fault::LastByte) => passing = length.saturating_sub(1),
            Some(Fault::Middle | Fault::Reset | Fault::Stall | Fault::TruncatedChunk) => passing = few,
            Some(fault @ (Fault::ShortLength | Fault::LongLength)) if has_body => {
                passing = few;
                head.set("content-length", if fault == Fault::ShortLength { few } else { length + 1000 }.to_string());
            }
            Some(Fault::OtherOffset | Fault::OtherSize) => lie(&mut head, fault),
            Some(Fault::NewETag) => head.set("etag", format!("\"{}\"", self.at)),
            _ => {}
        }
        if matches!(fault, Some(Fault::TruncatedChunk | Fault::MoreBytes)) && has_body {
            head.remove("content-length");
            head.set("transfer-encoding", "chunked");
            let extra = if fault == Some(Fault::MoreBytes) { 5000 } else { 0 };
            write(self.client, format!("{}{:x}\r\n", head.text(), length + extra).as_bytes())?;
        } else {
            write(self.client, head.text().as_bytes())?;
        }
        self.pass(body, passing, fault == Some(Fault::WrongByte))?;
        self.end_badly(fault, has_body, body)
    }

    /// What comes after the bytes that passed.
    fn end_badly(&mut self, fault: Option<Fault>, has_body: bool, body: &mut impl Read) -> Flow {
        match fault {
            Some(Fault::Reset) => {
                let at_once = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(self.client, at_once).map_err(|_| End)?;
                Err(End)
            }
            Some(Fault::Stall) if has_body => {
                self.wait_for_the_client_to_leave(STALL);
                Err(End)
            }
            Some(Fault::SlowLoris) if has_body => {
                let end = Instant::now() + STALL;
                while Instant::now() < end {
                    self.pass(body, 1, false)?;
                    self.wait_for_the_client_to_leave(Duration::from_millis(20));
                }
                Err(End)
            }
            Some(Fault::MoreBytes) => {
                let _ = write(self.client, &[b'x'; 5000]);
                let _ = write(self.client, b"\r\n0\r\n\r\n");
                Err(End)
            }
            Some(Fault::FirstByte | Fault::Middle | Fault::LastByte | Fault::TruncatedChunk) => Err(End),
            Some(Fault::ShortLength | Fault::LongLength) => Err(End),
            _ => Ok(()),
        }
    }

    /// Until the client has closed, or for so long.
    fn wait_for_the_client_to_leave(&self, limit: Duration) {
        let _ = self.client.set_read_timeout(Some(limit));
        let _ = self.client.peek(&mut [0]);
        let _ = self.client.set_read_timeout(None);
    }

    fn pass(&mut self, body: &mut impl Read, bytes: u64, spoil: bool) -> Flow {
        let mut left_bytes = bytes;
        let mut slice = vec![0; SLICE_BYTES];
        while left_bytes > 0 {
            let wanted = usize::try_from(left_bytes).unwrap().min(slice.len());
            let n = body.read(&mut slice[..wanted]).map_err(|_| End)?;
            if n == 0 {
                return Err(End);
            }
            if spoil && left_bytes == bytes {
                slice[n / 2] ^= 1;
            }
            write(self.client, &slice[..n])?;
            self.count(n as u64);
            left_bytes -= n as u64;
            if let Some(link) = self.link {
                let due = self.started + Duration::from_secs_f64(self.sent_bytes as f64 / link.bytes_per_second as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
        self.state.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.state.passed.lock().unwrap()[self.at].body_bytes = self.sent_bytes;
    }
}

/// Has a `Content-Range`, if there is one, tell of another offset or another size.
fn lie(head: &mut Head, fault: Option<Fault>) {
    let Some(range) = head.get("content-range") else { return };
    let (span, total) = range.trim_start_matches("bytes ").split_once('/').unwrap();
    let (first, last) = span.split_once('-').unwrap();
    let (first, last, total): (u64, u64, u64) = (first.parse().unwrap(), last.parse().unwrap(), total.parse().unwrap());
    let lie = match fault {
        Some(Fault::OtherOffset) => format!("bytes {}-{last}/{total}", first.saturating_sub(1)),
        _ => format!("bytes {first}-{last}/{}", total + 1),
    };
    head.set("content-range", lie);
}
