//! Work that changes the process doing it, done by a short-lived copy of this one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Attempt, Error, Result};
use crate::sys;

/// The longest error the copy tells.
const MESSAGE_LIMIT_BYTES: u64 = 16 * 1024;

/// Runs `work` in a forked process and gives its error, if it has one, as this one's.
///
/// Only for a process with a single thread.
pub(crate) fn apart(what: &str, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let (out, input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")?;
    let mut input = Some(File::from(input));
    let (_, pidfd) = sys::spawn(0, None, &mut || match work() {
        Ok(()) => 0,
        Err(error) => {
            // Should nobody hear it, the exit code still says that it failed.
            let _ = input.take().map(|mut pipe| pipe.write_all(error.to_string().as_bytes()));
            1
        }
    })
    .attempt(|| format!("start a process to {what}"))?;
    drop(input);
    let mut message = String::new();
    let heard = File::from(out).take(MESSAGE_LIMIT_BYTES).read_to_string(&mut message);
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.attempt(|| format!("wait for the process to {what}"))?,
        }
    };
    heard.attempt(|| format!("hear from the process to {what}"))?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(()),
        _ if message.is_empty() => Err(Error::Launch { step: what.to_owned(), source: std::io::Error::other("it was killed") }),
        _ => Err(Error::Launch { step: what.to_owned(), source: std::io::Error::other(message) }),
    }
}

/// Moves this process into the namespaces of another one, except that of users; its children, as for the
/// namespace of process ids, too.
pub(super) fn enter_namespaces(pidfd: BorrowedFd<'_>) -> Result<()> {
    let kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(pidfd, kinds).attempt(|| "join the container's namespaces")
}
