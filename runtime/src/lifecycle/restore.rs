//! `restore`: a container goes on from where a checkpoint was made of it, by criu.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxNamespaceType;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;

use super::Runtime;
use super::bundle::Bundle;
use super::checkpoint::{known, only_root};
use super::create::{has_terminal, hook_state, hooks_of_creation};
use super::criu::{
    Criu, CriuOptions, Images, ManageCgroups, Notice, Outside, Request, Task, check, make_targets, name_namespaces,
};
use super::handover::{Receivers, check_terminal, write_pid_file};
use super::helper::apart;
use super::state::{Directory, Record, Status};
use crate::cgroup::{Cgroup, Member, Unit};
use crate::error::{Attempt, Error, Result};
use crate::hooks::{self, Kind};
use crate::launch::{CgroupLease, Exit, Guard, Running, Signals, remove_tree};
use crate::sys;

/// Where criu finds the root filesystem, in its own mount namespace: a directory in the container's.
const ROOT: &str = "criu-root";

/// What the caller of `restore` chooses.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// What checkpoints and restores have in common.
    pub criu: CriuOptions,
    /// The container's name, which may be another than it had.
    pub id: String,
    /// The bundle: its root filesystem, and the sources of its mounts, are what the container goes on with.
    pub bundle: PathBuf,
    /// The container is not waited for.
    pub detach: bool,
    /// Where the number of its first process is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the master side of its terminal.
    pub console_socket: Option<PathBuf>,
    /// The profile of a security module that its processes get (`TYPE:NAME`).
    pub lsm_profile: Option<String>,
    /// The context of a security module that its mounts get.
    pub lsm_mount_context: Option<String>,
}

/// A container on its way back.
struct Restoring<'a, 'g> {
    options: &'a RestoreOptions,
    bundle: &'a Bundle,
    directory: &'a Directory,
    receivers: &'a Receivers,
    guard: &'g Guard,
    unit: Option<Unit>,
}

impl Runtime {
    /// Restores a container and, unless it is to be detached from, waits for its end and removes it.
    ///
    /// Should that fail, there is no container. Call it before this process starts threads.
    pub fn restore(&self, options: &RestoreOptions) -> Result<Option<Exit>> {
        only_root("restore")?;
        let (images, descriptors) = Images::complete(&options.criu.images)?;
        let criu = Criu::find(options.criu.program.as_deref())?;
        let bundle = Bundle::read(&options.bundle)?;
        check(&bundle.spec)?;
        check_terminal(has_terminal(&bundle.spec), options.detach, options.console_socket.as_deref())?;
        let receivers = Receivers::connect(options.console_socket.as_deref(), None)?;
        let unit = self.unit(&options.id, &bundle.spec)?;
        self.make_way(&options.id)?;
        let directory = Directory::create(&self.root, &options.id)?;
        let state = directory.path().to_owned();
        // Should this process be killed, so is what criu has made by then.
        let guard = Guard::start(&mut || remove_tree(&state).is_ok()).inspect_err(|_| drop(directory.remove()))?;
        let restoring = Restoring { options, bundle: &bundle, directory: &directory, receivers: &receivers, guard: &guard, unit };
        let ended = if options.detach {
            restoring.bring_back(&criu, &images, &descriptors).map(Running::detach).map(|()| None)
        } else {
            restoring.in_foreground(&criu, &images, &descriptors).map(Some)
        };
        guard.dismiss();
        ended
    }
}

impl<'g> Restoring<'_, 'g> {
    fn in_foreground(&self, criu: &Criu, images: &Images, descriptors: &[String]) -> Result<Exit> {
        let signals = Signals::catch().inspect_err(|_| self.remove())?;
        let running = self.bring_back(criu, images, descriptors)?;
        if let Err(error) = self.directory.unlock() {
            running.kill();
            self.never_was(true);
            return Err(error);
        }
        let ended = running.wait(&signals);
        self.directory.lock()?;
        self.directory.remove()?;
        self.after_end();
        ended
    }

    /// The container runs, or there is nothing of it.
    fn bring_back(&self, criu: &Criu, images: &Images, descriptors: &[String]) -> Result<Running<'g>> {
        let mut running = None;
        let done = self.ask(criu, images, descriptors, &mut running);
        match (done, running) {
            (Ok(()), Some(running)) => Ok(running),
            (done, running) => {
                let born = running.is_some();
                if let Some(running) = running {
                    running.kill();
                }
                self.never_was(born);
                Err(done.err().unwrap_or_else(|| Error::invalid("criu's answer", "nothing was restored")))
            }
        }
    }

    fn ask(&self, criu: &Criu, images: &Images, descriptors: &[String], running: &mut Option<Running<'g>>) -> Result<()> {
        let (options, spec) = (self.options, &self.bundle.spec);
        let linux = spec.linux().as_ref().ok_or_else(|| Error::invalid("configuration", "it has no \"linux\""))?;
        self.directory.write("config.json", &self.bundle.text)?;
        let point = self.directory.path().join(ROOT);
        DirBuilder::new().mode(0o700).create(&point).attempt(|| format!("create directory {point:?}"))?;
        let point = point.canonicalize().attempt(|| format!("open directory {point:?}"))?;
        make_targets(spec, &self.bundle.rootfs)?;
        let lease = CgroupLease::new(&options.id, linux, Some(self.guard), self.unit.clone())?;
        let members: Vec<Member> = lease.cgroup().into_iter().flat_map(Cgroup::members).cloned().collect();
        let mut request = Request::new(Task::Restore, &options.criu, images, spec)?;
        request.mount_root(&self.bundle.rootfs, &point);
        // It is this process's child, and may have devices that are made when they are opened.
        request.number(26, 1).number(6, 1);
        for (field, value) in [(53, &options.lsm_profile), (63, &options.lsm_mount_context)] {
            if let Some(value) = value {
                request.text(field, value);
            }
        }
        Outside::of(spec, &members).name_sources(&mut request);
        name_namespaces(spec, &mut request)?;
        name_cgroups(&members, &mut request);
        for (number, name) in descriptors.iter().take(3).enumerate() {
            if name.starts_with("pipe:[") || name.starts_with("file[") {
                request.inherit(name, number as i32);
            }
        }
        let joined = lease.cgroup().filter(|_| options.criu.manage_cgroups == ManageCgroups::Ignore);
        if let Some(cgroup) = joined {
            request.begin_in(cgroup);
        }
        let mut master = None;
        let mut waiting = None;
        // The request borrows the cgroup, which is the container's from the moment there is one.
        let done = criu.call(&request, &mut |notice| match notice.what.as_str() {
            "setup-namespaces" => self.set_up(known(notice.pid)?),
            "orphan-pts-master" => {
                master = terminal(notice, !options.detach)?;
                Ok(())
            }
            "post-restore" => {
                let pid = known(notice.pid)?;
                waiting = Some(pid);
                self.finish(pid, master.as_ref())
            }
            _ => Ok(()),
        });
        drop(request);
        let adopted = waiting.map(|pid| Running::adopt(pid, master, lease)).transpose();
        match (done, adopted) {
            (Ok(()), Ok(adopted)) => {
                *running = adopted;
                // What is left of it goes with the container.
                let _ = std::fs::remove_dir(&point);
                Ok(())
            }
            (Err(error), Ok(adopted)) => {
                *running = adopted;
                Err(error)
            }
            (done, Err(error)) => done.and(Err(error)),
        }
    }

    /// What is made outside of the container, before its processes are.
    fn set_up(&self, pid: Pid) -> Result<()> {
        let spec = &self.bundle.spec;
        let own = |kind| {
            spec.linux()
                .iter()
                .flat_map(|linux| linux.namespaces().iter().flatten())
                .any(|namespace| namespace.typ() == kind && namespace.path().is_none())
        };
        if own(LinuxNamespaceType::Network) {
            apart("bring the container's loopback interface up", &mut || loopback_up(pid))?;
        }
        let record = self.record(pid.as_raw_nonzero().get(), Vec::new());
        hooks_of_creation(&record, spec)
    }

    /// Its processes are there and do not run yet: what others need to find it.
    fn finish(&self, pid: Pid, master: Option<&OwnedFd>) -> Result<()> {
        let record = self.record(pid.as_raw_nonzero().get(), Member::differing(pid)?);
        self.directory.save(&record)?;
        master.map_or(Ok(()), |master| self.receivers.send_master(master.as_fd()))?;
        self.options.pid_file.as_ref().map_or(Ok(()), |path| write_pid_file(path, record.pid))
    }

    fn record(&self, pid: i32, cgroups: Vec<Member>) -> Record {
        self.bundle.record(&self.options.id, pid, cgroups, self.unit.clone())
    }

    fn never_was(&self, born: bool) {
        self.remove();
        if born {
            self.after_end();
        }
    }

    fn after_end(&self) {
        hooks::run_all(Kind::Poststop, &self.bundle.spec, || hook_state(&self.record(0, Vec::new()), Status::Stopped, 0));
    }

    fn remove(&self) {
        // What stopped the restore is what is reported.
        let _ = self.directory.remove();
    }
}

/// Has the processes restored in the container's own cgroup, wherever they were.
fn name_cgroups(members: &[Member], request: &mut Request<'_>) {
    const CGROUP_ROOT: u32 = 25;
    for member in members {
        let path = Path::new("/").join(member.path.strip_prefix(&member.mount).unwrap_or(Path::new("")));
        if members.iter().all(Member::is_unified) {
            // For whatever was one.
            request.pair(CGROUP_ROOT, "", path);
            continue;
        }
        for controller in member.controllers.split(',') {
            request.pair(CGROUP_ROOT, controller, &path);
        }
    }
}

/// A terminal's master side: here it is read by polling, elsewhere as its reader likes.
fn terminal(notice: Notice, relayed: bool) -> Result<Option<OwnedFd>> {
    let Some(master) = notice.descriptor else { return Ok(None) };
    let flags = if relayed { rustix::fs::OFlags::NONBLOCK } else { rustix::fs::OFlags::empty() };
    rustix::fs::fcntl_setfl(&master, flags).attempt(|| "set up the container's terminal")?;
    Ok(Some(master))
}

fn loopback_up(pid: Pid) -> Result<()> {
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let namespace = std::fs::File::open(&path).attempt(|| format!("open {path}"))?;
    sys::join_namespace(namespace.as_fd(), libc::CLONE_NEWNET).attempt(|| format!("join {path}"))?;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .attempt(|| "create a socket")?;
    sys::loopback_up(socket.as_fd()).attempt(|| "set the flags of lo")
}
