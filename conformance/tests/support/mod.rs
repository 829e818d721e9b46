//! A small registry in memory, correct but for one fault that can be switched on.

mod handlers;
mod referrers;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest as _, Sha256, Sha512};

/// One thing done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    AcceptsWrongDigest,
    AcceptsManifestUnderWrongDigest,
    AcceptsDisorderedChunks,
    AnswersUnmodifiedWithAll,
    BreaksConnectionOnUnsatisfiableRange,
    CorruptsBlobs,
    EndlessTagPages,
    FiltersNothing,
    ForgetsArtifactTypes,
    ForgetsEarlyReferrers,
    ForgetsReplacedManifests,
    HeadWithoutLength,
    IgnoresTagLimit,
    KeepsCancelledUploads,
    ListsDeletedReferrers,
    ListsReferrersAsJson,
    InventsErrorCodes,
    LiesAboutDigest,
    MalformedDigestIsServerError,
    MakesOneTagOfMany,
    MountsNothing,
    OffByOneRange,
    OmitsBlobLocation,
    OmitsDigestHeader,
    OmitsSubjectHeader,
    RepeatsTagsAcrossPages,
    RewritesManifests,
    StaleTag,
    UnknownBlobIsEmpty,
    UnsortedTags,
}

/// The whole state. Blobs and manifests are kept by repository and digest.
#[derive(Debug, Default)]
pub(crate) struct State {
    fault: Option<Fault>,
    blobs: BTreeMap<(String, String), Vec<u8>>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    tags: BTreeMap<(String, String), String>,
    /// Referrers that were listed once, by repository and subject; for who does not forget.
    once_listed: BTreeMap<(String, String), Vec<serde_json::Value>>,
    uploads: BTreeMap<String, Vec<u8>>,
    upload_count: u32,
}

impl State {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// How many blobs, manifests and tags there are.
    pub(crate) fn len(&self) -> usize {
        self.blobs.len() + self.manifests.len() + self.tags.len()
    }
}

#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    /// Every value of the parameter `tag`.
    tags: Vec<String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The body is not sent and the connection closed before it.
    broken: bool,
}

impl Response {
    fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Starts a registry; its address and state. It serves until the test process ends.
pub(crate) fn start(fault: Option<Fault>) -> (SocketAddr, Arc<Mutex<State>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State { fault, ..State::default() }));
    let shared = state.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is no failure of the registry.
            let _ = serve(stream, &shared);
        }
    });
    (address, state)
}

/// Answers one request and closes the connection.
fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let Some(request) = read_request(&mut reader)? else { return Ok(()) };
    let mut state = state.lock().unwrap();
    let response = handlers::handle(&mut state, &request);
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !(request.method == "HEAD" && state.has(Fault::HeadWithoutLength)) && response.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" && !response.broken {
        stream.write_all(&response.body)?;
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = || query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let tags = pairs().filter(|(key, _)| key == "tag").map(|(_, tag)| tag).collect();
    let query = pairs().collect();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l: &String| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path: path.to_owned(), query, tags, headers, body }))
}

fn digest_of(bytes: &[u8]) -> String {
    hex("sha256:", &Sha256::digest(bytes))
}

/// The digest by the algorithm that another one has.
fn digest_like(digest: &str, bytes: &[u8]) -> String {
    if digest.starts_with("sha512:") { hex("sha512:", &Sha512::digest(bytes)) } else { digest_of(bytes) }
}

fn hex(prefix: &str, raw: &[u8]) -> String {
    raw.iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
