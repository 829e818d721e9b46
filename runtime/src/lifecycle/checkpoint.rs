//! `checkpoint`: a container's processes are written to disk, by criu.
//!
//! Unless it is to go on, the container has ended then, as one that was killed has; what is left of it goes with
//! `delete`, or when it is restored under its own name.

use std::path::{Component, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use super::create::pid_inside;
use super::criu::{Criu, CriuOptions, Externals, Images, Request, Task, check};
use super::state::{Container, Process, Status};
use super::{Runtime, not_running};
use crate::cgroup::processes;
use crate::error::{Attempt, Error, Result};
use crate::hooks;
use crate::warning::warn;

/// How long the processes may take to be gone once they are written.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The file in a container's directory that says that its processes ended in a checkpoint.
const MARK: &str = "checkpointed";

/// What the caller of `checkpoint` chooses.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// What checkpoints and restores have in common.
    pub criu: CriuOptions,
    /// The container goes on.
    pub leave_running: bool,
    /// Only its memory is written, ahead of a checkpoint that will have less to write; it goes on.
    pub pre_dump: bool,
    /// The directory of a checkpoint of the same container's, relative to that of the images: what has not changed
    /// since is not written again.
    pub parent: Option<PathBuf>,
    /// Address and port of a criu that takes the memory (`criu page-server`).
    pub page_server: Option<(String, u16)>,
}

impl Runtime {
    /// Writes a running or paused container to disk.
    ///
    /// Should that fail, it runs on, or is paused as it was.
    pub fn checkpoint(&self, id: &str, options: &CheckpointOptions) -> Result<()> {
        let container = self.take(id)?;
        let process = match (container.process()?, container.status()?) {
            (Some(process), Status::Running | Status::Paused) => process,
            (None, _) | (_, Status::Stopped) => return Err(not_running(id)),
            (_, status) => {
                let why = format!("it is {}: only a running or paused container can be checkpointed", status.name());
                return Err(Error::Busy { what: format!("container {id:?}"), why });
            }
        };
        only_root("checkpoint")?;
        if container.record.mount.is_some() {
            return Err(Error::invalid(
                format!("container {id:?}"),
                "it is in the host's mount namespace: criu would take the host's mounts for its own",
            ));
        }
        let criu = Criu::find(options.criu.program.as_deref())?;
        let images = Images::make(&options.criu.images)?;
        let was_paused = processes::frozen(&container.record.cgroups);
        dump(&container, &process, &criu, &images, options).inspect_err(|_| {
            // A criu that was killed leaves it frozen.
            if !was_paused && processes::frozen(&container.record.cgroups) {
                let _ = processes::freeze(&container.record.cgroups, false);
            }
        })?;
        if options.leave_running || options.pre_dump {
            return Ok(());
        }
        if processes::frozen(&container.record.cgroups) {
            // A v1 freezer keeps even the killed.
            processes::freeze(&container.record.cgroups, false)?;
        }
        if !hooks::ends_within(&process.pidfd, END_TIMEOUT).attempt(|| "wait for the container's process to end")? {
            return Err(Error::Busy {
                what: format!("container {id:?}"),
                why: "it is written, and its process still there".into(),
            });
        }
        container.directory.write(MARK, b"")
    }

    /// Removes container `id` if it ended in a checkpoint: it is to be restored.
    pub(super) fn make_way(&self, id: &str) -> Result<()> {
        let container = match self.take(id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        if container.directory.has(MARK) && container.status()? == Status::Stopped {
            let spec = container.spec()?;
            self.destroy(&container, &spec)?;
        }
        // Any other is in the way.
        Ok(())
    }
}

fn dump(container: &Container, process: &Process, criu: &Criu, images: &Images, options: &CheckpointOptions) -> Result<()> {
    let record = &container.record;
    let spec = container.spec()?;
    check(&spec)?;
    let task = if options.pre_dump { Task::PreDump } else { Task::Dump };
    let mut request = Request::new(task, &options.criu, images, &spec)?;
    request.number(2, process.pid.as_raw_nonzero().get() as u64).text(13, &record.rootfs);
    request.number(3, u64::from(options.leave_running));
    if let Some(parent) = &options.parent {
        check_parent(images, parent)?;
        request.text(14, parent);
    }
    if options.parent.is_some() || options.pre_dump {
        // What is written from now on can be told from what was not.
        request.number(15, 1);
    }
    if let Some((address, port)) = &options.page_server {
        request.page_server(address, *port);
    }
    if let Some(freezer) = processes::freezer(&record.cgroups) {
        request.text(44, freezer);
    }
    let externals = Externals::of(&spec, &record.cgroups, record.pid, &record.descriptors)?;
    externals.name(&mut request);
    let inside = pid_inside(record.pid);
    if task == Task::Dump {
        images.write_descriptors(&externals.descriptors)?;
    }
    criu.call(&request, &mut |_| Ok(()))?;
    if task == Task::Dump
        && let Err(error) = images.untie(inside)
    {
        warn(&format!("{error}: restored in the background, the container may end with the command that restores it"));
    }
    Ok(())
}

/// criu's own words for a directory that is not there are hard to understand.
fn check_parent(images: &Images, parent: &std::path::Path) -> Result<()> {
    let what = || format!("--parent-path {parent:?}");
    if parent.components().any(|component| component == Component::RootDir) {
        return Err(Error::invalid(what(), "it must be relative to --image-path"));
    }
    let path = images.path().join(parent);
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::invalid(what(), format!("{path:?} is no directory"))),
        Err(error) => Err(Error::io(format!("{}: open directory {path:?}", what()), error)),
    }
}

/// criu needs more power than an ordinary user has, or a user in a namespace of its own.
pub(super) fn only_root(verb: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() && crate::userns::in_first()? {
        return Ok(());
    }
    Err(Error::invalid(verb, "only root can do that: criu needs it; run roci, and the container, as root"))
}

/// A process by the number criu has given.
pub(super) fn known(pid: Option<i32>) -> Result<Pid> {
    pid.filter(|pid| *pid > 0)
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::invalid("criu's answer", "it does not say which process it has restored"))
}
