//! Nothing is left behind: after exit, crash and `kill -9`; and what is used stays.

use std::io::Read;

use rustix::process::Signal;

use super::common::wait_until;
use super::fixture::{Mounts, Ready, is_init, nothing_left, processes, send};
use super::tools::stderr;

/// A second process that has left its parent, changes to the file system, and no end.
const BUSY: &str = "(sleep 1000 &); mkdir /new; for n in $(seq 500); do echo $n > /new/$n; done; rm -r /usr; echo up; sleep 1000";

#[test]
fn nothing_is_left_after_an_exit() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut running = ready.start("trap 'exit 3' TERM; (sleep 1000 &); echo x > /new; echo up; sleep 1000 & wait");
    assert!(processes(&ready.user).iter().any(is_init), "the container's processes can be found");
    running.signal(Signal::TERM);
    assert_eq!(running.child.wait().unwrap().code(), Some(3));
    nothing_left(&ready.user, &before, &[&running.id]);
    ready.user.check_store();
}

#[test]
fn nothing_is_left_after_a_crash() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut running = ready.start(BUSY);
    let init = processes(&ready.user).into_iter().find(is_init).expect("the container's first process");
    send(init, Signal::KILL);
    assert_eq!(running.child.wait().unwrap().code(), Some(128 + 9));
    nothing_left(&ready.user, &before, &[&running.id]);
    ready.user.check_store();
}

#[test]
fn nothing_is_left_after_kill_nine() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut running = ready.start(BUSY);
    running.signal(Signal::KILL);
    running.child.wait().unwrap();
    // Every process of the container holds the other end.
    let mut rest = String::new();
    running.out.read_to_string(&mut rest).unwrap();
    nothing_left(&ready.user, &before, &[&running.id]);
    // The lease is stale; the next command clears it.
    assert_eq!(ready.sh(&[], "echo next"), "next\n");
    ready.user.check_store();
}

#[test]
fn a_command_right_after_kill_nine_works() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for _ in 0..5 {
        let mut running = ready.start(BUSY);
        running.signal(Signal::KILL);
        running.child.wait().unwrap();
        // Its guard is clearing away now, and so will each of these.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert_eq!(ready.sh(&[], "echo next"), "next\n"));
            }
        });
        wait_until("every process is gone", || processes(&ready.user).is_empty());
        ready.user.succeed("rbox", &["rmi", &ready.image]);
        ready.user.succeed("rpull", &[&ready.image]);
        nothing_left(&ready.user, &before, &[&running.id]);
        ready.user.check_store();
    }
}

#[test]
fn an_image_in_use_is_not_removed_before_its_container_ended() {
    let Some(ready) = Ready::new() else { return };
    let mut running = ready.start("trap 'cat /usr/share/kept/file; exit 0' TERM; echo up; sleep 1000 & wait");
    let refused = ready.user.fail("rbox", &["rmi", &ready.image]);
    assert!(refused.contains("in use") && refused.contains(&ready.image), "{refused}");
    running.signal(Signal::TERM);
    let mut rest = String::new();
    running.out.read_to_string(&mut rest).unwrap();
    assert_eq!((running.child.wait().unwrap().code(), rest.as_str()), (Some(0), "kept\n"));
    let said = ready.user.succeed("rbox", &["rmi", &ready.image]);
    assert!(said.contains("Untagged") && said.contains("Deleted"), "{said}");
    assert_eq!(ready.user.check_store(), (vec![], vec![]));
    let gone = ready.run(&["--pull", "never"], &["true"]);
    assert_eq!(gone.status.code(), Some(125), "{}", stderr(&gone));
}
