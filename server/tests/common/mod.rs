//! The real `rhub`, a plain HTTP/1.1 client that says exactly what it is told to, and small images.

// Each test program uses its part of this.
#![allow(dead_code, unreachable_pub)]

#[path = "../../../runtime/tests/needs/mod.rs"]
pub mod needs;
pub mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use longshore_runtime::name::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running registry, killed when dropped.
pub struct Rhub {
    child: Child,
    pub address: String,
}

impl Rhub {
    pub fn start(data: &Path) -> Self {
        Self::start_command(command(data))
    }

    /// With further flags of `rhub serve`.
    pub fn start_with(data: &Path, flags: &[&str]) -> Self {
        let mut command = command(data);
        command.args(flags);
        Self::start_command(command)
    }

    /// A registry with these settings, in a directory of its own.
    pub fn with(settings: &[&str]) -> (tempfile::TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command(dir.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let rhub = Self::start_command(command);
        (dir, rhub)
    }

    pub fn start_command(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("rhub said {line:?}")).to_owned();
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill_nine(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of a process that was told to end.
    pub fn wait_politely(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Peak resident memory so far, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// One request on a connection of its own.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut connection = self.begin(method, path, headers, body.len());
        // The server may answer and close before it has read everything.
        let _ = connection.write_all(body);
        Reply::read(connection).unwrap()
    }

    /// The head of a request whose body is still to be sent.
    pub fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> TcpStream {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        self.raw(&format!("{head}\r\n"))
    }

    pub fn raw(&self, text: &str) -> TcpStream {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(text.as_bytes()).unwrap();
        connection
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    /// A metric that has one number.
    pub fn metric(&self, name: &str) -> u64 {
        let page = String::from_utf8(self.get("/metrics").body).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        value.unwrap_or_else(|| panic!("{name} is not in {page}")).parse().unwrap()
    }

    /// Starts an upload and gives its location.
    pub fn start_upload(&self, repo: &str) -> String {
        let reply = self.send("POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"");
        assert_eq!(reply.status, 202, "{reply:?}");
        reply.header("location").to_owned()
    }

    pub fn push_blob(&self, repo: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let location = self.start_upload(repo);
        let reply = self.send("PUT", &format!("{location}?digest={digest}"), &[], content);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("docker-content-digest"), digest.as_str());
        digest
    }

    /// Pushes an image of one layer with this content; gives the manifest.
    pub fn push_image(&self, repo: &str, tag: &str, content: &str) -> String {
        self.push_blob(repo, b"{}");
        self.push_blob(repo, content.as_bytes());
        let manifest = image_manifest(b"{}", content.as_bytes());
        let reply = self.put_manifest(repo, tag, OCI_MANIFEST, manifest.as_bytes());
        assert_eq!(reply.status, 201, "{reply:?}");
        manifest
    }

    pub fn put_manifest(&self, repo: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Reply {
        self.send("PUT", &format!("/v2/{repo}/manifests/{reference}"), &[("content-type", media_type)], bytes)
    }
}

impl Drop for Rhub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `rhub serve` on a free port.
pub fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    command
}

/// A response.
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads until the server closes; `None` when it closed without a whole head.
    pub fn read(mut connection: TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        // A reset after the answer, because the server did not want the rest, is none of the test's.
        let _ = connection.read_to_end(&mut bytes);
        let _ = connection.shutdown(Shutdown::Both);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let split = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        Some(Self { status, headers: lines.filter_map(split).collect(), body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> &str {
        self.find_header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    pub fn find_header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(key, _)| key == name).count()
    }

    pub fn header_names(&self) -> Vec<String> {
        self.headers.iter().map(|(key, _)| key.clone()).collect()
    }

    /// The status and the first error's code.
    pub fn error(&self) -> (u16, String) {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        (self.status, document["errors"][0]["code"].as_str().unwrap().to_owned())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

pub fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

pub fn image_manifest(config: &[u8], layer: &[u8]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", config),
        descriptor("application/vnd.oci.image.layer.v1.tar", layer)
    )
}

pub fn index_manifest(children: &[&str]) -> String {
    let children: Vec<_> = children.iter().map(|child| descriptor(OCI_MANIFEST, child.as_bytes())).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, children.join(","))
}

pub fn descriptor(media_type: &str, content: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::of(content), content.len())
}

/// Waits for a condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
