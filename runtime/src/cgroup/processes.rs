//! What is done to all processes of a container at once, by its cgroups: listing, signalling, freezing,
//! removing.
//!
//! A container may be in cgroup2, in several v1 hierarchies, or in both. cgroup2 is preferred for each
//! task: there the kernel does it for the whole tree at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::Member;
use crate::error::{Attempt, Error, Result};
use crate::sys;

/// How long freezing and thawing may take.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a v1 freezer, which tells nobody when it is done, is left alone between two looks.
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// The deepest tree of cgroups inside a container's own.
const DEPTH_LIMIT: usize = 64;

/// The cgroup to ask for processes: cgroup2's, else the first.
fn principal(cgroups: &[Member]) -> Option<&Member> {
    cgroups.iter().find(|cgroup| cgroup.is_unified()).or_else(|| cgroups.first())
}

/// The processes in a container's cgroup and those below it, in order.
pub(crate) fn list(cgroups: &[Member]) -> Result<Vec<i32>> {
    let cgroup = principal(cgroups)
        .ok_or_else(|| Error::invalid("container", "it has no cgroup of its own: which processes are its own cannot be told"))?;
    let mut pids = BTreeSet::new();
    for path in tree(&cgroup.path)? {
        let text = match fs::read_to_string(path.join("cgroup.procs")) {
            // Gone meanwhile, or a threaded cgroup, whose processes stand in the one above.
            Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            other => other.attempt(|| format!("list the processes of cgroup {path:?}"))?,
        };
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    Ok(pids.into_iter().collect())
}

/// A cgroup and all below it, each before what is in it.
fn tree(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![(path.to_owned(), 0)];
    let mut next = 0;
    while let Some((path, depth)) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.attempt(|| format!("list cgroup {path:?}"))?,
        };
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        if depth < DEPTH_LIMIT {
            found.extend(below.map(|entry| (entry.path(), depth + 1)));
        }
    }
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

/// Sends `signal` to every process. One that ends meanwhile is no error.
pub(crate) fn signal_all(cgroups: &[Member], signal: i32) -> Result<()> {
    if signal == libc::SIGKILL
        && let Some(unified) = cgroups.iter().find(|cgroup| cgroup.is_unified())
        && fs::write(unified.path.join("cgroup.kill"), "1").is_ok()
    {
        return Ok(());
    }
    for pid in list(cgroups)?.into_iter().filter_map(Pid::from_raw) {
        // A number that has become another process's since it was listed is not in the list any more.
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !list(cgroups)?.contains(&pid.as_raw_nonzero().get()) {
            continue;
        }
        match sys::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::io(format!("send signal {signal} to process {}", pid.as_raw_nonzero()), errno)),
        }
    }
    Ok(())
}

/// The directory by which all processes are frozen.
pub(crate) fn freezer(cgroups: &[Member]) -> Option<&Path> {
    let unified = cgroups.iter().find(|cgroup| cgroup.is_unified());
    unified.or_else(|| cgroups.iter().find(|cgroup| cgroup.has("freezer"))).map(|cgroup| cgroup.path.as_path())
}

/// Freezes all processes, or lets them go on; waits until it is so.
pub(crate) fn freeze(cgroups: &[Member], frozen: bool) -> Result<()> {
    if let Some(unified) = cgroups.iter().find(|cgroup| cgroup.is_unified()) {
        return freeze_unified(&unified.path, frozen);
    }
    if let Some(freezer) = cgroups.iter().find(|cgroup| cgroup.has("freezer")) {
        return freeze_v1(&freezer.path, frozen);
    }
    Err(Error::invalid("container", "it is in no cgroup that can be frozen (cgroup2, or the v1 freezer)"))
}

fn freeze_unified(path: &Path, frozen: bool) -> Result<()> {
    let attempted = || format!("{} cgroup {path:?}", if frozen { "freeze" } else { "thaw" });
    let events = fs::File::open(path.join("cgroup.events")).attempt(attempted)?;
    fs::write(path.join("cgroup.freeze"), if frozen { "1" } else { "0" }).attempt(attempted)?;
    let wanted: &[u8] = if frozen { b"frozen 1" } else { b"frozen 0" };
    let end = Instant::now() + FREEZE_TIMEOUT;
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(&events, &mut text, 0).attempt(attempted)?;
        if text[..length].windows(wanted.len()).any(|window| window == wanted) {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], timeout.as_ref()) {
            Ok(0) => return Err(Error::io(attempted(), Errno::TIMEDOUT)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io(attempted(), errno)),
        }
    }
}

/// A process that is just being forked can keep a v1 freezer half way: it is asked again until it is done.
fn freeze_v1(path: &Path, frozen: bool) -> Result<()> {
    let state = path.join("freezer.state");
    let word = if frozen { "FROZEN" } else { "THAWED" };
    let end = Instant::now() + FREEZE_TIMEOUT;
    while Instant::now() < end {
        fs::write(&state, word).attempt(|| format!("write {word} to {state:?}"))?;
        if fs::read_to_string(&state).attempt(|| format!("read {state:?}"))?.trim() == word {
            return Ok(());
        }
        std::thread::sleep(FREEZE_PAUSE);
    }
    // Half frozen is worse than not at all.
    let _ = fs::write(&state, "THAWED");
    Err(Error::io(format!("write {word} to {state:?}"), Errno::TIMEDOUT))
}

/// Whether the processes are frozen.
pub(crate) fn frozen(cgroups: &[Member]) -> bool {
    let reads = |path: PathBuf, words: &[&str]| fs::read_to_string(path).is_ok_and(|text| words.contains(&text.trim()));
    if let Some(unified) = cgroups.iter().find(|cgroup| cgroup.is_unified()) {
        return reads(unified.path.join("cgroup.freeze"), &["1"]);
    }
    let freezer = cgroups.iter().find(|cgroup| cgroup.has("freezer"));
    freezer.is_some_and(|freezer| reads(freezer.path.join("freezer.state"), &["FROZEN", "FREEZING"]))
}

/// Kills all processes and removes the cgroups with all below them. Those that are gone are no error.
pub(crate) fn destroy(cgroups: &[Member]) -> Result<()> {
    if let Some(cgroup) = principal(cgroups).filter(|cgroup| cgroup.path.exists()) {
        signal_all(std::slice::from_ref(cgroup), libc::SIGKILL)?;
        if frozen(cgroups) {
            // A v1 freezer keeps even the killed.
            freeze(cgroups, false)?;
        }
    }
    cgroups.iter().try_for_each(|cgroup| super::destroy(&cgroup.path))
}
