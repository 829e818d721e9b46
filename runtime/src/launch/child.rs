//! What the container's first process does between its birth and the execution of the command.
//!
//! **Invariant: nothing here allocates.** Everything was resolved into the [`Plan`]; each step is a
//! system call or a few. The order follows crun's: mounts that need the host's procfs visible are
//! made first, then the host's filesystem is left behind, and only then anything is looked up in the
//! image, by descriptor. Privileges go last, the seccomp filter as late as it can.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use rustix::process::{Gid, Uid};

use super::fsconfig::Refusal;
use super::mounts::Source;
use super::plan::Plan;
use super::report::{At, Fault, Step};
use super::trampoline::Numbers;
use super::{filesystem, privileges};
use crate::sys::{self, MountAttributes};

/// Descriptors the child works with; all close-on-exec and numbered 10 or higher.
pub(super) struct Descriptors<'a> {
    /// Standard input, output and error of the command.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// The slave side of the container's terminal, if it has one; then also in `stdio`.
    pub(super) terminal: Option<BorrowedFd<'a>>,
    pub(super) report: BorrowedFd<'a>,
    /// The launcher's end of that pipe, inherited.
    pub(super) report_out: BorrowedFd<'a>,
    /// `tasks` of the cgroup v1 directories to join.
    pub(super) cgroup_tasks: &'a [BorrowedFd<'a>],
    /// With a user namespace: the launcher closes this pipe, or writes to it when that is mapped.
    pub(super) mapped: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// Where the seccomp listener is sent to.
    pub(super) listener: Option<BorrowedFd<'a>>,
    pub(super) trampoline: BorrowedFd<'a>,
    /// What the trampoline waits on before it executes the command, if it is to wait.
    pub(super) wait: Option<BorrowedFd<'a>>,
    pub(super) numbers: Numbers,
    pub(super) manner: Manner<'a>,
}

/// What about a launch is the caller's to choose and no part of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner<'a> {
    /// The process is killed when its launcher ends: for a container in the foreground.
    pub(super) tied: bool,
    /// The process gets a session keyring of its own.
    pub(super) new_keyring: bool,
    /// The host's filesystem is left by `pivot_root`; else by `chroot`, for hosts whose own root is an
    /// initramfs.
    pub(super) pivot: bool,
    /// Without `pivot_root` the host's mounts stay: these, which show a whole system, must not.
    pub(super) host_views: &'a [CString],
    /// Where the root filesystem is attached: its path on the host if hooks expect it there, or the container is
    /// in the host's mount namespace; else `/`.
    pub(super) root_point: &'a CStr,
    /// Hooks run before the host's filesystem is left.
    pub(super) hooks: Option<HookStop<'a>>,
}

/// Where a launch stops for hooks.
#[derive(Debug, Clone, Copy)]
pub(super) struct HookStop<'a> {
    /// One byte on it says that they have run.
    pub(super) go: BorrowedFd<'a>,
    /// The launcher's end of that pipe, inherited.
    pub(super) go_in: BorrowedFd<'a>,
}

/// What the child writes on the report pipe to have the hooks run.
pub(super) const HOOKS_PLEASE: u8 = b'h';

/// Runs in the child: sets the container up and executes the command. Returns only on failure,
/// reported on the pipe.
pub(super) fn main(plan: &mut Plan, descriptors: &Descriptors<'_>) -> u8 {
    let fault = match set_up(plan, descriptors) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    report(descriptors, fault);
    125
}

/// Tells the launcher what failed.
pub(super) fn report(descriptors: &Descriptors<'_>, fault: Fault) {
    // The report pipe may have moved to its final number already.
    for pipe in [descriptors.report, sys::borrow_fd(descriptors.numbers.report)] {
        if rustix::io::write(pipe, &fault.encode()).is_ok() {
            break;
        }
    }
}

fn set_up(plan: &mut Plan, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    prepare(plan, descriptors)?;
    make_mounts(plan, descriptors)?;
    place_root(plan, descriptors.manner.root_point)?;
    if let Some(hooks) = &descriptors.manner.hooks {
        // Hooks are promised the container's mounts at the path they know, and the host's files.
        filesystem::fill(plan)?;
        stop_for_hooks(descriptors, hooks)?;
        leave_host(plan, descriptors)?;
    } else {
        leave_host(plan, descriptors)?;
        filesystem::fill(plan)?;
    }
    filesystem::finish(plan, descriptors.terminal)?;
    privileges::set_identity(plan)?;
    enter_working_directory(plan).at(Step::WorkingDirectory, 0)?;
    become_command(plan, descriptors)
}

/// The end of a launch, and of joining a container: limits, descriptors, privileges, the command.
pub(super) fn become_command(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    privileges::set_limits(plan)?;
    place_descriptors(plan, descriptors)?;
    privileges::drop_privileges(plan, descriptors)
}

/// The process itself: not to be traced or opened by anyone, dead when the launcher is.
fn prepare(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    set_own_attributes(plan)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).at(Step::Prepare, 0)?;
    if descriptors.manner.tied {
        sys::die_with_parent().at(Step::Prepare, 1)?;
    }
    // The launcher may have died before that took effect: then nobody else holds the reading end.
    sys::close(descriptors.report_out);
    let mut pipe = [PollFd::new(&descriptors.report, PollFlags::empty())];
    poll(&mut pipe, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).at(Step::Prepare, 2)?;
    if pipe[0].revents().contains(PollFlags::ERR) {
        sys::exit_now(125);
    }
    plan.namespaces.join_in_child()?;
    if let Some((mapped, write_end)) = descriptors.mapped {
        sys::close(write_end);
        become_root(mapped, descriptors.manner.tied)?;
    }
    start_session(descriptors)
}

/// Signals, file creation mask, keyring and session: nothing of the launcher's is kept.
pub(super) fn start_session(descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    sys::reset_signals();
    rustix::process::umask(Mode::empty());
    if descriptors.manner.new_keyring {
        match sys::join_new_session_keyring() {
            // A kernel without keyrings, or a host that forbids them, has none to leak.
            Ok(()) | Err(Errno::NOSYS | Errno::PERM) => {}
            Err(errno) => return Err(errno).at(Step::Keyring, 0),
        }
    }
    rustix::process::setsid().at(Step::Session, 0)?;
    if let Some(terminal) = descriptors.terminal {
        rustix::process::ioctl_tiocsctty(terminal).at(Step::Terminal, 0)?;
    }
    Ok(())
}

/// What is set through files of procfs that belong to this user only while the process is dumpable.
pub(super) fn set_own_attributes(plan: &Plan) -> Result<(), Fault> {
    let write = |path: &CStr, text: &[u8]| {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text).map(drop)
    };
    // From a user namespace it cannot be lowered: there the launcher does it.
    if let (Some(score), false) = (&plan.oom_score_adj, plan.namespaces.separates(libc::CLONE_NEWUSER)) {
        write(c"/proc/self/oom_score_adj", score).at(Step::OomScore, 0)?;
    }
    for (index, (path, label)) in plan.labels.iter().enumerate() {
        // Takes effect when a program is executed: so this is the host's own procfs and nobody else's.
        write(path, label).at(Step::Label, index)?;
    }
    Ok(())
}

/// User 0 of the user namespace, once it has one.
fn become_root(mapped: BorrowedFd<'_>, tied: bool) -> Result<(), Fault> {
    let mut byte = [0; 1];
    if super::retry(|| rustix::io::read(mapped, &mut byte)).at(Step::UserNamespace, 0)? == 0 {
        // The launcher has failed and says why itself.
        sys::exit_now(125);
    }
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).at(Step::UserNamespace, 1)?;
    rustix::thread::set_thread_res_uid(user, user, user).at(Step::UserNamespace, 2)?;
    // The change of user has cancelled it.
    if tied { sys::die_with_parent().at(Step::Prepare, 3) } else { Ok(()) }
}

/// Moves this process into the cgroup v1 directories.
pub(super) fn join_cgroups(descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    for (index, tasks) in descriptors.cgroup_tasks.iter().enumerate() {
        rustix::io::write(tasks, b"0").at(Step::JoinCgroup, index)?;
    }
    Ok(())
}

/// The filesystems that only this process can make, while the host's are in sight.
fn make_mounts(plan: &mut Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    join_cgroups(descriptors)?;
    if !descriptors.cgroup_tasks.is_empty() && plan.namespaces.makes(libc::CLONE_NEWCGROUP) {
        // The namespace's root is the cgroup one is in: so only now.
        sys::unshare(libc::CLONE_NEWCGROUP).at(Step::JoinCgroup, usize::from(u16::MAX))?;
    }
    if plan.namespaces.separates(libc::CLONE_NEWNS) {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private).at(Step::PrivateMounts, 0)?;
    }
    for (index, mount) in plan.mounts.iter_mut().enumerate() {
        if let Source::ToMake(filesystem) = &mount.source {
            // In a user namespace this needs the host's own procfs and sysfs still in sight.
            plan.made[index] = Some(match (filesystem.make(), mount.instead.take()) {
                (Err((None, Errno::PERM)), Some(instead)) => instead,
                (made, _) => made_or_fault(made, index)?,
            });
            set_propagation(plan.made[index].as_ref(), mount.propagation).at(Step::MakeMount, index)?;
        }
    }
    Ok(())
}

/// Attaches the root filesystem at `path` of the host.
fn place_root(plan: &Plan, path: &CStr) -> Result<(), Fault> {
    rustix::mount::move_mount(plan.root.as_fd(), c"", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::EnterRoot, 0)?;
    if !plan.namespaces.separates(libc::CLONE_NEWNS) {
        // On a shared mount of the host's it has become one of its kind.
        let attributes = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
        sys::mount_setattr(plan.root.as_fd(), attributes, true).at(Step::PrivateMounts, 0)?;
    }
    rustix::process::fchdir(plan.root.as_fd()).at(Step::EnterRoot, 1)
}

/// Has the launcher run the hooks that come before the host's filesystem is left, and waits.
fn stop_for_hooks(descriptors: &Descriptors<'_>, hooks: &HookStop<'_>) -> Result<(), Fault> {
    sys::close(hooks.go_in);
    rustix::io::write(descriptors.report, &[HOOKS_PLEASE]).at(Step::Hooks, 0)?;
    let mut go = [0; 1];
    if super::retry(|| rustix::io::read(hooks.go, &mut go)).at(Step::Hooks, 1)? == 0 {
        // One of them failed, or the launcher is gone.
        sys::exit_now(125);
    }
    Ok(())
}

/// From the host's filesystem to the container's, which is the working directory and becomes `/`.
fn leave_host(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    let has_mounts = plan.namespaces.separates(libc::CLONE_NEWNS);
    if !descriptors.manner.pivot || !has_mounts {
        if has_mounts {
            descriptors.manner.host_views.iter().try_for_each(|path| hide(path)).at(Step::LeaveHost, 3)?;
        }
        return rustix::process::chroot(c".").and_then(|()| rustix::process::chdir(c"/")).at(Step::LeaveHost, 2);
    }
    rustix::process::pivot_root(c".", c".").at(Step::EnterRoot, 2)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Step::LeaveHost, 0)?;
    rustix::process::chdir(c"/").at(Step::LeaveHost, 1)
}

/// Takes a mount away, or covers it where it is another user namespace's.
fn hide(path: &CStr) -> rustix::io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // It was below one that is gone.
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        Err(_) => rustix::mount::mount(c"none", path, c"tmpfs", MountFlags::RDONLY, None),
    }
}

fn made_or_fault(made: Result<OwnedFd, Refusal>, index: usize) -> Result<OwnedFd, Fault> {
    made.map_err(|(option, errno)| Fault {
        step: Step::MakeMount,
        item: index as u16,
        detail: option.map_or(0, |option| option as u16 + 1),
        errno,
    })
}

fn set_propagation(mount: Option<&OwnedFd>, propagation: u64) -> Result<(), Errno> {
    match mount {
        // What is made is private.
        Some(mount) if propagation != libc::MS_PRIVATE => {
            sys::mount_setattr(mount.as_fd(), MountAttributes { propagation, ..MountAttributes::default() }, false)
        }
        _ => Ok(()),
    }
}

/// Enters the working directory by descriptor, made if missing: it is inside the root whatever links
/// lead to it (CVE-2024-21626). The kernel's own word on that is asked for as well.
fn enter_working_directory(plan: &Plan) -> Result<(), Errno> {
    change_directory(&plan.working_directory.open_or_create_directory(plan.root.as_fd())?)
}

/// Enters a directory if it is inside the root.
pub(super) fn change_directory(directory: &OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(directory)?;
    let mut buffer = [0; libc::PATH_MAX as usize];
    sys::working_directory(&mut buffer)?;
    // The kernel writes "(unreachable)/..." for a directory outside the root.
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno::XDEV) }
}

/// Standard input, output and error, what the caller passes on, what the process needs until it is the
/// command, and no others.
fn place_descriptors(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    for (number, fd) in descriptors.stdio.iter().enumerate() {
        if fd.as_fd().as_raw() != number as RawFd {
            sys::place_fd(*fd, number as RawFd, false).at(Step::Stdio, number)?;
        }
        give_to_user(sys::borrow_fd(number as RawFd), plan.uid).at(Step::Stdio, number)?;
    }
    let numbers = descriptors.numbers;
    for preserved in 3..numbers.report {
        rustix::io::fcntl_setfd(sys::borrow_fd(preserved), rustix::io::FdFlags::empty())
            .at(Step::Descriptors, preserved as usize)?;
    }
    sys::place_fd(descriptors.report, numbers.report, false).at(Step::Descriptors, 0)?;
    sys::place_fd(descriptors.trampoline, numbers.program, true).at(Step::Descriptors, 1)?;
    if let (Some(wait), Some(number)) = (descriptors.wait, numbers.wait) {
        sys::place_fd(wait, number, false).at(Step::Descriptors, 4)?;
    }
    if let (Some(listener), Some(number)) = (descriptors.listener, numbers.listener) {
        sys::place_fd(listener, number, true).at(Step::Descriptors, 3)?;
    }
    sys::close_from(numbers.end as u32).at(Step::Descriptors, 2)
}

trait AsRaw {
    fn as_raw(&self) -> RawFd;
}

impl AsRaw for BorrowedFd<'_> {
    fn as_raw(&self) -> RawFd {
        std::os::fd::AsRawFd::as_raw_fd(self)
    }
}

/// Pipes and terminals become the user's, so that `/dev/stdout` can be opened by name. Regular files
/// and devices of the host stay whose they are.
fn give_to_user(fd: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    let status = rustix::fs::fstat(fd)?;
    let pty = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && (136..144).contains(&rustix::fs::major(status.st_rdev));
    let ours = pty || matches!(FileType::from_raw_mode(status.st_mode), FileType::Fifo | FileType::Socket);
    if !ours || status.st_uid == uid {
        return Ok(());
    }
    match rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None) {
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
        other => other,
    }
}
