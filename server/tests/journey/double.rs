//! A registry that answers exactly what a test tells it to, well-behaved or not, and remembers what it
//! was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::image::Image;

/// How much of a request's body is remembered.
const BODY_KEPT_BYTES: u64 = 4 << 10;

/// An answer to one path.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of a body after which a connection is closed, that many times in all.
    pub cut: Option<(usize, u32)>,
    /// What is answered from the second time on.
    pub then: Option<Box<Self>>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, then: None }
    }

    pub fn then(self, later: Self) -> Self {
        Self { then: Some(Box::new(later)), ..self }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    /// The beginning of its body.
    pub body: String,
    /// Bytes of the body that were sent in answer.
    pub answered_bytes: usize,
}

/// The registry. Its threads end with the test's process.
pub struct Double {
    pub address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<Request>>,
}

impl Double {
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// On another loopback address: another host, as far as credentials are concerned.
    pub fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let state = Arc::clone(&serving);
                std::thread::spawn(move || serve(&state, connection.unwrap()));
            }
        });
        Self { address, state }
    }

    /// Answers `path` (or `METHOD path`) so from now on.
    pub fn on(&self, path: impl Into<String>, answer: Answer) {
        self.state.answers.lock().unwrap().insert(path.into(), answer);
    }

    /// Serves an image as a good registry does.
    pub fn host(&self, repository: &str, tag: &str, image: &Image) {
        let manifest = Answer::new(200, image.manifest.bytes.clone()).header("content-type", image.manifest.media_type);
        self.on(format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        self.on(format!("/v2/{repository}/manifests/{}", image.manifest.digest()), manifest);
        for blob in image.blobs() {
            self.on(format!("/v2/{repository}/blobs/{}", blob.digest()), Answer::new(200, blob.bytes.clone()));
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

fn serve(state: &State, connection: TcpStream) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut connection = connection;
    while let Some(mut request) = read_request(&mut reader) {
        let answer = {
            let mut answers = state.answers.lock().unwrap();
            let by_method = format!("{} {}", request.method, request.path);
            let key = if answers.contains_key(&by_method) { by_method } else { request.path.clone() };
            let answer = answers.get(&key).cloned();
            if let Some((_, times @ 1..)) = answers.get_mut(&key).and_then(|answer| answer.cut.as_mut()) {
                *times -= 1;
            }
            if let Some(later) = answer.as_ref().and_then(|answer| answer.then.clone()) {
                answers.insert(key, *later);
            }
            answer.unwrap_or_else(|| Answer::new(404, r#"{"errors":[{"code":"NOT_FOUND","message":"no answer was set"}]}"#))
        };
        let start = request.headers.get("range").filter(|_| answer.status == 200);
        let start: usize = start.map_or(0, |range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
        let total = answer.body.len();
        let mut body = &answer.body[start.min(total)..];
        let mut head = match start {
            0 => format!("HTTP/1.1 {} X\r\n", answer.status),
            _ => format!("HTTP/1.1 206 X\r\ncontent-range: bytes {start}-{}/{total}\r\n", total - 1),
        };
        answer.headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let cut = answer.cut.filter(|(_, times)| *times > 0).map(|(bytes, _)| bytes);
        if let Some(bytes) = cut {
            body = &body[..bytes.min(body.len())];
        }
        if request.method == "HEAD" {
            body = &[];
        }
        request.answered_bytes = body.len();
        state.requests.lock().unwrap().push(request);
        // A client may hang up before it has read everything.
        let sent = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body));
        if sent.is_err() || cut.is_some() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: u64 = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = Vec::new();
    reader.take(length.min(BODY_KEPT_BYTES)).read_to_end(&mut body).ok()?;
    std::io::copy(&mut reader.take(length.saturating_sub(BODY_KEPT_BYTES)), &mut std::io::sink()).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Request { method, path, headers, body, answered_bytes: 0 })
}
