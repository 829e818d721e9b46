//! The mounts of a runtime-spec configuration, prepared before the container exists.
//!
//! Bind mounts are made here as detached mounts, and so are filesystems that belong to no namespace, most of
//! them but for the mount itself; those of the new namespaces (proc, sysfs, mqueue, cgroup) can only be made
//! from inside. With a user namespace so are all others, which must be owned by it; but tmpfs and devpts,
//! whose owners can be named.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::copyup;
use super::fsconfig::{Filesystem, Remount};
use super::idmap::Mappings;
use super::namespaces::Namespaces;
use super::options::{IdMapped, Options, Parameter, attribute};
use super::path::{InRoot, file_type};
use super::rootfs::c_string;
use crate::cgroup::Shown;
use crate::error::{Attempt, Error, Result};
use crate::sys::{self, MountAttributes};

/// Procfs files a mount may cover, as LXCFS does; anything else below `/proc` is refused.
const PROC_TARGETS: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Filesystems that show a namespace of the process that makes them.
const OF_A_NAMESPACE: [&str; 6] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2", "binder"];

/// A mount, ready to be attached by the container's own process.
#[derive(Debug)]
pub(super) struct MountPlan {
    /// For error messages: type and destination.
    pub(super) name: String,
    pub(super) target: InRoot,
    pub(super) source: Source,
    /// Taken if the kernel does not let the container make its own (sysfs of a foreign network).
    pub(super) instead: Option<OwnedFd>,
    /// The target may be a procfs file; everywhere else procfs is off limits.
    pub(super) over_proc: bool,
    /// Procfs and sysfs: the target must be a real directory, reached through no symbolic link.
    pub(super) real_directory: bool,
    /// What is made if the target is missing.
    pub(super) onto_directory: bool,
    /// Made read-only once all mounts are attached: others are mounted below it.
    pub(super) seal: bool,
    /// `MS_PRIVATE`, ...: set on the detached mount if it is made inside.
    pub(super) propagation: u64,
}

/// Where a mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Made already, attached nowhere.
    Made(OwnedFd),
    /// To be made inside the new namespaces.
    ToMake(Filesystem),
    /// Not to be made: what is mounted there gets other options.
    Remount(Remount),
}

/// Prepares mounts, one after another.
pub(super) struct Preparation<'a> {
    /// The container's root, in which targets are looked at.
    root: BorrowedFd<'a>,
    namespaces: &'a Namespaces,
    shown: &'a Shown,
    /// A terminal is opened in devpts, before there is a container.
    terminal: bool,
    /// User namespaces made for id-mapped mounts, by what they map.
    made_for: Vec<(Mappings, OwnedFd)>,
}

impl<'a> Preparation<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, namespaces: &'a Namespaces, shown: &'a Shown, terminal: bool) -> Self {
        Self { root, namespaces, shown, terminal, made_for: Vec::new() }
    }

    /// Prepares all mounts, in their order.
    pub(super) fn all(&mut self, mounts: &[Mount]) -> Result<Vec<MountPlan>> {
        let mut plans = Vec::with_capacity(mounts.len() + 1);
        for mount in mounts {
            if mount.typ().as_deref() == Some("cgroup") && !is_bind(mount) {
                plans.extend(self.cgroup(mount)?);
            } else {
                plans.push(self.one(mount)?);
            }
        }
        Ok(plans)
    }

    /// What a mount of type `cgroup` shows: the hierarchies the container has a place of its own in. With
    /// a cgroup namespace that place is the root; without one it is bound, or the host's whole tree would
    /// be seen.
    fn cgroup(&mut self, mount: &Mount) -> Result<Vec<MountPlan>> {
        let namespace = self.namespaces.makes(libc::CLONE_NEWCGROUP);
        let shown = self.shown;
        let derived = |destination: PathBuf, kind: &str, source: Option<&Path>, extra: &[&str], seal: bool| {
            let mut options = mount.options().clone().unwrap_or_default();
            options.retain(|option| attribute(option).is_some() && (!seal || option != "ro"));
            options.extend(extra.iter().map(|&option| option.to_owned()));
            let mut derived = mount.clone();
            derived.set_destination(destination).set_typ(Some(kind.to_owned())).set_options(Some(options));
            derived.set_source(Some(source.unwrap_or(Path::new("cgroup")).to_owned()));
            derived
        };
        let (destination, mut plans) = (mount.destination(), Vec::new());
        let list = match shown {
            Shown::Unified(path) if namespace || path.is_none() => {
                return Ok(vec![self.one(&derived(destination.clone(), "cgroup2", None, &[], false))?]);
            }
            Shown::Unified(path) => {
                return Ok(vec![self.one(&derived(destination.clone(), "bind", path.as_deref(), &["bind"], false))?]);
            }
            Shown::Several(list) => list,
        };
        plans.push(self.one(&derived(destination.clone(), "tmpfs", None, &["mode=755"], true))?);
        plans[0].seal = true;
        for one in list {
            let destination = destination.join(&one.name);
            let derived = match (namespace, one.unified) {
                (false, _) => derived(destination, "bind", Some(&one.path), &["bind"], false),
                (true, true) => derived(destination, "cgroup2", None, &[], false),
                (true, false) => derived(destination, "cgroup", None, &[&one.option], false),
            };
            plans.push(self.one(&derived)?);
        }
        Ok(plans)
    }

    /// Prepares one mount.
    fn one(&mut self, mount: &Mount) -> Result<MountPlan> {
        let options = Options::parse(mount)?;
        let kind = match (options.remount, options.bind, mount.typ().as_deref().unwrap_or("none")) {
            (true, ..) => "remount",
            (_, true, _) => "bind",
            (.., kind) => kind,
        };
        let name = format!("{kind} on {:?}", mount.destination());
        if matches!(kind, "none" | "") {
            return Err(Error::invalid(name, "mounts[].type: it needs a filesystem's type, or option \"bind\""));
        }
        let mut plan = MountPlan {
            target: target(mount, &name)?,
            over_proc: false,
            real_directory: matches!(kind, "proc" | "sysfs"),
            onto_directory: true,
            seal: false,
            instead: None,
            propagation: options.propagation,
            source: Source::Remount(Remount { own: options.own, tree: options.tree, parameters: Vec::new() }),
            name,
        };
        match kind {
            "remount" => {
                // Of a bind mount the filesystem is somebody else's.
                let parameters = if options.bind { Vec::new() } else { options.parameters };
                plan.source = Source::Remount(Remount { own: options.own, tree: options.tree, parameters });
            }
            "bind" => self.bind(mount, &options, &mut plan)?,
            _ => self.filesystem(kind, mount, options, &mut plan)?,
        }
        check_procfs(kind, &mut plan)?;
        Ok(plan)
    }

    fn filesystem(&mut self, kind: &str, mount: &Mount, mut options: Options, plan: &mut MountPlan) -> Result<()> {
        let kind = match kind {
            // Without a v1 controller among the options it is the unified hierarchy that is meant.
            "cgroup" if options.parameters.is_empty() => "cgroup2",
            other => other,
        };
        options.parameters.retain(|parameter| parameter.key.as_c_str() != c"newinstance");
        let foreign = self.namespaces.separates(libc::CLONE_NEWUSER);
        if matches!(kind, "tmpfs" | "devpts") {
            self.name_owners(kind, &mut options.parameters, &plan.name)?;
        }
        if kind == "tmpfs" && !options.parameters.iter().any(|parameter| parameter.key.as_c_str() == c"mode") {
            options.parameters.extend(self.mode_of_target(&plan.target));
        }
        let attributes = options.own.set | options.tree.set;
        let readonly = attributes & libc::MOUNT_ATTR_RDONLY != 0;
        plan.seal = kind == "tmpfs" && readonly;
        let attributes = if plan.seal { attributes & !libc::MOUNT_ATTR_RDONLY } else { attributes };
        let source = mount.source().as_deref().unwrap_or(Path::new("none"));
        if readonly && source.is_absolute() {
            // A device is not to be written even by its filesystem.
            options.parameters.insert(0, Parameter { key: c"ro".to_owned(), value: None, optional: false });
        }
        let mut fs = Filesystem {
            ready: None,
            kind: c_string("mount type", kind)?,
            source: c_string("mount source", source.as_os_str().as_encoded_bytes())?,
            parameters: std::mem::take(&mut options.parameters),
            attributes: MountAttrFlags::from_bits_retain(attributes as u32),
        };
        if OF_A_NAMESPACE.contains(&kind) || foreign && !matches!(kind, "tmpfs" | "devpts") {
            if options.idmap.is_some() || mount.uid_mappings().is_some() {
                return Err(Error::invalid(&plan.name, "a filesystem of this type cannot be id-mapped"));
            }
            if kind == "sysfs" && (foreign || !in_first_user_namespace()?) && !self.namespaces.makes(libc::CLONE_NEWNET) {
                plan.instead = Some(host_sysfs(options.own)?);
            }
            plan.source = Source::ToMake(fs);
            return Ok(());
        }
        let plain = options.idmap.is_none() && mount.uid_mappings().is_none() && !options.copy_up;
        if plain && !(self.terminal && kind == "devpts") {
            // The kernel lists mounts in the order they are made in: who reads the list takes it for the
            // order they are on top of each other in.
            fs.prepare().map_err(|refusal| fs.refused(&plan.name, refusal))?;
            plan.source = Source::ToMake(fs);
            return Ok(());
        }
        let made = fs.make().map_err(|refusal| fs.refused(&plan.name, refusal))?;
        if options.copy_up {
            self.copy_up(&plan.target, made.as_fd()).attempt(|| format!("copy the image's content into mount {}", plan.name))?;
        }
        self.finish(mount, &options, made.as_fd(), &plan.name)?;
        plan.source = Source::Made(made);
        Ok(())
    }

    /// The ids a filesystem is told are those of the container: outside they are others.
    fn name_owners(&self, kind: &str, parameters: &mut Vec<Parameter>, name: &str) -> Result<()> {
        let Some(mappings) = &self.namespaces.mappings else { return Ok(()) };
        for (key, is_user) in [(c"uid", true), (c"gid", false)] {
            let outside = |id: u32| {
                let found = if is_user { mappings.host_uid(id) } else { mappings.host_gid(id) };
                found.ok_or_else(|| {
                    Error::invalid(name, format!("{}={id} does not exist in the user namespace", key.to_string_lossy()))
                })
            };
            let value = |id: u32| c_string("mount option", id.to_string()).map(Some);
            match parameters.iter_mut().find(|parameter| parameter.key.as_c_str() == key) {
                Some(parameter) => {
                    let text = parameter.value.as_deref().and_then(|value| value.to_str().ok()).unwrap_or("");
                    let id = text.parse().map_err(|_| Error::invalid(name, format!("{text:?} is no id")))?;
                    parameter.value = value(outside(id)?)?;
                }
                // A terminal's owner is who opens it.
                None if kind == "tmpfs" => {
                    parameters.push(Parameter { key: key.to_owned(), value: value(outside(0)?)?, optional: false });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What runc and crun do: a tmpfs without a mode looks like the directory it covers.
    fn mode_of_target(&self, target: &InRoot) -> Option<Parameter> {
        let directory = target.open(self.root).ok()?;
        let status = rustix::fs::fstat(&directory).ok()?;
        (FileType::from_raw_mode(status.st_mode) == FileType::Directory).then(|| Parameter {
            key: c"mode".to_owned(),
            value: CString::new(format!("{:o}", status.st_mode & 0o7777)).ok(),
            optional: false,
        })
    }

    fn copy_up(&self, target: &InRoot, made: BorrowedFd<'_>) -> rustix::io::Result<()> {
        match target.open(self.root) {
            Err(Errno::NOENT) => Ok(()),
            Ok(directory) if file_type(&directory)? == FileType::Directory => copyup::copy(directory.as_fd(), made),
            Ok(_) => Err(Errno::NOTDIR),
            Err(errno) => Err(errno),
        }
    }

    /// A detached copy of a host path's mount, with its attributes changed while nobody can see it.
    fn bind(&mut self, mount: &Mount, options: &Options, plan: &mut MountPlan) -> Result<()> {
        let path =
            mount.source().as_deref().ok_or_else(|| Error::invalid(&plan.name, "mounts[].source: a bind mount needs one"))?;
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if options.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = rustix::mount::open_tree(CWD, path, flags)
            .attempt(|| format!("bind {path:?} to {:?} in the container", mount.destination()))?;
        self.finish(mount, options, tree.as_fd(), &plan.name)?;
        set_attributes(tree.as_fd(), options.own, false).attempt(|| format!("set the options of the bind mount of {path:?}"))?;
        set_attributes(tree.as_fd(), options.tree, true).attempt(|| format!("set the options of all mounts below {path:?}"))?;
        plan.onto_directory = file_type(&tree).attempt(|| format!("look at {path:?}"))? == FileType::Directory;
        plan.source = Source::Made(tree);
        Ok(())
    }

    /// Id mapping and propagation of a mount that is attached nowhere yet.
    fn finish(&mut self, mount: &Mount, options: &Options, tree: BorrowedFd<'_>, name: &str) -> Result<()> {
        let own = Mappings::new(name, mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref())?;
        let mode = options.idmap.or_else(|| own.is_some().then_some(IdMapped::One));
        if let Some(mode) = mode {
            let namespace = self.namespace_for(own, name)?;
            sys::mount_idmap(tree, namespace, mode == IdMapped::Tree).map_err(|errno| {
                let why = if errno == Errno::INVAL { ": its filesystem does not support that" } else { "" };
                Error::Launch { step: format!("map the owners of mount {name}{why}"), source: errno.into() }
            })?;
        }
        let attributes = MountAttributes { propagation: options.propagation, ..MountAttributes::default() };
        set_attributes(tree, attributes, options.tree_propagation).attempt(|| format!("set the propagation of mount {name}"))
    }

    /// The user namespace whose mapping a mount gets: its own, else the container's.
    fn namespace_for(&mut self, own: Option<Mappings>, name: &str) -> Result<BorrowedFd<'_>> {
        let mappings = match (own, self.namespaces.joined_user()) {
            (Some(own), _) => own,
            (None, Some(joined)) => return Ok(joined),
            (None, None) => self.namespaces.mappings.clone().ok_or_else(|| {
                Error::invalid(name, "option \"idmap\" needs uidMappings and gidMappings, or a container with a user namespace")
            })?,
        };
        let at = match self.made_for.iter().position(|(known, _)| *known == mappings) {
            Some(at) => at,
            None => {
                let namespace = mappings.namespace()?;
                self.made_for.push((mappings, namespace));
                self.made_for.len() - 1
            }
        };
        Ok(self.made_for[at].1.as_fd())
    }
}

/// Whether a mount shows something that is mounted already.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| matches!(option.as_str(), "bind" | "rbind" | "remount"))
}

fn target(mount: &Mount, name: &str) -> Result<InRoot> {
    let unusable = || Error::invalid(name, "mounts[].destination: it is not a usable path");
    let target = InRoot::new(mount.destination()).ok_or_else(unusable)?;
    // Only what is mounted there already can be meant by the root.
    let remount = mount.options().iter().flatten().any(|option| option == "remount");
    if target.is_root() && !remount || mount.destination().as_os_str() == OsStr::new("") {
        return Err(Error::invalid(name, "mounts[].destination: the root itself cannot be one"));
    }
    Ok(target)
}

/// Nothing may cover procfs, in which masks and sysctls are set (CVE-2019-19921, CVE-2023-27561): but
/// procfs itself, a host's procfs where a container cannot have its own, and files that LXCFS gives.
fn check_procfs(kind: &str, plan: &mut MountPlan) -> Result<()> {
    let clean = format!("/{}", plan.target.as_c_str().to_string_lossy());
    plan.over_proc = PROC_TARGETS.contains(&clean.as_str());
    let fail = || Err(Error::invalid(&plan.name, "mounts over /proc would undo the container's protection"));
    if clean.starts_with("/proc/") && !plan.over_proc && kind != "remount" {
        return fail();
    }
    if clean != "/proc" || matches!(kind, "proc" | "remount") {
        return Ok(());
    }
    match &plan.source {
        Source::Made(tree) if kind == "bind" && is_procfs_root(tree).attempt(|| "look at the source of /proc")? => {
            plan.real_directory = true;
            Ok(())
        }
        _ => fail(),
    }
}

fn is_procfs_root(tree: &OwnedFd) -> rustix::io::Result<bool> {
    const PROC_ROOT_INODE: u64 = 1;
    Ok(rustix::fs::fstatfs(tree)?.f_type == rustix::fs::PROC_SUPER_MAGIC && rustix::fs::fstat(tree)?.st_ino == PROC_ROOT_INODE)
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: MountAttributes, recursive: bool) -> rustix::io::Result<()> {
    if attributes.set | attributes.clear | attributes.propagation == 0 {
        return Ok(());
    }
    sys::mount_setattr(tree, attributes, recursive)
}

/// The host's sysfs, for containers in a network that is not theirs: the kernel lets only its owner make
/// a new one.
fn host_sysfs(attributes: MountAttributes) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, c"/sys", flags).attempt(|| "use the host's /sys")?;
    let attributes = MountAttributes { propagation: libc::MS_PRIVATE, ..attributes };
    sys::mount_setattr(tree.as_fd(), attributes, true).attempt(|| "set the options of /sys")?;
    Ok(tree)
}

/// The detached devpts instance among `mounts`, in which a terminal for the container is opened.
pub(super) fn devpts(mounts: &[MountPlan]) -> Option<BorrowedFd<'_>> {
    mounts.iter().find_map(|mount| match &mount.source {
        Source::Made(fd) if mount.target.as_c_str() == c"dev/pts" => Some(fd.as_fd()),
        _ => None,
    })
}

/// A detached mount of a host device node, for namespaces that cannot make their own.
pub(super) fn device(path: &Path) -> Result<OwnedFd> {
    rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
        .attempt(|| format!("use the host's device {path:?}"))
}

/// Whether this process is in the first user namespace, where device nodes can be made.
pub(crate) fn in_first_user_namespace() -> Result<bool> {
    let mut map = String::new();
    std::io::Read::read_to_string(
        &mut std::io::Read::take(File::open("/proc/self/uid_map").attempt(|| "open /proc/self/uid_map")?, 4096),
        &mut map,
    )
    .attempt(|| "read /proc/self/uid_map")?;
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}
