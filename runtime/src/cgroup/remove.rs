//! Removing a container's cgroup, with what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

/// How long processes of a killed cgroup may take to be gone.
const KILL_TIMEOUT_S: i64 = 10;

/// Kills what is in the cgroup at `path`, waits for it, and removes the directory with those the
/// container made below it. One that is not there is no error.
pub(crate) fn destroy(path: &Path) -> Result<()> {
    let remove = |path: &Path| match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(errno) => Err(errno).attempt(|| format!("remove cgroup {path:?}")),
    };
    if remove(path)? {
        return Ok(());
    }
    let tree = tree(path, 0);
    kill(path, &tree)?;
    for directory in &tree {
        wait_until_empty(directory)?;
    }
    for directory in &tree {
        if !remove(directory)? {
            return Err(Error::Busy { what: format!("cgroup {directory:?}"), why: "processes in it cannot be killed".into() });
        }
    }
    Ok(())
}

/// The directory and all below it, the deepest first.
fn tree(path: &Path, depth: usize) -> Vec<PathBuf> {
    /// What a container can nest is bounded by the kernel's limit of descendants; this is far above use.
    const DEPTH_LIMIT: usize = 64;
    let mut list = Vec::new();
    if depth < DEPTH_LIMIT {
        let children = fs::read_dir(path).into_iter().flatten().flatten();
        let directories = children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()));
        list.extend(directories.flat_map(|child| tree(&child.path(), depth + 1)));
    }
    list.push(path.to_owned());
    list
}

/// By `cgroup.kill` (Linux 5.14), or each process on its own.
fn kill(path: &Path, tree: &[PathBuf]) -> Result<()> {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for directory in tree {
        let list = fs::read_to_string(directory.join("cgroup.procs"))
            .attempt(|| format!("list the processes of cgroup {directory:?}"))?;
        for pid in list.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).attempt(|| format!("kill process {pid:?} of cgroup {directory:?}")),
            }
        }
    }
    Ok(())
}

/// Waits for `populated 0` in `cgroup.events`, whose changes wake a poll. cgroup v1 has no such file:
/// there the processes' own pidfds are waited for.
fn wait_until_empty(path: &Path) -> Result<()> {
    let timeout = rustix::event::Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 };
    let Ok(events) = fs::File::open(path.join("cgroup.events")) else {
        let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in list.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
            if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
            }
        }
        return Ok(());
    };
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(&events, &mut text, 0).attempt(|| format!("read cgroup.events of {path:?}"))?;
        if text[..length].windows(11).any(|window| window == b"populated 0") {
            return Ok(());
        }
        if poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)).attempt(|| "wait for the cgroup to empty")? == 0 {
            return Ok(());
        }
    }
}
