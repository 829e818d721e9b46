//! Registries that answer wrongly, or with more than anybody wants; and what `rbox doctor` says of them.

use serde_json::Value;

use super::common::Rhub;
use super::double::{Answer, Double};
use super::tools::{User, stderr};

const FIRST_PAGE: &str = "/v2/app/tags/list?n=1000";

#[test]
fn pages_that_never_end_lead_elsewhere_or_are_too_long_are_refused() {
    let (user, double, other) = (User::new(), Double::start(), Double::start_on("127.0.0.2:0"));
    let name = format!("{}/app", double.address);
    let page = |link: String| Answer::new(200, r#"{"tags":["1","2"]}"#).header("link", link);
    double.on(FIRST_PAGE, page(format!("<{FIRST_PAGE}>; rel=\"next\"")));
    let said = user.fail("rbox", &["tags", &name]);
    assert!(said.contains("is its own next"), "{said}");
    double.on("/v2/app/tags/list?n=1", page(format!("<{FIRST_PAGE}>; rel=\"next\"")));
    double.on(FIRST_PAGE, page("</v2/app/tags/list?n=1>; rel=\"next\"".into()));
    let said = user.fail("rbox", &["tags", &name]);
    assert!(said.contains("without anything new"), "{said}");
    // What is asked for is there before the next page is.
    assert_eq!(user.succeed("rbox", &["tags", "--limit", "2", &name]), "1\n2\n");

    double.on(FIRST_PAGE, page(format!("<http://{}/v2/app/tags/list?n=1000>; rel=\"next\"", other.address)));
    let said = user.fail("rbox", &["tags", &name]);
    assert!(said.contains("leads to another host"), "{said}");
    assert!(other.requests().is_empty(), "another host was asked");

    double.on(FIRST_PAGE, Answer::new(200, vec![b' '; (4 << 20) + 1]));
    let said = user.fail("rbox", &["tags", &name]);
    assert!(said.contains("longer than 4 MiB"), "{said}");

    for broken in ["<html>", r#"{"tags":["../../etc"]}"#, r#"{"tags":["a\u001b[31m"]}"#] {
        double.on(FIRST_PAGE, Answer::new(200, broken));
        let said = user.fail("rbox", &["tags", &name]);
        assert!(said.contains("it is not the JSON expected") && !said.contains('\u{1b}'), "{said}");
    }
    double.on("/v2/_catalog?n=1000", Answer::new(200, r#"{"repositories":["UP/../.."]}"#));
    assert!(user.fail("rbox", &["catalog", &double.address]).contains("list repositories"));
}

#[test]
fn a_manifest_that_is_not_what_its_digest_promises_is_refused() {
    let (user, double) = (User::new(), Double::start());
    let digest = longshore_runtime::name::Digest::of(b"what was promised");
    double.on(format!("/v2/app/manifests/{digest}"), Answer::new(200, r#"{"schemaVersion":2}"#));
    let said = user.fail("rbox", &["manifest", "inspect", &format!("{}/app@{digest}", double.address)]);
    assert!(said.contains("digest"), "{said}");
}

#[test]
fn how_many_requests_are_left_is_shown_and_said_where_there_are_none() {
    let (user, double) = (User::new(), Double::start());
    let name = format!("{}/app:1", double.address);
    let limited = |status: u16, left: &str| {
        let answer = Answer::new(status, "{}").header("ratelimit-limit", "100;w=21600");
        answer.header("ratelimit-remaining", format!("{left};w=21600")).header("docker-ratelimit-source", "192.0.2.1")
    };
    double.on("/v2/app/manifests/1", limited(200, "76"));
    let shown = user.succeed("rbox", &["rate-limit", "--format", "json", &name]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["Limit"], &shown["Remaining"], &shown["Window"]), (&"100".into(), &"76".into(), &"21600s".into()));
    assert_eq!(shown["Source"], "192.0.2.1");
    assert!(double.requests().iter().all(|request| request.method == "HEAD"), "what counts was asked for");
    double.on("/v2/app/manifests/1", limited(429, "0").header("retry-after", "600"));
    let shown = user.succeed("rbox", &["rate-limit", &name]);
    assert!(shown.contains("100       0"), "{shown}");
    let said = user.fail("rbox", &["manifest", "inspect", &name]);
    assert!(said.contains("0 of 100 requests left") && said.contains("600 seconds"), "{said}");
}

/// The verdicts of `rbox doctor`, by check.
fn verdicts(user: &User, registry: &str) -> (bool, std::collections::BTreeMap<String, String>) {
    let output = user.output("rbox", &["doctor", "--format", "json", registry]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let verdict = |row: Value| {
        assert!(row["Verdict"] == "ok" || row["Advice"] != "", "{row}: {}", stderr(&output));
        (row["Check"].as_str().unwrap().to_owned(), row["Verdict"].as_str().unwrap().to_owned())
    };
    (output.status.success(), rows.map(verdict).collect())
}

#[test]
fn the_doctor_says_what_is_wrong_with_a_registry_and_what_to_do() {
    let (user, double, data) = (User::new(), Double::start(), tempfile::tempdir().unwrap());
    let rhub = Rhub::start(data.path());
    let (is_well, found) = verdicts(&user, &rhub.address);
    for check in ["store", "space", "dns", "tcp", "tls", "api", "clock", "login"] {
        assert_eq!(found[check], "ok", "{found:?}");
    }
    assert_eq!(is_well, !found.values().any(|verdict| verdict == "fail"));

    let late = httpdate_of(std::time::SystemTime::now() - std::time::Duration::from_secs(3600));
    double.on("/v2/", Answer::new(404, "").header("date", late));
    let (is_well, found) = verdicts(&user, &double.address);
    assert_eq!((is_well, &*found["api"], &*found["clock"]), (false, "fail", "fail"), "{found:?}");

    double.on("/v2/", Answer::new(401, "").header("www-authenticate", "Basic realm=\"x\""));
    std::fs::create_dir(user.home().join(".docker")).unwrap();
    let kept = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpodW50ZXIy"}}}}}}"#, double.address);
    std::fs::write(user.home().join(".docker/config.json"), kept).unwrap();
    let (is_well, found) = verdicts(&user, &double.address);
    assert_eq!((is_well, &*found["api"], &*found["login"]), (false, "ok", "fail"), "{found:?}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (is_well, found) = verdicts(&user, &closed);
    assert_eq!((is_well, &*found["tcp"], found.get("api")), (false, "fail", None), "{found:?}");
    let said = user.output("rbox", &["doctor", &closed]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.lines().any(|line| line.starts_with("fail  tcp") && line.contains("see whether the registry runs")), "{said}");
}

/// A date as HTTP has it, by `date`.
fn httpdate_of(time: std::time::SystemTime) -> String {
    let seconds = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut command = std::process::Command::new("date");
    let output = command.env("LC_ALL", "C").args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}
