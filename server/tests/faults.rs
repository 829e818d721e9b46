//! Storage that fails: the real program with system calls of its made to fail by `strace`, and with
//! its metadata damaged while nobody looked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::needs::{installed, root};
use common::{OCI_MANIFEST, Reply, Rhub, command, descriptor, image_manifest};
use longshore_runtime::name::Digest;

/// `strace` on a running registry, making system calls of it fail.
struct Tracer {
    child: Child,
    log: PathBuf,
}

impl Tracer {
    /// Attached when this returns: of each thread's calls named in `calls`, the ones `when` says are
    /// met by `fault`.
    fn attach(rhub: &Rhub, log: &Path, calls: &str, fault: &str, when: &str, only: Option<&Path>) -> Self {
        let mut strace = Command::new("strace");
        strace.arg("-f").arg("-o").arg(log).arg("-e").arg(format!("trace={calls}"));
        strace.arg("-e").arg(format!("inject={calls}:{fault}:when={when}"));
        if let Some(path) = only {
            strace.arg("-P").arg(path);
        }
        let mut child = strace.args(["-p", &rhub.pid().to_string()]).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        while !said.contains("attached") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "strace said {said:?}");
        }
        // Read on, or it might wait for somebody who does.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, log: log.to_owned() }
    }

    /// How many calls were made to fail, once the traced process is gone.
    fn injected(mut self) -> usize {
        self.child.wait().unwrap();
        fs::read_to_string(&self.log).unwrap().matches("INJECTED").count()
    }
}

/// What a client was told of.
#[derive(Default)]
struct Told {
    /// Where something is, and its bytes.
    there: Vec<(String, Vec<u8>)>,
    gone: Vec<String>,
    /// The statuses of what failed.
    failures: Vec<u16>,
}

impl Told {
    /// Sends a change; gives its answer, if it was a success.
    fn change(&mut self, rhub: &Rhub, method: &str, path: &str, media_type: &str, body: &[u8]) -> Option<Reply> {
        let mut connection = std::net::TcpStream::connect(&rhub.address).ok()?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        connection.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let reply = Reply::read(connection)?;
        if reply.status < 300 {
            return Some(reply);
        }
        // What was not stored is missing later on: 404 is the answer to that.
        assert!([404, 500, 503, 507].contains(&reply.status), "{method} {path}: {reply:?}");
        assert!(!reply.error().1.is_empty());
        if reply.status >= 500 {
            self.failures.push(reply.status);
        }
        None
    }

    fn push_blob(&mut self, rhub: &Rhub, content: &[u8]) -> Option<()> {
        let digest = Digest::of(content);
        let started = self.change(rhub, "POST", "/v2/a/blobs/uploads/", "", b"")?;
        let location = started.header("location").to_owned();
        self.change(rhub, "PATCH", &location, "", &content[..content.len() / 2])?;
        self.change(rhub, "PUT", &format!("{location}?digest={digest}"), "", &content[content.len() / 2..])?;
        self.there.push((format!("/v2/a/blobs/{digest}"), content.to_vec()));
        Some(())
    }

    /// Everything a client does: images, a moved tag, a deleted tag, a deleted blob.
    fn work(&mut self, rhub: &Rhub) {
        for n in 0..5 {
            let layer = format!("layer {n} ").repeat(2000).into_bytes();
            self.push_blob(rhub, b"{}");
            self.push_blob(rhub, &layer);
            let manifest = image_manifest(b"{}", &layer);
            let path = format!("/v2/a/manifests/t{n}");
            if self.change(rhub, "PUT", &path, OCI_MANIFEST, manifest.as_bytes()).is_some() {
                self.there.push((path.clone(), manifest.clone().into_bytes()));
            }
            if n == 3 && self.change(rhub, "DELETE", &path, "", b"").is_some() {
                self.there.retain(|(there, _)| *there != path);
                self.gone.push(path);
            } else if n == 3 {
                // Whether it is there still, nobody was told.
                self.there.retain(|(there, _)| *there != path);
            }
        }
        let loose = Digest::of(b"loose");
        let path = format!("/v2/a/blobs/{loose}");
        self.push_blob(rhub, b"loose");
        let deleted = self.change(rhub, "DELETE", &path, "", b"").is_some();
        self.there.retain(|(there, _)| *there != path);
        self.gone.extend(deleted.then_some(path));
    }

    /// All of it is so.
    fn hold(&self, rhub: &Rhub, when: &str) {
        for (path, content) in &self.there {
            let reply = rhub.get(path);
            assert!(reply.status == 200 && reply.body == *content, "{when}: {path} was acknowledged: {reply:?}");
        }
        for path in &self.gone {
            assert_eq!(rhub.get(path).status, 404, "{when}: {path} was deleted");
        }
    }
}

/// Runs the work with one fault; gives the statuses of what failed.
fn survive(calls: &str, fault: &str, when: &str, only: Option<&str>) -> Vec<u16> {
    let what = format!("{calls} {fault} at {when}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let rhub = Rhub::start(&data);
    let mut told = Told::default();
    told.push_blob(&rhub, b"from before").unwrap();
    let only = only.map(|name| data.join(name));
    let tracer = Tracer::attach(&rhub, &dir.path().join("strace"), calls, fault, when, only.as_deref());
    told.work(&rhub);
    let is_killed = fault.contains("signal");
    if !is_killed {
        told.hold(&rhub, &format!("{what}, still running"));
        stopped_means_stopped(&rhub, &told.failures, &what);
    }
    rhub.kill_nine();
    let injected = tracer.injected();
    assert!(is_killed || injected > 0, "{what}: there was no such call");
    let rhub = Rhub::start(&data);
    told.hold(&rhub, &format!("{what}, restarted"));
    rhub.push_image("a", "after", "it goes on");
    rhub.terminate();
    assert!(rhub.wait_politely().success());
    let check = said(&data, "check");
    assert!(check.contains("everything is well"), "{what}: {check}");
    told.failures
}

/// After a failed sync of the journal nothing is accepted any more, and everything is read as before.
fn stopped_means_stopped(rhub: &Rhub, failures: &[u16], what: &str) {
    if failures.contains(&503) {
        // Whether something is there to be deleted is asked where all changes go.
        let change = rhub.send("DELETE", "/v2/a/manifests/none", &[], b"");
        assert_eq!(change.status, 503, "{what}: {change:?}");
        let ready = rhub.get("/readyz");
        let said = String::from_utf8_lossy(&ready.body).into_owned();
        assert!(ready.status == 503 && said.contains("until it is restarted"), "{what}: {said}");
        assert_eq!(rhub.get("/livez").status, 200);
    }
}

fn said(data: &Path, verb: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rhub")).arg(verb).arg("--data").arg(data).output().unwrap();
    assert!(output.status.success(), "rhub {verb}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn can_inject() -> bool {
    installed("strace") && root()
}

#[test]
fn a_journal_that_cannot_be_synced_stops_all_changes_and_loses_nothing() {
    if !can_inject() {
        return;
    }
    for n in [1, 3, 9] {
        let failures = survive("fdatasync", "error=EIO", &n.to_string(), Some("journal"));
        assert!(failures.contains(&503), "{failures:?}");
    }
}

#[test]
fn content_that_cannot_be_synced_is_not_acknowledged() {
    if !can_inject() {
        return;
    }
    for n in ["1", "2", "3+2", "1+"] {
        assert!(!survive("fdatasync", "error=EIO", n, None).is_empty());
        assert!(!survive("fsync", "error=EIO", n, None).is_empty());
    }
}

#[test]
fn a_full_disk_under_the_journal_refuses_changes_and_takes_them_again() {
    if !can_inject() {
        return;
    }
    for n in ["1", "3", "4+3", "2..4"] {
        let failures = survive("write", "error=ENOSPC", n, Some("journal"));
        assert!(!failures.is_empty() && failures.iter().all(|status| *status == 507), "{failures:?}");
    }
    for n in ["1", "5"] {
        let failures = survive("write", "error=EIO", n, Some("journal"));
        assert!(!failures.is_empty() && failures.iter().all(|status| *status == 500), "{failures:?}");
    }
}

#[test]
fn content_that_cannot_be_renamed_into_its_place_is_not_acknowledged() {
    if !can_inject() {
        return;
    }
    for n in ["1", "2", "3+2"] {
        let failures = survive("rename", "error=EIO", n, None);
        assert!(!failures.is_empty() && failures.iter().all(|status| *status == 500), "{failures:?}");
    }
}

#[test]
fn a_database_that_cannot_be_written_costs_nothing_the_journal_has() {
    if !can_inject() {
        return;
    }
    for n in ["1", "2", "1+"] {
        survive("pwrite64", "error=ENOSPC", n, Some("metadata/db"));
    }
}

#[test]
fn kill_nine_at_each_sync_loses_nothing() {
    if !can_inject() {
        return;
    }
    for n in [1, 2, 3, 5, 8, 12] {
        survive("fdatasync", "signal=SIGKILL", &n.to_string(), Some("journal"));
    }
    for n in 1..4 {
        survive("fdatasync,fsync,rename", "signal=SIGKILL", &n.to_string(), None);
    }
}

/// A data directory with everything metadata can tell, closed in good order, and what it exports.
fn furnished(data: &Path) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let rhub = Rhub::start(data);
    let mut there = Vec::new();
    for repo in ["team/app", "team/blobs"] {
        for n in 0..8 {
            let image = rhub.push_image(repo, &format!("t{n}"), &format!("layer {n}"));
            let subject = descriptor(OCI_MANIFEST, image.as_bytes());
            let referrer = image.replacen('{', &format!(r#"{{"artifactType":"a/b","subject":{subject},"#), 1);
            let digest = Digest::of(referrer.as_bytes());
            assert_eq!(rhub.put_manifest(repo, digest.as_str(), OCI_MANIFEST, referrer.as_bytes()).status, 201);
            let referrers = format!("/v2/{repo}/referrers/{}", Digest::of(image.as_bytes()));
            there.push((referrers.clone(), rhub.get(&referrers).body));
            there.push((format!("/v2/{repo}/manifests/t{n}"), image.into_bytes()));
        }
        rhub.send("DELETE", &format!("/v2/{repo}/manifests/t0"), &[], b"");
        there.retain(|(path, _)| !path.ends_with("manifests/t0"));
        let tags = format!("/v2/{repo}/tags/list");
        there.push((tags.clone(), rhub.get(&tags).body));
    }
    rhub.terminate();
    assert!(rhub.wait_politely().success());
    (there, exported(data))
}

fn exported(data: &Path) -> Vec<String> {
    let mut lines: Vec<_> = said(data, "export").lines().map(String::from).collect();
    lines.sort();
    lines
}

/// Starts a registry that may refuse; what it says then.
fn try_start(data: &Path) -> Result<Rhub, String> {
    let mut probe = command(data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(probe.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut said = String::new();
        probe.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!probe.wait().unwrap().success());
        return Err(said);
    }
    probe.kill().unwrap();
    probe.wait().unwrap();
    Ok(Rhub::start(data))
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// What was done to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u64),
    Cut(u64),
    Empty,
    Gone,
}

/// Bytes of a file that are changed, one at a time.
const FLIPS: usize = 10;

impl Damage {
    fn apply(self, path: &Path) {
        let file = || fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        match self {
            Self::Flip(at) => {
                use std::os::unix::fs::FileExt;
                let (file, mut byte) = (file(), [0]);
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            }
            Self::Cut(length) => file().set_len(length).unwrap(),
            Self::Empty => fs::write(path, b"").unwrap(),
            Self::Gone => fs::remove_file(path).unwrap(),
        }
    }

    /// All that is tried on a file: every part of what is written in it is touched.
    fn of(path: &Path) -> Vec<Self> {
        let bytes = fs::read(path).unwrap();
        let written: Vec<u64> = (0..bytes.len()).filter(|at| bytes[*at] != 0).map(|at| at as u64).collect();
        let length = bytes.len() as u64;
        let spread = (0..=FLIPS).map(|n| written[n * (written.len() - 1) / FLIPS]);
        let cuts = [length / 2, length - 1, written[written.len() - 1], written[written.len() / 2]];
        let flips = spread.map(Self::Flip);
        flips.chain(cuts.map(Self::Cut)).chain([Self::Empty, Self::Gone]).collect()
    }
}

#[test]
fn damaged_metadata_is_refused_or_made_whole_and_never_served_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    let (there, export) = furnished(&good);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(good.join("metadata")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && fs::metadata(&path).unwrap().len() > 0 {
            files.push(path);
        }
    }
    let (mut refused, mut served) = (0, 0);
    for file in files {
        for damage in Damage::of(&file) {
            let data = dir.path().join("damaged");
            copy(&good, &data);
            let what = format!("{damage:?} of {}", file.file_name().unwrap().to_string_lossy());
            damage.apply(&data.join("metadata").join(file.file_name().unwrap()));
            let rhub = match try_start(&data) {
                Ok(rhub) => {
                    served += 1;
                    rhub
                }
                Err(said) => {
                    refused += 1;
                    assert!(said.contains("rhub rebuild"), "{what}: {said}");
                    said_of_rebuild(&data);
                    Rhub::start(&data)
                }
            };
            for (path, body) in &there {
                let reply = rhub.get(path);
                assert!(reply.status == 200 && reply.body == *body, "{what}: {path}: {reply:?}");
            }
            assert_eq!(exported(&data), export, "{what}");
            drop(rhub);
            fs::remove_dir_all(&data).unwrap();
        }
    }
    assert!(refused > 0, "refused {refused}, served {served}");
    eprintln!("refused {refused} times, served as it was {served} times");
}

fn said_of_rebuild(data: &Path) {
    let output = said(data, "rebuild");
    assert!(output.contains("rebuilt"), "{output}");
}
