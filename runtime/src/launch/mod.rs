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
mod copyup;
mod devices;
mod filesystem;
mod fsconfig;
mod guard;
mod idmap;
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
mod supervise;
mod sysctls;
mod terminal;
mod timing;
mod trampoline;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use oci_spec::runtime::{Linux, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit};

use crate::cgroup::{self, Cgroup, Shown};
use crate::error::{Attempt, Error, Result};
use crate::seccomp::{Connection, Listener};
use crate::warning::warn;
use child::Descriptors;
use plan::Plan;
use supervise::Signals;
use terminal::Pty;
use timing::Timing;

pub use guard::Guard;
pub(crate) use idmap::Mappings;
pub(crate) use path::open_in;
pub(crate) use process::cpu_list;
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
    let timing = Timing::new();
    check_id(launch.id)?;
    let linux = launch.spec.linux().as_ref().ok_or_else(|| Error::invalid("configuration", "it has no \"linux\""))?;
    let lease = CgroupLease::new(launch.id, linux, launch.guard)?;
    timing.done("make and limit the cgroup");
    let mut plan = Plan::new(launch.spec, launch.root, &lease.shown)?;
    if let Some(uid) = delegated_to(launch.spec, linux, &plan) {
        lease.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.delegate(uid))?;
    }
    timing.done("resolve the configuration, prepare mounts, compile the filter");
    let listener = plan.listener.take();
    let agent = listener.as_ref().map(Listener::connect).transpose()?;
    let stdio = Stdio::new(launch.spec, &plan, launch.stdin)?;
    let signals = Signals::catch()?;
    let born = start(&mut plan, &stdio, lease.cgroup.as_ref(), agent.as_ref())?;
    timing.done("start the first process");
    if let Some(guard) = launch.guard {
        guard.watch_process(born.pidfd.as_fd())?;
    }
    // The slave must be closed here, or the terminal never reports its end.
    let master = stdio.release();
    if let Some(agent) = agent {
        agent.pass_on(launch.id, born.pid.as_raw_nonzero().get(), launch.bundle, launch.spec)?;
    }
    if let Some(error) = report::decode(&read_report(&born.report)?, &plan, &command_name(launch.spec)) {
        supervise::reap(&born.pidfd)?;
        return Err(error);
    }
    timing.done("set the container up, execute the command");
    let exit = supervise::wait(&born.pidfd, &signals, master.as_ref());
    timing.done("run the command");
    lease.report_oom();
    drop(lease);
    timing.done("remove the cgroup");
    exit
}

/// The user outside to whom the cgroup is given: with a cgroup namespace and a cgroup mount that can be
/// written it is the container's own to divide further (runtime-spec config-linux.md, "Cgroup ownership").
fn delegated_to(spec: &Spec, linux: &Linux, plan: &Plan) -> Option<u32> {
    let mapped = plan.namespaces.mappings.as_ref().and_then(|mappings| mappings.host_uid(plan.uid))?;
    let own = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Cgroup && namespace.path().is_none());
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let readonly = mount.options().iter().flatten().any(|option| option == "ro");
        mount.destination() == Path::new("/sys/fs/cgroup") && mount.typ().as_deref() == Some("cgroup") && !readonly
    });
    (own && writable).then_some(mapped)
}

/// The container's cgroup, known to the guard for as long as it exists and no longer.
struct CgroupLease<'a> {
    cgroup: Option<Cgroup>,
    shown: Shown,
    guard: Option<&'a Guard>,
}

impl<'a> CgroupLease<'a> {
    fn new(id: &str, linux: &Linux, guard: Option<&'a Guard>) -> Result<Self> {
        let privileged = mounts::in_first_user_namespace()?;
        let members = cgroup::place(id, linux, privileged)?;
        let mut lease = Self { cgroup: None, shown: cgroup::shown(&members), guard };
        if members.is_empty() {
            let asked = linux.resources().as_ref();
            return asked.map_or(Ok(()), cgroup::none_needed).map(|()| lease);
        }
        let paths: Vec<_> = members.iter().map(|member| member.path.clone()).collect();
        let tell = |tell: fn(&Guard, &Path) -> Result<()>| {
            paths.iter().try_for_each(|path| guard.map_or(Ok(()), |guard| tell(guard, path)))
        };
        tell(Guard::expect_cgroup)?;
        // Should the name be taken, the guard must not touch that container's cgroup.
        lease.cgroup = Some(Cgroup::create(members, linux.resources().as_ref(), privileged)?);
        tell(Guard::watch_cgroup)?;
        Ok(lease)
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
    pid: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
}

fn start(plan: &mut Plan, stdio: &Stdio, cgroup: Option<&Cgroup>, agent: Option<&Connection<'_>>) -> Result<Born> {
    let (report, report_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the report pipe")?;
    let report_in = high(&report_in)?;
    plan.trampoline = high(&plan.trampoline)?;
    let listener = agent.and_then(Connection::for_child).map(high).transpose()?;
    let mapped = match plan.namespaces.separates(libc::CLONE_NEWUSER) {
        true => {
            Some(rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the pipe that says a user namespace is mapped")?)
        }
        false => None,
    };
    let tasks: Vec<BorrowedFd<'_>> = cgroup.into_iter().flat_map(Cgroup::tasks).collect();
    // The namespace's root is the cgroup one is in: with some yet to be joined only the child can make it.
    let late = if tasks.is_empty() { 0 } else { libc::CLONE_NEWCGROUP };
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
        cgroup_tasks: &tasks,
        mapped: mapped.as_ref().map(|(read, write)| (read.as_fd(), write.as_fd())),
        listener: listener.as_ref().map(AsFd::as_fd),
    };
    let born_in = cgroup.and_then(Cgroup::born_in);
    let namespaces = Rc::clone(&plan.namespaces);
    let born = namespaces.spawn(late, born_in, &mut || child::main(plan, &descriptors))?;
    let (pid, pidfd) = born.map_err(|fault| fault.into_error(plan))?;
    if let Some((_, write)) = &mapped {
        set_from_outside(plan, pid)?;
        rustix::io::write(write, b"g").attempt(|| "say that the user namespace is mapped")?;
    }
    Ok(Born { pid, pidfd, report })
}

/// What a process in a user namespace cannot give itself.
fn set_from_outside(plan: &Plan, pid: Pid) -> Result<()> {
    if plan.namespaces.makes(libc::CLONE_NEWUSER)
        && let Some(mappings) = &plan.namespaces.mappings
    {
        mappings.write(pid)?;
    }
    if let Some(score) = &plan.oom_score_adj {
        let path = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
        std::fs::write(&path, score).attempt(|| format!("set process.oomScoreAdj (write {path})"))?;
    }
    for (resource, wanted) in &plan.limits {
        raise_limit(pid, *resource, wanted).attempt(|| format!("set process.rlimits: {resource:?}"))?;
    }
    Ok(())
}

/// Raises the hard limit only: the rest the process does, once it needs no more than it will have.
fn raise_limit(pid: Pid, resource: Resource, wanted: &Rlimit) -> rustix::io::Result<()> {
    let own = rustix::process::getrlimit(resource);
    let higher = own.maximum.is_some_and(|own| wanted.maximum.is_none_or(|wanted| wanted > own));
    if !higher {
        return Ok(());
    }
    rustix::process::prlimit(Some(pid), resource, Rlimit { current: own.current, maximum: wanted.maximum }).map(drop)
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

/// The same file under a number from [`FIRST_FREE_FD`] up.
fn high(fd: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE_FD).attempt(|| "duplicate a file descriptor")
}

fn read_report(pipe: &OwnedFd) -> Result<Vec<u8>> {
    let mut message = vec![0; 16];
    let length = retry(|| rustix::io::read(pipe, &mut message)).attempt(|| "read the launch report")?;
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
            if let Some(uid) = plan.namespaces.mappings.as_ref().and_then(|mappings| mappings.host_uid(plan.uid)) {
                // Who opened it is nobody inside.
                let owner = Some(rustix::fs::Uid::from_raw(uid));
                rustix::fs::fchown(&pty.slave, owner, None).attempt(|| "give the terminal to the container's user")?;
            }
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
