//! The registry over TLS: real clients, certificates that are renewed, and peers that never shake hands.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::needs::installed;
use common::{Rhub, wait_until};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A registry over TLS in a directory of its own.
struct Server {
    dir: tempfile::TempDir,
    rhub: Rhub,
}

impl Server {
    fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_certificate(dir.path(), "tls");
        let mut command = common::command(&dir.path().join("data"));
        command.arg("--tls-certificate").arg(dir.path().join("tls.crt")).arg("--tls-key").arg(dir.path().join("tls.key"));
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stderr(File::create(dir.path().join("log")).unwrap());
        let rhub = Rhub::start_command(command);
        Self { dir, rhub }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Runs curl on a path of the registry, trusting the certificate of this name.
    fn curl(&self, trusted: &str, path: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "--max-time", "30", "--cacert"]).arg(self.path(&format!("{trusted}.crt")));
        let output = command.args(arguments).arg(format!("https://{}{path}", self.rhub.address)).output().unwrap();
        output.status.success().then_some(output.stdout).ok_or_else(|| String::from_utf8(output.stderr).unwrap())
    }

    /// A metric that has one number.
    fn metric(&self, name: &str) -> String {
        let page = String::from_utf8(self.curl("tls", "/metrics", &[]).unwrap()).unwrap();
        page.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap().to_owned()
    }

    /// A connection after its handshake.
    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let pem = std::fs::read(self.path("tls.crt")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, TcpStream::connect(&self.rhub.address).unwrap());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }
}

/// NAME.crt and NAME.key: a certificate of its own making for this machine.
fn make_certificate(dir: &Path, name: &str) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=rhub",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(dir.join(format!("{name}.key")))
        .arg("-out")
        .arg(dir.join(format!("{name}.crt")))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn peers() -> bool {
    installed("openssl") && installed("curl")
}

#[test]
fn a_blob_goes_up_and_down_by_http_2_and_http_1() {
    if !peers() {
        return;
    }
    let server = Server::start(&[]);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(server.path("content"), &content).unwrap();
    let digest = longshore_runtime::name::Digest::of(&content);
    let from = format!("@{}", server.path("content").display());
    let write = ["-w", "%{http_version}"];
    let post = format!("/v2/a/blobs/uploads/?digest={digest}");
    let upload = ["--data-binary", &from, "-H", "content-type: application/octet-stream"];
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let put = server.curl("tls", &post, &[&[flag][..], &upload, &write].concat()).unwrap();
        assert_eq!(put, version.as_bytes());
        let path = format!("/v2/a/blobs/{digest}");
        let got = server.curl("tls", &path, &[&[flag][..], &write].concat()).unwrap();
        assert!(got == [&content, version.as_bytes()].concat(), "{flag}");
        // Several at a time, on one connection where the protocol allows it.
        let url = format!("https://{}{path}", server.rhub.address);
        let many = server.curl("tls", &path, &[&[flag, "-Z"][..], &[url.as_str(); 7]].concat()).unwrap();
        assert_eq!(many.len(), 8 * content.len());
        let part = server.curl("tls", &path, &[flag, "-r", "1000-1999"]).unwrap();
        assert_eq!(part, &content[1000..2000]);
    }
}

#[test]
fn skopeo_pushes_and_pulls_over_tls() {
    if !peers() || !installed("skopeo") {
        return;
    }
    let server = Server::start(&[]);
    std::fs::create_dir(server.path("trust")).unwrap();
    std::fs::copy(server.path("tls.crt"), server.path("trust/rhub.crt")).unwrap();
    let (config, layer) =
        (&b"{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}"[..], &[]);
    let manifest =
        common::image_manifest(config, layer).replace(&common::descriptor("application/vnd.oci.image.layer.v1.tar", layer), "");
    let (source, back) = (server.path("source"), server.path("back"));
    let digest = longshore_runtime::name::Digest::of;
    for content in [config, manifest.as_bytes()] {
        let blobs = source.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(digest(content).hex()), content).unwrap();
    }
    std::fs::write(source.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(source.join("index.json"), common::index_manifest(&[&manifest])).unwrap();
    let image = format!("docker://{}/team/app:v1", server.rhub.address);
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(["copy", "--preserve-digests"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let trust = server.path("trust").display().to_string();
    skopeo(&["--dest-cert-dir", &trust, &format!("oci:{}", source.display()), &image]);
    skopeo(&["--src-cert-dir", &trust, &image, &format!("oci:{}", back.display())]);
    assert!(back.join("blobs/sha256").join(digest(manifest.as_bytes()).hex()).is_file());
}

#[test]
fn a_renewed_certificate_is_served_and_an_unusable_one_changes_nothing() {
    if !peers() {
        return;
    }
    let server = Server::start(&[]);
    make_certificate(server.dir.path(), "next");
    std::fs::copy(server.path("tls.crt"), server.path("old.crt")).unwrap();
    let mut earlier = server.connect();
    server.curl("old", "/v2/", &[]).unwrap();
    assert!(server.curl("next", "/v2/", &[]).is_err());
    let complaints = || server.log().matches("the old certificate stays in use").count();

    std::fs::write(server.path("tls.crt"), "garbage").unwrap();
    wait_until("garbage is complained about", || complaints() == 1);
    server.curl("old", "/v2/", &[]).unwrap();

    std::fs::rename(server.path("next.crt"), server.path("tls.crt")).unwrap();
    wait_until("a certificate with another one's key is complained about", || complaints() == 2);
    server.curl("old", "/v2/", &[]).unwrap();

    std::fs::remove_file(server.path("tls.key")).unwrap();
    wait_until("a missing key is complained about", || complaints() == 3);
    server.curl("old", "/v2/", &[]).unwrap();

    std::fs::rename(server.path("next.key"), server.path("tls.key")).unwrap();
    wait_until("the new certificate is served", || server.curl("tls", "/v2/", &[]).is_ok());
    assert!(server.curl("old", "/v2/", &[]).is_err());
    // Who was connected before notices nothing.
    earlier.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    earlier.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn tls_1_2_is_the_oldest_spoken() {
    if !peers() {
        return;
    }
    let server = Server::start(&[]);
    // What curl's own library would refuse otherwise.
    let any = ["--ciphers", "DEFAULT@SECLEVEL=0"];
    for newest in ["1.2", "1.3"] {
        server.curl("tls", "/v2/", &["--tls-max", newest]).unwrap();
    }
    for newest in ["1.0", "1.1"] {
        let refused = server.curl("tls", "/v2/", &[&["--tlsv1.0", "--tls-max", newest][..], &any].concat()).unwrap_err();
        assert!(refused.contains(" alert "), "the server refuses, not curl: {refused}");
    }
}

#[test]
fn who_never_shakes_hands_holds_up_nobody_and_is_cut_off() {
    if !peers() {
        return;
    }
    let server = Server::start(&["limits.header_timeout_s=2", "limits.connections=4"]);
    let silent = |text: &[u8]| {
        let mut connection = TcpStream::connect(&server.rhub.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        connection.write_all(text).unwrap();
        connection
    };
    let mut begun: Vec<_> = [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"].map(silent).into();
    server.curl("tls", "/v2/", &[]).unwrap();
    // All places taken: the next one waits until one is cut off.
    begun.push(silent(b""));
    let start = Instant::now();
    server.curl("tls", "/v2/", &[]).unwrap();
    for mut connection in begun {
        // The end, or a reset: either way nobody holds on to it.
        let _ = connection.read_to_end(&mut Vec::new());
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    let mut plain = silent(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "a client without TLS gets no answer");
    let failed: u32 = server.metric("rhub_handshakes_failed_total").parse().unwrap();
    assert!(failed >= 5, "{failed}");
}

#[test]
fn an_end_is_orderly_although_somebody_never_shakes_hands() {
    if !peers() {
        return;
    }
    let server = Server::start(&[]);
    let _silent = TcpStream::connect(&server.rhub.address).unwrap();
    server.curl("tls", "/v2/", &[]).unwrap();
    let start = Instant::now();
    server.rhub.terminate();
    assert!(server.rhub.wait_politely().success());
    assert!(start.elapsed() < Duration::from_secs(20), "it did not wait for the handshake's timeout");
}

#[test]
fn who_takes_nothing_over_tls_is_cut_off() {
    if !peers() {
        return;
    }
    let server = Server::start(&["limits.idle_timeout_s=1"]);
    std::fs::write(server.path("content"), vec![7; 8 << 20]).unwrap();
    let digest = longshore_runtime::name::Digest::of(&vec![7; 8 << 20]);
    let from = format!("@{}", server.path("content").display());
    server.curl("tls", &format!("/v2/a/blobs/uploads/?digest={digest}"), &["--data-binary", &from]).unwrap();
    // Both a download larger than every buffer on the way, and one that fits in them.
    for range in ["bytes=0-", "bytes=0-400000"] {
        let mut greedy = server.connect();
        let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\nrange: {range}\r\n\r\n");
        greedy.write_all(request.as_bytes()).unwrap();
        greedy.flush().unwrap();
        wait_until("the connection of who does not read is ended", || server.metric("rhub_connections") == "1");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_said_before_anything_starts() {
    if !peers() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_certificate(dir.path(), "a");
    make_certificate(dir.path(), "b");
    std::fs::write(dir.path().join("empty"), "").unwrap();
    for (certificate, key, why) in [
        ("missing", "a.key", "missing"),
        ("empty", "a.key", "no CERTIFICATE"),
        ("a.key", "a.key", "no CERTIFICATE"),
        ("a.crt", "a.crt", "a.crt"),
        ("a.crt", "b.key", "b.key"),
    ] {
        for verb in [&["serve"][..], &["config", "check"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
            command.args(verb).args(["--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
            command.arg("--tls-certificate").arg(dir.path().join(certificate)).arg("--tls-key").arg(dir.path().join(key));
            let output = command.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && said.contains(why), "{verb:?} {certificate} {key}: {said}");
            assert!(!said.contains("BEGIN"), "nothing of a key is shown: {said}");
        }
    }
}
