//! Starting a container's first process, and hearing from it until it executes the command or waits to
//! be told to.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use oci_spec::runtime::{Linux, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit};

use super::child::{self, Descriptors, HookStop, Manner};
use super::mounts;
use super::plan::Plan;
use super::report;
use super::rootfs::{HostMount, c_string, host_views};
use super::stdio::{self, Stdio, high};
use super::supervise::{self, Signals};
use super::timing::Timing;
use super::trampoline::{self, Numbers};
use super::{CgroupLease, Exit, Guard, check_id};
use crate::cgroup::{Cgroup, Member, Unit};
use crate::error::{Attempt, Error, Result};
use crate::seccomp::{Connection, Listener};
use crate::sys;

/// Descriptors given to the child are numbered from here at least, so that placing its own overwrites
/// none.
pub(super) const FIRST_FREE_FD: i32 = 10;

/// A container to be started.
pub(crate) struct Begin<'a, 'g> {
    pub(crate) id: &'a str,
    /// Absolute; empty if there is none.
    pub(crate) bundle: &'a Path,
    /// The root filesystem's path on the host; empty if it has none.
    pub(crate) rootfs: &'a Path,
    pub(crate) spec: &'a Spec,
    /// From [`super::Rootfs::mount`].
    pub(crate) root: OwnedFd,
    /// Whether it reads the caller's standard input, else `/dev/null`.
    pub(crate) stdin: bool,
    pub(crate) guard: Option<&'g Guard>,
    /// It dies with the thread that starts it.
    pub(crate) tied: bool,
    pub(crate) new_keyring: bool,
    /// See `--no-pivot`: only hosts whose own root is an initramfs need to do without.
    pub(crate) pivot: bool,
    /// How many descriptors from 3 up are the caller's to pass on.
    pub(crate) preserved: u32,
    /// The terminal is relayed here; else its master side is given to somebody else.
    pub(crate) relayed: bool,
    pub(crate) channel: Channel,
    /// Where systemd makes its cgroup, if it does.
    pub(crate) unit: Option<Unit>,
    /// Called once the process exists, before it is heard from.
    pub(crate) born: &'a mut dyn FnMut(Born) -> Result<()>,
    /// Called with the process stopped before it leaves the host's filesystem, if there is one.
    pub(crate) hooks: Option<HookRun<'a>>,
}

/// What is to be remembered of a container, for who has to end it.
pub(crate) struct Born {
    pub(crate) pid: Pid,
    pub(crate) cgroups: Vec<Member>,
    pub(crate) mount: Option<HostMount>,
}

/// Runs the hooks there are while the container is being made.
pub(crate) type HookRun<'a> = &'a mut dyn FnMut(Pid, BorrowedFd<'_>) -> Result<()>;

/// How the first process is heard from, and told to start.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Our end and the process's.
    report: (OwnedFd, OwnedFd),
    /// The process waits for a byte on this before it executes the command.
    wait: Option<OwnedFd>,
}

impl Channel {
    /// A pipe: the command is executed at once.
    pub(crate) fn pipe() -> Result<Self> {
        let report = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the report pipe")?;
        Ok(Self { report, wait: None })
    }

    /// Our end and the process's.
    pub(super) fn ends(&self) -> (&OwnedFd, &OwnedFd) {
        (&self.report.0, &self.report.1)
    }

    /// Our end alone: it reports its end once the process has closed the other.
    pub(super) fn into_reader(self) -> OwnedFd {
        self.report.0
    }
}

/// The two named pipes by which a container that was created is started, by another process later.
///
/// The container's first process holds their other ends from before it is born, so no path of the host
/// is looked up by it.
#[derive(Debug)]
pub(crate) struct StartFifos;

impl StartFifos {
    const START: &'static str = "start";
    const REPORT: &'static str = "report";
    /// The name of `start` until the container is complete.
    const EARLY: &'static str = "start.early";

    /// Makes them in `directory`.
    pub(crate) fn make(directory: BorrowedFd<'_>) -> Result<Channel> {
        for name in [Self::EARLY, Self::REPORT] {
            rustix::fs::mkfifoat(directory, name, Mode::from_raw_mode(0o600)).attempt(|| format!("make the pipe {name:?}"))?;
        }
        let open = |name: &str, flags: OFlags| {
            rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
                .attempt(|| format!("open the pipe {name:?}"))
        };
        // The reading end first, without waiting for a writer; then it is made to block.
        let reader = open(Self::REPORT, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let writer = open(Self::REPORT, OFlags::WRONLY)?;
        rustix::fs::fcntl_setfl(&reader, OFlags::empty()).attempt(|| "set up the report pipe")?;
        // Open for both, it never reports an end: the process waits however often nobody writes.
        let wait = open(Self::EARLY, OFlags::RDWR)?;
        Ok(Channel { report: (reader, writer), wait: Some(wait) })
    }

    /// The container is complete: it can be started from now on.
    pub(crate) fn complete(directory: BorrowedFd<'_>) -> Result<()> {
        rustix::fs::renameat(directory, Self::EARLY, directory, Self::START).attempt(|| "say that the container is created")
    }

    /// Whether the container waits to be started, and whether it is complete.
    pub(crate) fn waiting(directory: BorrowedFd<'_>) -> (bool, bool) {
        let exists = |name: &str| rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let complete = exists(Self::START);
        (complete || exists(Self::EARLY), complete)
    }

    /// Has the command executed. `Some` is the errno if it could not be.
    pub(crate) fn start(directory: BorrowedFd<'_>) -> Result<Option<i32>> {
        let open = |name: &str, flags: OFlags| {
            rustix::fs::openat(directory, name, flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        };
        let report = open(Self::REPORT, OFlags::RDONLY).attempt(|| "open the report pipe of the container")?;
        // ENXIO: nobody waits on the other end any more.
        let start = open(Self::START, OFlags::WRONLY).attempt(|| "open the start pipe of the container")?;
        rustix::io::write(&start, &[1]).attempt(|| "tell the container to start")?;
        rustix::fs::fcntl_setfl(&report, OFlags::empty()).attempt(|| "set up the report pipe")?;
        let message = read_report(&report)?;
        for name in [Self::START, Self::REPORT] {
            // What is left goes with the container.
            let _ = rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty());
        }
        Ok(report::trampoline(&message))
    }
}

/// A container whose first process exists.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// The master side of its terminal, if it has one.
    pub(crate) master: Option<OwnedFd>,
    lease: Option<CgroupLease<'a>>,
}

impl<'a> Running<'a> {
    /// A container's first process that was not started here, but is this process's child all the same; and
    /// the cgroup it is in.
    pub(crate) fn adopt(pid: Pid, master: Option<OwnedFd>, mut lease: CgroupLease<'a>) -> Result<Self> {
        lease.settle();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .attempt(|| format!("look for process {}", pid.as_raw_nonzero()))?;
        if let Some(guard) = lease.guard {
            guard.watch_process(pidfd.as_fd())?;
        }
        Ok(Self { pid, pidfd, master, lease: Some(lease) })
    }
}

impl Running<'_> {
    pub(super) fn without_cgroup(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, master: None, lease: None }
    }

    /// Waits for its end in the foreground; its cgroup goes with it.
    pub(crate) fn wait(self, signals: &Signals) -> Result<Exit> {
        let timing = Timing::new();
        let exit = supervise::wait(&self.pidfd, signals, self.master.as_ref(), None);
        timing.done("run the command");
        if let Some(lease) = self.lease {
            lease.report_oom();
            drop(lease);
            timing.done("remove the cgroup");
        }
        exit
    }

    /// Waits for its end, doing nothing else.
    pub(crate) fn reap(self) -> Result<Exit> {
        supervise::reap(&self.pidfd)
    }

    /// Leaves it, and its cgroup, to live on without this process.
    pub(crate) fn detach(self) {
        if let Some(lease) = self.lease {
            lease.keep();
        }
    }

    /// The same, for who goes on to look after it: its number, its pidfd, the master side of its terminal.
    pub(crate) fn into_parts(self) -> (Pid, OwnedFd, Option<OwnedFd>) {
        if let Some(lease) = self.lease {
            lease.keep();
        }
        (self.pid, self.pidfd, self.master)
    }

    /// Ends it.
    pub(crate) fn kill(self) {
        // It is a child of this process: gone already or to be killed, in both cases to be reaped.
        let _ = sys::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = supervise::reap(&self.pidfd);
    }
}

/// Starts a container's first process and waits until it executes the command, or waits to be started.
///
/// [`Error::Exec`] says that the command cannot be executed; any other error that there is no container.
pub(crate) fn begin<'g>(mut begin: Begin<'_, 'g>) -> Result<Running<'g>> {
    check_id(begin.id)?;
    let linux = begin.spec.linux().as_ref().ok_or_else(|| Error::invalid("configuration", "it has no \"linux\""))?;
    let process = begin.spec.process().as_ref().ok_or_else(|| Error::invalid("configuration", "it has no \"process\""))?;
    let timing = Timing::new();
    let scoped = begin.unit.is_some();
    let lease = CgroupLease::new(begin.id, linux, begin.guard, begin.unit.take())?;
    timing.done("make and limit the cgroup");
    let mut plan = Plan::new(begin.spec, begin.root, Some(&lease.shown))?;
    if let Some(uid) = delegated_to(begin.spec, linux, &plan) {
        lease.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.delegate(uid))?;
    }
    timing.done("resolve the configuration, prepare mounts, compile the filter");
    let listener = plan.listener.take();
    let agent = listener.as_ref().map(Listener::connect).transpose()?;
    let numbers = Numbers::behind(begin.preserved, begin.channel.wait.is_some(), agent.is_some());
    let floor = FIRST_FREE_FD.max(numbers.end);
    let stdio = if process.terminal().unwrap_or(false) {
        Stdio::terminal(mounts::devpts(&plan.mounts), process, begin.relayed, floor)?
    } else {
        Stdio::plain(begin.stdin, floor)?
    };
    if let (Some(slave), Some(mappings)) = (stdio.slave(), &plan.namespaces.mappings) {
        stdio::give(slave, mappings.host_uid(plan.uid))?;
    }
    let stop = begin.hooks.as_ref().map(|_| Stop::new(floor)).transpose()?;
    let root_point = match begin.hooks.is_some() || !plan.namespaces.separates(libc::CLONE_NEWNS) {
        true if begin.rootfs.as_os_str().is_empty() => {
            return Err(Error::invalid("configuration", "linux.namespaces: a mount namespace is needed: the root has no path"));
        }
        true => c_string("root filesystem", begin.rootfs.as_os_str().as_encoded_bytes())?,
        false => c"/".to_owned(),
    };
    let mount = if plan.namespaces.separates(libc::CLONE_NEWNS) { None } else { Some(HostMount::of(&plan.root)?) };
    if let (Some(guard), Some(mount)) = (begin.guard, mount) {
        guard.watch_mount(mount, begin.rootfs)?;
    }
    let host_views = if begin.pivot { Vec::new() } else { host_views()? };
    let manner = Manner {
        tied: begin.tied,
        new_keyring: begin.new_keyring,
        pivot: begin.pivot,
        host_views: &host_views,
        root_point: &root_point,
        hooks: stop.as_ref().map(Stop::for_child),
    };
    let spawned = spawn(&mut plan, &stdio, lease.cgroup.as_ref(), &begin.channel, agent.as_ref(), (numbers, floor), manner);
    // The slave and the writing end must be closed here, or neither ever reports its end.
    let report = begin.channel.into_reader();
    let (pid, pidfd) = spawned.map_err(|error| match error {
        // The kernel lets a process be born only where its parent's own cgroup could be changed, too.
        Error::Io { attempted, source } if scoped && source.kind() == ErrorKind::PermissionDenied => Error::io(
            format!("{attempted} (roci must be in a cgroup of your own systemd: systemd-run --user --scope roci ...)"),
            source,
        ),
        other => other,
    })?;
    timing.done("start the first process");
    let mut running = Running { pid, pidfd, master: stdio.release(), lease: Some(lease) };
    let listen = || {
        if let Some(guard) = begin.guard {
            guard.watch_process(running.pidfd.as_fd())?;
        }
        let cgroup = running.lease.as_ref().and_then(CgroupLease::cgroup);
        (begin.born)(Born { pid, cgroups: cgroup.into_iter().flat_map(Cgroup::members).cloned().collect(), mount })?;
        let message = match stopped(&report, stop, begin.hooks.as_mut(), &running)? {
            Some(message) => message,
            None => {
                if let Some(agent) = agent {
                    agent.pass_on(begin.id, pid.as_raw_nonzero().get(), begin.bundle, begin.spec)?;
                }
                read_report(&report)?
            }
        };
        match report::decode(&message, &plan, &command_name(process)) {
            Some(error) => Err(error),
            None if message.is_empty() && numbers.wait.is_some() => {
                Err(Error::Launch { step: "wait to be started".into(), source: ErrorKind::BrokenPipe.into() })
            }
            None => Ok(()),
        }
    };
    match listen() {
        Ok(()) => {
            running.lease.iter_mut().for_each(CgroupLease::settle);
            timing.done("set the container up, execute the command");
            Ok(running)
        }
        Err(error) => {
            running.kill();
            Err(error)
        }
    }
}

/// Runs the hooks where the process stops for them; its last word if it did not get that far.
fn stopped(
    report: &OwnedFd,
    stop: Option<Stop>,
    hooks: Option<&mut HookRun<'_>>,
    running: &Running<'_>,
) -> Result<Option<Vec<u8>>> {
    let (Some(stop), Some(hooks)) = (stop, hooks) else { return Ok(None) };
    let message = read_report(report)?;
    if message != [child::HOOKS_PLEASE] {
        return Ok(Some(message));
    }
    hooks(running.pid, running.pidfd.as_fd())?;
    rustix::io::write(&stop.go_in, &[1]).attempt(|| "go on after the hooks")?;
    Ok(None)
}

fn spawn(
    plan: &mut Plan,
    stdio: &Stdio,
    cgroup: Option<&Cgroup>,
    channel: &Channel,
    agent: Option<&Connection<'_>>,
    (numbers, floor): (Numbers, i32),
    manner: Manner<'_>,
) -> Result<(Pid, OwnedFd)> {
    let report_in = high(&channel.report.1, floor)?;
    let trampoline = high(&trampoline::create(numbers)?, floor)?;
    let wait = channel.wait.as_ref().map(|wait| high(wait, floor)).transpose()?;
    let listener = agent.and_then(Connection::for_child).map(|fd| high(fd, floor)).transpose()?;
    let mapped = match plan.namespaces.separates(libc::CLONE_NEWUSER) {
        true => {
            Some(rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the pipe that says a user namespace is mapped")?)
        }
        false => None,
    };
    let tasks: Vec<BorrowedFd<'_>> = cgroup.into_iter().flat_map(Cgroup::tasks).collect();
    // The namespace's root is the cgroup one is in: with some yet to be joined only the child can make it.
    let late = if tasks.is_empty() { 0 } else { libc::CLONE_NEWCGROUP };
    let descriptors = Descriptors {
        stdio: stdio.descriptors(),
        terminal: stdio.slave(),
        report: report_in.as_fd(),
        report_out: channel.report.0.as_fd(),
        cgroup_tasks: &tasks,
        mapped: mapped.as_ref().map(|(read, write)| (read.as_fd(), write.as_fd())),
        listener: listener.as_ref().map(AsFd::as_fd),
        trampoline: trampoline.as_fd(),
        wait: wait.as_ref().map(AsFd::as_fd),
        numbers,
        manner,
    };
    let born_in = cgroup.and_then(Cgroup::born_in);
    let namespaces = Rc::clone(&plan.namespaces);
    let born = namespaces.spawn(late, born_in, &mut || child::main(plan, &descriptors))?;
    let (pid, pidfd) = born.map_err(|fault| fault.into_error(plan))?;
    if let Some((_, write)) = &mapped {
        // Should this fail, the process ends by itself when the pipe is closed.
        set_from_outside(plan, pid)?;
        rustix::io::write(write, b"g").attempt(|| "say that the user namespace is mapped")?;
    }
    Ok((pid, pidfd))
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

/// The pipe a launch stops at.
struct Stop {
    go: OwnedFd,
    go_in: OwnedFd,
}

impl Stop {
    fn new(floor: i32) -> Result<Self> {
        let (go, go_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create the pipe for hooks")?;
        Ok(Self { go: high(&go, floor)?, go_in })
    }

    fn for_child(&self) -> HookStop<'_> {
        HookStop { go: self.go.as_fd(), go_in: self.go_in.as_fd() }
    }
}

/// What a process calls its program in error messages.
pub(super) fn command_name(process: &Process) -> String {
    process.args().as_deref().and_then(<[String]>::first).cloned().unwrap_or_default()
}

/// One message from the report pipe: empty once no process holds its other end.
pub(super) fn read_report(pipe: &OwnedFd) -> Result<Vec<u8>> {
    let mut message = vec![0; 16];
    let length = super::retry(|| rustix::io::read(pipe, &mut message)).attempt(|| "read the launch report")?;
    message.truncate(length);
    Ok(message)
}
