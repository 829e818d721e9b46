//! A container's control group.
//!
//! Its directories are found by [`place`], made and limited here. Where there is a cgroup2 hierarchy the
//! container's first process is born in it, device rules are an eBPF program on it, and killing it kills
//! the container; the limits of v1 hierarchies are joined by writing to their `tasks`.

mod block_io;
mod devices;
mod place;
pub(crate) mod processes;
mod remove;
mod settings;
mod systemd;
pub(crate) mod usage;

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};
use crate::sys;
use devices::Rules;
use settings::{Host, Setting, Version};

pub(crate) use place::{Member, place, place_scope};
pub(crate) use remove::destroy;
pub(crate) use systemd::{Scope, Unit};

/// What a mount of type `cgroup` shows of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The cgroup2 hierarchy; the container's own directory in it, if it has one.
    Unified(Option<PathBuf>),
    /// A directory for each hierarchy, as cgroup v1 hosts have it; none if the container has no cgroup.
    Several(Vec<ShownHierarchy>),
}

/// One hierarchy of [`Shown::Several`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownHierarchy {
    /// Of the directory it is mounted on.
    pub(crate) name: String,
    /// The mount option that names its controllers.
    pub(crate) option: String,
    /// Whether it is the cgroup2 hierarchy.
    pub(crate) unified: bool,
    /// The container's directory on the host.
    pub(crate) path: PathBuf,
}

/// A container's cgroup directories. Dropping it kills what is in them and removes them.
#[derive(Debug)]
pub(crate) struct Cgroup {
    members: Vec<Open>,
    /// Who made them, if not this program.
    scope: Option<Scope>,
}

/// A directory that is there.
#[derive(Debug)]
struct Open {
    member: Member,
    directory: OwnedFd,
    /// cgroup v1: `tasks`, for the container's process to write itself into.
    tasks: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the directories and limits them. An empty one that is there is the leftover of a crash, or
    /// was made by an engine, and taken over; one with processes in it is in use, but for those of a scope.
    /// Without resources asked for, an ordinary user does without the directories it may not make.
    pub(crate) fn create(
        members: Vec<Member>,
        scope: Option<Scope>,
        resources: Option<&LinuxResources>,
        privileged: bool,
    ) -> Result<Self> {
        let empty = LinuxResources::default();
        let resources = resources.unwrap_or(&empty);
        let needed = settings::controllers_needed(resources);
        let mut cgroup = Self { members: Vec::with_capacity(members.len()), scope };
        for member in members {
            match cgroup.scope.as_ref().map_or_else(|| make(&member, cgroup.members.is_empty()), |scope| scope.hold(&member)) {
                Err(Error::Io { source, .. })
                    if !privileged
                        && matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
                        && !needed.iter().any(|name| member.has(name)) => {}
                made => {
                    made?;
                    cgroup.members.push(Open::new(member)?);
                }
            }
        }
        cgroup.enable_controllers(&needed, resources)?;
        let rules = Rules::new(resources.devices().as_deref().unwrap_or_default());
        // In a user namespace no device node can be made, and device programs are not allowed.
        if privileged {
            cgroup.restrict_devices(&rules)?;
        }
        let settings = settings::settings(resources, &cgroup)?;
        cgroup.limit(&settings)?;
        let v1_rules =
            (privileged && !rules.allow_all() && cgroup.members.iter().any(|open| open.member.has("devices"))).then_some(&rules);
        if let Some(scope) = &mut cgroup.scope {
            scope.set(&settings, v1_rules)?;
        }
        for open in cgroup.members.iter_mut().filter(|open| !open.member.is_unified()) {
            let tasks = rustix::fs::openat(&open.directory, c"tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            open.tasks = Some(tasks.attempt(|| format!("open tasks of cgroup {:?}", open.member.path))?);
        }
        Ok(cgroup)
    }

    /// Applies limits to a cgroup that is there.
    fn limit(&self, settings: &[Setting]) -> Result<()> {
        let mut list = settings.iter().peekable();
        // What follows has to be smaller first.
        let order = [
            // v1: memory cannot be raised above memory and swap, nor these lowered below that.
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            // v1: of a shorter period the old time may be more than the group above has.
            ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
            ("cpu.rt_period_us", "cpu.rt_runtime_us"),
        ];
        while let Some(setting) = list.next() {
            match self.apply(setting) {
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::InvalidInput
                        && list.peek().is_some_and(|next| order.contains(&(setting.file.as_str(), next.file.as_str()))) =>
                {
                    if let Some(next) = list.next() {
                        self.apply(next)?;
                    }
                    self.apply(setting)?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn apply(&self, setting: &Setting) -> Result<()> {
        let open = match setting.controller {
            "" => self.members.iter().find(|open| open.member.is_unified()),
            controller => self.find(controller).map(|(open, _)| open),
        };
        let field = format!("linux.resources.{}", setting.field);
        let Some(open) = open else {
            return Err(Error::invalid(field, "this host has no cgroup2 hierarchy for it"));
        };
        let written = open.write(&setting.file, &setting.value);
        let written = match (&written, &setting.alias) {
            (Err(Errno::NOENT), Some((file, value))) => open.write(file, value),
            _ => written,
        };
        match written {
            Err(Errno::NOENT) if setting.optional => Ok(()),
            Err(Errno::NOENT) => Err(Error::invalid(
                field,
                format!(
                    "this kernel's cgroup {:?} has no file {}; the controller may be off there",
                    open.member.path, setting.file
                ),
            )),
            Err(errno) => {
                let why = if errno == Errno::BUSY { ": more is in use now" } else { "" };
                Err(Error::io(
                    format!("set {field} (write {:?} to {} of cgroup {:?}){why}", setting.value, setting.file, open.member.path),
                    errno,
                ))
            }
            Ok(()) => Ok(()),
        }
    }

    /// The directory in which a controller, by its v1 name, is at work.
    fn find(&self, controller: &str) -> Option<(&Open, Version)> {
        let v1 = if controller == "io" { "blkio" } else { controller };
        if let Some(open) = self.members.iter().find(|open| open.member.has(v1)) {
            return Some((open, Version::One));
        }
        let v2 = if v1 == "blkio" { "io" } else { v1 };
        let open = self.members.iter().find(|open| open.member.is_unified())?;
        let list = open.read("cgroup.controllers").unwrap_or_default();
        list.split_whitespace().any(|name| name == v2).then_some((open, Version::Two))
    }

    /// cgroup2: a controller works in a directory if each one above it hands it down.
    fn enable_controllers(&self, needed: &[&'static str], resources: &LinuxResources) -> Result<()> {
        let Some(open) = self.members.iter().find(|open| open.member.is_unified()) else { return Ok(()) };
        let v1 = |name: &str| self.members.iter().any(|open| open.member.has(name));
        let mut names: HashSet<&str> =
            needed.iter().filter(|name| !v1(name)).map(|name| if *name == "blkio" { "io" } else { name }).collect();
        let unified = settings::unified(resources)?;
        names.extend(unified.iter().filter_map(|setting| setting.file.split('.').next()).filter(|name| *name != "cgroup"));
        if names.is_empty() {
            return Ok(());
        }
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        let below = open.member.path.strip_prefix(&open.member.mount).unwrap_or(Path::new(""));
        let mut directory = open.member.mount.clone();
        for component in below.components() {
            let file = directory.join("cgroup.subtree_control");
            let now = fs::read_to_string(&file).attempt(|| format!("read {file:?}"))?;
            for name in names.iter().filter(|name| !now.split_whitespace().any(|enabled| enabled == **name)) {
                fs::write(&file, format!("+{name}")).map_err(|error| {
                    let what = format!("linux.resources: hand cgroup controller {name} down from {directory:?}");
                    if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) {
                        Error::invalid(what, "this host has no such controller there")
                    } else {
                        Error::io(what, error)
                    }
                })?;
            }
            directory.push(component);
        }
        Ok(())
    }

    fn restrict_devices(&self, rules: &Rules) -> Result<()> {
        if rules.allow_all() {
            return Ok(());
        }
        if let Some(open) = self.members.iter().find(|open| open.member.has("devices")) {
            for lines in rules.lines().chunk_by(|(file, _), (next, _)| file == next) {
                let name = lines[0].0;
                let attempted = || format!("write to {name} of cgroup {:?}", open.member.path);
                let file = open.file(name, OFlags::WRONLY).attempt(attempted)?;
                for (_, line) in lines {
                    rustix::io::write(&file, line.as_bytes()).attempt(|| format!("{}: {line:?}", attempted()))?;
                }
            }
            return Ok(());
        }
        let Some(open) = self.members.iter().find(|open| open.member.is_unified()) else { return Ok(()) };
        let program =
            sys::bpf_load_cgroup_device(&rules.program()).attempt(|| "load the device rules (needs CAP_BPF or CAP_SYS_ADMIN)")?;
        sys::bpf_attach_cgroup_device(open.directory.as_fd(), program.as_fd())
            .attempt(|| format!("attach the device rules to cgroup {:?}", open.member.path))
    }

    /// A cgroup that is there, to be changed.
    pub(crate) fn open(members: Vec<Member>) -> Result<Self> {
        Ok(Self { members: members.into_iter().map(Open::new).collect::<Result<_>>()?, scope: None })
    }

    /// The container is in it.
    pub(crate) fn settle(&mut self) {
        self.scope.iter_mut().for_each(Scope::settle);
    }

    /// Leaves the cgroup to the container in it: whoever removes that removes it.
    pub(crate) fn keep(mut self) {
        self.members.clear();
        self.scope = None;
    }

    /// Its directories.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|open| &open.member)
    }

    /// The cgroup2 directory to be born in; `None` on hosts with cgroup v1 alone.
    pub(crate) fn born_in(&self) -> Option<BorrowedFd<'_>> {
        self.members.iter().find(|open| open.member.is_unified()).map(|open| open.directory.as_fd())
    }

    /// The `tasks` files to be joined; none on cgroup2.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().filter_map(|open| open.tasks.as_ref()).map(AsFd::as_fd)
    }

    /// Makes the cgroup2 directory and the files the kernel lists for that the user's who is `uid`
    /// outside (runtime-spec config-linux.md, "Cgroup ownership").
    pub(crate) fn delegate(&self, uid: u32) -> Result<()> {
        let Some(open) = self.members.iter().find(|open| open.member.is_unified()) else { return Ok(()) };
        let list = fs::read_to_string("/sys/kernel/cgroup/delegate")
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        for file in list.lines().chain(["."]).filter(|file| !file.contains('/')) {
            let owner = Some(rustix::fs::Uid::from_raw(uid));
            match rustix::fs::chownat(&open.directory, file, owner, None, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno).attempt(|| format!("give {file} of cgroup {:?} to user {uid}", open.member.path));
                }
            }
        }
        Ok(())
    }

    /// How many processes the kernel has killed because the memory limit was reached; 0 without one.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some((open, version)) = self.find("memory") else { return 0 };
        let file = if version == Version::One { "memory.oom_control" } else { "memory.events" };
        let text = open.read(file).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Host for Cgroup {
    fn version(&self, controller: &str) -> Option<Version> {
        self.find(controller).map(|(_, version)| version)
    }

    fn current(&self, controller: &str, file: &str) -> Option<String> {
        self.find(controller)?.0.read(file)
    }
}

impl Open {
    fn new(member: Member) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(&member.path, flags, Mode::empty()).attempt(|| format!("open cgroup {:?}", member.path))?;
        Ok(Self { member, directory, tasks: None })
    }

    fn file(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(&self.directory, name, flags | OFlags::CLOEXEC, Mode::empty())
    }

    fn write(&self, file: &str, value: &str) -> rustix::io::Result<()> {
        rustix::io::write(self.file(file, OFlags::WRONLY)?, value.as_bytes()).map(drop)
    }

    fn read(&self, file: &str) -> Option<String> {
        std::io::read_to_string(fs::File::from(self.file(file, OFlags::RDONLY).ok()?)).ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for open in &self.members {
            // Without any way to report it; the guard process tries again if this one is being killed.
            let _ = destroy(&open.member.path);
        }
        let _ = self.scope.take().map(Scope::stop);
    }
}

/// Changes the limits of a container that is there: those that are given; the others stay.
pub(crate) fn update(members: &[Member], unit: Option<&Unit>, resources: &LinuxResources) -> Result<()> {
    let cgroup = Cgroup::open(members.to_vec())?;
    let limited = settings::settings(resources, &cgroup).and_then(|settings| {
        cgroup.limit(&settings)?;
        unit.map_or(Ok(()), |unit| unit.update(&settings))
    });
    cgroup.keep();
    limited
}

/// Without a cgroup nothing can be limited: an error if that is asked for.
pub(crate) fn none_needed(resources: &LinuxResources) -> Result<()> {
    match settings::controllers_needed(resources).first() {
        Some(controller) => Err(Error::invalid(
            format!("linux.resources ({controller})"),
            "there is no cgroup that this user may divide; ask for one to be delegated (systemd: Delegate=yes), or run as root",
        )),
        None => Ok(()),
    }
}

/// What a mount of type `cgroup` shows in a container with these directories.
pub(crate) fn shown(members: &[Member]) -> Shown {
    if members.iter().all(Member::is_unified) {
        let path = members.first().map(|member| member.path.clone());
        return if path.is_some() || place::unified_mount().is_some() {
            Shown::Unified(path)
        } else {
            Shown::Several(Vec::new())
        };
    }
    let hierarchy = |member: &Member| ShownHierarchy {
        name: member.mount.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        option: member.controllers.clone(),
        unified: member.is_unified(),
        path: member.path.clone(),
    };
    Shown::Several(members.iter().map(hierarchy).collect())
}

/// Makes a directory. The first one made decides whether the name is taken.
fn make(member: &Member, first: bool) -> Result<()> {
    let path = &member.path;
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let busy = fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|list| !list.trim().is_empty());
            if busy || first && fs::remove_dir(path).is_err() {
                return Err(Error::Busy {
                    what: format!("cgroup {path:?}"),
                    why: "the container's cgroup is not empty: one of this name is running; choose another name or stop it first"
                        .into(),
                });
            }
            if !first && processes::frozen(std::slice::from_ref(member)) {
                // A process that joined it would never start.
                return Err(Error::Busy { what: format!("cgroup {path:?}"), why: "it is frozen; thaw it first".into() });
            }
            if first {
                fs::create_dir(path).attempt(|| format!("create cgroup {path:?}"))?;
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path).attempt(|| format!("create cgroup {path:?}"))?;
        }
        other => other.attempt(|| format!("create cgroup {path:?}"))?,
    }
    if member.has("cpuset") { inherit_cpuset(member) } else { Ok(()) }
}

/// cgroup v1: a new `cpuset` directory has no processors and takes no process until it has.
fn inherit_cpuset(member: &Member) -> Result<()> {
    let below = member.path.strip_prefix(&member.mount).unwrap_or(Path::new(""));
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &Path| {
            fs::read_to_string(directory.join(file)).attempt(|| format!("read {file} of cgroup {directory:?}"))
        };
        let (mut directory, mut above) = (member.mount.clone(), None);
        for component in below.components() {
            let parent = directory.clone();
            directory.push(component);
            let mut own = read(&directory)?;
            if own.trim().is_empty() {
                own = above.map_or_else(|| read(&parent), Ok)?;
                fs::write(directory.join(file), own.trim()).attempt(|| format!("write {file} of cgroup {directory:?}"))?;
            }
            above = Some(own);
        }
    }
    Ok(())
}
