//! The configuration of the real `rhub`: what it refuses, what it takes, and what its manual says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::{OCI_MANIFEST, Rhub};
use longshore_server::config::keys::{KEYS, Key};
use longshore_server::config::{Sources, load};

/// Exit status, standard output and standard error of `rhub` in an environment of nothing but `variables`.
fn rhub(home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
    let output =
        command.env_clear().env("HOME", home).envs(variables.iter().copied()).current_dir(home).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_everything_that_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("c.toml"), "[limits]\nuplods = 3\npage_entries = 0\n[log]\nformat = 7\n").unwrap();
    let (fine, out, err) = rhub(
        home.path(),
        &[("RHUB_CONFIG", "c.toml"), ("RHUB_LIMITS_STREAMS", "many")],
        &["config", "check", "--listen", "here", "--set", "gc.grace_s=-1"],
    );
    assert!(!fine && out.is_empty(), "{out}");
    for problem in [
        "c.toml:2:1: limits.uplods: there is no such key; did you mean limits.uploads?",
        "c.toml:3:16: limits.page_entries: 0 is not a whole number from 1 to 10000",
        "c.toml:5:10: log.format: 7 is not one of \"text\", \"json\"",
        "RHUB_LIMITS_STREAMS: \"many\" is not a whole number",
        "--listen: \"here\" is not an IP address and a port",
        "--set: \"-1\" is not a whole number",
    ] {
        assert!(err.contains(problem), "{problem} is not in {err}");
    }
    let (fine, _, err) = rhub(home.path(), &[], &["serve", "--config", "c.toml"]);
    assert!(!fine && err.contains("limits.uplods"), "what check refuses is not served: {err}");
}

#[test]
fn check_prints_what_counts_and_why() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("c.toml"), "[limits]\nuploads = 3\nrequests = 3\n").unwrap();
    let (fine, out, err) = rhub(
        home.path(),
        &[("RHUB_LIMITS_REQUESTS", "4"), ("RHUB_PORT", "tcp://10.0.0.1:5000")],
        &["config", "check", "--config", "c.toml", "--set", "log.level=info"],
    );
    assert!(fine && err.is_empty(), "{err}");
    let lines: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "# c.toml is fine",
        "limits.uploads = 3 # file",
        "limits.requests = 4 # environment, RHUB_LIMITS_REQUESTS",
        "log.level = \"info\" # flag --set",
        "limits.streams = 100 # default",
        "# tls.key is not set",
        "# environment variable RHUB_PORT sets nothing",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line} is not in {out}");
    }
    assert!(toml::from_str::<toml::Table>(&out).is_ok(), "what it prints can be a configuration file");
}

#[test]
fn what_is_configured_is_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rhub.toml");
    std::fs::write(&file, "data = \"store\"\n[limits]\nmanifest_bytes = 64\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
    command.args(["serve", "--config"]).arg(&file).env("RHUB_LISTEN", "127.0.0.1:0");
    let rhub = Rhub::start_command(command);
    assert!(dir.path().join("store/blobs").is_dir(), "the data is beside the file");
    assert_eq!(rhub.put_manifest("a", "t", OCI_MANIFEST, &[b' '; 65]).status, 413);
    assert_eq!(rhub.put_manifest("a", "t", OCI_MANIFEST, &[b' '; 64]).status, 400, "small enough, and no manifest");
}

#[test]
fn beyond_the_loopback_nothing_starts_without_tls_and_users() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("users"), "").unwrap();
    let tls = ["--tls-certificate", "c", "--tls-key", "k"];
    for verb in [&["serve"][..], &["config", "check"]] {
        let refused = |arguments: &[&str]| {
            let (fine, _, err) = rhub(home.path(), &[], &[verb, &["--listen", "192.0.2.1:5000"], arguments].concat());
            assert!(!fine, "{verb:?} {arguments:?}");
            err
        };
        let neither = refused(&[]);
        assert!(neither.contains("--insecure") && neither.contains("tls.certificate") && neither.contains("access.htpasswd"));
        let open = refused(&tls);
        assert!(open.contains("anyone could push and delete"), "{open}");
        let plain = refused(&["--htpasswd", "users"]);
        assert!(plain.contains("tls.certificate") && !plain.contains("anyone could push"), "{plain}");
    }
    // Meant, it is tried: nobody here has that address.
    let (fine, _, err) = rhub(home.path(), &[], &["serve", "--listen", "192.0.2.1:5000", "--insecure"]);
    assert!(!fine && err.contains("listen on 192.0.2.1:5000"), "{err}");
}

const MANUAL: &str = include_str!("../../docs/configuration.md");

/// Key and default of every row of the manual's tables.
fn documented() -> BTreeMap<String, String> {
    let rhub = MANUAL.split("\n# The clients\n").next().unwrap();
    let rows = rhub.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(key, rest)| (key.to_owned(), rest.split(" | ").next().unwrap().trim_matches('`').to_owned())).collect()
}

#[test]
fn the_manual_has_every_key_and_its_default() {
    // An empty [access] is none: its defaults show once there is a user.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "[access]\nhtpasswd = \"x\"\n").unwrap();
    let environment = vec![("HOME".into(), "/home/somebody".into())];
    let sources = Sources { file: Some(file.path().into()), environment, flags: Vec::new() };
    let mut actual: BTreeMap<String, String> = BTreeMap::new();
    for setting in load(&sources).unwrap().effective {
        let depends = ["data", "access.htpasswd"].contains(&setting.key.path);
        let value = setting.value.filter(|value| !depends && value.as_array().is_none_or(|list| !list.is_empty()));
        actual.insert(setting.key.path.to_owned(), value.map_or("not set".into(), |value| value.to_string()));
    }
    assert_eq!(documented(), actual);
    assert_eq!(actual.len(), KEYS.len());
}

#[test]
fn the_manuals_example_is_a_configuration() {
    let example = MANUAL.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, example).unwrap();
    let loaded = load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.access.as_ref().unwrap().rules.len(), 4);
    assert!(loaded.config.exposed().is_none());
}

#[test]
fn the_manual_names_the_variables_as_they_are() {
    let variable = |path| KEYS.iter().find(|key: &&Key| key.path == path).unwrap().variable().unwrap();
    assert!(MANUAL.contains(&format!("`limits.manifest_bytes` is `{}`", variable("limits.manifest_bytes"))));
}
