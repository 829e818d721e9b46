//! What commands exit with and say, whatever becomes of what they say.

use std::process::Stdio;

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
