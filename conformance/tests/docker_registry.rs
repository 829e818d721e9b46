//! The gaps of Debian's docker-registry are found, and nothing that is none; loads on it are measured.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use longshore_conformance::credentials::Credentials;
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
    start_with(directory, "")
}

/// With further lines of its configuration.
fn start_with(directory: &Path, settings: &str) -> Peer {
    // docker-registry cannot be asked which port it got, so a free one is found for it.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = directory.join("data");
    let config = directory.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: \"{address}\" }}\n\
         storage: {{ filesystem: {{ rootdirectory: \"{}\" }}, delete: {{ enabled: true }} }}\n{settings}",
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
    let report = spec::run(&registry, "judged", &spec::choose(&[], &[]).unwrap()).unwrap();

    let with = |verdict| report.requirements.iter().filter(|r| r.verdict == verdict).map(|r| &*r.id).collect::<Vec<_>>();
    let gaps = [
        "pull-blob-range-unsatisfiable",
        // A list of entity tags is not understood.
        "pull-unmodified",
        // 201, and then the blob is not there.
        "push-mount-algorithm",
        // The range of a chunk is not looked at.
        "push-chunk-first",
        "push-chunk-disordered",
        "push-chunk-repeated",
        "push-chunk-last-disordered",
        "push-chunk-resumed",
        // 500.
        "push-manifest-foreign",
        "tags-order",
        "tags-limit",
        "tags-limit-zero",
        "tags-last",
        "tags-last-unknown",
        "tags-pages",
        // OCI manifests are for those who name their types.
        "negotiate-accept-any",
        "negotiate-accept-absent",
        // 400 instead of 413.
        "limits-manifest-huge",
        // 500 each.
        "hostile-name-long",
        "hostile-digest",
        // The connection breaks.
        "hostile-range",
        "hostile-content-range",
        // /v2/ answers any method.
        "hostile-method",
        // 500 on null.
        "hostile-manifest-shape",
        // The connection goes on, and what follows the last chunk is a request.
        "hostile-smuggling",
        // 500 each.
        "errors-digest-malformed",
        "errors-digest-malformed-push",
    ];
    assert_eq!(with(Verdict::Fail), gaps);
    let not_offered = with(Verdict::NotOffered);
    let group = |name: &str| not_offered.iter().filter(|id| id.starts_with(name)).count();
    assert_eq!(group("referrers-"), 14, "there is no referrers API at all: {not_offered:?}");
    assert_eq!(group("auth-"), 14, "everybody may push: {not_offered:?}");
    let others: Vec<_> = not_offered.iter().filter(|id| !id.starts_with("referrers-") && !id.starts_with("auth-")).collect();
    let expected = [
        "push-single-post",
        "push-single-post-mismatch",
        "push-mount-anywhere",
        "push-manifest-tags",
        "push-manifest-algorithm",
        "manage-tag",
        "manage-tag-listed",
        "manage-tag-alone",
        "errors-warnings",
    ];
    assert_eq!(others.into_iter().copied().collect::<Vec<_>>(), expected);
    assert_eq!(with(Verdict::Differs), Vec::<&str>::new());
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

#[test]
fn docker_registry_with_users_is_judged_with_basic() {
    if !needs::installed("docker-registry") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // tester and correct-horse-battery, by bcrypt.
    let users = directory.path().join("users");
    fs::write(&users, "tester:$2y$04$abcdefghijklmnopqrstuupOWRSKKNe562z1DsLEArFuJDHVyRIMa\n").unwrap();
    let peer = start_with(directory.path(), &format!("auth: {{ htpasswd: {{ realm: here, path: \"{}\" }} }}\n", users.display()));
    let judge = |password| {
        let credentials = Some(Credentials::new("tester", password));
        let registry = Registry::with_credentials(format!("http://{}", peer.address).parse().unwrap(), credentials).unwrap();
        spec::run(&registry, "judged", &spec::choose(&["pull".to_owned(), "auth".to_owned()], &[]).unwrap())
    };
    assert!(judge("wrong").unwrap_err().to_string().contains("does not take those of \"tester\""));
    let report = judge("correct-horse-battery").unwrap();
    assert_eq!(report.with(Verdict::Fail), ["pull-blob-range-unsatisfiable", "pull-unmodified"]);
    let offered_not = report.with(Verdict::NotOffered);
    assert!(offered_not.iter().all(|id| id.starts_with("auth-token") || *id == "auth-challenge-scope"), "{offered_not:?}");
}
