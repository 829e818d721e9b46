//! Reports as files, from the command: their forms, pages of saved ones, comparisons.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod markup;
#[path = "../../runtime/tests/needs/mod.rs"]
mod needs;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::Fault;

fn rconform(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rconform")).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code_and_error(output: &Output) -> (Option<i32>, &str) {
    (output.status.code(), text(&output.stderr))
}

/// A report of a registry with one fault in `NAME.json`, with `more` arguments.
fn judge(directory: &Path, fault: Option<Fault>, name: &str, more: &[&str]) -> Output {
    let (address, _) = support::start(fault);
    let file = format!("{name}.json");
    rconform(directory, &[&["spec", &format!("http://{address}"), "--output", &file], more].concat())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn one_run_is_written_in_every_form_and_each_says_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let files = ["--output", "a.html", "--output", "a.xml", "--output", "a.txt", "--format", "json"];
    let output = judge(directory.path(), Some(Fault::StaleTag), "a", &files);
    assert_eq!(output.status.code(), Some(1));
    let report = read_json(&at("a.json"));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), report);
    let judged_at = report["judged_at"].as_str().unwrap();
    assert!(judged_at.len() == 20 && judged_at.starts_with("20") && judged_at.ends_with('Z'), "{judged_at}");

    let rows = report["requirements"].as_array().unwrap();
    let failure = rows.iter().find(|row| row["verdict"] == "fail").unwrap();
    let exchange = failure["exchange"].as_str().unwrap();
    let junit = markup::read(&fs::read_to_string(at("a.xml")).unwrap());
    let count = |name: &str| junit.elements.iter().filter(|element| *element == name).count();
    let with = |verdict: &str| rows.iter().filter(|row| row["verdict"] == verdict).count();
    assert_eq!((count("testcase"), count("failure"), count("skipped")), (rows.len(), 1, with("not-offered")));
    assert!(junit.texts.iter().any(|text| text == exchange), "{:?}", junit.texts);
    let page = markup::read(&fs::read_to_string(at("a.html")).unwrap());
    assert!(page.texts.iter().any(|text| text == exchange.trim_end()), "{:?}", page.texts);
    assert!(fs::read_to_string(at("a.txt")).unwrap().contains("FAIL push-manifest-moves-tag (MUST"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4, "nothing else is left");
}

#[test]
fn others_read_the_xml_and_the_page_too() {
    if !needs::installed("python3") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    judge(directory.path(), Some(Fault::UnsortedTags), "a", &["--output", "a.xml", "--output", "a.html"]);
    let program = r"
import xml.etree.ElementTree as tree
suites = tree.parse('a.xml').getroot()
assert suites.tag == 'testsuites', suites.tag
for total in 'tests', 'failures', 'skipped', 'errors':
    assert int(suites.get(total)) == sum(int(suite.get(total)) for suite in suites), total
for suite in suites:
    cases = suite.findall('testcase')
    assert int(suite.get('tests')) == len(cases) > 0
    assert int(suite.get('failures')) == len([c for c in cases if c.find('failure') is not None])
    assert all(c.get('classname') == 'rconform.' + suite.get('name') and c.get('name') for c in cases)
failures = [f for f in suites.iter('failure')]
assert len(failures) == 5 and all(f.get('message').startswith('expected: ') and '> GET' in f.text for f in failures)
print(len(list(tree.parse('a.html').getroot().iter('tr'))))
";
    let output = Command::new("python3").args(["-c", program]).current_dir(directory.path()).output().unwrap();
    assert_eq!(code_and_error(&output), (Some(0), ""));
    assert!(text(&output.stdout).trim().parse::<u32>().unwrap() > 50);
}

#[test]
fn a_load_is_written_in_every_form_and_a_page_shows_it_beside_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (address, state) = support::start(None);
    let url = format!("http://{address}");
    let files = ["--output", "l.json", "--output", "l.html", "--output", "l.xml", "--output", "l.txt"];
    let load = ["load", &url, "--kind", "blob-get", "-n", "40", "-c", "4", "--warm-up", "0"];
    let output = rconform(directory.path(), &[&load[..], &files].concat());
    assert_eq!(code_and_error(&output), (Some(0), ""));
    assert_eq!(state.lock().unwrap().len(), 0);
    let summary = read_json(&at("l.json"));
    assert_eq!((&summary["requests"], summary["measured_at"].as_str().unwrap().len()), (&40.into(), 20));
    assert_eq!(fs::read(at("l.txt")).unwrap(), output.stdout);
    let junit = markup::read(&fs::read_to_string(at("l.xml")).unwrap());
    assert!(junit.elements.contains(&"testcase".to_owned()) && !junit.elements.contains(&"failure".to_owned()));
    let page = markup::read(&fs::read_to_string(at("l.html")).unwrap());
    assert!(page.elements.contains(&"polyline".to_owned()), "latencies are drawn: {:?}", page.elements);

    judge(directory.path(), None, "a", &[]);
    let made = rconform(directory.path(), &["report", "a.json", "l.json", "--output", "both.html"]);
    assert_eq!(code_and_error(&made), (Some(0), ""));
    let both = markup::read(&fs::read_to_string(at("both.html")).unwrap());
    for expected in ["Requirements", "Latency by percentile", "Load: blob-get over 4 connections"] {
        assert!(both.texts.iter().any(|text| text == expected), "{expected}: {:?}", both.texts);
    }
}

#[test]
fn the_fields_a_summary_may_lack_are_drawn_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let latency = json!({"mean": 1.0, "p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0});
    let bare = json!({"registry": "http://a/", "requests": 9, "per_second": 3.0, "latency_ms": latency});
    let mut full = bare.clone();
    full["latency_distribution"] = json!([[0.0, 0.5], [0.5, 1.0], [0.9, 2.0], [1.0, 5.0]]);
    full["timeline"] = json!([[1.0, 3], [2.0, 3.5], [3.0, 2.5]]);
    let mut other = full.clone();
    other["registry"] = "http://b/".into();
    for (document, lines) in [(bare, 1), (full.clone(), 2), (json!({"rounds": [[full, other]]}), 4)] {
        fs::write(directory.path().join("l.json"), document.to_string()).unwrap();
        let output = rconform(directory.path(), &["report", "l.json", "--output", "l.html"]);
        assert_eq!(code_and_error(&output), (Some(0), ""));
        let page = markup::read(&fs::read_to_string(directory.path().join("l.html")).unwrap());
        assert_eq!(page.elements.iter().filter(|e| *e == "polyline").count(), lines, "{document}");
    }
}

#[test]
fn a_comparison_fails_when_the_second_fails_what_the_first_passes() {
    let directory = tempfile::tempdir().unwrap();
    judge(directory.path(), None, "good", &["--only", "tags"]);
    judge(directory.path(), Some(Fault::UnsortedTags), "bad", &["--only", "tags"]);
    let compare = |a: &str, b: &str, more: &[&str]| rconform(directory.path(), &[&["compare", a, b], more].concat());
    let worse = compare("good.json", "bad.json", &[]);
    assert_eq!(worse.status.code(), Some(1));
    assert!(text(&worse.stdout).contains("B fails 5 that A passes"), "{}", text(&worse.stdout));
    let better = compare("bad.json", "good.json", &["--format", "json"]);
    assert_eq!(better.status.code(), Some(0));
    let found: Value = serde_json::from_slice(&better.stdout).unwrap();
    let expected = json!({"id": "tags-order", "level": "MUST", "a": "fail", "b": "pass"});
    let first = &found["differences"][0];
    assert!(expected.as_object().unwrap().iter().all(|(key, value)| first[key] == *value), "{found}");
}

#[test]
fn a_file_that_is_no_result_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("other.json"), "{\"name\": 1}").unwrap();
    fs::write(directory.path().join("broken.json"), "{").unwrap();
    judge(directory.path(), None, "spec", &["--only", "pull-support"]);
    for (arguments, reasons) in [
        (&["report", "absent.json", "--output", "p.html"][..], &["cannot read absent.json"][..]),
        (
            &["report", "spec.json", "other.json", "--output", "p.html"],
            &["other.json should be what `rconform spec", "it has none of"],
        ),
        (&["compare", "spec.json", "broken.json"], &["broken.json should be", "no JSON"]),
        (&["compare", "spec.json", "/dev/null"], &["/dev/null should be"]),
        (&["report", "spec.json", "--output", "p.json"], &["must end in .html"]),
        (&["report", "spec.json", "--output", "nowhere/p.html"], &["nowhere is no directory"]),
    ] {
        let output = rconform(directory.path(), arguments);
        let (code, error) = code_and_error(&output);
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(reasons.iter().all(|reason| error.contains(reason)), "{arguments:?}: {error}");
    }
    assert!(!directory.path().join("p.html").exists());
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_the_others_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let long = format!("{}.html", "n".repeat(300));
    let output = judge(directory.path(), None, "a", &["--only", "pull-support", "--output", &long, "--output", "b.html"]);
    let (code, error) = code_and_error(&output);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains(&format!("cannot write {long}")), "{error}");
    assert!(text(&output.stdout).contains("1 pass") && directory.path().join("b.html").exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing half is left");
}
