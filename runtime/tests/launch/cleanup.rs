//! Nothing is left behind: after exit, failure, signals and `kill -9`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::bundle::Bundle;
use crate::needs::root;

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Starts the bundle and waits for its first line of output.
fn start(bundle: &Bundle) -> (Child, BufReader<std::process::ChildStdout>) {
    bundle.write(|_| {});
    let mut child = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    (child, out)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32).unwrap()
}

#[test]
fn nothing_is_left_after_exit_and_after_failure() {
    for script in ["true", "exit 1", "sleep 1000 & sleep 1000 & exit 0"] {
        let Some(bundle) = Bundle::sh(script) else { return };
        bundle.run();
        assert!(bundle.cgroups().iter().all(|path| !path.exists()), "{script}");
        assert!(!mounts().contains(bundle.directory.path().to_str().unwrap()));
    }
    let bundle = Bundle::new(&["no-such-command"]).unwrap();
    assert_eq!(bundle.run().code, Some(127));
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}

#[test]
fn signals_reach_the_container_s_init() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1"), (Signal::HUP, "HUP")] {
        let Some(bundle) = Bundle::sh(&format!("trap 'exit 33' {name}; echo up; while :; do sleep 0.05; done")) else { return };
        let (mut child, _out) = start(&bundle);
        kill_process(pid(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(33), "{name}");
        assert!(bundle.cgroups().iter().all(|path| !path.exists()));
    }
}

#[test]
fn kill_nine_of_the_launcher_takes_the_container_and_its_cgroup_along() {
    // The second process has left its parent: only its pid namespace or cgroup can find it.
    let Some(bundle) = Bundle::sh("(sleep 1000 &); echo up; while :; do sleep 1000; done") else { return };
    let (mut child, mut out) = start(&bundle);
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    // Every process of the container holds this pipe; so would a guard that kept descriptors.
    let mut rest = String::new();
    out.read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
    wait_until(|| bundle.cgroups().iter().all(|path| !path.exists()));
    assert!(!mounts().contains(bundle.directory.path().to_str().unwrap()));
}

#[test]
fn the_guard_survives_what_kills_the_whole_process_group() {
    let Some(bundle) = Bundle::sh("echo up; while :; do sleep 1000; done") else { return };
    if !root() {
        return;
    }
    bundle.write(|_| {});
    let mut command = bundle.command();
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(bundle.cgroups().iter().any(|path| path.exists()), "there is a cgroup to be removed");
    rustix::process::kill_process_group(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    wait_until(|| bundle.cgroups().iter().all(|path| !path.exists()));
}

#[test]
fn a_second_container_of_the_same_name_is_refused_and_harms_nothing() {
    let Some(bundle) = Bundle::sh("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done") else { return };
    if !root() {
        return;
    }
    let (mut child, _out) = start(&bundle);
    let second = crate::bundle::Run::of(bundle.command().output().unwrap());
    assert_eq!(second.code, Some(125));
    assert!(second.err.contains("in use"), "{}", second.err);
    assert_eq!(child.try_wait().unwrap(), None, "the first one is still running");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Yields until it is so, for ten seconds at most.
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < end, "it did not happen within ten seconds");
        std::thread::yield_now();
    }
}
