//! Containers with a terminal.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};

use rustix::termios::Winsize;

use crate::bundle::{Bundle, Run, open_terminal, read_until};

#[test]
fn a_terminal_is_the_container_s_own_and_its_console() {
    let Some(mut bundle) =
        Bundle::sh("tty; stat -c %t:%T /dev/console; ls -1 /dev/pts; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo $TERM")
    else {
        return;
    };
    bundle.options.tty = true;
    // Without a terminal of the caller's: output is relayed, and nothing is read.
    let out = bundle.run().ok();
    assert_eq!(out.lines().collect::<Vec<_>>(), ["/dev/pts/0", "88:0", "0", "ptmx", "all", "xterm"]);
}

#[test]
fn all_output_arrives_before_the_exit_code_does() {
    let Some(mut bundle) = Bundle::sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 9") else { return };
    bundle.options.tty = true;
    let run = bundle.run();
    assert_eq!(run.code, Some(9));
    assert_eq!(run.out.lines().count(), 3000);
    assert!(run.out.ends_with("line 2999"));
}

/// `roci` on a terminal of this test's making: the master side.
fn on_terminal(bundle: &Bundle, size: Winsize) -> (Child, File, OwnedFd) {
    let (master, slave) = open_terminal();
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    bundle.write(|_| {});
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let child = bundle.command().stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    (child, master, slave)
}

#[test]
fn typed_input_size_and_control_characters_reach_the_container() {
    let Some(mut bundle) =
        Bundle::sh("trap 'echo interrupted; exit 7' INT; stty size; read line; echo got $line; while :; do sleep 0.05; done")
    else {
        return;
    };
    bundle.options.tty = true;
    let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut child, mut master, slave) = on_terminal(&bundle, size);
    read_until(&mut master, "33 111");
    assert!(
        !rustix::termios::tcgetattr(slave.as_fd()).unwrap().local_modes.contains(rustix::termios::LocalModes::ICANON),
        "raw while it runs"
    );
    master.write_all(b"hello\r").unwrap();
    read_until(&mut master, "got hello");
    master.write_all(&[3]).unwrap();
    read_until(&mut master, "interrupted");
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(
        rustix::termios::tcgetattr(slave.as_fd()).unwrap().local_modes.contains(rustix::termios::LocalModes::ICANON),
        "restored after it"
    );
}

#[test]
fn without_a_terminal_output_streams_stay_apart_and_input_is_inherited() {
    let Some(bundle) = Bundle::sh("read line; echo out $line; echo err >&2; [ -t 0 ] || echo none") else { return };
    bundle.write(|_| {});
    let mut child = bundle.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.out.as_str(), run.err.as_str()), ("out typed\nnone", "err"));
}
