//! Terminals that are handed to somebody else, and those relayed by `exec`.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use crate::bundle::{Run, open_terminal, read_until};
use crate::container::Container;
use crate::descriptors::receive;

const TALK: &str = "stty size; tty; echo name $(stat -c %t:%T /dev/console); read line; echo got $line; [ -t 0 ] && exit 9";

#[test]
fn the_master_side_is_sent_to_the_console_socket_and_works_from_there() {
    let Some(container) = Container::sh(TALK) else { return };
    container.write(|spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = serde_json::json!({ "height": 12, "width": 34 });
    });
    // Longer than a socket's address can be.
    let directory = container.file(&"d".repeat(120));
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(&directory, container.file("short")).unwrap();
    let listener = UnixListener::bind(container.file("short").join("console.sock")).unwrap();
    let path = directory.join("console.sock");
    container.create(&["--console-socket", path.to_str().unwrap()]).ok();
    let mut master = File::from(receive(&listener).0);
    assert!(!rustix::fs::fcntl_getfl(&master).unwrap().contains(rustix::fs::OFlags::NONBLOCK), "it blocks, as engines expect");
    container.roci(&["start", container.id()]).ok();
    let seen = read_until(&mut master, "name");
    assert!(seen.contains("12 34") && seen.contains("/dev/pts/0"), "{seen}");
    master.write_all(b"hello\r").unwrap();
    read_until(&mut master, "got hello");
    assert_eq!(container.out(), "", "nothing went anywhere else");
}

#[test]
fn a_terminal_without_anybody_to_take_it_is_refused_and_a_socket_without_terminal_too() {
    let Some(container) = Container::sh(TALK) else { return };
    container.write(|spec| spec["process"]["terminal"] = true.into());
    let run = container.create(&[]);
    assert!(run.code == Some(1) && run.err.contains("--console-socket"), "{run:?}");
    container.write(|_| {});
    let path = container.file("console.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let run = container.create(&["--console-socket", path.to_str().unwrap()]);
    assert!(run.code == Some(1) && run.err.contains("terminal"), "{run:?}");
    container.write(|spec| spec["process"]["terminal"] = true.into());
    let run = container.create(&["--console-socket", "/nowhere/sock"]);
    assert!(run.code == Some(1) && run.err.contains("/nowhere/sock"), "{run:?}");
    assert!(container.is_gone());
}

#[test]
fn exec_relays_a_terminal_and_hands_one_over() {
    let Some(container) = Container::service() else { return };
    // Relayed: between a terminal of this test's and the container's.
    let (mut outer, slave) = open_terminal();
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let mut command = container.command(&["exec", "--tty", container.id(), "sh", "-c", TALK]);
    let mut child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    assert!(read_until(&mut outer, "name").contains("/dev/pts/"));
    outer.write_all(b"typed\r").unwrap();
    read_until(&mut outer, "got typed");
    assert_eq!(child.wait().unwrap().code(), Some(9));

    // Handed over, as conmon has it: detached, with a document.
    let process = container.file("process.json");
    let document = serde_json::json!({
        "terminal": true, "args": ["sh", "-c", TALK], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
    });
    std::fs::write(&process, document.to_string()).unwrap();
    let path = container.file("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let pid_file = container.file("pid");
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let args = [
        "exec",
        "--pid-file",
        &text(&pid_file),
        "--process",
        &text(&process),
        "--detach",
        "--console-socket",
        &text(&path),
        container.id(),
    ];
    let output = container.command(&args).output().unwrap();
    Run::of(output).ok();
    let mut master = File::from(receive(&listener).0);
    read_until(&mut master, "name");
    master.write_all(b"again\r").unwrap();
    read_until(&mut master, "got again");
    assert!(std::fs::read_to_string(&pid_file).unwrap().parse::<i32>().unwrap() > 0);
    let refused = container.roci(&["exec", "--tty", "--detach", container.id(), "true"]);
    assert!(refused.code == Some(255) && refused.err.contains("--console-socket"), "{refused:?}");
}
