//! What the container's first process does between its birth and the execution of the command.
//!
//! **Invariant: nothing here allocates.** Everything was resolved into the [`Plan`]; each step is a
//! system call or a few. The order follows crun's: mounts that need the host's procfs visible are
//! made first, then the host's filesystem is left behind, and only then anything is looked up in the
//! image, by descriptor. Privileges go last, the seccomp filter as late as it can.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::mounts::{MountPlan, Source};
use super::path::{InRoot, file_type, open_in};
use super::plan::{DevicePlan, Plan};
use super::report::{At, Fault, Step};
use super::trampoline::Numbers;
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
    pub(super) cgroup_tasks: &'a [OwnedFd],
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
    /// The root filesystem's path on the host, where hooks expect it.
    pub(super) rootfs: &'a CStr,
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
    if let Some(hooks) = &descriptors.manner.hooks {
        // Hooks are promised the container's mounts at the path they know, and the host's files.
        place_root(plan, hooks.rootfs)?;
        fill_root(plan)?;
        stop_for_hooks(descriptors, hooks)?;
        leave_host(descriptors)?;
    } else {
        place_root(plan, c"/")?;
        leave_host(descriptors)?;
        fill_root(plan)?;
    }
    if let Some(terminal) = descriptors.terminal {
        attach_console(plan.root.as_fd(), terminal).at(Step::Console, 0)?;
    }
    set_sysctls(plan)?;
    cover_paths(plan)?;
    set_identity(plan)?;
    enter_working_directory(plan).at(Step::WorkingDirectory, 0)?;
    become_command(plan, descriptors)
}

/// The end of a launch, and of joining a container: limits, descriptors, privileges, the command.
pub(super) fn become_command(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    set_limits(plan)?;
    place_descriptors(plan, descriptors)?;
    drop_privileges(plan, descriptors)
}

/// The process itself: not to be traced or opened by anyone, dead when the launcher is.
fn prepare(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    if let Some(score) = &plan.oom_score_adj {
        // While the file still belongs to this user: it will not once the process is not dumpable.
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()).at(Step::OomScore, 0)?;
        rustix::io::write(&file, score).at(Step::OomScore, 1)?;
    }
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
    if !descriptors.cgroup_tasks.is_empty() && plan.namespaces & libc::CLONE_NEWCGROUP != 0 {
        // The namespace's root is the cgroup one is in: so only now.
        sys::unshare(libc::CLONE_NEWCGROUP).at(Step::JoinCgroup, usize::from(u16::MAX))?;
    }
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Step::PrivateMounts, 0)?;
    for (index, mount) in plan.mounts.iter().enumerate() {
        if let Source::ToMake(filesystem) = &mount.source {
            // In a user namespace this needs the host's own procfs and sysfs still in sight.
            plan.made[index] = Some(filesystem.make().at(Step::MakeMount, index)?);
        }
    }
    Ok(())
}

/// Attaches the root filesystem at `path` of the host.
fn place_root(plan: &Plan, path: &CStr) -> Result<(), Fault> {
    rustix::mount::move_mount(plan.root.as_fd(), c"", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::EnterRoot, 0)?;
    rustix::process::fchdir(plan.root.as_fd()).at(Step::EnterRoot, 1)
}

/// What the root filesystem gets: mounts, devices and links.
fn fill_root(plan: &Plan) -> Result<(), Fault> {
    for index in 0..plan.mounts.len() {
        attach(plan, index)?;
    }
    for (index, device) in plan.devices.iter().enumerate() {
        make_device(plan.root.as_fd(), device).at(Step::Device, index)?;
    }
    make_links(plan.root.as_fd()).at(Step::Link, 0)
}

/// Has the launcher run the hooks that come before the host's filesystem is left, and waits.
fn stop_for_hooks(descriptors: &Descriptors<'_>, hooks: &HookStop<'_>) -> Result<(), Fault> {
    sys::close(hooks.go_in);
    rustix::io::write(descriptors.report, &[HOOKS_PLEASE]).at(Step::Hooks, 0)?;
    let mut go = [0; 1];
    loop {
        match rustix::io::read(hooks.go, &mut go) {
            Err(Errno::INTR) => {}
            // One of them failed, or the launcher is gone.
            Ok(0) => sys::exit_now(125),
            other => return other.at(Step::Hooks, 1).map(drop),
        }
    }
}

/// From the host's filesystem to the container's, which is the working directory and becomes `/`.
fn leave_host(descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    if !descriptors.manner.pivot {
        return rustix::process::chroot(c".").and_then(|()| rustix::process::chdir(c"/")).at(Step::LeaveHost, 2);
    }
    rustix::process::pivot_root(c".", c".").at(Step::EnterRoot, 2)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Step::LeaveHost, 0)?;
    rustix::process::chdir(c"/").at(Step::LeaveHost, 1)
}

/// Attaches a mount to the descriptor of its target: whatever happens to the path meanwhile.
fn attach(plan: &Plan, index: usize) -> Result<(), Fault> {
    let mount = &plan.mounts[index];
    let tree = match (&mount.source, &plan.made[index]) {
        (Source::Made(tree), _) | (Source::ToMake(_), Some(tree)) => tree,
        (Source::ToMake(_), None) => return Err(Errno::BADF).at(Step::Mount, index),
    };
    let target = open_target(plan.root.as_fd(), mount).at(Step::Mount, index)?;
    move_onto(tree.as_fd(), target.as_fd()).at(Step::Mount, index)
}

fn open_target(root: BorrowedFd<'_>, mount: &MountPlan) -> Result<OwnedFd, Errno> {
    if mount.real_directory {
        return match mount.target.open_real_directory(root) {
            Err(Errno::NOENT) => {
                drop(mount.target.open_or_create_directory(root)?);
                mount.target.open_real_directory(root)
            }
            other => other,
        };
    }
    let target = if mount.onto_directory {
        mount.target.open_or_create_directory(root)?
    } else {
        mount.target.open_or_create_file(root)?
    };
    // A link in the image must not lead a mount over procfs, where masks and sysctls are set.
    if !mount.over_proc && rustix::fs::fstatfs(&target)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
        return Err(Errno::PERM);
    }
    Ok(target)
}

fn move_onto(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::mount::move_mount(
        tree,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

fn make_device(root: BorrowedFd<'_>, device: &DevicePlan) -> Result<(), Errno> {
    if let Some(host) = &device.host {
        let target = device.path.open_or_create_file(root)?;
        check_device(host, device)?;
        return move_onto(host.as_fd(), target.as_fd());
    }
    let (parent, name) = device.path.parent(root)?;
    match rustix::fs::mknodat(&parent, name, device.kind, Mode::from_raw_mode(device.mode), device.number) {
        Ok(()) => {}
        // The image's own /dev: its node is as good, if it is that node.
        Err(Errno::EXIST) => {
            return check_device(
                &rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?,
                device,
            );
        }
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn check_device(node: &OwnedFd, device: &DevicePlan) -> Result<(), Errno> {
    let status = rustix::fs::fstat(node)?;
    let same = FileType::from_raw_mode(status.st_mode) == device.kind
        && (device.kind == FileType::Fifo || status.st_rdev == device.number);
    if same { Ok(()) } else { Err(Errno::EXIST) }
}

/// The links the runtime-spec promises in `/dev` (runtime-linux.md, "Dev symbolic links").
fn make_links(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let dev = match open_in(root, c"dev", OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    for (target, name) in [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"/proc/kcore", c"core"),
        (c"pts/ptmx", c"ptmx"),
    ] {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Mounts the terminal's own node, and no other, on `/dev/console`.
fn attach_console(root: BorrowedFd<'_>, terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // The instance is new, so the container's first terminal is number 0; checked by inode.
    let node = open_in(root, c"dev/pts/0", OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)?;
    let (found, own) = (rustix::fs::fstat(&node)?, rustix::fs::fstat(terminal)?);
    if (found.st_dev, found.st_ino, found.st_rdev) != (own.st_dev, own.st_ino, own.st_rdev) {
        return Err(Errno::XDEV);
    }
    let tree = clone_mount(node.as_fd(), false)?;
    let dev = open_in(root, c"dev", OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::IN_ROOT)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dev, c"console", flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let target = rustix::fs::openat(&dev, c"console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if file_type(&target)? == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    move_onto(tree.as_fd(), target.as_fd())
}

/// A detached copy of the mount `fd` is on, cut at `fd`.
fn clone_mount(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, c"", flags)
}

/// Through the procfs this process mounted itself, and no path of the image's.
fn set_sysctls(plan: &Plan) -> Result<(), Fault> {
    let is_proc =
        |mount: &MountPlan| matches!(&mount.source, Source::ToMake(filesystem) if filesystem.kind.as_c_str() == c"proc");
    let own = plan.mounts.iter().zip(&plan.made).find(|(mount, _)| is_proc(mount)).and_then(|(_, made)| made.as_ref());
    for (index, (path, value)) in plan.sysctls.iter().enumerate() {
        let proc = own.ok_or(Errno::NOENT).at(Step::Sysctl, index)?;
        let file =
            open_in(proc.as_fd(), path, OFlags::WRONLY, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV).at(Step::Sysctl, index)?;
        rustix::io::write(&file, value).at(Step::Sysctl, index)?;
    }
    Ok(())
}

/// Masked and read-only paths, each by descriptor; those that do not exist need no cover.
fn cover_paths(plan: &Plan) -> Result<(), Fault> {
    let root = plan.root.as_fd();
    let mut mask = Mask { root, null: None, empty: plan.empty_directory.as_ref().map(AsFd::as_fd), empty_attached: false };
    for (index, path) in plan.masked.iter().enumerate() {
        mask.apply(path).at(Step::Mask, index)?;
    }
    for (index, path) in plan.readonly.iter().enumerate() {
        make_readonly(root, path).at(Step::ReadOnly, index)?;
    }
    let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    for (index, mount) in plan.mounts.iter().enumerate() {
        if let (true, Source::Made(tree)) = (mount.seal, &mount.source) {
            sys::mount_setattr(tree.as_fd(), attributes, false).at(Step::Mount, index)?;
        }
    }
    if plan.root_readonly {
        sys::mount_setattr(root, attributes, false).at(Step::ReadOnlyRoot, 0)?;
    }
    Ok(())
}

/// Covers for masked paths: `/dev/null` over files, one empty directory over directories.
struct Mask<'a> {
    root: BorrowedFd<'a>,
    null: Option<OwnedFd>,
    empty: Option<BorrowedFd<'a>>,
    empty_attached: bool,
}

impl Mask<'_> {
    fn apply(&mut self, path: &InRoot) -> Result<(), Errno> {
        let target = match path.open(self.root) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other?,
        };
        if file_type(&target)? != FileType::Directory {
            return move_onto(clone_mount(self.null()?, false)?.as_fd(), target.as_fd());
        }
        let empty = self.empty.ok_or(Errno::BADF)?;
        if self.empty_attached {
            return move_onto(clone_mount(empty, false)?.as_fd(), target.as_fd());
        }
        self.empty_attached = true;
        move_onto(empty, target.as_fd())
    }

    /// The container's `/dev/null`, once it is known to be that device: a container sharing the
    /// directory may have put something else there (CVE-2025-31133).
    fn null(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.null.is_none() {
            let node = open_in(self.root, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::IN_ROOT)?;
            let status = rustix::fs::fstat(&node)?;
            if FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice || status.st_rdev != rustix::fs::makedev(1, 3)
            {
                return Err(Errno::NODEV);
            }
            self.null = Some(node);
        }
        self.null.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }
}

fn make_readonly(root: BorrowedFd<'_>, path: &InRoot) -> Result<(), Errno> {
    let target = match path.open(root) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    let tree = clone_mount(target.as_fd(), true)?;
    let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    sys::mount_setattr(tree.as_fd(), attributes, true)?;
    move_onto(tree.as_fd(), target.as_fd())
}

fn set_identity(plan: &Plan) -> Result<(), Fault> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name).at(Step::Hostname, 0)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name).at(Step::Hostname, 1)?;
    }
    if plan.namespaces & libc::CLONE_NEWNET != 0 {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).at(Step::Loopback, 0)?;
        sys::loopback_up(socket.as_fd()).at(Step::Loopback, 1)?;
    }
    Ok(())
}

/// Enters the working directory by descriptor, made if missing: it is inside the root whatever links
/// lead to it (CVE-2024-21626). The kernel's own word on that is asked for as well.
fn enter_working_directory(plan: &Plan) -> Result<(), Errno> {
    change_directory(plan.working_directory.open_or_create_directory(plan.root.as_fd())?)
}

/// Enters a directory if it is inside the root.
pub(super) fn change_directory(directory: OwnedFd) -> Result<(), Errno> {
    rustix::process::fchdir(&directory)?;
    let mut buffer = [0; libc::PATH_MAX as usize];
    sys::working_directory(&mut buffer)?;
    // The kernel writes "(unreachable)/..." for a directory outside the root.
    if buffer[0] == b'/' { Ok(()) } else { Err(Errno::XDEV) }
}

fn set_limits(plan: &Plan) -> Result<(), Fault> {
    for (index, (resource, limit)) in plan.limits.iter().enumerate() {
        rustix::process::setrlimit(*resource, *limit).at(Step::Limit, index)?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    Ok(())
}

/// Standard input, output and error, what the caller passes on, what the trampoline needs, and no
/// others.
fn place_descriptors(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<(), Fault> {
    for (number, fd) in descriptors.stdio.iter().enumerate() {
        if fd.as_fd().as_raw() != number as RawFd {
            sys::place_fd(*fd, number as RawFd, false).at(Step::Stdio, number)?;
        }
        give_to_user(sys::borrow_fd(number as RawFd), plan.uid).at(Step::Stdio, number)?;
    }
    let numbers = descriptors.numbers;
    for preserved in 3..numbers.report {
        rustix::io::fcntl_setfd(sys::borrow_fd(preserved), rustix::io::FdFlags::empty()).at(Step::Descriptors, preserved as usize)?;
    }
    sys::place_fd(descriptors.report, numbers.report, false).at(Step::Descriptors, 0)?;
    sys::place_fd(descriptors.trampoline, numbers.program, true).at(Step::Descriptors, 1)?;
    if let (Some(wait), Some(number)) = (descriptors.wait, numbers.wait) {
        sys::place_fd(wait, number, false).at(Step::Descriptors, 2)?;
        return sys::close_from(numbers.end() as u32).at(Step::Descriptors, 3);
    }
    sys::close_from(numbers.program as u32 + 1).at(Step::Descriptors, 3)
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

/// Capabilities, user, filter: then the command.
fn drop_privileges(plan: &Plan, descriptors: &Descriptors<'_>) -> Result<std::convert::Infallible, Fault> {
    let sets = plan.capabilities;
    for capability in 0..64 {
        if sets.bounding & (1 << capability) == 0 {
            sys::drop_bounding_capability(capability).at(Step::Capabilities, capability as usize)?;
        }
    }
    rustix::thread::set_keep_capabilities(true).at(Step::User, 0)?;
    match rustix::thread::set_thread_groups(&plan.groups) {
        // A single-id user namespace denies setgroups; there are none to be dropped or added then.
        Err(Errno::PERM) if plan.groups.is_empty() => {}
        other => other.at(Step::User, 1)?,
    }
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::User, 2)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User, 3)?;
    rustix::thread::set_keep_capabilities(false).at(Step::User, 4)?;
    if descriptors.wait.is_some() {
        look_up_command(plan).at(Step::Command, 0)?;
    }
    let capset = |effective: u64, permitted: u64| {
        let set = CapabilitySet::from_bits_retain;
        rustix::thread::set_capabilities(
            None,
            CapabilitySets { effective: set(effective), permitted: set(permitted), inheritable: set(sets.inheritable) },
        )
    };
    let admin = CapabilitySet::SYS_ADMIN.bits();
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at(Step::Capabilities, 100)?;
    } else if let Some(filter) = &plan.seccomp {
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter: so before it is given up.
        capset(admin, sets.permitted | admin).at(Step::Capabilities, 101)?;
        filter.load().at(Step::Seccomp, 0)?;
    }
    capset(sets.effective, sets.permitted).at(Step::Capabilities, 102)?;
    sys::clear_ambient_capabilities().at(Step::Capabilities, 103)?;
    for capability in (0..64).filter(|capability| sets.ambient & (1 << capability) != 0) {
        sys::raise_ambient_capability(capability).at(Step::Capabilities, 104)?;
    }
    if descriptors.manner.tied {
        // A change of user or capabilities has cancelled it.
        sys::die_with_parent().at(Step::Capabilities, 105)?;
    }
    if let (true, Some(filter)) = (plan.no_new_privileges, &plan.seccomp) {
        filter.load().at(Step::Seccomp, 1)?;
    }
    let program = sys::borrow_fd(descriptors.numbers.program);
    Err(sys::exec_fd(program, &plan.arguments, &plan.environment)).at(Step::Trampoline, 0)
}

/// Whether the command can be executed, as far as that is known before it is: engines want to hear of
/// a missing one from `create`, and it is executed by `start`.
fn look_up_command(plan: &Plan) -> Result<(), Errno> {
    let mut verdict = Errno::NOENT;
    for candidate in plan.arguments.strings().iter().take_while(|candidate| !candidate.is_empty()) {
        let access = rustix::fs::Access::EXEC_OK;
        match rustix::fs::accessat(rustix::fs::CWD, candidate.as_c_str(), access, rustix::fs::AtFlags::EACCESS) {
            Ok(()) => match rustix::fs::stat(candidate.as_c_str()) {
                Ok(status) if FileType::from_raw_mode(status.st_mode) == FileType::Directory => verdict = Errno::ACCESS,
                _ => return Ok(()),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => verdict = errno,
        }
    }
    // Capabilities that are in effect later may allow what this user alone may not.
    let overrides = CapabilitySet::DAC_OVERRIDE.bits();
    if verdict == Errno::ACCESS && plan.uid != 0 && plan.capabilities.effective & overrides != 0 {
        return Ok(());
    }
    Err(verdict)
}
