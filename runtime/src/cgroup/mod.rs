//! A container's control group.
//!
//! One directory in the cgroup2 hierarchy, where there is one (on hybrid hosts at
//! `/sys/fs/cgroup/unified`): the container's first process is born in it, device rules are an eBPF
//! program on it, and killing it kills the container. Hosts with cgroup v1 alone get a directory of
//! the `devices` controller. No other controller is joined: nothing here limits memory or CPU yet.

mod devices;
pub(crate) mod membership;
pub(crate) mod processes;
pub(crate) mod usage;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};
use crate::sys;
use devices::Rules;

/// How long processes of a killed cgroup may take to be gone.
const KILL_TIMEOUT_S: i64 = 10;

const CGROUP2_MAGIC: i64 = 0x6367_7270;
const CGROUP1_MAGIC: i64 = 0x0027_e0eb;

/// A container's cgroup directory. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    /// cgroup v1: `tasks`, for the container's process to write itself into.
    tasks: Vec<OwnedFd>,
}

impl Cgroup {
    /// Where container `id`'s cgroup will be; `None` if this host or user cannot have one.
    pub(crate) fn path_for(id: &str, linux: &Linux, privileged: bool) -> Result<Option<PathBuf>> {
        let Some((mount, version)) = hierarchy() else { return Ok(None) };
        if let Some(path) = linux.cgroups_path() {
            let text = path.to_string_lossy();
            if text.contains(':') || path.components().any(|part| part == std::path::Component::ParentDir) {
                return Err(Error::invalid(format!("cgroupsPath {text:?}"), "systemd slices and \"..\" are not supported"));
            }
            return Ok(Some(mount.join(text.trim_start_matches('/'))));
        }
        if privileged {
            return Ok(Some(mount.join(format!("longshore-{id}"))));
        }
        let own = own_cgroup(version)?;
        let parent = mount.join(own.trim_start_matches('/'));
        // Delegated to this user, or not to be had.
        let writable = rustix::fs::access(parent.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
        Ok(writable.then(|| parent.join(format!("longshore-{id}"))))
    }

    /// Makes the directory at `path` with the device rules of `linux`. An empty one that is there is
    /// the leftover of a crash and taken over; one with processes in it is in use.
    pub(crate) fn create(path: PathBuf, linux: &Linux, privileged: bool) -> Result<Self> {
        match fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_dir(&path).map_err(|_| Error::Busy {
                    what: format!("cgroup {path:?}"),
                    why: "a container of this name is running; choose another name or stop it first".into(),
                })?;
                fs::create_dir(&path).attempt(|| format!("create cgroup {path:?}"))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&path).attempt(|| format!("create cgroup {path:?}"))?;
            }
            other => other.attempt(|| format!("create cgroup {path:?}"))?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty()).attempt(|| format!("open cgroup {path:?}"))?;
        let mut cgroup = Self { path, directory, tasks: Vec::new() };
        let v1 = magic(&cgroup.path) == Some(CGROUP1_MAGIC);
        // In a user namespace no device node can be made, and device programs are not allowed.
        if privileged {
            let configured = linux.resources().as_ref().and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
            cgroup.restrict_devices(&Rules::new(configured), v1)?;
        }
        if v1 {
            let tasks = rustix::fs::openat(&cgroup.directory, c"tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            cgroup.tasks.push(tasks.attempt(|| format!("open tasks of cgroup {:?}", cgroup.path))?);
        }
        Ok(cgroup)
    }

    fn restrict_devices(&self, rules: &Rules, v1: bool) -> Result<()> {
        if rules.allow_all() {
            return Ok(());
        }
        if v1 {
            for (file, line) in rules.lines() {
                fs::write(self.path.join(file), &line)
                    .attempt(|| format!("write {line:?} to {file} of cgroup {:?}", self.path))?;
            }
            return Ok(());
        }
        let program =
            sys::bpf_load_cgroup_device(&rules.program()).attempt(|| "load the device rules (needs CAP_BPF or CAP_SYS_ADMIN)")?;
        sys::bpf_attach_cgroup_device(self.directory.as_fd(), program.as_fd())
            .attempt(|| format!("attach the device rules to cgroup {:?}", self.path))
    }

    /// Leaves the cgroup to the container in it: whoever removes that removes it.
    pub(crate) fn keep(mut self) {
        // An empty path is nothing to be removed.
        self.path = PathBuf::new();
    }

    /// The cgroup2 directory to be born in; `None` on cgroup v1.
    pub(crate) fn born_in(&self) -> Option<BorrowedFd<'_>> {
        self.tasks.is_empty().then(|| self.directory.as_fd())
    }

    /// The `tasks` files to be joined; empty on cgroup2.
    pub(crate) fn tasks(&self) -> &[OwnedFd] {
        &self.tasks
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        // Without any way to report it; the guard process tries again if this one is being killed.
        let _ = destroy(&self.path);
    }
}

/// Changes the limits of a container that is there: those that are given.
pub(crate) fn update(_cgroups: &[membership::Membership], _resources: &oci_spec::runtime::LinuxResources) -> Result<()> {
    Err(Error::invalid("update", "not supported yet"))
}

/// True if containers of this host live in the cgroup2 hierarchy.
pub(crate) fn has_cgroup2() -> bool {
    hierarchy().is_some_and(|(_, version)| version == 2)
}

/// Kills what is in the cgroup at `path`, waits for it, and removes the directory. One that is not
/// there is no error.
pub(crate) fn destroy(path: &Path) -> Result<()> {
    let remove = || match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(errno) => Err(errno),
    };
    if remove().attempt(|| format!("remove cgroup {path:?}"))? {
        return Ok(());
    }
    kill(path)?;
    wait_until_empty(path)?;
    if remove().attempt(|| format!("remove cgroup {path:?}"))? {
        return Ok(());
    }
    Err(Error::Busy { what: format!("cgroup {path:?}"), why: "processes in it cannot be killed, or it has children".into() })
}

/// By `cgroup.kill` (Linux 5.14), or each process on its own until none is left.
fn kill(path: &Path) -> Result<()> {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let list = fs::read_to_string(path.join("cgroup.procs")).attempt(|| format!("list the processes of cgroup {path:?}"))?;
    for pid in list.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno).attempt(|| format!("kill process {pid:?} of cgroup {path:?}")),
        }
    }
    Ok(())
}

/// Waits for `populated 0` in `cgroup.events`, whose changes wake a poll. cgroup v1 has no such file:
/// there the processes' own pidfds are waited for.
fn wait_until_empty(path: &Path) -> Result<()> {
    let timeout = rustix::event::Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 };
    let Ok(events) = fs::File::open(path.join("cgroup.events")) else {
        let list = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in list.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?)) {
            if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
                let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
            }
        }
        return Ok(());
    };
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(&events, &mut text, 0).attempt(|| format!("read cgroup.events of {path:?}"))?;
        if text[..length].windows(11).any(|window| window == b"populated 0") {
            return Ok(());
        }
        if poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout)).attempt(|| "wait for the cgroup to empty")? == 0 {
            return Ok(());
        }
    }
}

/// The hierarchy containers are put in: mount point and version.
fn hierarchy() -> Option<(&'static Path, u8)> {
    [
        ("/sys/fs/cgroup", CGROUP2_MAGIC, 2),
        ("/sys/fs/cgroup/unified", CGROUP2_MAGIC, 2),
        ("/sys/fs/cgroup/devices", CGROUP1_MAGIC, 1),
    ]
    .into_iter()
    .find(|(path, wanted, _)| magic(Path::new(path)) == Some(*wanted))
    .map(|(path, _, version)| (Path::new(path), version))
}

fn magic(path: &Path) -> Option<i64> {
    rustix::fs::statfs(path).ok().map(|status| status.f_type)
}

/// This process's own cgroup in the hierarchy (`/proc/self/cgroup`).
fn own_cgroup(version: u8) -> Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup").attempt(|| "read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = if version == 2 { number == "0" } else { controllers.split(',').any(|name| name == "devices") };
        found.then_some(path)
    });
    Ok(path.unwrap_or("/").to_owned())
}
