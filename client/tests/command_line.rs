//! The command line of every program: what it says of itself, and what it says to nonsense.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// Each program, what its help begins with, and where it is.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("rbox", "Images and containers without a daemon\n", env!("CARGO_BIN_EXE_rbox")),
    ("rpull", "Download an image", env!("CARGO_BIN_EXE_rpull")),
    ("rpush", "Upload an image", env!("CARGO_BIN_EXE_rpush")),
    ("rrun", "Run a command in a new container\n", env!("CARGO_BIN_EXE_rrun")),
];

/// The code a program ended with, and what it said on standard output and standard error.
fn run(program: &str, args: &[&str]) -> (i32, String, String) {
    let path = PROGRAMS.iter().find(|(name, ..)| *name == program).unwrap().2;
    let store = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } =
        Command::new(path).args(args).env("LONGSHORE_ROOT", store.path()).env("HOME", store.path()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_program_says_its_name_and_how_it_is_used() {
    for (program, begins, _) in PROGRAMS {
        let (code, version, _) = run(program, &["--version"]);
        assert_eq!((code, version), (0, format!("{program} {}\n", env!("CARGO_PKG_VERSION"))));
        let (code, help, _) = run(program, &["--help"]);
        assert!(code == 0 && help.starts_with(begins) && help.contains(&format!("Usage: {program} ")), "{help}");
    }
}

#[test]
fn nonsense_is_answered_with_what_is_wrong_with_it() {
    let cases: [(&str, &[&str], i32, &str); 20] = [
        ("rbox", &[], 2, "Usage: rbox"),
        ("rbox", &["no-such-verb"], 2, "no-such-verb"),
        ("rbox", &["rmi"], 2, "required"),
        ("rbox", &["rmi", "absent:1"], 1, "absent:1"),
        ("rbox", &["tag", "absent:1", "other"], 1, "absent:1"),
        ("rbox", &["inspect", "absent:1"], 1, "absent:1"),
        ("rpull", &["Not/A/Name"], 2, "Not/A/Name"),
        ("rpull", &["app@sha256:1234"], 2, "sha256:1234"),
        ("rpush", &["oci:/no/such/layout", "127.0.0.1:1/app"], 1, "/no/such/layout"),
        ("rpush", &["absent:1"], 1, "absent:1"),
        ("rbox", &["stop", "absent"], 1, "absent"),
        ("rbox", &["logs", "absent"], 1, "absent"),
        ("rbox", &["logs", "--tail", "x", "absent"], 2, "--tail"),
        ("rbox", &["kill", "-s", "NOSIG", "absent"], 2, "NOSIG"),
        ("rbox", &["rm", "absent"], 1, "absent"),
        ("rbox", &["ps", "--filter", "status=odd"], 2, "status"),
        // 1 and 2 would be taken for the container's own.
        ("rrun", &["--no-such-option", "app"], 125, "--no-such-option"),
        ("rrun", &["--pull", "never", "absent:1"], 125, "absent:1"),
        ("rrun", &["--detach", "--attach", "stdout", "app"], 125, "--attach"),
        ("rbox", &["exec", "absent", "true"], 125, "absent"),
    ];
    for (program, args, expected, part) in cases {
        let (code, out, said) = run(program, args);
        // A list of what was found is a list all the same, as docker has it.
        let nothing = if args.first() == Some(&"inspect") { "[]\n" } else { "" };
        assert_eq!((code, out.as_str()), (expected, nothing), "{program} {args:?}: {said}");
        assert!(said.contains(part) && !said.contains("panicked"), "{program} {args:?}: {said}");
    }
}
