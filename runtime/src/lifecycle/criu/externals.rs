//! What of a container lies outside of it, and has to be named for criu: mounts bound from the host,
//! namespaces that are others', the caller's files as standard input and output.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use rustix::fs::FileType;

use super::Request;
use crate::cgroup::{self, Member, Shown};
use crate::error::{Attempt, Error, Result};
use crate::launch::{InRoot, is_bind};

/// Fields of criu's request.
const EXTERNAL_MOUNT: u32 = 23;
const EXTERNAL: u32 = 37;
const JOIN_NAMESPACE: u32 = 39;

/// Device nodes every container has: where they cannot be made they are bound from the host.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What criu could not give back as it was.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    for mount in spec.mounts().iter().flatten() {
        let mapped = mount.options().iter().flatten().any(|option| matches!(option.as_str(), "idmap" | "ridmap"));
        if mapped || mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::invalid(
                format!("mount on {:?}", mount.destination()),
                "it is id-mapped, which criu does not restore; bind it without uidMappings and gidMappings",
            ));
        }
    }
    for namespace in namespaces(spec) {
        if namespace.typ() == LinuxNamespaceType::Cgroup && namespace.path().is_some() {
            return Err(Error::invalid("linux.namespaces (cgroup)", "criu cannot restore into another's cgroup namespace"));
        }
    }
    Ok(())
}

/// The mounts of a configuration that show files of the host: destination and source.
#[derive(Debug)]
pub(crate) struct Outside(Vec<(PathBuf, PathBuf)>);

impl Outside {
    /// `cgroups` are the container's own.
    pub(crate) fn of(spec: &Spec, cgroups: &[Member]) -> Self {
        let mut list = Vec::new();
        let own_view = namespaces(spec).any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup);
        for mount in spec.mounts().iter().flatten() {
            let destination = mount.destination();
            if is_bind(mount) {
                list.extend(mount.source().as_ref().map(|source| (destination.clone(), source.clone())));
            } else if mount.typ().as_deref() == Some("cgroup") && !own_view {
                // The container's own directories are bound.
                match cgroup::shown(cgroups) {
                    Shown::Unified(path) => list.extend(path.map(|path| (destination.clone(), path))),
                    Shown::Several(several) => {
                        list.extend(several.into_iter().map(|one| (destination.join(one.name), one.path)));
                    }
                }
            }
        }
        let configured =
            spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten()).map(|device| device.path().clone());
        list.extend(configured.chain(DEVICES.map(PathBuf::from)).map(|path| (path.clone(), path)));
        Self(list)
    }

    /// Names them at a restore, by what they were called at the dump, with what is to be bound there now.
    pub(crate) fn name_sources(&self, request: &mut Request<'_>) {
        self.0.iter().for_each(|(destination, source)| request.pair(EXTERNAL_MOUNT, destination, source));
    }

    /// Names them at a dump: the place they are really mounted on, and the name they have at a restore.
    fn name_places(&self, root: &OwnedFd, request: &mut Request<'_>) {
        for (destination, _) in &self.0 {
            let place = InRoot::new(destination).and_then(|path| path.open(root.as_fd()).ok()).and_then(|file| {
                rustix::fs::readlink(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)), []).ok()
            });
            let place =
                place.map_or_else(|| destination.clone().into_os_string(), |place| OsString::from_vec(place.into_bytes()));
            request.pair(EXTERNAL_MOUNT, place, destination);
        }
    }
}

/// What a running container has outside.
#[derive(Debug)]
pub(crate) struct Externals {
    mounts: Outside,
    root: OwnedFd,
    /// `net[INODE]:KEY` and the like.
    named: Vec<String>,
    /// What is to be written down of standard input, output and error.
    pub(crate) descriptors: Vec<String>,
}

impl Externals {
    /// Looks at process `pid`, whose standard descriptors were `made_with`.
    pub(crate) fn of(spec: &Spec, cgroups: &[Member], pid: i32, made_with: &[String]) -> Result<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let root = File::open(proc.join("root")).attempt(|| "open the container's root directory")?.into();
        let mut named = Vec::new();
        for (kind, name, key) in KEYS {
            if namespaces(spec).any(|namespace| namespace.typ() == kind && namespace.path().is_some()) {
                let file = proc.join("ns").join(name);
                let inode = file.metadata().attempt(|| format!("look at {file:?}"))?.ino();
                named.push(format!("{name}[{inode}]:{key}"));
            }
        }
        let inside = mount_ids(&proc)?;
        let mut descriptors = Vec::new();
        for number in 0..3 {
            let recorded = made_with.get(number).filter(|link| link.starts_with("pipe:"));
            let descriptor = match (recorded, file_outside(&proc, number, &inside)) {
                (Some(pipe), _) => pipe.clone(),
                (None, Some(file)) => {
                    named.push(file.clone());
                    file
                }
                (None, None) => link(&proc, number),
            };
            descriptors.push(descriptor);
        }
        Ok(Self { mounts: Outside::of(spec, cgroups), root, named, descriptors })
    }

    pub(crate) fn name(&self, request: &mut Request<'_>) {
        self.mounts.name_places(&self.root, request);
        for name in &self.named {
            request.text(EXTERNAL, name);
        }
    }
}

/// Namespaces that criu takes over as they are: their names in `/proc/PID/ns`, and runc's for what they are at
/// a restore.
const KEYS: [(LinuxNamespaceType, &str, &str); 2] =
    [(LinuxNamespaceType::Network, "net", "extRootNetNS"), (LinuxNamespaceType::Pid, "pid", "extRootPidNS")];

/// The namespaces of a configuration that are others', for a restore to go into.
pub(crate) fn name_namespaces(spec: &Spec, request: &mut Request<'_>) -> Result<()> {
    for namespace in namespaces(spec) {
        let Some(path) = namespace.path() else { continue };
        if let Some((.., key)) = KEYS.iter().find(|(kind, ..)| *kind == namespace.typ()) {
            let file = File::open(path).attempt(|| format!("open namespace {path:?}"))?;
            request.inherit_file(key, file.into());
            continue;
        }
        let name = match namespace.typ() {
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::Time => "time",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Mount => "mnt",
            other => return Err(Error::invalid(format!("linux.namespaces ({other})"), "criu cannot restore into another's")),
        };
        request.pair(JOIN_NAMESPACE, name, path);
    }
    Ok(())
}

fn namespaces(spec: &Spec) -> impl Iterator<Item = &LinuxNamespace> {
    spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten())
}

/// Makes what is missing of the places that mounts of the configuration go to, as at a creation; but for those in
/// other filesystems, which criu fills itself.
pub(crate) fn make_targets(spec: &Spec, rootfs: &Path) -> Result<()> {
    let root = File::open(rootfs).attempt(|| format!("open directory {rootfs:?}"))?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for mount in mounts {
        let destination = mount.destination();
        let attempted = || format!("make {destination:?} in the root filesystem");
        let inside = |other: &Mount| other.destination() != destination && destination.starts_with(other.destination());
        let target = InRoot::new(destination).ok_or_else(|| Error::invalid(attempted(), "it is not a usable path"))?;
        if mounts.iter().any(inside) || target.is_root() {
            continue;
        }
        let file = is_bind(mount) && mount.source().as_ref().is_some_and(|source| !source.is_dir());
        let made = if file { target.open_or_create_file(root.as_fd()) } else { target.open_or_create_directory(root.as_fd()) };
        made.attempt(attempted)?;
    }
    Ok(())
}

fn link(proc: &Path, number: usize) -> String {
    let target = std::fs::read_link(proc.join(format!("fd/{number}"))).unwrap_or_default();
    target.to_string_lossy().into_owned()
}

/// The mounts a process sees, by their numbers.
fn mount_ids(proc: &Path) -> Result<HashSet<u64>> {
    let path = proc.join("mountinfo");
    let text = std::fs::read(&path).attempt(|| format!("read {path:?}"))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect())
}

/// A file or a device on none of the container's own mounts, as criu calls it.
fn file_outside(proc: &Path, number: usize, inside: &HashSet<u64>) -> Option<String> {
    let status = proc.join(format!("fd/{number}")).metadata().ok()?;
    let kind = FileType::from_raw_mode(status.mode());
    let is_terminal = kind == FileType::CharacterDevice && (136..=143).contains(&rustix::fs::major(status.rdev()));
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) || is_terminal {
        return None;
    }
    let text = std::fs::read_to_string(proc.join(format!("fdinfo/{number}"))).ok()?;
    let mount: u64 = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())?;
    (!inside.contains(&mount)).then(|| format!("file[{mount:x}:{:x}]", status.ino()))
}
