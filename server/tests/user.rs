//! `rhub user`: from standard input, and on a terminal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::Rhub;

fn command(htpasswd: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
    command.arg("user").args(arguments).arg("--htpasswd").arg(htpasswd);
    command
}

fn rhub_user(htpasswd: &Path, arguments: &[&str], input: &str) -> Output {
    let pipe = || Stdio::piped();
    let mut child = command(htpasswd, arguments).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    // One that refuses before it reads is gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn users_come_and_go_while_the_registry_serves() {
    let dir = tempfile::tempdir().unwrap();
    let htpasswd = dir.path().join("users");
    let fine = |arguments: &[&str], input: &str| {
        let output = rhub_user(&htpasswd, arguments, input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = |arguments: &[&str], input: &str| {
        let output = rhub_user(&htpasswd, arguments, input);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    fine(&["add", "alice", "--password-stdin"], "first\n");
    let mut serve = common::command(&dir.path().join("data"));
    serve.arg("--htpasswd").arg(&htpasswd);
    let rhub = Rhub::start_command(serve);
    // "alice:first" and so on, in base64.
    let status = |login: &str| rhub.send("GET", "/v2/", &[("authorization", &format!("Basic {login}"))], b"").status;
    let (first, second, bob) = ("YWxpY2U6Zmlyc3Q=", "YWxpY2U6c2Vjb25k", "Ym9iOmJvYg==");
    assert_eq!((status(first), status(second), status(bob)), (200, 401, 401));
    fine(&["passwd", "alice", "--password-stdin"], "second");
    fine(&["add", "bob", "--password-stdin"], "bob\r\n");
    common::wait_until("the changes are taken up", || status(bob) == 200);
    assert_eq!((status(first), status(second)), (401, 200));
    assert_eq!(fine(&["list"], ""), "alice\nbob\n");
    fine(&["rm", "alice"], "");
    common::wait_until("alice is gone", || status(second) == 401);
    assert!(refused(&["add", "bob", "--password-stdin"], "x\n").contains("rhub user passwd bob"));
    assert!(refused(&["rm", "alice"], "").contains("alice"));
    assert!(refused(&["add", "a:b", "--password-stdin"], "x\n").contains("a:b"));
    assert!(refused(&["add", "carol", "--password-stdin"], "\n").contains("empty"));
    assert!(refused(&["add", "carol"], "x\n").contains("--password-stdin"), "without a terminal nothing is asked");
    assert_eq!(fine(&["list"], ""), "bob\n");
}

#[test]
fn the_file_is_the_one_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "[access]\nhtpasswd = \"people\"\n").unwrap();
    let rhub = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rhub"));
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"secret\n");
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let file = dir.path().join("c.toml").display().to_string();
    let added = rhub(&["user", "add", "alice", "--password-stdin", "--config", &file]);
    assert!(added.0, "{}", added.1);
    assert!(std::fs::read_to_string(dir.path().join("people")).unwrap().starts_with("alice:$2"));
    let (fine, why) = rhub(&["user", "list", "--data", "/nowhere"]);
    assert!(!fine && why.contains("access.htpasswd"), "{why}");
}

/// A terminal and the program on it.
struct Terminal {
    child: Child,
    screen: File,
    shown: String,
}

impl Terminal {
    fn run(mut command: Command) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&screen).unwrap();
        unlockpt(&screen).unwrap();
        let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
        let keyboard = File::options().read(true).write(true).open(name).unwrap();
        command.stdin(keyboard.try_clone().unwrap()).stdout(keyboard.try_clone().unwrap()).stderr(keyboard);
        let child = command.spawn().unwrap();
        Self { child, screen: screen.into(), shown: String::new() }
    }

    /// Waits until `question` is shown, and types.
    fn answer(&mut self, question: &str, keys: &str) {
        while !self.shown.ends_with(question) {
            let mut byte = [0];
            self.screen.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}; shown: {}", self.shown));
            self.shown.push(char::from(byte[0]));
        }
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether it ended well, and everything that was shown.
    fn end(mut self) -> (bool, String) {
        let ended = self.child.wait().unwrap();
        let mut rest = Vec::new();
        // Linux ends a terminal nobody is at with EIO.
        let _ = self.screen.read_to_end(&mut rest);
        self.shown.push_str(&String::from_utf8_lossy(&rest));
        (ended.success(), self.shown)
    }
}

#[test]
fn a_terminal_asks_twice_and_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let htpasswd = dir.path().join("users");
    let add = |first: &str, second: &str| {
        let mut terminal = Terminal::run(command(&htpasswd, &["add", "alice"]));
        terminal.answer("Password for alice: ", first);
        if !second.is_empty() {
            terminal.answer("And again: ", second);
        }
        terminal.end()
    };
    let (fine, shown) = add("hidden\r", "other\r");
    assert!(!fine && shown.contains("differ") && !shown.contains("hidden") && !shown.contains("other"), "{shown}");
    let (fine, shown) = add("hidden\u{3}", "");
    assert!(!fine && shown.contains("interrupted"), "{shown}");
    assert!(!htpasswd.exists());
    let (fine, shown) = add("hiddem\u{7f}n\r", "hidden\r");
    assert!(fine && shown.contains("added alice") && !shown.contains("hidde"), "{shown}");
    assert!(std::fs::read_to_string(&htpasswd).unwrap().starts_with("alice:$2"));
}
