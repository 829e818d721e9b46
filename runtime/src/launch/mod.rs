//! Launching containers: from a runtime-spec configuration to a running process, and to its end.
//!
//! A launch has three parts. [`plan`] resolves everything in the caller's process; [`child`] carries
//! the plan out in the container's first process, without allocating; [`supervise`] forwards signals
//! and the terminal and waits. [`guard`] is there for the case that the caller does not live to clean
//! up.
//!
//! **Invariant: a container is made by one `clone3` and no re-execution of this program.** Its first
//! process is not dumpable, is alone in its namespaces, and executes a sealed [`trampoline`] before
//! anything of the image: the host's binary is never reachable from inside (CVE-2019-5736).
//!
//! **Invariant: the image is untrusted.** Its paths are resolved by descriptor, inside its root, after
//! the host's filesystem is out of reach; mounts are attached to descriptors.

mod child;
mod guard;
mod mounts;
mod path;
mod plan;
mod remove;
mod report;
mod rootfs;
mod supervise;
mod terminal;
mod trampoline;

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{Linux, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::cgroup::{self, Cgroup};
use crate::error::{Attempt, Error, Result};
use crate::sys;
use child::Descriptors;
use mounts::CgroupView;
use plan::Plan;
use supervise::Signals;
use terminal::Pty;

pub use guard::Guard;
pub(crate) use path::open_in;
pub use remove::remove_tree;
pub use rootfs::Rootfs;

/// The longest container id.
const ID_LIMIT_BYTES: usize = 128;

/// Descriptors given to the child are numbered from here, so that placing 0 to 4 overwrites none.
const FIRST_FREE_FD: i32 = 10;

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
    check_id(launch.id)?;
    let linux = launch.spec.linux().as_ref().ok_or_else(|| Error::invalid("configuration", "it has no \"linux\""))?;
    let lease = CgroupLease::new(launch.id, linux, launch.guard)?;
    let mut plan = Plan::new(launch.spec, launch.root, lease.view())?;
    let stdio = Stdio::new(launch.spec, &plan, launch.stdin)?;
    let signals = Signals::catch()?;
    let born = start(&mut plan, &stdio, lease.cgroup.as_ref())?;
    if let Some(guard) = launch.guard {
        guard.watch_process(born.pidfd.as_fd())?;
    }
    // The slave must be closed here, or the terminal never reports its end.
    let master = stdio.release();
    if let Some(error) = report::decode(&read_report(&born.report)?, &plan, &command_name(launch.spec)) {
        supervise::reap(&born.pidfd)?;
        return Err(error);
    }
    supervise::wait(&born.pidfd, &signals, master.as_ref())
}

/// The container's cgroup, known to the guard for as long as it exists and no longer.
struct CgroupLease<'a> {
    cgroup: Option<Cgroup>,
    guard: Option<&'a Guard>,
}

impl<'a> CgroupLease<'a> {
    fn new(id: &str, linux: &Linux, guard: Option<&'a Guard>) -> Result<Self> {
        let privileged = mounts::in_first_user_namespace()?;
        let mut lease = Self { cgroup: None, guard };
        if let Some(path) = Cgroup::path_for(id, linux, privileged)? {
            guard.map_or(Ok(()), |guard| guard.expect_cgroup(&path))?;
            // Should the name be taken, the guard must not touch that container's cgroup.
            lease.cgroup = Some(Cgroup::create(path.clone(), linux, privileged)?);
            guard.map_or(Ok(()), |guard| guard.watch_cgroup(&path))?;
        }
        Ok(lease)
    }

    fn view(&self) -> CgroupView {
        match &self.cgroup {
            Some(cgroup) if cgroup.born_in().is_none() => CgroupView::Devices,
            None if !cgroup::has_cgroup2() => CgroupView::Empty,
            _ => CgroupView::Unified,
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

fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
    let good = id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.len() <= ID_LIMIT_BYTES && id.chars().all(allowed);
    if good {
        Ok(())
    } else {
        Err(Error::Name { what: "container id", input: id.to_owned(), why: "it must match [A-Za-z0-9][A-Za-z0-9_.+-]{0,127}" })
    }
}

fn command_name(spec: &Spec) -> String {
    let arguments = spec.process().as_ref().and_then(|process| process.args().as_deref());
    arguments.and_then(<[String]>::first).cloned().unwrap_or_default()
}

/// The first process, just started.
struct Born {
    pidfd: OwnedFd,
    report: OwnedFd,
}

fn start(plan: &mut Plan, stdio: &Stdio, cgroup: Option<&Cgroup>) -> Result<Born> {
    let (report, report_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the report pipe")?;
    let report_in = high(&report_in)?;
    plan.trampoline = high(&plan.trampoline)?;
    let cgroup_tasks = cgroup.map_or(&[][..], Cgroup::tasks);
    let mut namespaces = plan.namespaces;
    if !cgroup_tasks.is_empty() {
        namespaces &= !libc::CLONE_NEWCGROUP;
    }
    let null = &stdio.null;
    let inherited = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let terminal = stdio.pty.as_ref().map(|pty| pty.slave.as_fd());
    let descriptors = Descriptors {
        stdio: match (terminal, null) {
            (Some(slave), _) => [slave; 3],
            (None, Some(null)) => [null.as_fd(), inherited[1], inherited[2]],
            (None, None) => inherited,
        },
        terminal,
        report: report_in.as_fd(),
        report_out: report.as_fd(),
        cgroup_tasks,
    };
    let born_in = cgroup.and_then(Cgroup::born_in);
    let (_, pidfd) = sys::spawn(namespaces, born_in, &mut || child::main(plan, &descriptors))
        .attempt(|| "start the container's first process")?;
    Ok(Born { pidfd, report })
}

/// The same file under a number from [`FIRST_FREE_FD`] up.
fn high(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE_FD).attempt(|| "duplicate a file descriptor")
}

fn read_report(pipe: &OwnedFd) -> Result<Vec<u8>> {
    let mut message = vec![0; 16];
    let length = loop {
        match rustix::io::read(pipe, &mut message) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.attempt(|| "read the launch report")?,
        }
    };
    message.truncate(length);
    Ok(message)
}

/// What the container reads and writes besides the caller's own descriptors.
#[derive(Debug)]
struct Stdio {
    pty: Option<Pty>,
    null: Option<OwnedFd>,
}

impl Stdio {
    fn new(spec: &Spec, plan: &Plan, stdin: bool) -> Result<Self> {
        let process = spec.process().as_ref();
        if process.and_then(oci_spec::runtime::Process::terminal).unwrap_or(false) {
            let devpts = mounts::devpts(&plan.mounts)
                .ok_or_else(|| Error::invalid("configuration", "a terminal needs a devpts mount on /dev/pts"))?;
            let mut pty = Pty::open(devpts)?;
            pty.slave = high(&pty.slave)?;
            match process.and_then(oci_spec::runtime::Process::console_size) {
                Some(size) => terminal::set_size(pty.master.as_fd(), size.height() as u16, size.width() as u16),
                None => terminal::copy_size(pty.master.as_fd()),
            }
            return Ok(Self { pty: Some(pty), null: None });
        }
        if stdin {
            return Ok(Self { pty: None, null: None });
        }
        let null =
            rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")?;
        Ok(Self { pty: None, null: Some(high(&null)?) })
    }

    /// Keeps the master side of the terminal, if there is one.
    fn release(self) -> Option<OwnedFd> {
        self.pty.map(|pty| pty.master)
    }
}
