//! A container's files from outside: its root directory, as its processes see it, or as it would be.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::prepare;
use super::record::{Config, Phase};
use super::store::{Container, Containers};
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::launch::{InRoot, file_type};
use crate::sys::{self, MountAttributes};
use crate::userns::{self, Mapping};
use crate::volume::{Mounting, Source, Volume, Volumes};

/// How long is waited before it is looked again whether a container can be had.
const PAUSE: Duration = Duration::from_millis(10);

/// A container's root directory. What is in it is the container's: resolve no path in it but by descriptor.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
    /// The user namespace this process is in now, if it is not root's.
    pub rootless: Option<Mapping>,
    /// It does not run, and is not started as long as this is held.
    _lock: Option<File>,
    _layers: Shared,
}

impl Files {
    /// The root directory, as a bare reference.
    pub fn root(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Containers {
    /// Where the layers of a container's image are, the top one first.
    pub fn layer_paths(&self, config: &Config) -> Vec<PathBuf> {
        config.layers.iter().rev().map(|diff_id| self.store.layer_path(diff_id)).collect()
    }

    /// A container's root directory: while it runs with everything that is mounted in it, else with its volumes.
    /// Until it is dropped one that does not run cannot be started.
    ///
    /// This process may be in other namespaces then. Call it while it has one thread.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while it waits to be started again.
    pub fn files(&self, container: &Container) -> Result<Files> {
        let id = &container.config.id;
        loop {
            let container = self.load(id)?;
            let opened = match container.status.phase {
                Phase::Running => self.running_root(&container)?,
                Phase::Restarting => {
                    let why = "it waits until it is started again; copy while it runs, or stop it first (`rbox stop`)".into();
                    return Err(Error::Busy { what: format!("container {}", container.config.name), why });
                }
                _ => self.resting_root(&container.config)?,
            };
            match opened {
                Some(files) => return Ok(files),
                // It has just ended, or is just being started.
                None => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Through the container's first process; `None` if that has ended.
    fn running_root(&self, container: &Container) -> Result<Option<Files>> {
        let id = &container.config.id;
        let Some(process) = self.runtime.first_process(id)? else { return Ok(None) };
        let Some(root) = process.open("root", OFlags::PATH | OFlags::DIRECTORY)? else { return Ok(None) };
        let rootless = if rustix::process::geteuid().is_root() {
            None
        } else {
            // An ordinary user's privileges are those in the namespace that user made.
            move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::USER)
                .attempt(|| format!("join the user namespace of container {}", container.config.name))?;
            Some(userns::mapping()?)
        };
        Ok(Some(Files { root, rootless, _lock: None, _layers: Shared::new() }))
    }

    /// Put together as for a start, in a mount namespace of this process's own; `None` if somebody has it.
    fn resting_root(&self, config: &Config) -> Result<Option<Files>> {
        let Some(lock) = self.lock_resting(&config.id, FlockOperation::NonBlockingLockExclusive)? else { return Ok(None) };
        let attempted = || format!("mount the files of container {}", config.name);
        let dir = self.directory(&config.id);
        let rootless = if rustix::process::geteuid().is_root() { None } else { Some(userns::enter_rootless()?) };
        let overlay = prepare::overlay(&self.store, &dir, &config.layers, rootless.is_some(), false);
        let mut layers = Shared::new();
        let root = overlay.mount_by(&mut |path| layers.open(path))?;
        let mut volumes = config.options.volumes.clone();
        if !volumes.is_empty() {
            let mounting = Mounting { root: root.as_fd(), fill: false, rootless };
            Volumes::of(&self.store).mount(&mut volumes, &mounting)?;
            sys::unshare(libc::CLONE_NEWNS).attempt(attempted)?;
            rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).attempt(attempted)?;
            // Over the container's own directory, which nothing here looks into any more.
            rustix::mount::move_mount(&root, c"", CWD, &dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).attempt(attempted)?;
            volumes.sort_by_key(|volume| volume.destination.components().count());
            for volume in &volumes {
                mount(volume, &root).attempt(|| format!("mount {} for container {}", volume.describe(), config.name))?;
            }
        }
        if config.options.read_only {
            let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
            sys::mount_setattr(root.as_fd(), attributes, false).attempt(attempted)?;
        }
        Ok(Some(Files { root, rootless, _lock: Some(lock), _layers: layers }))
    }
}

fn mount(volume: &Volume, root: &OwnedFd) -> rustix::io::Result<()> {
    let Source::Host(source) = &volume.source else { return Ok(()) };
    let tree = clone_tree(source)?;
    if volume.read_only {
        let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        sys::mount_setattr(tree.as_fd(), attributes, true)?;
    }
    let place = InRoot::new(&volume.destination).ok_or(rustix::io::Errno::NAMETOOLONG)?;
    let target = match file_type(&tree)? {
        FileType::Directory => place.open_or_create_directory(root.as_fd())?,
        _ => place.open_or_create_file(root.as_fd())?,
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", &target, c"", flags)
}

fn clone_tree(source: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, source, flags)
}
