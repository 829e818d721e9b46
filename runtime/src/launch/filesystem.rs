//! The container's filesystem, as its first process puts it together inside the root: mounts, devices,
//! links, settings, covers.
//!
//! Nothing here allocates, and the image is untrusted: each target is opened by descriptor in the root,
//! and what is attached is attached to that descriptor, whatever happens to the path meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};
use rustix::process::{Gid, Uid};

use super::devices::DevicePlan;
use super::mounts::{MountPlan, Source};
use super::path::{InRoot, file_type, open_in};
use super::plan::{Plan, set_root_propagation};
use super::report::{At, Fault, Step};
use crate::sys::{self, MountAttributes};

/// Mounts, devices and links, in order.
pub(super) fn fill(plan: &Plan) -> Result<(), Fault> {
    for index in 0..plan.mounts.len() {
        attach(plan, index)?;
    }
    for (index, device) in plan.devices.iter().enumerate() {
        make_device(plan.root.as_fd(), device).at(Step::Device, index)?;
    }
    make_links(plan.root.as_fd()).at(Step::Link, 0)
}

/// What is done once the host's filesystem is left: console, settings, covers.
pub(super) fn finish(plan: &Plan, terminal: Option<BorrowedFd<'_>>) -> Result<(), Fault> {
    if let Some(terminal) = terminal {
        attach_console(plan.root.as_fd(), terminal).at(Step::Console, 0)?;
    }
    set_sysctls(plan)?;
    cover_paths(plan)
}

/// Attaches a mount to the descriptor of its target: whatever happens to the path meanwhile.
fn attach(plan: &Plan, index: usize) -> Result<(), Fault> {
    let mount = &plan.mounts[index];
    if let Source::Remount(remount) = &mount.source {
        let target = mount.target.open(plan.root.as_fd()).at(Step::Mount, index)?;
        return remount.apply(target.as_fd()).at(Step::Mount, index);
    }
    let tree = tree(plan, index).ok_or(Errno::BADF).at(Step::Mount, index)?;
    let target = open_target(plan.root.as_fd(), mount).at(Step::Mount, index)?;
    move_onto(tree, target.as_fd()).at(Step::Mount, index)
}

/// The mount itself, whoever made it.
fn tree(plan: &Plan, index: usize) -> Option<BorrowedFd<'_>> {
    match &plan.mounts[index].source {
        Source::Made(tree) => Some(tree.as_fd()),
        _ => plan.made[index].as_ref().map(AsFd::as_fd),
    }
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
    for (index, _) in plan.mounts.iter().enumerate().filter(|(_, mount)| mount.seal) {
        if let Some(tree) = tree(plan, index) {
            sys::mount_setattr(tree.as_fd(), attributes, false).at(Step::Mount, index)?;
        }
    }
    if plan.root_readonly {
        sys::mount_setattr(root, attributes, false).at(Step::ReadOnlyRoot, 0)?;
    }
    set_root_propagation(plan).at(Step::RootPropagation, 0)
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
