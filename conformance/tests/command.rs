//! `rconform` as a command: exit codes and output.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::TcpListener;
use std::process::{Command, Output};

use support::Fault;

fn rconform(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rconform")).arg("spec").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_registry_that_conforms_gives_exit_code_0() {
    let (address, state) = support::start(None);
    let output = rconform(&[&format!("http://{address}")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains(" 0 fail"), "{}", text(&output.stdout));
    assert_eq!(state.lock().unwrap().len(), 0);
}

#[test]
fn a_must_that_fails_gives_exit_code_1_and_the_exchange() {
    let (address, _) = support::start(Some(Fault::StaleTag));
    let output = rconform(&[&format!("http://{address}"), "--only", "push-manifest-moves-tag"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stdout);
    assert!(shown.contains("FAIL push-manifest-moves-tag (MUST, section \"Definitions: Tag\")"), "{shown}");
    assert!(shown.contains("> GET http://") && shown.contains("< 200"), "{shown}");
}

#[test]
fn a_should_that_fails_gives_exit_code_0() {
    let (address, _) = support::start(Some(Fault::HeadWithoutLength));
    let output = rconform(&[&format!("http://{address}"), "--only", "pull"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(" 1 fail"), "{}", text(&output.stdout));
}

#[test]
fn a_registry_that_cannot_be_judged_gives_exit_code_2_and_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = rconform(&[&format!("http://{closed}")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot reach"), "{}", text(&output.stderr));
    assert_eq!(rconform(&["http://localhost", "--only", "nonsense"]).status.code(), Some(2));
}

#[test]
fn the_json_report_is_one_document_with_a_row_for_each_requirement() {
    let (address, _) = support::start(Some(Fault::UnsortedTags));
    let output = rconform(&[&format!("http://{address}"), "--format", "json", "--namespace", "elsewhere"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["requirements"].as_array().unwrap();
    let listed = rconform(&["--list"]);
    assert_eq!(rows.len(), text(&listed.stdout).lines().count());
    let order = rows.iter().find(|r| r["id"] == "tags-order").unwrap();
    assert_eq!(order["verdict"], "fail");
    assert!(order["exchange"].as_str().unwrap().contains("/v2/elsewhere/spec/tags/list"), "{order}");
}

#[test]
fn plain_http_works_on_a_machine_without_certificate_authorities() {
    let (address, _) = support::start(None);
    let output = Command::new(env!("CARGO_BIN_EXE_rconform"))
        .args(["spec", &format!("http://{address}"), "--only", "pull-support"])
        .envs([("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
