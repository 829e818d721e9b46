//! Launching containers: from a runtime-spec configuration to a running process, and to its end.
//!
//! A launch has three parts. [`plan`] resolves everything in the caller's process; [`child`] carries
//! the plan out in the container's first process, without allocating; [`begin`] starts that process and
//! hears how it went. For a container in the foreground [`supervise`] forwards signals and the terminal
//! and waits, and [`guard`] is there for the case that the caller does not live to clean up. [`join`]
//! starts further processes in a container.
//!
//! **Invariant: a container is made by one `clone3` and no re-execution of this program.** Its first
//! process is not dumpable, is alone in its namespaces, and executes a sealed [`trampoline`] before
//! anything of the image: the host's binary is never reachable from inside (CVE-2019-5736).
//!
//! **Invariant: the image is untrusted.** Its paths are resolved by descriptor, inside its root, after
//! the host's filesystem is out of reach; mounts are attached to descriptors.

mod begin;
mod child;
mod copyup;
mod devices;
mod filesystem;
mod fsconfig;
mod guard;
mod idmap;
mod join;
mod mounts;
mod namespaces;
mod options;
mod path;
mod plan;
mod privileges;
mod process;
mod remove;
mod report;
mod rootfs;
mod stdio;
mod supervise;
mod sysctls;
mod terminal;
mod timing;
mod trampoline;

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, Spec};

use crate::cgroup::{self, Cgroup, Scope, Shown, Unit};
use crate::error::{Error, Result};
use crate::warning::warn;

pub(crate) use begin::{Begin, Born, Channel, Running, StartFifos, begin};
pub use guard::Guard;
pub(crate) use idmap::Mappings;
pub(crate) use join::{Join, Target, join};
pub(crate) use mounts::{in_first_user_namespace, is_bind};
pub(crate) use path::{InRoot, file_type, open_in};
pub(crate) use process::cpu_list;
pub use remove::remove_tree;
pub(crate) use report::exec_error;
pub(crate) use rootfs::HostMount;
pub use rootfs::Rootfs;
pub(crate) use supervise::{Signals, reap, wait};
pub(crate) use terminal::{RawMode, caller_size};

/// The longest container id.
const ID_LIMIT_BYTES: usize = 128;

/// A container to be run.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its name among the containers running now: `[A-Za-z0-9][A-Za-z0-9_.+-]*`, at most 128 bytes.
    pub id: &'a str,
    /// What to run and how (runtime-spec config.md). `root.path` is not used.
    pub spec: &'a Spec,
    /// The root filesystem, from [`Rootfs::mount`].
    pub root: OwnedFd,
    /// Whether the container reads the caller's standard input; else it reads `/dev/null`. With
    /// `process.terminal` the caller's standard input is relayed anyway.
    pub stdin: bool,
    /// Cleans up should this process be killed.
    pub guard: Option<&'a Guard>,
    /// The bundle's directory, absolute, for who is told of the container's state; empty if there is none.
    pub bundle: &'a Path,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Its first process exited with this code.
    Code(u8),
    /// Its first process was killed by this signal.
    Signal(u8),
}

impl Exit {
    /// The exit code a command reports: the container's own, or 128 plus the signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// Runs a container in the foreground until its first process ends, and everything in it with it.
///
/// Call it on the main thread of a process without other threads: the container's first process dies
/// with the thread that started it. [`Error::Exec`] says that the command could not be executed; any
/// other error that there was no container. Its cgroup is gone when this returns.
pub fn run(launch: Launch<'_>) -> Result<Exit> {
    let signals = Signals::catch()?;
    let running = begin(Begin {
        id: launch.id,
        bundle: launch.bundle,
        rootfs: Path::new(""),
        spec: launch.spec,
        root: launch.root,
        stdin: launch.stdin,
        guard: launch.guard,
        tied: true,
        new_keyring: true,
        pivot: true,
        preserved: 0,
        relayed: true,
        channel: Channel::pipe()?,
        unit: None,
        born: &mut |_| Ok(()),
        hooks: None,
    })?;
    running.wait(&signals)
}

/// The container's cgroup, known to the guard for as long as it exists and no longer.
#[derive(Debug)]
pub(crate) struct CgroupLease<'a> {
    cgroup: Option<Cgroup>,
    shown: Shown,
    guard: Option<&'a Guard>,
}

impl<'a> CgroupLease<'a> {
    /// Makes and limits the cgroup; as a scope of systemd's, if there is a `unit` for it.
    pub(crate) fn new(id: &str, linux: &Linux, guard: Option<&'a Guard>, unit: Option<Unit>) -> Result<Self> {
        let privileged = in_first_user_namespace()?;
        let scope = unit.map(Scope::start).transpose()?;
        let members = match &scope {
            Some(scope) => cgroup::place_scope(scope.path(), privileged)?,
            None => cgroup::place(id, linux, privileged)?,
        };
        let mut lease = Self { cgroup: None, shown: cgroup::shown(&members), guard };
        if members.is_empty() {
            let asked = linux.resources().as_ref();
            return asked.map_or(Ok(()), cgroup::none_needed).map(|()| lease);
        }
        guard.map_or(Ok(()), |guard| guard.expect_cgroup(members.iter().map(|member| member.path.as_path())))?;
        // Should the name be taken, the guard must not touch that container's cgroup.
        lease.cgroup = Some(Cgroup::create(members, scope, linux.resources().as_ref(), privileged)?);
        guard.map_or(Ok(()), Guard::watch_cgroup)?;
        Ok(lease)
    }

    /// The container is in its cgroup.
    fn settle(&mut self) {
        self.cgroup.iter_mut().for_each(Cgroup::settle);
    }

    /// The cgroup itself, where the container has one.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// The container keeps its cgroup: it is not the caller's to remove any more.
    fn keep(mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.keep();
        }
    }

    /// A container that ended because its memory did is told apart from one that was killed.
    fn report_oom(&self) {
        match self.cgroup.as_ref().map_or(0, Cgroup::oom_kills) {
            0 => {}
            1 => warn("out of memory: the kernel killed a process of the container (linux.resources.memory.limit)"),
            count => warn(&format!(
                "out of memory: the kernel killed {count} processes of the container (linux.resources.memory.limit)"
            )),
        }
    }
}

impl Drop for CgroupLease<'_> {
    fn drop(&mut self) {
        self.cgroup = None;
        if let Some(guard) = self.guard {
            // A guard that is gone has nothing to forget.
            let _ = guard.forget_cgroup();
        }
    }
}

/// Whether `id` can be a container's name: it is part of paths.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    let good = id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.len() <= ID_LIMIT_BYTES && id.chars().all(allowed);
    if good {
        Ok(())
    } else {
        Err(Error::Name { what: "container id", input: id.to_owned(), why: "it must match [A-Za-z0-9][A-Za-z0-9_.+-]{0,127}" })
    }
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The same file under a number that placing the child's descriptors does not overwrite.
fn high(fd: impl std::os::fd::AsFd) -> Result<OwnedFd> {
    stdio::high(fd, begin::FIRST_FREE_FD)
}
