//! Loads, on a small registry in memory: every kind does what it says and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/paced.rs"]
mod paced;
mod support;

use std::net::TcpListener;
use std::process::{Command, Output};

use support::Fault;

fn load(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rconform")).args(["load", url]).args(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn every_kind_of_load_is_put_and_removed_again() {
    let (address, state) = support::start(None);
    let url = format!("http://{address}");
    let kinds =
        ["manifest-get", "manifest-head", "blob-get", "blob-head", "upload", "manifest-put", "tag-put", "tag-list", "referrers"];
    for kind in kinds.into_iter().chain(["mixed"]) {
        let settings = ["--kind", kind, "-n", "40", "-c", "4", "--warm-up", "0.01", "--size", "1KiB"];
        let output = load(&url, &[&settings[..], &["--existing-tags", "250", "--format", "json"]].concat());
        let found = json(&output);
        assert_eq!((&found["requests"], &found["failures"], output.status.code()), (&40.into(), &0.into(), Some(0)), "{found}");
        let content = found["megabytes_per_second"].as_f64().unwrap() * found["seconds"].as_f64().unwrap() * 1e6;
        match kind {
            "blob-get" | "upload" => assert_eq!(content.round() as u64, 40 * 1024, "{found}"),
            "blob-head" | "manifest-head" => assert_eq!(content, 0.0, "{found}"),
            // A descriptor for each of the ten there are.
            "referrers" => assert!(content > 40.0 * 10.0 * 150.0, "{found}"),
            _ => assert!(content > 40.0 * 100.0, "{found}"),
        }
        let latency = |name: &str| found["latency_ms"][name].as_f64().unwrap();
        let rising = [0.0, latency("p50"), latency("p90"), latency("p99"), latency("p999"), latency("p9999"), latency("max")];
        assert!(rising[1] > 0.0 && rising.is_sorted(), "{found}");
        let pairs = |name: &str| found[name].as_array().unwrap().clone();
        let last = pairs("latency_distribution").pop().unwrap();
        assert_eq!((&last[0], &last[1]), (&1.0.into(), &latency("max").into()), "{found}");
        assert!(!pairs("timeline").is_empty() && pairs("timeline").iter().all(|pair| pair[1].as_f64() >= Some(0.0)), "{found}");
        assert_eq!(pairs("parts").len() > 1, kind == "mixed", "{found}");
        assert_eq!((&found["left_behind"], state.lock().unwrap().len()), (&0.into(), 0), "{kind}");
    }
}

#[test]
fn a_mix_does_what_its_weights_say() {
    let (address, state) = support::start(None);
    let mix = ["--mix", "blob-head=3,manifest-put=2,referrers=1", "-n", "60", "--warm-up", "0", "--format", "json"];
    let found = json(&load(&format!("http://{address}"), &mix));
    let parts = found["parts"].as_array().unwrap();
    let of = |kind: &str| parts.iter().find(|part| part["kind"] == kind).map(|part| part["requests"].clone());
    let counts = [of("blob-head"), of("manifest-put"), of("referrers")];
    assert_eq!(counts, [30, 20, 10].map(|n| Some(n.into())), "{found}");
    assert_eq!(
        (parts.len(), &found["kind"], &found["failures"], state.lock().unwrap().len()),
        (3, &"mixed".into(), &0.into(), 0)
    );
    for bad in ["nothing=1", "mixed=1", "trace=1", "upload", "upload=0", "upload=1,upload=1"] {
        assert_eq!(load("http://localhost:1", &["--mix", bad]).status.code(), Some(2), "{bad}");
    }
}

#[test]
fn referrers_that_are_not_listed_are_no_load() {
    let lists =
        [(200, r#"{"manifests":[]}"#, "empty, although there are 10"), (404, "", "answered with 404"), (200, "[", "not JSON")];
    for (status, body, why) in lists {
        let address = paced::answering(move |_, _| (status, body.into()));
        let settings = ["--kind", "referrers", "-n", "5", "--prepared", "--repository", "x/y", "--keep"];
        let output = load(&format!("http://{address}"), &settings);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
}

#[test]
fn threads_share_the_work_and_repeat_none_of_it() {
    let (address, state) = support::start(None);
    let settings = ["--kind", "upload", "-n", "50", "-c", "5", "--threads", "3", "--warm-up", "0", "--keep", "--format", "json"];
    let found = json(&load(&format!("http://{address}"), &settings));
    assert_eq!((&found["requests"], &found["threads"], state.lock().unwrap().len()), (&50.into(), &3.into(), 50), "{found}");
}

#[test]
fn a_password_is_sent_with_every_request_and_never_shown() {
    // me:correct horse
    let right = "\r\nAuthorization: Basic bWU6Y29ycmVjdCBob3JzZQ==\r\n";
    let address = paced::answering(move |_, head| if head.contains(right) { (200, vec![b'x'; 4096]) } else { (401, Vec::new()) });
    let ask = |password: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rconform"));
        command.args(["load", &format!("http://{address}"), "--kind", "blob-get", "-n", "30", "--user", "me", "--warm-up", "0"]);
        command.args(["--prepared", "--repository", "x/y", "--keep"]).env_remove("RCONFORM_PASSWORD");
        command.envs(password.map(|password| ("RCONFORM_PASSWORD", password))).output().unwrap()
    };
    let (right, wrong, none) = (ask(Some("correct horse")), ask(Some("wrong battery")), ask(None));
    assert_eq!([&right, &wrong, &none].map(|output| output.status.code()), [0, 1, 2].map(Some), "{right:?} {wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("30 requests; the first: answered with 401"), "{wrong:?}");
    assert!(String::from_utf8_lossy(&none.stderr).contains("RCONFORM_PASSWORD"), "{none:?}");
    let said = format!("{right:?}{wrong:?}");
    assert!(!said.contains("battery") && !said.contains("bWU6"), "{said}");
}

#[test]
fn a_large_blob_goes_in_whole() {
    let (address, state) = support::start(None);
    let settings = ["--kind", "upload", "-n", "2", "-c", "1", "--size", "3MiB", "--keep", "--format", "json"];
    let output = load(&format!("http://{address}"), &settings);
    // The registry verifies every digest.
    assert_eq!((output.status.code(), state.lock().unwrap().len()), (Some(0), 2), "{output:?}");
    let unknown = load(&format!("http://{address}"), &["--kind", "upload", "--size", "3MiB", "--duration", "1"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--requests"), "{unknown:?}");
}

#[test]
fn what_is_kept_serves_a_later_load() {
    let (address, _) = support::start(None);
    let url = format!("http://{address}");
    let common = ["--repository", "kept/here", "-n", "10", "--warm-up", "0", "--existing-tags", "20"];
    assert_eq!(load(&url, &[&common[..], &["--kind", "manifest-get", "--keep"]].concat()).status.code(), Some(0));
    for kind in ["manifest-get", "manifest-head", "blob-get", "blob-head", "tag-list", "tag-put", "mixed"] {
        let again = load(&url, &[&common[..], &["--kind", kind, "--prepared", "--keep"]].concat());
        assert_eq!(again.status.code(), Some(0), "{kind}: {again:?}");
    }
}

#[test]
fn the_server_is_watched_by_its_process() {
    let (address, _) = support::start(None);
    // Not this process: the children of the tests beside this one come and go.
    let mut watched = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = watched.id().to_string();
    let found =
        json(&load(&format!("http://{address}"), &["--kind", "blob-head", "-n", "200", "--pid", &pid, "--format", "json"]));
    drop(watched.stdin.take());
    watched.wait().unwrap();
    assert!(found["server"]["peak_bytes"].as_u64().unwrap() > 1 << 20, "{found}");
    assert!(found["server"]["cpu_s"].as_f64().unwrap() >= 0.0, "{found}");
    let nobody = load(&format!("http://{address}"), &["--kind", "blob-head", "-n", "1", "--pid", "4194305"]);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
}

#[test]
fn what_fails_is_counted_and_said_and_what_cannot_start_is_an_error() {
    let (address, _) = support::start(None);
    let url = format!("http://{address}");
    let absent = ["--kind", "manifest-get", "-n", "7", "--warm-up", "0", "--prepared", "--repository", "nothing/here"];
    let output = load(&url, &absent);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAILED: 7 requests; the first: answered with 404"), "{said}");

    let (broken, _) = support::start(Some(Fault::UnknownBlobIsEmpty));
    let get = ["--kind", "blob-get", "-n", "3", "--warm-up", "0", "--prepared", "--repository", "nothing/here", "--size", "5"];
    let short = load(&format!("http://{broken}"), &get);
    assert_eq!(short.status.code(), Some(1), "an answer of another length is no success: {short:?}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, kind, reason) in [
        (format!("http://{closed}"), "blob-get", "make the repository on http://"),
        ("https://localhost:1".to_owned(), "blob-get", "plain HTTP"),
    ] {
        let output = load(&url, &["--kind", kind]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
    }
}
