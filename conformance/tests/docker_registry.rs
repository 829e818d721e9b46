//! The gaps of Debian's docker-registry are found, and nothing that is none; loads on it are measured.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use longshore_conformance::{Registry, Verdict, spec};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running docker-registry, ended when dropped.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(directory: &Path) -> Peer {
    // docker-registry cannot be asked which port it got, so a free one is found for it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = directory.join("data");
    let config = directory.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: \"{address}\" }}\n\
         storage: {{ filesystem: {{ rootdirectory: \"{}\" }}, delete: {{ enabled: true }} }}\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let log = File::create(directory.join("log")).unwrap();
    let child =
        Command::new("docker-registry").arg("serve").arg(&config).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut peer = Peer { child, address };
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        let ended = peer.child.try_wait().unwrap();
        let said = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(ended.is_none() && Instant::now() < deadline, "docker-registry does not serve: {}", said());
        std::thread::yield_now();
    }
    peer
}

#[test]
fn the_gaps_of_docker_registry_are_found_and_nothing_else() {
    if !needs::installed("docker-registry") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let peer = start(directory.path());
    let registry = Registry::new(format!("http://{}", peer.address).parse().unwrap()).unwrap();
    let report = spec::run(&registry, "judged", &spec::choose(&[]).unwrap()).unwrap();

    let with = |verdict| report.requirements.iter().filter(|r| r.verdict == verdict).map(|r| &*r.id).collect::<Vec<_>>();
    let gaps = [
        "pull-blob-range-unsatisfiable",
        // A list of entity tags is not understood.
        "pull-unmodified",
        "push-chunk-disordered",
        "push-chunk-repeated",
        "tags-order",
        "tags-limit",
        "tags-limit-zero",
        "tags-last",
        "tags-pages",
        "errors-digest-malformed",
    ];
    assert_eq!(with(Verdict::Fail), gaps);
    let not_offered = with(Verdict::NotOffered);
    let (referrers, others): (Vec<&str>, Vec<&str>) = not_offered.into_iter().partition(|id| id.starts_with("referrers-"));
    let expected = ["push-single-post", "push-single-post-mismatch", "push-mount-anywhere", "push-manifest-tags"];
    assert_eq!(others, expected);
    assert_eq!(referrers.len(), 9, "there is no referrers API at all: {referrers:?}");
    assert_eq!(report.left_behind, Vec::<String>::new());
    assert!(!report.conforms());
}

#[test]
fn no_request_of_any_load_fails() {
    if !needs::installed("docker-registry") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let peer = start(directory.path());
    let (url, pid) = (format!("http://{}", peer.address), peer.child.id().to_string());
    let load = |what: &[&str]| {
        let settings = ["-c", "4", "-n", "40", "--warm-up", "0", "--existing-tags", "20", "--pid", &pid];
        Command::new(env!("CARGO_BIN_EXE_rconform")).args(["load", &url]).args(what).args(settings).output().unwrap()
    };
    let kinds = ["manifest-get", "manifest-head", "blob-get", "blob-head", "upload", "manifest-put", "tag-put", "tag-list"];
    // No tags in the mix: while a manifest is put under one more, a GET of it is now and then answered with 500.
    let mix = ["--mix", "manifest-get=4,blob-get=3,upload=2,tag-list=1"];
    for what in kinds.iter().map(|kind| ["--kind", kind]).chain([mix]) {
        let output = load(&what);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("40 requests") && !said.contains("left behind"), "{said}");
    }
    let referrers = load(&["--kind", "referrers"]);
    assert_eq!(referrers.status.code(), Some(2), "{referrers:?}");
    assert!(String::from_utf8_lossy(&referrers.stderr).contains("404; does the registry offer it?"), "{referrers:?}");
}
