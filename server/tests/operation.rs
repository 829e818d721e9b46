//! What an operator sees of the real `rhub`: health, metrics, and the log.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;

use common::{OCI_MANIFEST, Rhub, wait_until};
use serde_json::Value;

/// A registry whose log is kept.
struct Logged {
    dir: tempfile::TempDir,
    rhub: Rhub,
}

impl Logged {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = common::command(&dir.path().join("data"));
        command.args(arguments).stderr(File::create(dir.path().join("log")).unwrap());
        let rhub = Rhub::start_command(command);
        Self { dir, rhub }
    }

    /// Everything logged by the time the server has ended.
    fn end(self) -> String {
        self.rhub.terminate();
        assert!(self.rhub.wait_politely().success());
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// The JSON lines about requests.
fn requests(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines.filter(|line| line["message"] == "request").collect()
}

#[test]
fn readiness_follows_the_storage_and_liveness_does_not() {
    let (dir, rhub) = Rhub::with(&[]);
    assert_eq!((rhub.get("/livez").status, rhub.get("/readyz").status), (200, 200));
    assert_eq!(rhub.send("HEAD", "/readyz", &[], b"").status, 200);
    std::fs::rename(dir.path().join("uploads"), dir.path().join("away")).unwrap();
    wait_until("it is not ready", || rhub.get("/readyz").status == 503);
    let reply = rhub.get("/readyz");
    let why = String::from_utf8(reply.body).unwrap();
    assert!(why.starts_with("not ready: ") && !why.contains(dir.path().to_str().unwrap()), "{why}");
    assert_eq!(rhub.get("/livez").status, 200, "restarting it would not help");
    std::fs::rename(dir.path().join("away"), dir.path().join("uploads")).unwrap();
    wait_until("it is ready again", || rhub.get("/readyz").status == 200);
    assert_eq!(std::fs::read_dir(dir.path().join("uploads")).unwrap().count(), 0, "the check leaves nothing behind");
    assert_eq!(rhub.get("/v2/_catalog").json()["repositories"], Value::Array(vec![]), "nor a repository");
}

#[test]
fn readiness_is_not_checked_for_everybody_who_asks() {
    let (dir, rhub) = Rhub::with(&[]);
    assert_eq!(rhub.get("/readyz").status, 200);
    std::fs::rename(dir.path().join("uploads"), dir.path().join("away")).unwrap();
    let still = (0..1000).take_while(|_| rhub.get("/readyz").status == 200).count();
    assert!(still > 0, "the outcome of the last check is told for a second");
}

const MANUAL: &str = include_str!("../../docs/operating.md");

#[test]
fn the_manual_has_every_metric() {
    let (_dir, rhub) = Rhub::with(&[]);
    let page = String::from_utf8(rhub.get("/metrics").body).unwrap();
    let served: BTreeSet<String> = parse(&page).into_keys().collect();
    let rows = MANUAL.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()));
    assert_eq!(rows.collect::<BTreeSet<_>>(), served);
}

/// A family of metrics: its type and its samples, by name and labels.
type Families = BTreeMap<String, (String, BTreeMap<String, f64>)>;

/// Parses a whole page by the grammar of the text format (version 0.0.4); anything that does not
/// follow it is a failure.
fn parse(page: &str) -> Families {
    assert!(page.ends_with('\n'));
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let mut families = Families::new();
    let mut current = None;
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !text.is_empty() && !families.contains_key(name), "{line}");
            current = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(current.as_deref(), Some(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            families.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) =
                series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
            assert!(is_name(name), "{line}");
            let family = current.as_deref().unwrap();
            let (kind, samples) = families.get_mut(family).unwrap();
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is in the family {family}"));
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&suffix), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').unwrap();
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
                assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            assert_eq!(samples.insert(series.to_owned(), value), None, "twice: {line}");
        }
    }
    families
}

/// Buckets grow, end at infinity, and the last is the count.
fn check_histogram(samples: &BTreeMap<String, f64>, name: &str) {
    let counts: Vec<_> =
        samples.iter().filter_map(|(series, count)| Some((series.strip_prefix(&format!("{name}_count{{"))?, *count))).collect();
    assert!(!counts.is_empty());
    for (labels, count) in counts {
        let labels = labels.trim_end_matches('}');
        let prefix = format!("{name}_bucket{{{labels},le=\"");
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(series, count)| Some((series.strip_prefix(&prefix)?.trim_end_matches("\"}").parse().unwrap(), *count)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{labels}");
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, count), "{labels}");
        assert!(samples.contains_key(&format!("{name}_sum{{{labels}}}")));
    }
}

#[test]
fn metrics_follow_the_grammar_and_count_what_happened() {
    let (_dir, rhub) = Rhub::with(&[]);
    let digest = rhub.push_blob("a", &[7; 100_000]);
    rhub.push_image("a", "t", "layer");
    for _ in 0..3 {
        assert_eq!(rhub.get(&format!("/v2/a/blobs/{digest}")).body.len(), 100_000);
    }
    assert_eq!(rhub.get("/v2/a/manifests/none").status, 404);
    rhub.start_upload("a");
    wait_until("the last answer has been counted", || rhub.metric("rhub_requests_in_progress") == 1);
    let reply = rhub.get("/metrics");
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let families = parse(std::str::from_utf8(&reply.body).unwrap());
    let value = |family: &str, labels: &str| {
        let series = if labels.is_empty() { family.to_owned() } else { format!("{family}{{{labels}}}") };
        *families[family].1.get(&series).unwrap_or_else(|| panic!("{series} is not in {families:#?}"))
    };
    assert_eq!(value("rhub_requests_total", r#"method="GET",endpoint="blob",status="2xx""#), 3.0);
    assert_eq!(value("rhub_requests_total", r#"method="GET",endpoint="manifest",status="4xx""#), 1.0);
    assert_eq!(value("rhub_requests_total", r#"method="PUT",endpoint="manifest",status="2xx""#), 1.0);
    assert!(value("rhub_sent_bytes_total", "") >= 300_000.0);
    assert!((100_000.0..110_000.0).contains(&value("rhub_received_bytes_total", "")));
    assert_eq!((value("rhub_uploads_open", ""), value("rhub_storage_errors_total", "")), (1.0, 0.0));
    assert!(value("rhub_connections", "") >= 1.0 && value("rhub_connections_total", "") >= 10.0);
    assert!(value("rhub_storage_free_bytes", "") > 0.0 && value("process_resident_memory_bytes", "") > 1e6);
    assert!((1.0..1000.0).contains(&value("process_open_fds", "")) && value("process_max_fds", "") > 1.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 600.0..now + 1.0).contains(&value("process_start_time_seconds", "")));
    assert!(families.contains_key("process_cpu_seconds_total"));
    check_histogram(&families["rhub_request_duration_seconds"].1, "rhub_request_duration_seconds");
}

#[test]
fn metrics_are_for_whom_a_rule_lets_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    for (user, password) in [("alice", "a"), ("prometheus", "p")] {
        longshore_server::access::htpasswd::add(&users, user, password).unwrap();
    }
    let config = dir.path().join("config.toml");
    let rules = "[access]\nhtpasswd = \"users\"\n[[access.rules]]\nwho = [\"user:prometheus\"]\nallow = [\"metrics\"]\n\
                 [[access.rules]]\nwho = [\"authenticated\"]\nrepositories = [\"**\"]\nallow = [\"pull\"]\n";
    std::fs::write(&config, rules).unwrap();
    let mut command = common::command(&dir.path().join("data"));
    command.arg("--config").arg(&config);
    let rhub = Rhub::start_command(command);
    let status = |login: &[(&str, &str)]| rhub.send("GET", "/metrics", login, b"").status;
    // alice:a, prometheus:p, prometheus:x
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("authorization", "Basic YWxpY2U6YQ==")]), 403);
    assert_eq!(status(&[("authorization", "Basic cHJvbWV0aGV1czp4")]), 401);
    assert_eq!(status(&[("authorization", "Basic cHJvbWV0aGV1czpw")]), 200);
    assert_eq!((rhub.get("/livez").status, rhub.get("/readyz").status), (200, 200), "probes have no password");
}

#[test]
fn the_log_says_who_asked() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    longshore_server::access::htpasswd::add(&users, "alice", "a").unwrap();
    let logged = Logged::start(&["--htpasswd", users.to_str().unwrap(), "--set", "log.level=info", "--set", "log.format=json"]);
    logged.rhub.send("GET", "/v2/", &[("authorization", "Basic YWxpY2U6YQ==")], b"");
    logged.rhub.get("/v2/");
    let lines = requests(&logged.end());
    assert_eq!((&lines[0]["user"], lines[1].get("user")), (&"alice".into(), None));
}

#[test]
fn no_client_makes_up_a_label() {
    let (_dir, rhub) = Rhub::with(&[]);
    let series = || {
        let page = String::from_utf8(rhub.get("/metrics").body).unwrap();
        parse(&page).into_values().flat_map(|(_, samples)| samples.into_keys()).collect::<BTreeSet<_>>()
    };
    let strange = |n: usize| {
        rhub.send(&format!("BREW{n}"), "/v2/", &[], b"");
        rhub.get(&format!("/made/up/{n}"));
        rhub.get(&format!("/v2/made/up{n}/tags/list"));
        rhub.get("/livez");
    };
    strange(0);
    wait_until("all that is counted", || series().iter().any(|series| series.contains("other")));
    let before = series();
    (1..50).for_each(strange);
    assert_eq!(series(), before);
}

#[test]
fn a_request_is_one_json_line() {
    let logged = Logged::start(&["--set", "log.level=info", "--set", "log.format=json"]);
    let rhub = &logged.rhub;
    let content = [7; 50_000];
    let digest = rhub.push_blob("a", &content);
    assert_eq!(rhub.send("GET", &format!("/v2/a/blobs/{digest}"), &[("x-request-id", "mine-1")], b"").status, 200);
    rhub.get("/v2/a/manifests/none");
    let log = logged.end();
    let lines = requests(&log);
    assert_eq!(lines.len(), 4, "{log}");
    let put = &lines[1];
    assert_eq!((&put["method"], &put["status"], &put["received"]), (&"PUT".into(), &201.into(), &50_000.into()));
    assert!(put["path"].as_str().unwrap().starts_with("/v2/a/blobs/uploads/"), "{put}");
    let get = &lines[2];
    assert_eq!((&get["method"], &get["status"], &get["sent"]), (&"GET".into(), &200.into(), &50_000.into()));
    assert_eq!((&get["path"], &get["id"]), (&format!("/v2/a/blobs/{digest}").into(), &"mine-1".into()));
    assert!(get["duration_us"].as_u64().unwrap() > 0 && get["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!((&lines[3]["status"], &lines[3]["level"]), (&404.into(), &"info".into()));
}

#[test]
fn by_default_requests_are_not_logged_but_those_that_failed_inside() {
    let logged = Logged::start(&["--set", "log.format=json"]);
    let rhub = &logged.rhub;
    let digest = rhub.push_blob("a", b"content");
    let hex = digest.hex();
    std::fs::remove_file(logged.dir.path().join("data/blobs/sha256").join(&hex[..2]).join(hex)).unwrap();
    assert_eq!(rhub.send("GET", &format!("/v2/a/blobs/{digest}"), &[("x-request-id", "lost")], b"").status, 500);
    wait_until("the failure has been counted", || rhub.metric("rhub_storage_errors_total") == 1);
    let log = logged.end();
    let lines = requests(&log);
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!((&lines[0]["id"], &lines[0]["level"]), (&"lost".into(), &"error".into()));
    assert!(log.contains("its file is gone"), "and why: {log}");
}

#[test]
fn no_secret_and_no_terminal_escape_is_in_the_log() {
    for format in ["text", "json"] {
        let logged = Logged::start(&["--verbose", "--set", &format!("log.format={format}")]);
        let rhub = &logged.rhub;
        let headers = [("authorization", "Basic c2VjcmV0MQ=="), ("cookie", "secret2"), ("x-request-id", "secret3\"} \\n")];
        for path in [
            "/v2/?password=secret4",
            "/v2/a/manifests/x?token=secret5",
            "/token?account=a&secret6=b",
            "/v2/%1b%5b2J/tags/list",
            "/%0d%0aINFO%20forged/%1b]0;x%07",
            "/v2/a/manifests/%C2%9B31m%E2%80%AE",
            "/v2/a/tags/list?n=%1b[2J",
        ] {
            rhub.send("GET", path, &headers, b"");
            rhub.send("PUT", path, &[&headers[..], &[("content-type", "\u{9b}31m")]].concat(), b"{\"mediaType\":\"\\u001b[2J\"}");
        }
        // Not even a request.
        let _ = rhub.raw("GET /\x1b[2J HTTP/1.1\r\nhost: x\r\n\r\n").read_to_end(&mut Vec::new());
        let log = logged.end();
        assert!(log.lines().count() >= 14, "{log}");
        assert!(!log.contains("secret") && !log.contains("c2Vj"), "{log}");
        assert!(log.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{log:?}");
        assert!(!log.lines().any(|line| line.starts_with("INFO")), "{log}");
        if format == "json" {
            assert!(requests(&log).len() >= 14);
        }
    }
}

#[test]
fn every_answer_names_its_request() {
    let (_dir, rhub) = Rhub::with(&[]);
    let id = |headers: &[(&str, &str)]| rhub.send("GET", "/v2/", headers, b"").header("x-request-id").to_owned();
    for own in ["a", "0f1e2d3c-4b5a.6_7", &"x".repeat(64)] {
        assert_eq!(id(&[("x-request-id", own)]), own);
    }
    let long = "x".repeat(65);
    let made: BTreeSet<_> =
        [&[][..], &[("x-request-id", "")], &[("x-request-id", "a b")], &[("x-request-id", "a\"}")], &[("x-request-id", &long)]]
            .into_iter()
            .map(id)
            .collect();
    assert_eq!(made.len(), 5, "each its own: {made:?}");
    assert!(made.iter().all(|id| id.len() >= 17 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')), "{made:?}");
    let failed = rhub.get("/v2/a/manifests/none");
    assert!(failed.status == 404 && failed.find_header("x-request-id").is_some());
}

#[test]
fn who_leaves_before_the_answer_is_logged_too() {
    let logged = Logged::start(&["--set", "log.level=info", "--set", "log.format=json"]);
    let location = logged.rhub.start_upload("a");
    let mut leaving = logged.rhub.begin("PATCH", &location, &[], 1000);
    leaving.write_all(b"some").unwrap();
    wait_until("it is being worked on", || logged.rhub.metric("rhub_requests_in_progress") == 2);
    leaving.shutdown(Shutdown::Both).unwrap();
    wait_until("it is over", || logged.rhub.metric("rhub_requests_in_progress") == 1);
    let log = logged.end();
    let left = requests(&log).into_iter().find(|line| line["method"] == "PATCH").unwrap();
    assert!([499, 400].contains(&left["status"].as_u64().unwrap()) && left["received"] == 4, "{left}");
}

#[test]
fn a_log_nobody_reads_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = common::command(dir.path());
    command.args(["--verbose"]);
    let (unread, log) = std::io::pipe().unwrap();
    command.stderr(log);
    let rhub = Rhub::start_command(command);
    // More than a pipe holds, and more than may wait.
    let path = format!("/v2/a/manifests/{}", "a".repeat(1900));
    let mut connection = rhub.raw("");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut answers = connection.try_clone().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    for _ in 0..4_000 {
        connection.write_all(request.as_bytes()).unwrap();
    }
    connection.shutdown(Shutdown::Write).unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!(rhub.get("/v2/").status, 200);
    assert!(rhub.metric("rhub_log_lines_lost_total") > 0);
    let mut rest = String::new();
    let reader = std::thread::spawn(move || {
        let mut unread = unread;
        let _ = unread.read_to_string(&mut rest);
        rest
    });
    rhub.terminate();
    assert!(rhub.wait_politely().success());
    assert!(reader.join().unwrap().contains("log lines were lost"));
}

#[test]
fn a_manifest_that_is_refused_says_so_without_its_text() {
    let logged = Logged::start(&["--verbose"]);
    let reply = logged.rhub.put_manifest("a", "t", OCI_MANIFEST, b"{\"secret\":");
    assert_eq!(reply.status, 400);
    assert!(!logged.end().contains("secret"));
}
