//! The namespaces of a container: which are made, which are joined, and the process that is born in
//! them.
//!
//! Mostly one `clone3` makes all new ones, and the child joins the others by itself. Three things only
//! take effect for a process yet to be made: joining a pid or a time namespace, and joining a user
//! namespace before others are made that it shall own. Then a process in between does that and makes
//! the container's first process as its own sibling (`CLONE_PARENT`), so that the launcher waits for it
//! and never leaves its own namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};

use super::idmap::Mappings;
use super::report::{At, Fault, Step};
use crate::error::{Attempt, Error, Result};
use crate::sys;

/// A namespace to be joined.
#[derive(Debug)]
struct Join {
    kind: i32,
    /// The path, for messages.
    name: String,
    fd: OwnedFd,
}

/// All of a container's namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` of those the container gets anew.
    new: i32,
    joins: Vec<Join>,
    /// Of the user namespace that is made or joined.
    pub(super) mappings: Option<Mappings>,
    /// Lines for `timens_offsets`.
    offsets: Vec<String>,
}

impl Namespaces {
    /// Reads `linux.namespaces` and what belongs to it, and opens the files of those to be joined.
    pub(super) fn new(linux: &Linux) -> Result<Self> {
        let (mut new, mut joins) = (0, Vec::new());
        for namespace in linux.namespaces().iter().flatten() {
            let kind = flag(namespace.typ());
            if new & kind != 0 || joins.iter().any(|join: &Join| join.kind == kind) {
                return Err(invalid(format!("type {:?} is there twice", name_of(kind))));
            }
            match named(namespace) {
                Some(path) => joins.extend(open(kind, path)?),
                None => new |= kind,
            }
        }
        let has = |kind| new & kind != 0 || joins.iter().any(|join: &Join| join.kind == kind);
        if has(libc::CLONE_NEWUSER) && !has(libc::CLONE_NEWNS) {
            return Err(invalid("with a user namespace a mount namespace is needed: the host's belongs to the host's users"));
        }
        let given = Mappings::new("linux", linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref())?;
        let joined = joins.iter().find(|join| join.kind == libc::CLONE_NEWUSER);
        let mappings = match (given, joined) {
            (given, None) if given.is_some() == (new & libc::CLONE_NEWUSER != 0) => given,
            (Some(_), None) => return Err(invalid("linux.uidMappings needs a namespace of type \"user\"")),
            (None, None) => return Err(invalid("a new user namespace needs linux.uidMappings and linux.gidMappings")),
            // Those it has count, whatever the configuration repeats of them.
            (_, Some(join)) => Some(Mappings::of(join.fd.as_fd())?),
        };
        let offsets = offsets(linux)?;
        if !offsets.is_empty() && new & libc::CLONE_NEWTIME == 0 {
            return Err(Error::invalid("configuration", "linux.timeOffsets: they need a new time namespace"));
        }
        Ok(Self { new, joins, mappings, offsets })
    }

    /// Whether the container gets a new namespace of this kind (`CLONE_NEW*`).
    pub(super) fn makes(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// Whether the container has a namespace of this kind that is not the launcher's.
    pub(super) fn separates(&self, kind: i32) -> bool {
        self.makes(kind) || self.joins.iter().any(|join| join.kind == kind)
    }

    /// The user namespace that is joined, if one is.
    pub(super) fn joined_user(&self) -> Option<BorrowedFd<'_>> {
        self.joins.iter().find(|join| join.kind == libc::CLONE_NEWUSER).map(|join| join.fd.as_fd())
    }

    /// For an error report: what the `item`th one to be joined is.
    pub(super) fn describe(&self, item: usize) -> String {
        self.joins.get(item).map_or_else(
            || "make the time namespace".to_owned(),
            |join| format!("join {} namespace {}", name_of(join.kind), join.name),
        )
    }

    /// Whether only a process yet to be born can be in all of them.
    fn needs_process_between(&self) -> bool {
        let early = libc::CLONE_NEWPID | libc::CLONE_NEWTIME | libc::CLONE_NEWUSER;
        self.makes(libc::CLONE_NEWTIME)
            || self.joins.iter().any(|join| join.kind & early != 0)
            || self.makes(libc::CLONE_NEWUSER) && !self.joins.is_empty()
    }

    /// Starts the container's first process. `late` are namespaces the child makes itself.
    pub(super) fn spawn(
        &self,
        late: i32,
        cgroup: Option<BorrowedFd<'_>>,
        child: &mut dyn FnMut() -> u8,
    ) -> Result<Result<(Pid, OwnedFd), Fault>> {
        let new = self.new & !late;
        if !self.needs_process_between() {
            return sys::spawn(new, cgroup, child).attempt(|| "start the container's first process").map(Ok);
        }
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")?;
        let (between, _) = sys::spawn(0, None, &mut || {
            let answer = match self.born_between(new, cgroup, &mut *child) {
                Ok(pid) => {
                    let mut bytes = [0; 8];
                    bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
                    bytes[4..].copy_from_slice(&pid.as_raw_nonzero().get().to_ne_bytes());
                    bytes
                }
                Err(fault) => fault.encode(),
            };
            u8::from(rustix::io::write(&write, &answer) != Ok(answer.len()))
        })
        .attempt(|| "start the process that joins namespaces")?;
        drop(write);
        let mut answer = [0; 8];
        let length =
            super::retry(|| rustix::io::read(&read, &mut answer)).attempt(|| "hear from the process that joins namespaces")?;
        super::retry(|| rustix::process::waitpid(Some(between), rustix::process::WaitOptions::empty()))
            .attempt(|| "wait for the process that joins namespaces")?;
        if length == answer.len() && answer[..4] == u32::MAX.to_ne_bytes() {
            let pid = i32::from_ne_bytes([answer[4], answer[5], answer[6], answer[7]]);
            let pid = Pid::from_raw(pid).ok_or_else(|| Error::io("start the container's first process", Errno::CHILD))?;
            // Ours by CLONE_PARENT and not waited for: the number cannot be another's.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).attempt(|| "open the container's first process")?;
            return Ok(Ok((pid, pidfd)));
        }
        Ok(Err(Fault::decode(answer).ok_or_else(|| Error::io("hear from the process that joins namespaces", Errno::PIPE))?))
    }

    /// In the process between: joins, sets the clocks, and makes its sibling.
    fn born_between(&self, new: i32, cgroup: Option<BorrowedFd<'_>>, child: &mut dyn FnMut() -> u8) -> Result<Pid, Fault> {
        self.join(libc::CLONE_NEWNS)?;
        if new & libc::CLONE_NEWTIME != 0 {
            let at = |result: rustix::io::Result<()>| result.at(Step::Namespace, self.joins.len());
            at(sys::unshare(libc::CLONE_NEWTIME))?;
            if !self.offsets.is_empty() {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let file =
                    rustix::fs::open(c"/proc/self/timens_offsets", flags, Mode::empty()).at(Step::Namespace, self.joins.len())?;
                for line in &self.offsets {
                    at(rustix::io::write(&file, line.as_bytes()).map(drop))?;
                }
            }
        }
        sys::spawn_sibling(new & !libc::CLONE_NEWTIME, cgroup, child).at(Step::Namespace, self.joins.len() + 1)
    }

    /// In the container's first process: joins what is left to be joined.
    pub(super) fn join_in_child(&self) -> Result<(), Fault> {
        if self.needs_process_between() {
            // All but the mount namespace, whose files the process in between still needed.
            return self.join_kind(libc::CLONE_NEWNS);
        }
        self.join(0)
    }

    /// Joins all but those of the kind `except`. A user namespace opens the way to those it owns and
    /// closes it to the others: so what can be is joined before it, and the rest behind it.
    fn join(&self, except: i32) -> Result<(), Fault> {
        let wanted = |join: &&Join| join.kind != except && join.kind != libc::CLONE_NEWUSER && join.kind != libc::CLONE_NEWNS;
        let mut waiting = 0u32;
        for (index, join) in self.joins.iter().enumerate().filter(|(_, join)| wanted(join)) {
            match sys::join_namespace(join.fd.as_fd(), join.kind) {
                Err(Errno::PERM) if self.joined_user().is_some() => waiting |= 1 << index,
                other => other.at(Step::Namespace, index)?,
            }
        }
        self.join_kind(libc::CLONE_NEWUSER)?;
        for (index, join) in self.joins.iter().enumerate().filter(|(index, _)| waiting & 1 << index != 0) {
            sys::join_namespace(join.fd.as_fd(), join.kind).at(Step::Namespace, index)?;
        }
        if except == libc::CLONE_NEWNS { Ok(()) } else { self.join_kind(libc::CLONE_NEWNS) }
    }

    fn join_kind(&self, kind: i32) -> Result<(), Fault> {
        match self.joins.iter().position(|join| join.kind == kind) {
            Some(index) => sys::join_namespace(self.joins[index].fd.as_fd(), kind).at(Step::Namespace, index),
            None => Ok(()),
        }
    }
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::invalid("configuration", format!("linux.namespaces: {why}"))
}

/// Engines write an empty path for none.
fn named(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}

/// The kernel's name, as in `/proc/PID/ns`, and the specification's where they differ.
fn name_of(kind: i32) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "mount",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "network",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWUSER => "user",
        _ => "time",
    }
}

fn own_file(kind: i32) -> &'static str {
    match kind {
        libc::CLONE_NEWNS => "/proc/self/ns/mnt",
        libc::CLONE_NEWNET => "/proc/self/ns/net",
        libc::CLONE_NEWUSER => "/proc/self/ns/user",
        libc::CLONE_NEWPID => "/proc/self/ns/pid",
        libc::CLONE_NEWIPC => "/proc/self/ns/ipc",
        libc::CLONE_NEWUTS => "/proc/self/ns/uts",
        libc::CLONE_NEWCGROUP => "/proc/self/ns/cgroup",
        _ => "/proc/self/ns/time",
    }
}

/// Opens a namespace's file. The kernel says whether it is one of that kind when it is joined. Nothing is to
/// be joined where the launcher is already.
fn open(kind: i32, path: &Path) -> Result<Option<Join>> {
    let what = || format!("{} namespace {path:?}", name_of(kind));
    if !path.is_absolute() {
        return Err(Error::invalid(what(), "its path must be absolute"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).attempt(|| format!("open {}", what()))?;
    let fd = super::high(&fd)?;
    if rustix::fs::fstatfs(&fd).attempt(|| format!("look at {}", what()))?.f_type != NSFS_MAGIC {
        return Err(Error::invalid(what(), "it is no file of a namespace"));
    }
    let found = rustix::fs::fstat(&fd).attempt(|| format!("look at {}", what()))?;
    let own = rustix::fs::stat(own_file(kind)).attempt(|| format!("look at {}", own_file(kind)))?;
    if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
        return Ok(None);
    }
    Ok(Some(Join { kind, name: format!("{path:?}"), fd }))
}

const NSFS_MAGIC: i64 = 0x6e73_6673;

/// `linux.timeOffsets` as the kernel takes them.
fn offsets(linux: &Linux) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if !matches!(clock.as_str(), "monotonic" | "boottime") || nanoseconds >= 1_000_000_000 {
            return Err(Error::invalid(
                format!("linux.timeOffsets.{clock}"),
                "the clocks are monotonic and boottime, and nanosecs is below 1000000000",
            ));
        }
        lines.push(format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
    }
    lines.sort();
    Ok(lines)
}
