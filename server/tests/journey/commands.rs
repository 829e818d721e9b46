//! What commands exit with and say, whatever becomes of what they say.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use longshore_runtime::lifecycle::rfc3339;
use serde_json::Value;

use super::tools::{User, stderr};

#[test]
fn the_exit_code_of_a_failed_command_goes_by_its_verb() {
    let user = User::new();
    for (code, args) in [
        (1, &["volume", "create", "b a d"][..]),
        (1, &["volume", "rm", "run"]),
        (1, &["inspect", "create"]),
        (2, &["network", "create", "--no-such-flag"]),
        (2, &["ps", "--no-such-flag", "exec"]),
        (125, &["exec", "nobody", "true"]),
        (125, &["container", "exec", "nobody", "true"]),
        (125, &["container", "run", "--no-such-flag"]),
        (125, &["create", "--pull", "never", "nothing:here"]),
    ] {
        let output = user.output("rbox", args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_closed_standard_error_leaves_nothing_half_done() {
    let user = User::new();
    user.succeed("rbox", &["volume", "create", "last"]);
    for full in [false, true] {
        let closed = || match full {
            true => Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap()),
            false => Stdio::from(std::io::pipe().unwrap().1),
        };
        // The first two are not there, which is said to nobody; the others are removed all the same.
        user.succeed("rbox", &["volume", "create", "first"]);
        let mut command = user.command("rbox", &["volume", "rm", "nowhere", "neither", "first"]);
        let output = command.stderr(closed()).output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"first\n"[..]));
        // What is damaged is skipped.
        let damaged = user.store().join("volumes/damaged");
        std::fs::create_dir_all(&damaged).unwrap();
        let output = user.command("rbox", &["volume", "ls", "-q"]).stderr(closed()).output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"last\n"[..]));
    }
}

#[test]
fn what_is_there_is_inspected_whatever_is_not() {
    let user = User::new();
    user.succeed("rbox", &["volume", "create", "here"]);
    for verb in [&["inspect"][..], &["volume", "inspect"]] {
        let output = user.output("rbox", &[verb, &["nowhere", "here"]].concat());
        assert_eq!(output.status.code(), Some(1));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((shown.as_array().unwrap().len(), shown[0]["Name"].as_str()), (1, Some("here")));
        assert!(stderr(&output).contains("nowhere"), "{}", stderr(&output));
        let output = user.output("rbox", &[verb, &["-f", "{{.Name}}", "nowhere", "here"]].concat());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b"here\n"[..]));
        assert_eq!(user.output("rbox", &[verb, &["nowhere"]].concat()).stdout, b"[]\n");
    }
}

#[test]
fn what_a_label_says_is_json_and_reaches_no_terminal() {
    let user = User::new();
    let hostile = "\u{9b}31m\u{7f}\u{202e}";
    user.succeed("rbox", &["volume", "create", "--label", &format!("a={hostile}"), "data"]);
    for (args, path) in [
        (&["inspect", "data"][..], "/0/Labels/a"),
        (&["inspect", "-f", "json", "data"], "/0/Labels/a"),
        (&["inspect", "-f", "{{json .Labels}}", "data"], "/a"),
        (&["volume", "ls", "--format", "json"], "/Labels"),
        (&["volume", "ls", "--format", "{{json .}}"], "/Labels"),
    ] {
        let text = user.succeed("rbox", args);
        assert!(text.chars().all(|c| c == '\n' || c.is_ascii_graphic() || c == ' '), "{args:?}: {text:?}");
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert!(shown.pointer(path).unwrap().as_str().unwrap().ends_with(hostile), "{args:?}: {text}");
    }
}

#[test]
fn a_time_without_a_zone_is_one_of_this_machine_s() {
    let user = User::new();
    user.succeed("rbox", &["volume", "create", "data"]);
    // A zone five hours ahead of UTC, as POSIX writes it.
    let local = |minutes_ago: u64| {
        let time = SystemTime::now() + Duration::from_secs(5 * 3600) - Duration::from_secs(minutes_ago * 60);
        rfc3339(time)[..19].to_owned()
    };
    let count = |args: &[&str]| {
        let mut command = user.command("rbox", &[&["events", "--format", "json"], args].concat());
        let output = command.env("TZ", "HERE-05").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    assert_eq!(count(&["--since", &local(10), "--until", "0s"]), 1);
    assert_eq!(count(&["--until", &local(10)]), 0);
    assert_eq!(count(&["--since", &local(10)[..16], "--until", "0s"]), 1, "without seconds");
}

#[test]
fn a_network_that_is_not_there_is_removed_by_force() {
    let user = User::new();
    assert!(user.fail("rbox", &["network", "rm", "nowhere"]).contains("nowhere"));
    assert_eq!(user.succeed("rbox", &["network", "rm", "--force", "nowhere"]), "nowhere\n");
}
