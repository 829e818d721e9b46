//! `rconform` as a command: exit codes and output.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use support::{Fault, PASSWORD, Scheme, USER};

/// `rconform spec` of somebody who is logged in nowhere.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rconform"));
    command.arg("spec").args(arguments).env("DOCKER_CONFIG", "/nowhere");
    for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "RCONFORM_PASSWORD"] {
        command.env_remove(name);
    }
    command
}

fn rconform(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
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
    let as_json: serde_json::Value = serde_json::from_slice(&rconform(&["--list", "--format", "json"]).stdout).unwrap();
    let ids = |rows: &serde_json::Value| rows.as_array().unwrap().iter().map(|r| r["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&as_json), ids(&report["requirements"]));
    assert!(as_json.as_array().unwrap().iter().all(|r| r["section"].is_string() && r["level"].is_string()));
    let order = rows.iter().find(|r| r["id"] == "tags-order").unwrap();
    assert_eq!(order["verdict"], "fail");
    assert!(order["exchange"].as_str().unwrap().contains("/v2/elsewhere/spec/tags/list"), "{order}");
}

#[test]
fn plain_http_works_on_a_machine_without_certificate_authorities() {
    let (address, _) = support::start(None);
    let output = command(&[&format!("http://{address}"), "--only", "pull-support"])
        .envs([("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_is_skipped_is_not_judged() {
    let (address, _) = support::start(Some(Fault::StaleTag));
    let output = rconform(&[&format!("http://{address}"), "--only", "push", "--skip", "push-manifest,push-chunks"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    assert!(shown.contains("push-upload ") && shown.contains("push-status "), "{shown}");
    assert!(!shown.contains("push-manifest-") && !shown.contains("push-chunks "), "{shown}");
    assert_eq!(rconform(&["http://localhost", "--skip", "nonsense"]).status.code(), Some(2));
}

/// The report of a registry with users, whose output holds no secret.
fn must_be_judged(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    said
}

#[test]
fn the_password_comes_by_environment_or_standard_input() {
    for scheme in [Scheme::Basic, Scheme::Bearer] {
        let (address, state) = support::start_with(None, Some(scheme));
        let url = format!("http://{address}");
        let arguments = [&url, "--user", USER, "--only", "pull,auth"];
        let mut by_environment = command(&arguments);
        by_environment.env("RCONFORM_PASSWORD", PASSWORD);
        assert!(must_be_judged(by_environment).contains(" 0 fail"));
        let mut child = command(&arguments)
            .arg("--password-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(state.lock().unwrap().len(), 0);
    }
}

#[test]
fn credentials_come_from_dockers_configuration_and_its_helpers() {
    use base64::Engine as _;
    let (address, _) = support::start_with(None, Some(Scheme::Bearer));
    let directory = tempfile::tempdir().unwrap();
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let helper = directory.path().join("docker-credential-here");
    fs::write(
        &helper,
        format!(
            "#!/bin/sh\n[ \"$1 $(cat)\" = \"get {address}\" ] || exit 1\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"
        ),
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let configurations = [
        format!(r#"{{"auths":{{"{address}":{{"auth":"{auth}"}}}}}}"#),
        format!(r#"{{"auths":{{"http://{address}/v2/":{{"auth":"{auth}"}}}}}}"#),
        format!(r#"{{"credHelpers":{{"{address}":"here"}}}}"#),
        r#"{"credsStore":"here"}"#.to_owned(),
    ];
    for configuration in configurations {
        fs::write(directory.path().join("config.json"), &configuration).unwrap();
        let only = [&format!("http://{address}"), "--only", "pull-blob"].map(str::to_owned);
        let only = only.each_ref().map(String::as_str);
        let mut by_directory = command(&only);
        by_directory.env("DOCKER_CONFIG", directory.path()).env("PATH", &path);
        must_be_judged(by_directory);
        let mut by_file = command(&only);
        by_file.env("REGISTRY_AUTH_FILE", directory.path().join("config.json")).env("PATH", &path);
        must_be_judged(by_file);
        let mut anonymous = command(&only);
        anonymous.arg("--anonymous").env("DOCKER_CONFIG", directory.path()).env("PATH", &path);
        assert_eq!(anonymous.output().unwrap().status.code(), Some(2), "{configuration}");
    }
}

#[test]
fn credentials_that_are_missing_or_wrong_give_exit_code_2_and_no_secret() {
    for scheme in [Scheme::Basic, Scheme::Bearer] {
        let (address, _) = support::start_with(None, Some(scheme));
        let url = format!("http://{address}");
        let output = rconform(&[&url]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("use --user"), "{}", text(&output.stderr));
        let wrong = command(&[&url, "--user", USER]).env("RCONFORM_PASSWORD", "hunter2").output().unwrap();
        assert_eq!(wrong.status.code(), Some(2));
        let said = text(&wrong.stderr);
        assert!(said.contains("does not take those of") && !said.contains("hunter2"), "{said}");
        let none = rconform(&[&url, "--user", USER]);
        assert!(text(&none.stderr).contains("RCONFORM_PASSWORD"), "{}", text(&none.stderr));
    }
    let named = rconform(&["http://tester:hunter2@localhost:1"]);
    assert_eq!(named.status.code(), Some(2));
    assert!(!text(&named.stderr).contains("hunter2"), "{}", text(&named.stderr));
}
