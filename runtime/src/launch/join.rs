//! Starting a further process in a container: it joins the container's cgroups and namespaces and then
//! becomes the command as a container's first process does.
//!
//! The process is one clone away from the caller, born in the container's pid namespace (and, on
//! cgroup2, in its cgroup); the rest it joins itself by one `setns` on the pidfd of the container's first
//! process. **Invariant: from before it is born it is not dumpable**, so that nothing in the container
//! can trace it or reach the host's binary through it (CVE-2019-5736), and it executes the sealed
//! [`trampoline`](super::trampoline) before anything of the image.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Process, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Pid, Uid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::begin::{Channel, FIRST_FREE_FD, Running, command_name, read_report};
use super::child::{self, Descriptors, Manner};
use super::idmap::Mappings;
use super::path::open_in;
use super::plan::Plan;
use super::report::{self, At, Fault, Step};
use super::rootfs::c_string;
use super::stdio::{self, Stdio, high};
use super::trampoline::{self, Numbers};
use crate::cgroup::Member;
use crate::error::{Attempt, Error, Result};
use crate::seccomp::{Connection, Listener};
use crate::sys::{self, CStringArray};

/// `f_type` of devpts.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The namespaces a process can be in, by their names in `/proc/PID/ns`.
const NAMESPACES: [(&str, ThreadNameSpaceType); 8] = [
    ("user", ThreadNameSpaceType::USER),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("pid", ThreadNameSpaceType::PROCESS_ID),
    ("net", ThreadNameSpaceType::NETWORK),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("time", ThreadNameSpaceType::TIME),
];

/// A container's first process, as what another one joins.
#[derive(Debug)]
pub(crate) struct Target {
    pidfd: OwnedFd,
    /// Its root directory.
    root: OwnedFd,
    /// Its user namespace, if that is not the caller's.
    user: Option<OwnedFd>,
    /// The namespaces in which it is and this process is not.
    namespaces: ThreadNameSpaceType,
    /// Its cgroups in the hierarchies in which it is elsewhere than this process.
    cgroups: Vec<Member>,
}

impl Target {
    /// Looks at process `pid`, which `pidfd` refers to and which is known to be the container's.
    pub(crate) fn open(pid: Pid, pidfd: OwnedFd) -> Result<Self> {
        let namespaces = differing(pid)?;
        let user = namespaces.contains(ThreadNameSpaceType::USER).then(|| user(pid)).transpose()?;
        let mut target = Self { namespaces, cgroups: Member::differing(pid)?, root: root(pid)?, user, pidfd };
        if !rustix::process::geteuid().is_root() && target.namespaces.contains(ThreadNameSpaceType::USER) {
            // An ordinary user's privileges are those in the namespace that user made.
            target.enter(ThreadNameSpaceType::USER)?;
            target.user = None;
        }
        Ok(target)
    }

    /// Which ids its user namespace has, if that is another one.
    fn mappings(&self) -> Result<Option<Mappings>> {
        self.user.as_ref().map(|user| Mappings::of(user.as_fd())).transpose()
    }

    /// Moves this process into some of the namespaces (for that of process ids: its children).
    fn enter(&mut self, kinds: ThreadNameSpaceType) -> Result<()> {
        let kinds = kinds & self.namespaces;
        if !kinds.is_empty() {
            move_into_thread_name_spaces(self.pidfd.as_fd(), kinds).attempt(|| "join the container's namespaces")?;
            self.namespaces -= kinds;
        }
        Ok(())
    }
}

fn differing(pid: Pid) -> Result<ThreadNameSpaceType> {
    let mut flags = ThreadNameSpaceType::empty();
    for (name, flag) in NAMESPACES {
        let identity =
            |who: &str| rustix::fs::stat(format!("/proc/{who}/ns/{name}")).map(|status| (status.st_dev, status.st_ino));
        match (identity("self"), identity(&pid.as_raw_nonzero().to_string())) {
            // A kernel without this kind of namespace.
            (Err(Errno::NOENT), _) => {}
            (own, other) => {
                let own = own.attempt(|| format!("look at /proc/self/ns/{name}"))?;
                let other = other.attempt(|| format!("look at the container's {name} namespace"))?;
                flags.set(flag, own != other);
            }
        }
    }
    Ok(flags)
}

fn user(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open the container's user namespace")
}

fn root(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", pid.as_raw_nonzero());
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .attempt(|| "open the container's root directory")
}

/// A process to be started in a container.
pub(crate) struct Join<'a> {
    /// The container's name and bundle, for who is told of its state.
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) target: Target,
    /// The container's configuration.
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    /// The program, where it is not what `process.args` begins with.
    pub(crate) program: Option<&'a Path>,
    /// Standard input, where it is not the caller's.
    pub(crate) input: Option<OwnedFd>,
    /// How many descriptors from 3 up are the caller's to pass on.
    pub(crate) preserved: u32,
    /// The terminal is relayed here; else its master side is given to somebody else.
    pub(crate) relayed: bool,
}

/// Starts the process and waits until it executes the command.
///
/// This process's children belong to the container's pid namespace from now on, and it is not dumpable
/// any more: call it where nothing else is left to be done than to wait.
pub(crate) fn join(mut join: Join<'_>) -> Result<Running<'static>> {
    let mut plan = plan(&join)?;
    let listener = plan.listener.take();
    if let Some(program) = join.program {
        plan.arguments = hook_arguments(program, join.process)?;
    }
    let agent = listener.as_ref().map(Listener::connect).transpose()?;
    let numbers = Numbers::behind(join.preserved, false, agent.is_some());
    let floor = FIRST_FREE_FD.max(numbers.end);
    let stdio = match (&join.input, join.process.terminal().unwrap_or(false)) {
        (Some(input), _) => Stdio::with_input(input, floor)?,
        (None, true) => Stdio::terminal(Some(devpts(join.target.root.as_fd())?.as_fd()), join.process, join.relayed, floor)?,
        (None, false) => Stdio::plain(true, floor)?,
    };
    if let (Some(slave), Some(mappings)) = (stdio.slave(), join.target.mappings()?) {
        stdio::give(slave, mappings.host_uid(plan.uid))?;
    }
    let cgroups = Cgroups::open(&join.target.cgroups)?;
    if let Some(score) = plan.oom_score_adj.take() {
        // Inherited. The file is this user's only as long as this process is dumpable.
        let path = "/proc/self/oom_score_adj";
        std::fs::write(path, score).attempt(|| format!("set process.oomScoreAdj (write {path})"))?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).attempt(|| "make this process not dumpable")?;
    join.target.enter(ThreadNameSpaceType::PROCESS_ID)?;
    let channel = Channel::pipe()?;
    let spawned = spawn(&mut plan, &join.target, &stdio, &cgroups, &channel, agent.as_ref(), (numbers, floor));
    let report = channel.into_reader();
    let (pid, pidfd) = spawned?;
    let mut running = Running::without_cgroup(pid, pidfd);
    let told = agent.map_or(Ok(()), |agent| {
        let number = pid.as_raw_nonzero().get();
        agent.pass_on(join.id, number, join.bundle, join.spec)
    });
    match told.and_then(|()| read_report(&report)).map(|message| report::decode(&message, &plan, &command_name(join.process))) {
        Ok(None) => {
            running.master = stdio.release();
            Ok(running)
        }
        Ok(Some(error)) | Err(error) => {
            running.kill();
            Err(error)
        }
    }
}

/// The part of a launch's plan that is about the process alone.
fn plan(join: &Join<'_>) -> Result<Plan> {
    let mut mount = LinuxNamespace::default();
    mount.set_typ(LinuxNamespaceType::Mount);
    let mut own = Linux::default();
    own.set_namespaces(Some(vec![mount]));
    own.set_seccomp(join.spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()));
    own.set_personality(join.spec.linux().as_ref().and_then(|linux| linux.personality().clone()));
    own.set_devices(None).set_resources(None).set_masked_paths(None).set_readonly_paths(None).set_sysctl(None);
    let mut spec = Spec::default();
    spec.set_linux(Some(own)).set_process(Some(join.process.clone())).set_mounts(None::<Vec<Mount>>);
    spec.set_hostname(None).set_domainname(None).set_hooks(None).set_root(None);
    let root = join.target.root.try_clone().attempt(|| "duplicate a file descriptor")?;
    let mut plan = Plan::new(&spec, root, None)?;
    // CVE-2022-29162: nothing is inheritable that is not asked for as an ambient capability too.
    plan.capabilities.inheritable &= plan.capabilities.ambient;
    Ok(plan)
}

/// The trampoline's argument list for a hook: its path, an empty string, its own arguments.
fn hook_arguments(program: &Path, process: &Process) -> Result<CStringArray> {
    let mut list = vec![c_string("hook", program.as_os_str().as_encoded_bytes())?, CString::default()];
    for argument in process.args().iter().flatten() {
        list.push(c_string("hook argument", argument.as_str())?);
    }
    Ok(CStringArray::new(list))
}

/// The container's devpts instance. What is at that path is the container's to choose: only devpts will
/// do (CVE-2025-52565).
fn devpts(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let directory = open_in(root, c"dev/pts", OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)
        .attempt(|| "open the container's /dev/pts")?;
    if rustix::fs::fstatfs(&directory).attempt(|| "look at the container's /dev/pts")?.f_type != DEVPTS_MAGIC {
        return Err(Error::invalid("the container's /dev/pts", "it is not a devpts filesystem: no terminal can be opened there"));
    }
    Ok(directory)
}

/// The container's cgroups, open to be joined.
struct Cgroups {
    born_in: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Cgroups {
    fn open(memberships: &[Member]) -> Result<Self> {
        let mut cgroups = Self { born_in: None, tasks: Vec::new() };
        for membership in memberships {
            let path = &membership.path;
            if membership.is_unified() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                cgroups.born_in = Some(rustix::fs::open(path, flags, Mode::empty()).attempt(|| format!("open cgroup {path:?}"))?);
            } else {
                let tasks = rustix::fs::open(path.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                cgroups.tasks.push(high(&tasks.attempt(|| format!("open tasks of cgroup {path:?}"))?, FIRST_FREE_FD)?);
            }
        }
        Ok(cgroups)
    }
}

fn spawn(
    plan: &mut Plan,
    target: &Target,
    stdio: &Stdio,
    cgroups: &Cgroups,
    channel: &Channel,
    agent: Option<&Connection<'_>>,
    (numbers, floor): (Numbers, i32),
) -> Result<(Pid, OwnedFd)> {
    let listener = agent.and_then(Connection::for_child).map(|fd| high(fd, floor)).transpose()?;
    let tasks: Vec<BorrowedFd<'_>> = cgroups.tasks.iter().map(AsFd::as_fd).collect();
    let (report_out, report_in) = channel.ends();
    let report_in = high(report_in, floor)?;
    let trampoline = high(&trampoline::create(numbers)?, floor)?;
    let descriptors = Descriptors {
        stdio: stdio.descriptors(),
        terminal: stdio.slave(),
        report: report_in.as_fd(),
        report_out: report_out.as_fd(),
        cgroup_tasks: &tasks,
        mapped: None,
        listener: listener.as_ref().map(AsFd::as_fd),
        trampoline: trampoline.as_fd(),
        wait: None,
        numbers,
        manner: Manner { tied: false, new_keyring: true, pivot: true, host_views: &[], root_point: c"/", hooks: None },
    };
    sys::spawn(0, cgroups.born_in.as_ref().map(AsFd::as_fd), &mut || {
        let fault = match enter(plan, target, &descriptors) {
            Ok(never) => match never {},
            Err(fault) => fault,
        };
        child::report(&descriptors, fault);
        125
    })
    .attempt(|| "start a process in the container")
}

/// Runs in the new process: joins, and becomes the command. Allocates nothing.
fn enter(plan: &Plan, target: &Target, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    child::set_own_attributes(plan)?;
    child::join_cgroups(descriptors)?;
    if !target.namespaces.is_empty() {
        move_into_thread_name_spaces(target.pidfd.as_fd(), target.namespaces).at(Step::JoinNamespaces, 0)?;
    }
    if target.namespaces.contains(ThreadNameSpaceType::USER) {
        become_root();
    }
    child::start_session(descriptors)?;
    // The root directory of the first process, wherever the mount namespace has its own.
    rustix::process::fchdir(plan.root.as_fd()).at(Step::EnterRoot, 1)?;
    rustix::process::chroot(c".").at(Step::EnterRoot, 3)?;
    plan.working_directory
        .open(plan.root.as_fd())
        .and_then(|directory| child::change_directory(&directory))
        .at(Step::WorkingDirectory, 0)?;
    child::become_command(plan, descriptors)
}

/// The ids of this process may have no name in a user namespace it has joined. A namespace without a
/// user 0 is one in which nothing has to be done.
fn become_root() {
    let _ = rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT);
    let _ = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
}
