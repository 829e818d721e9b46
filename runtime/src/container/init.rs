//! The first process of a container with `--init`: this program, shown in there. It starts the command, passes signals
//! on to it, and reaps the orphans of others, as `docker-init` does.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

use super::monitor::wait_for;
use crate::error::{Attempt, Result};
use crate::spec::INIT_PATH;
use crate::sys;

/// What the program is called where it is about to become the command.
const BEGIN: &str = "longshore-begin";

/// Whether this program was executed as a container's first process, or to become its command; `Some` is the exit code.
pub(super) fn enter() -> Option<u8> {
    let mut arguments = std::env::args_os();
    let name = arguments.next()?;
    if name == BEGIN {
        return Some(become_command(arguments));
    }
    if name != INIT_PATH || arguments.next()? != "--" {
        return None;
    }
    Some(run(arguments.collect()).unwrap_or_else(|error| {
        eprintln!("{INIT_PATH}: {error}");
        125
    }))
}

/// All that can be passed on: what is about the process itself is its own, and job control the terminal's.
fn signals() -> Vec<i32> {
    const OWN: [i32; 8] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGTTIN, libc::SIGTTOU];
    (1..=libc::SIGRTMAX()).filter(|signal| !OWN.contains(signal)).collect()
}

fn run(command: Vec<OsString>) -> Result<u8> {
    let signals = signals();
    sys::block_signals(&signals).attempt(|| "block signals")?;
    let wakes = sys::signalfd(&signals).attempt(|| "create a signalfd")?;
    let child = Command::new(INIT_PATH).arg0(BEGIN).args(command).spawn().attempt(|| "start the command")?;
    sys::forget_program();
    let child = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty()).attempt(|| "look after the command")?;
    loop {
        wait_for(&mut [PollFd::new(&wakes, PollFlags::IN)], None)?;
        while let Some(signal) = sys::read_signal(wakes.as_fd()).attempt(|| "read a signal")? {
            if signal == libc::SIGCHLD {
                while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                    if pid == child {
                        let killed = status.terminating_signal().map(|signal| 128 + signal);
                        return Ok(status.exit_status().or(killed).unwrap_or(125) as u8);
                    }
                }
            } else {
                // One that has just ended is about to be reaped.
                let _ = sys::pidfd_signal(pidfd.as_fd(), signal);
            }
        }
    }
}

/// Leaves the signals of the first process to it, takes the terminal, and becomes the command.
fn become_command(mut words: impl Iterator<Item = OsString>) -> u8 {
    const NOT_FOUND: u8 = 127;
    const NOT_EXECUTED: u8 = 126;
    let Some(program) = words.next() else { return NOT_FOUND };
    if rustix::process::setpgid(None, None).is_ok() {
        // Who is in the background is stopped for this otherwise.
        let _ = sys::block_signals(&[libc::SIGTTOU]);
        // Without a terminal there is none to be taken.
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    }
    sys::reset_signals();
    let error = Command::new(&program).args(words).exec();
    eprintln!("{INIT_PATH}: execute {program:?}: {error}");
    if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTED }
}
