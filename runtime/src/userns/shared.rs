//! The user namespace that an ordinary user's processes of one store share, for as long as any of them lives.
//!
//! ```text
//! ROOT/userns/PID     a process that is in it, since when, and what it holds there
//! ROOT/userns/.lock   held by who enters, for the milliseconds that takes
//! ```
//!
//! What containers have of each other (networks, namespaces) belongs to a user namespace, so they must be in one. No
//! process is there to keep it: who comes joins that of a process that lives, or makes one. A process that is
//! killed leaves its line; a number and the moment it began are one process's alone, so that is recognised.
//!
//! **Invariant: all that are listed and live are in one user namespace.** A process that starts containers is listed
//! before they are, and so is its monitor.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::{Mapping, become_root, enter_rootless, mapping};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::hooks::ends_within;
use crate::lifecycle::{boot, process_start_ticks, replace_file};
use crate::sys;

/// The largest line of a process that is read back.
const LINE_LIMIT_BYTES: u64 = 4096;

/// The directory in which this process is listed.
static LISTED: OnceLock<PathBuf> = OnceLock::new();

fn directory(store: &Path) -> PathBuf {
    store.join("userns")
}

/// Moves the calling process into the user namespace of the processes of this store, a new one if there are none,
/// as [`enter_rootless`] does. `store` need not be there yet.
///
/// Must be called before the process has a second thread.
pub fn enter_shared(store: &Path) -> Result<Mapping> {
    let store = std::path::absolute(store).attempt(|| format!("resolve {}", store.display()))?;
    let members = Members::lock(&store)?;
    let mapping = match members.user_namespace()? {
        Some(namespace) => join(&namespace)?,
        None => enter_rootless()?,
    };
    members.list(None)?;
    // A process enters once.
    let _ = LISTED.set(directory(&store));
    Ok(mapping)
}

fn join(namespace: &OwnedFd) -> Result<Mapping> {
    sys::join_namespace(namespace.as_fd(), libc::CLONE_NEWUSER).map_err(|errno| {
        let advice = match errno {
            Errno::PERM => ": it is another user's, or this process is in a user namespace of its own already",
            _ => "",
        };
        Error::io(format!("join the user namespace of this store's containers{advice}"), errno)
    })?;
    sys::unshare(libc::CLONE_NEWNS).attempt(|| "create a mount namespace")?;
    become_root()?;
    mapping()
}

/// Lists this process, a copy of one that is listed.
///
/// # Errors
///
/// [`Error::Busy`] when that one was killed before, and others have made a namespace of their own since.
pub(crate) fn stay(store: &Path) -> Result<()> {
    let members = Members::lock(store)?;
    if let Some(other) = members.user_namespace()? {
        let attempted = || "look at this process's user namespace";
        let (own, other) =
            (rustix::fs::stat("/proc/self/ns/user").attempt(attempted)?, rustix::fs::fstat(&other).attempt(attempted)?);
        if (own.st_dev, own.st_ino) != (other.st_dev, other.st_ino) {
            let why = "the command that started this container was killed, and others have one of their own; start it again";
            return Err(Error::Busy { what: "the user namespace of this store's containers".into(), why: why.into() });
        }
    }
    members.list(None)
}

/// Takes this process off the list, if it is on it. For its end; who comes next would do it, too.
pub fn leave() {
    if let Some(directory) = LISTED.get() {
        strike_out(directory);
    }
}

/// The same for a process that was listed as another program.
pub(crate) fn leave_store(store: &Path) {
    strike_out(&directory(store));
}

fn strike_out(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(rustix::process::getpid().as_raw_nonzero().to_string()));
}

/// Takes those off the list that were killed. For who finds that somebody was: whoever enters looks only as far as the
/// first that lives.
pub(crate) fn strike_out_killed(store: &Path) {
    if directory(store).exists()
        && let Ok(members) = Members::lock(store)
    {
        // One that stays is recognised by who reads it.
        members.living().into_iter().flatten().for_each(drop);
    }
}

/// What stands in the file of a process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    start_time_ticks: u64,
    boot: String,
    /// Its descriptor of the network namespace in which the bridges are, if it has one.
    networks: Option<i32>,
}

/// A process that is listed, and lived when it was looked at.
struct Member {
    pid: Pid,
    pidfd: OwnedFd,
    networks: Option<i32>,
}

impl Member {
    /// `None` for what a process has left that is gone.
    fn read(path: &Path, boot: &str) -> Option<Self> {
        let number = path.file_name()?.to_str()?.parse().ok().filter(|number: &i32| *number > 0)?;
        let line: Line = serde_json::from_slice(&files::read_bounded(path, LINE_LIMIT_BYTES).ok()?).ok()?;
        let pid = Pid::from_raw(number).filter(|_| line.boot == boot)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Only now: the number cannot be given to another process while this one is looked at.
        let lives = process_start_ticks(pid.as_raw_nonzero().get()) == Some(line.start_time_ticks);
        lives.then_some(Self { pid, pidfd, networks: line.networks })
    }

    /// Opens a file below its `/proc/PID`; `None` if it has ended, or has no such file.
    fn open(&self, name: &str) -> Result<Option<OwnedFd>> {
        let path = format!("/proc/{}/{name}", self.pid.as_raw_nonzero());
        let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        // Only now: as long as it lives its number is no other's.
        if ends_within(&self.pidfd, Duration::ZERO).attempt(|| "look at a process of this store")? {
            return Ok(None);
        }
        match opened {
            Err(Errno::NOENT) => Ok(None),
            other => other.attempt(|| format!("open {path}")).map(Some),
        }
    }
}

/// The list, which nobody else changes meanwhile.
pub(crate) struct Members {
    directory: PathBuf,
    _lock: File,
}

impl Members {
    pub(crate) fn lock(store: &Path) -> Result<Self> {
        let directory = directory(store);
        files::make_private_dir(&directory)?;
        let lock = files::open_lock(&directory.join(".lock"))?;
        files::try_lock(&lock, FlockOperation::LockExclusive)?;
        Ok(Self { directory, _lock: lock })
    }

    /// Those that live. What others have left is removed on the way.
    fn living(&self) -> Result<impl Iterator<Item = Member>> {
        let boot = boot();
        let entries = std::fs::read_dir(&self.directory).attempt(|| format!("read {}", self.directory.display()))?;
        let paths = entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with(".lock"));
        Ok(paths.filter_map(move |path| {
            let member = Member::read(&path, &boot);
            if member.is_none() {
                let _ = std::fs::remove_file(path);
            }
            member
        }))
    }

    /// What `open` gives for the first process for which it gives anything.
    fn find(&self, open: impl Fn(&Member) -> Result<Option<OwnedFd>>) -> Result<Option<OwnedFd>> {
        self.living()?.find_map(|member| open(&member).transpose()).transpose()
    }

    fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        self.find(|member| member.open("ns/user"))
    }

    /// The network namespace in which the bridges of this store's networks are, if there is one.
    pub(crate) fn networks(&self) -> Result<Option<OwnedFd>> {
        self.find(|member| {
            let Some(number) = member.networks else { return Ok(None) };
            let Some(fd) = member.open(&format!("fd/{number}"))? else { return Ok(None) };
            // Closed, the number may be another file's.
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            Ok(link.is_ok_and(|link| link.to_string_lossy().starts_with("net:[")).then_some(fd))
        })
    }

    /// Lists this process, with its descriptor of that namespace.
    pub(crate) fn list(&self, networks: Option<i32>) -> Result<()> {
        let attempted = || format!("list this process in {}", self.directory.display());
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let line = Line { start_time_ticks: process_start_ticks(pid).unwrap_or(0), boot: boot(), networks };
        let text = serde_json::to_vec(&line).map_err(std::io::Error::from).attempt(attempted)?;
        let directory = File::open(&self.directory).attempt(attempted)?;
        replace_file(directory.as_fd(), &pid.to_string(), &text).attempt(attempted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_that_lives_is_found_and_what_others_left_is_removed() {
        let store = tempfile::tempdir().unwrap();
        let members = Members::lock(store.path()).unwrap();
        assert!(members.user_namespace().unwrap().is_none());
        members.list(None).unwrap();
        let own = members.directory.join(std::process::id().to_string());
        let line = std::fs::read_to_string(&own).unwrap();
        let ticks = process_start_ticks(std::process::id() as i32).unwrap();
        // Behind one that lives, too.
        std::fs::write(members.directory.join("4194305"), &line).unwrap();
        drop(members);
        strike_out_killed(store.path());
        let members = Members::lock(store.path()).unwrap();
        assert_eq!(std::fs::read_dir(&members.directory).unwrap().count(), 2, "the lock and this process");
        // Another process of this number, another start of the machine, a process that is gone, nonsense.
        for (name, text) in [
            (std::process::id().to_string(), line.replace(&ticks.to_string(), &(ticks + 1).to_string())),
            (std::process::id().to_string(), line.replace(&boot(), "another")),
            ("4194305".into(), line.clone()),
            ("-1".into(), line.clone()),
            ("x".into(), line.clone()),
        ] {
            std::fs::write(members.directory.join(&name), text).unwrap();
            if name != std::process::id().to_string() {
                std::fs::remove_file(&own).unwrap();
            }
            assert!(members.user_namespace().unwrap().is_none(), "{name}");
            assert_eq!(std::fs::read_dir(&members.directory).unwrap().count(), 1, "{name}: the lock alone is left");
            std::fs::write(&own, &line).unwrap();
        }
        let found = members.user_namespace().unwrap().unwrap();
        assert_eq!(rustix::fs::fstat(&found).unwrap().st_ino, rustix::fs::stat("/proc/self/ns/user").unwrap().st_ino);
        // A number that is no network namespace's.
        members.list(Some(0)).unwrap();
        assert!(members.networks().unwrap().is_none());
        let namespace = File::open("/proc/self/ns/net").unwrap();
        members.list(Some(namespace.as_raw_fd())).unwrap();
        let found = members.networks().unwrap().unwrap();
        assert_eq!(rustix::fs::fstat(&found).unwrap().st_ino, rustix::fs::fstat(&namespace).unwrap().st_ino);
    }

    proptest! {
        #[test]
        fn any_line_is_a_process_or_none(text in "\\PC{0,80}|\\{\"startTimeTicks\":[0-9]{1,30},\"boot\":\"\",\"networks\":-?[0-9]{1,12}\\}") {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("1");
            std::fs::write(&path, text).unwrap();
            prop_assert!(Member::read(&path, "this one").is_none());
        }
    }
}
