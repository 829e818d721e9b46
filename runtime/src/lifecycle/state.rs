//! What is remembered of a container between commands, and what is found out about it each time.
//!
//! Each container has a directory of its own below the runtime's root, for the owner alone (0700):
//! `state.json`, replaced as a whole; `config.json`, the bundle's as it was at creation; and, until it
//! has been started, the pipes by which that is done. The directory itself is what is locked.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::bundle;
use crate::cgroup::processes;
use crate::cgroup::{Member, Unit};
use crate::error::{Attempt, Error, Result};
use crate::files::{make_private_dir, read_bounded};
use crate::launch::{HostMount, StartFifos, check_id, remove_tree};
use crate::spec::OCI_VERSION;

/// The largest `state.json` or `config.json` that is read back.
const FILE_LIMIT_BYTES: u64 = 8 << 20;

/// Where a container stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// Its process waits to be started.
    Created,
    /// Its process executes the command.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's state (runtime-spec runtime.md, "State"), with what runc adds to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification this follows.
    pub oci_version: String,
    /// The container's name.
    pub id: String,
    /// The first process as this pid namespace numbers it; 0 once it has ended.
    pub pid: i32,
    /// Where it stands.
    pub status: Status,
    /// The bundle it was made from, absolute.
    pub bundle: PathBuf,
    /// Its root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The name, or else the number, of the user who made it.
    pub owner: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// When the process began, in clock ticks since the machine did: with its number, no other process.
    pub(crate) start_time_ticks: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) owner: u32,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    /// The container's own cgroups.
    pub(crate) cgroups: Vec<Member>,
    /// The systemd unit they are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// Its root filesystem, if that is the host's to detach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount: Option<HostMount>,
    /// What it was given as standard input, output and error, as links of `/proc/PID/fd` name them.
    #[serde(default)]
    pub(crate) descriptors: Vec<String>,
}

/// A container's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    id: String,
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Makes the directory of a new container, and locks it. What a killed process left half made is
    /// taken over.
    pub(super) fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        prepare_root(root)?;
        let path = root.join(id);
        let made = rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700));
        if let Err(errno) = made
            && errno != Errno::EXIST
        {
            return Err(Error::io(format!("create directory {path:?}"), errno));
        }
        let directory = Self::open(root, id)?;
        let locked = rustix::fs::flock(&directory.fd, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !locked || made.is_err() && directory.has("state.json") {
            return Err(Error::Busy {
                what: format!("container {id:?}"),
                why: "a container with this id already exists; choose another id or delete it first".into(),
            });
        }
        for name in ["start", "start.early", "report"] {
            let _ = rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty());
        }
        Ok(directory)
    }

    /// The directory of a container that exists.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { id: id.to_owned(), path, fd }),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(unknown(root, id)),
            Err(errno) => Err(Error::io(format!("open directory {path:?}"), errno)),
        }
    }

    /// Waits until nobody else changes this container.
    pub(crate) fn lock(&self) -> Result<()> {
        while let Err(errno) = rustix::fs::flock(&self.fd, FlockOperation::LockExclusive) {
            if errno != Errno::INTR {
                return Err(Error::io(format!("lock directory {:?}", self.path), errno));
            }
        }
        // It may have been removed meanwhile.
        let status = rustix::fs::fstat(&self.fd).attempt(|| format!("inspect {:?}", self.path))?;
        if status.st_nlink == 0 { Err(unknown(self.path.parent().unwrap_or(&self.path), &self.id)) } else { Ok(()) }
    }

    /// Lets others change this container.
    pub(super) fn unlock(&self) -> Result<()> {
        rustix::fs::flock(&self.fd, FlockOperation::Unlock).attempt(|| format!("unlock directory {:?}", self.path))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file as a whole. Nothing is forced to the disk: a machine that stops takes its
    /// containers along.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        replace_file(self.fd(), name, bytes).attempt(|| format!("write {name} in {:?}", self.path))
    }

    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::invalid("state.json", error))?;
        self.write("state.json", &text)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes the directory: the container's name is free.
    pub(super) fn remove(&self) -> Result<()> {
        remove_tree(&self.path)
    }
}

/// Replaces the file `name` in `directory` as a whole, or leaves it as it was.
pub(crate) fn replace_file(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // Its own: two may write at the same time.
    let scratch = format!("{name}.{}.new", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &scratch, flags, Mode::from_raw_mode(0o600))?;
    std::fs::File::from(file).write_all(bytes)?;
    Ok(rustix::fs::renameat(directory, &scratch, directory, name)?)
}

fn unknown(root: &Path, id: &str) -> Error {
    Error::NotFound {
        what: format!("container {id:?}"),
        hint: format!("it does not exist below {root:?}; `roci list` shows those that do"),
    }
}

/// The root directory: made for this user alone, and used only if no other user can write to it.
fn prepare_root(root: &Path) -> Result<()> {
    make_private_dir(root)?;
    let metadata = root.metadata().attempt(|| format!("inspect {root:?}"))?;
    let name = root.symlink_metadata().attempt(|| format!("inspect {root:?}"))?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own || name.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(Error::invalid(
            format!("state directory {root:?}"),
            "it must belong to the user running this and be writable by no other; choose another with --root",
        ));
    }
    Ok(())
}

/// A container's first process, alive.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// A container that was made at some time.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) directory: Directory,
    pub(super) record: Record,
}

impl Container {
    pub(super) fn load(directory: Directory) -> Result<Self> {
        if !directory.has("state.json") {
            // Not made yet, or half made and given up.
            return Err(Error::NotFound {
                what: format!("container {:?}", directory.id),
                hint: "it does not exist yet: it is being created, or its creation was interrupted; `roci delete --force` removes it"
                    .into(),
            });
        }
        let path = directory.path.join("state.json");
        let text = read_bounded(&path, FILE_LIMIT_BYTES)?;
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            Error::invalid(format!("{path:?}"), format!("{error}; `roci delete --force` removes this container's state"))
        })?;
        if record.id != directory.id {
            return Err(Error::invalid(format!("{path:?}"), format!("it is the state of container {:?}", record.id)));
        }
        Ok(Self { directory, record })
    }

    pub(super) fn id(&self) -> &str {
        &self.record.id
    }

    /// The configuration it was made with.
    pub(super) fn spec(&self) -> Result<Spec> {
        read_spec(&self.directory, &self.record.bundle)
    }

    /// Its first process, if that has not ended.
    pub(super) fn process(&self) -> Result<Option<Process>> {
        let Some(pid) = Pid::from_raw(self.record.pid).filter(|_| self.record.pid > 0) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            other => other.attempt(|| format!("look for process {}", self.record.pid))?,
        };
        // Only now: the number cannot be given to another process while the first is looked at.
        match process_stat(self.record.pid) {
            Some(stat) if stat.start_time_ticks == self.record.start_time_ticks && !stat.ended => {
                Ok(Some(Process { pid, pidfd }))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn status(&self) -> Result<Status> {
        Ok(self.status_of(self.process()?.as_ref()))
    }

    /// The status, with the process known.
    pub(super) fn status_of(&self, process: Option<&Process>) -> Status {
        if process.is_none() {
            return Status::Stopped;
        }
        match StartFifos::waiting(self.directory.fd()) {
            (true, true) => Status::Created,
            (true, false) => Status::Creating,
            _ if processes::frozen(&self.record.cgroups) => Status::Paused,
            _ => Status::Running,
        }
    }

    pub(super) fn state(&self) -> Result<State> {
        let process = self.process()?;
        let status = self.status_of(process.as_ref());
        Ok(self.record.state(status, process.map_or(0, |_| self.record.pid)))
    }
}

/// The configuration in a container's directory.
pub(super) fn read_spec(directory: &Directory, bundle: &Path) -> Result<Spec> {
    let path = directory.path.join("config.json");
    bundle::parse(&path, &read_bounded(&path, FILE_LIMIT_BYTES)?, bundle)
}

impl Record {
    /// The state of a container that stands where `status` says.
    pub(super) fn state(&self, status: Status, pid: i32) -> State {
        State {
            oci_version: OCI_VERSION.into(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            owner: crate::userns::user_name(self.owner).unwrap_or_else(|| self.owner.to_string()),
            annotations: self.annotations.clone(),
        }
    }
}

/// Which start of the machine this is: a process's number and age mean nothing after the next.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// What `/proc/PID/stat` says of a process.
pub(super) struct ProcessStat {
    pub(super) start_time_ticks: u64,
    /// It is a zombie, or less.
    ended: bool,
}

/// When a process that lives began, in clock ticks since the machine did.
pub(crate) fn process_start_ticks(pid: i32) -> Option<u64> {
    process_stat(pid).filter(|stat| !stat.ended).map(|stat| stat.start_time_ticks)
}

/// `None` if there is no such process.
pub(super) fn process_stat(pid: i32) -> Option<ProcessStat> {
    let text = read_bounded(Path::new(&format!("/proc/{pid}/stat")), 4096).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// The program's name may hold anything, brackets too: fields are counted from the last one.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    // Field 22 of the whole; the state was field 3.
    let start_time_ticks = fields.nth(18)?.parse().ok()?;
    Some(ProcessStat { start_time_ticks, ended: matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_name_cannot_forge_its_state_or_its_age() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2 3";
        let stat = parse_stat(&format!("7 (a) Z 1 (b)) S {rest}")).unwrap();
        assert_eq!((stat.start_time_ticks, stat.ended), (4711, false));
        assert!(parse_stat(&format!("7 (x) Z {rest}")).unwrap().ended);
        assert!(parse_stat("7 (x").is_none());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_the_container_s() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::create(root.path(), "one").unwrap();
        let own = std::process::id() as i32;
        let mut record = Record {
            id: "one".into(),
            pid: own,
            start_time_ticks: process_stat(own).unwrap().start_time_ticks,
            bundle: "/b".into(),
            rootfs: "/b/r".into(),
            created: String::new(),
            owner: 0,
            annotations: HashMap::new(),
            cgroups: Vec::new(),
            unit: None,
            mount: None,
            descriptors: Vec::new(),
        };
        directory.save(&record).unwrap();
        let load = || Container::load(Directory::open(root.path(), "one").unwrap()).unwrap();
        assert_eq!(load().status().unwrap(), Status::Running);
        record.start_time_ticks += 1;
        directory.save(&record).unwrap();
        assert_eq!(load().status().unwrap(), Status::Stopped);
        assert_eq!(load().state().unwrap().pid, 0);
    }
}
