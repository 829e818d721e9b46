//! What the container's first process does between its birth and the execution of the command.
//!
//! **Invariant: nothing here allocates.** Everything was resolved into the [`Plan`]; each step is a
//! system call or a few. The order follows crun's: mounts that need the host's procfs visible are
//! made first, then the host's filesystem is left behind, and only then anything is looked up in the
//! image, by descriptor. Privileges go last, the seccomp filter as late as it can.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};
use rustix::process::{Gid, Uid};

use super::fsconfig::Refusal;
use super::mounts::Source;
use super::plan::Plan;
use super::report::{At, Fault, Step};
use super::trampoline::REPORT_FD;
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
}

/// Runs in the child: sets the container up and executes the command. Returns only on failure,
/// reported on the pipe.
pub(super) fn main(plan: &mut Plan, descriptors: &Descriptors<'_>) -> u8 {
    let fault = match set_up(plan, descriptors) {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    // The report pipe may have moved to its final number already.
    for pipe in [descriptors.report, sys::borrow_fd(REPORT_FD)] {
        if rustix::io::write(pipe, &fault.encode()).is_ok() {
            break;
        }
    }
    125
}

fn set_up(plan: &mut Plan, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    prepare(plan, descriptors)?;
    enter_root(plan, descriptors)?;
    filesystem::set_up(plan, descriptors.terminal)?;
    privileges::set_identity(plan)?;
    enter_working_directory(plan).at(Step::WorkingDirectory, 0)?;
    privileges::set_limits(plan)?;
    place_descriptors(plan, descriptors)?;
    privileges::drop_privileges(plan)
}

/// The process itself: not to be traced or opened by anyone, dead when the launcher is.
fn prepare(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    set_own_attributes(plan)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).at(Step::Prepare, 0)?;
    sys::die_with_parent().at(Step::Prepare, 1)?;
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
        become_root(mapped)?;
    }
    sys::reset_signals();
    rustix::process::umask(Mode::empty());
    match sys::join_new_session_keyring() {
        // A kernel without keyrings, or a host that forbids them, has none to leak.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::Keyring, 0),
    }
    rustix::process::setsid().at(Step::Session, 0)?;
    if let Some(terminal) = descriptors.terminal {
        rustix::process::ioctl_tiocsctty(terminal).at(Step::Terminal, 0)?;
    }
    Ok(())
}

/// What is set through files of procfs that belong to this user only while the process is dumpable.
fn set_own_attributes(plan: &Plan) -> Result<(), Fault> {
    let write = |path: &std::ffi::CStr, text: &[u8]| {
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
fn become_root(mapped: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut byte = [0; 1];
    if super::retry(|| rustix::io::read(mapped, &mut byte)).at(Step::UserNamespace, 0)? == 0 {
        // The launcher has failed and says why itself.
        sys::exit_now(125);
    }
    let (user, group) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).at(Step::UserNamespace, 1)?;
    rustix::thread::set_thread_res_uid(user, user, user).at(Step::UserNamespace, 2)?;
    // The change of user has cancelled it.
    sys::die_with_parent().at(Step::Prepare, 3)
}

/// From the host's filesystem to the container's, which becomes `/`.
fn enter_root(plan: &mut Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    for (index, tasks) in descriptors.cgroup_tasks.iter().enumerate() {
        rustix::io::write(tasks, b"0").at(Step::JoinCgroup, index)?;
    }
    if !descriptors.cgroup_tasks.is_empty() && plan.namespaces.makes(libc::CLONE_NEWCGROUP) {
        // The namespace's root is the cgroup one is in: so only now.
        sys::unshare(libc::CLONE_NEWCGROUP).at(Step::JoinCgroup, usize::from(u16::MAX))?;
    }
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::PrivateMounts, 0)?;
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
    rustix::mount::move_mount(plan.root.as_fd(), c"", rustix::fs::CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::EnterRoot, 0)?;
    rustix::process::fchdir(plan.root.as_fd()).at(Step::EnterRoot, 1)?;
    rustix::process::pivot_root(c".", c".").at(Step::EnterRoot, 2)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Step::LeaveHost, 0)?;
    rustix::process::chdir(c"/").at(Step::LeaveHost, 1)
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
    let directory = plan.working_directory.open_or_create_directory(plan.root.as_fd())?;
    rustix::process::fchdir(&directory)?;
    let mut buffer = [0; libc::PATH_MAX as usize];
    sys::working_directory(&mut buffer)?;
    // The kernel writes "(unreachable)/..." for a directory outside the root.
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno::XDEV) }
}

/// Number of the trampoline's descriptor while it is executed.
pub(super) const TRAMPOLINE_FD: RawFd = 4;

/// Number of the socket the seccomp listener is sent to, until then.
pub(super) const LISTENER_FD: RawFd = 5;

/// Descriptors 0 to 4 as the trampoline expects them, and no others but one that is closed by then.
fn place_descriptors(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    for (number, fd) in descriptors.stdio.iter().enumerate() {
        if fd.as_fd().as_raw() != number as RawFd {
            sys::place_fd(*fd, number as RawFd, false).at(Step::Stdio, number)?;
        }
        give_to_user(sys::borrow_fd(number as RawFd), plan.uid).at(Step::Stdio, number)?;
    }
    sys::place_fd(descriptors.report, REPORT_FD, false).at(Step::Descriptors, 0)?;
    sys::place_fd(plan.trampoline.as_fd(), TRAMPOLINE_FD, true).at(Step::Descriptors, 1)?;
    let mut last = TRAMPOLINE_FD;
    if let Some(listener) = descriptors.listener {
        sys::place_fd(listener, LISTENER_FD, true).at(Step::Descriptors, 3)?;
        last = LISTENER_FD;
    }
    sys::close_from(last as u32 + 1).at(Step::Descriptors, 2)
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
