//! Everything a launch needs, resolved from the runtime-spec configuration before the container's
//! process exists: strings as C strings, host paths as descriptors, the seccomp filter compiled.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Capabilities, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, PosixRlimitType, Process, Spec};
use rustix::fs::{Dev, FileType, makedev};
use rustix::process::{Resource, Rlimit};

use super::mounts::{self, CgroupView, MountPlan};
use super::path::InRoot;
use super::rootfs::c_string;
use crate::error::{Attempt, Error, Result};
use crate::seccomp::Filter;
use crate::sys::CStringArray;

/// The most arguments, environment variables, mounts, devices and paths of one configuration.
const LIST_LIMIT: usize = 16 * 1024;

/// A launch, ready to be carried out without allocation.
#[derive(Debug)]
pub(super) struct Plan {
    /// `CLONE_NEW*` of the namespaces the container gets.
    pub(super) namespaces: i32,
    pub(super) root: OwnedFd,
    pub(super) root_readonly: bool,
    pub(super) mounts: Vec<MountPlan>,
    /// Filled by the container's process: the mounts it made itself, beside `mounts`.
    pub(super) made: Vec<Option<OwnedFd>>,
    pub(super) devices: Vec<DevicePlan>,
    pub(super) masked: Vec<InRoot>,
    pub(super) empty_directory: Option<OwnedFd>,
    pub(super) readonly: Vec<InRoot>,
    /// Path below `/proc/sys`, value.
    pub(super) sysctls: Vec<(CString, Vec<u8>)>,
    pub(super) oom_score_adj: Option<Vec<u8>>,
    pub(super) hostname: Option<Vec<u8>>,
    pub(super) domainname: Option<Vec<u8>>,
    pub(super) limits: Vec<(Resource, Rlimit)>,
    pub(super) working_directory: InRoot,
    pub(super) umask: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<rustix::process::Gid>,
    pub(super) capabilities: CapabilityPlan,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Option<Filter>,
    pub(super) arguments: CStringArray,
    pub(super) environment: CStringArray,
}

/// A device node to be made.
#[derive(Debug)]
pub(super) struct DevicePlan {
    pub(super) path: InRoot,
    pub(super) kind: FileType,
    pub(super) number: Dev,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The host's node to be mounted there, where none can be made.
    pub(super) host: Option<OwnedFd>,
}

/// The five capability sets as bit masks by capability number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CapabilityPlan {
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

impl Plan {
    /// Resolves `spec`. `view` is what the container sees of cgroups.
    pub(super) fn new(spec: &Spec, root: OwnedFd, view: CgroupView) -> Result<Self> {
        let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
        let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
        refuse_unsupported(spec, process, linux)?;
        let mounts = mounts::prepare_all(spec.mounts().as_deref().unwrap_or_default(), view)?;
        let masked = paths(linux.masked_paths().as_deref())?;
        let seccomp = linux.seccomp().as_ref().map(crate::seccomp::compile).transpose()?;
        let (arguments, environment) = command(process)?;
        let user = process.user();
        Ok(Self {
            namespaces: namespaces(linux)?,
            root,
            root_readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            made: mounts.iter().map(|_| None).collect(),
            devices: devices(linux, &mounts)?,
            mounts,
            empty_directory: if masked.is_empty() { None } else { Some(mounts::empty_directory()?) },
            masked,
            readonly: paths(linux.readonly_paths().as_deref())?,
            sysctls: sysctls(linux)?,
            oom_score_adj: process.oom_score_adj().map(|score| score.to_string().into_bytes()),
            hostname: spec.hostname().as_ref().map(|name| name.clone().into_bytes()),
            domainname: spec.domainname().as_ref().map(|name| name.clone().into_bytes()),
            limits: limits(process)?,
            working_directory: absolute(process.cwd())?,
            umask: user.umask().unwrap_or(0o022),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().iter().flatten().map(|&gid| rustix::process::Gid::from_raw(gid)).collect(),
            capabilities: CapabilityPlan::new(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            seccomp,
            arguments,
            environment,
        })
    }
}

fn missing(part: &str) -> Error {
    Error::invalid("configuration", format!("it has no {part:?}"))
}

/// What is in the runtime-spec but not done here is refused, never silently left out.
fn refuse_unsupported(spec: &Spec, process: &Process, linux: &Linux) -> Result<()> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let limits = linux.resources().as_ref().is_some_and(|resources| {
        let mut others = resources.clone();
        others.set_devices(None);
        others != oci_spec::runtime::LinuxResources::default()
    });
    let propagation = linux
        .rootfs_propagation()
        .as_deref()
        .is_some_and(|mode| !matches!(mode, "" | "private" | "rprivate" | "slave" | "rslave"));
    let lists = spec.mounts().as_ref().map_or(0, Vec::len)
        + process.env().as_ref().map_or(0, Vec::len)
        + process.args().as_ref().map_or(0, Vec::len);
    let parts = [
        (limits, "linux.resources other than devices"),
        (propagation, "linux.rootfsPropagation other than private and slave"),
        (linux.uid_mappings().as_ref().is_some_and(|list| !list.is_empty()), "linux.uidMappings"),
        (linux.gid_mappings().as_ref().is_some_and(|list| !list.is_empty()), "linux.gidMappings"),
        (given(linux.mount_label()), "linux.mountLabel"),
        (given(process.apparmor_profile()), "process.apparmorProfile"),
        (given(process.selinux_label()), "process.selinuxLabel"),
        (linux.time_offsets().as_ref().is_some_and(|map| !map.is_empty()), "linux.timeOffsets"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.net_devices().as_ref().is_some_and(|map| !map.is_empty()), "linux.netDevices"),
        (process.scheduler().is_some(), "process.scheduler"),
        (process.io_priority().is_some(), "process.ioPriority"),
        (lists > LIST_LIMIT, "so many mounts, arguments and variables"),
    ];
    match parts.iter().find(|(present, _)| *present) {
        Some((_, name)) => Err(Error::invalid("configuration", format!("{name}: not supported"))),
        None => Ok(()),
    }
}

fn namespaces(linux: &Linux) -> Result<i32> {
    let mut flags = 0;
    for namespace in linux.namespaces().iter().flatten() {
        if namespace.path().is_some() {
            return Err(Error::invalid("configuration", "linux.namespaces: joining a namespace by path is not supported"));
        }
        flags |= match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            other => return Err(Error::invalid("configuration", format!("linux.namespaces: {other:?} is not supported"))),
        };
    }
    if flags & libc::CLONE_NEWNS == 0 {
        return Err(Error::invalid("configuration", "linux.namespaces: a mount namespace is required"));
    }
    Ok(flags)
}

fn absolute(path: &Path) -> Result<InRoot> {
    let usable = if path.is_absolute() { InRoot::new(path) } else { None };
    usable.ok_or_else(|| {
        Error::invalid(format!("path {path:?} in the configuration"), "it must be absolute, without NUL, at most 128 levels deep")
    })
}

fn paths(list: Option<&[String]>) -> Result<Vec<InRoot>> {
    list.unwrap_or_default().iter().map(|path| absolute(Path::new(path))).collect()
}

/// The devices every container has (runtime-spec config-linux.md, "Default Devices"), then the
/// configuration's own.
fn devices(linux: &Linux, mounts: &[MountPlan]) -> Result<Vec<DevicePlan>> {
    const DEFAULTS: [(&str, u32, u32); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/zero", 1, 5),
        ("/dev/full", 1, 7),
        ("/dev/random", 1, 8),
        ("/dev/urandom", 1, 9),
        ("/dev/tty", 5, 0),
    ];
    let can_make = mounts::in_first_user_namespace()?;
    let mut plans = Vec::new();
    // A /dev bound from the host brings its own.
    let own_dev = !mounts.iter().any(|mount| mount.target.as_c_str() == c"dev" && mount.name.starts_with("bind "));
    for (path, major, minor) in DEFAULTS.into_iter().filter(|_| own_dev) {
        let host = if can_make { None } else { Some(mounts::device(Path::new(path))?) };
        let number = makedev(major, minor);
        plans.push(DevicePlan {
            path: absolute(Path::new(path))?,
            kind: FileType::CharacterDevice,
            number,
            mode: 0o666,
            uid: 0,
            gid: 0,
            host,
        });
    }
    for device in linux.devices().iter().flatten() {
        let host = if can_make { None } else { Some(mounts::device(device.path())?) };
        plans.push(configured_device(device, host)?);
    }
    Ok(plans)
}

fn configured_device(device: &LinuxDevice, host: Option<OwnedFd>) -> Result<DevicePlan> {
    let what = || format!("device {:?}", device.path());
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::invalid(what(), "type \"a\" is for rules, not for nodes")),
    };
    let number = |number: i64| u32::try_from(number).map_err(|_| Error::invalid(what(), format!("{number} is no device number")));
    Ok(DevicePlan {
        path: absolute(device.path())?,
        kind,
        number: makedev(number(device.major())?, number(device.minor())?),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        host,
    })
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward` as a path below `/proc/sys`.
fn sysctls(linux: &Linux) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut list = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::invalid(format!("sysctl {name:?}"), "it is not a name below /proc/sys"));
        }
        list.push((c_string("sysctl name", format!("sys/{path}"))?, value.clone().into_bytes()));
    }
    list.sort();
    Ok(list)
}

fn limits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
    let infinite = |value: u64| (value != u64::MAX).then_some(value);
    process
        .rlimits()
        .iter()
        .flatten()
        .map(|limit| {
            let resource = match limit.typ() {
                PosixRlimitType::RlimitCpu => Resource::Cpu,
                PosixRlimitType::RlimitFsize => Resource::Fsize,
                PosixRlimitType::RlimitData => Resource::Data,
                PosixRlimitType::RlimitStack => Resource::Stack,
                PosixRlimitType::RlimitCore => Resource::Core,
                PosixRlimitType::RlimitRss => Resource::Rss,
                PosixRlimitType::RlimitNproc => Resource::Nproc,
                PosixRlimitType::RlimitNofile => Resource::Nofile,
                PosixRlimitType::RlimitMemlock => Resource::Memlock,
                PosixRlimitType::RlimitAs => Resource::As,
                PosixRlimitType::RlimitLocks => Resource::Locks,
                PosixRlimitType::RlimitSigpending => Resource::Sigpending,
                PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
                PosixRlimitType::RlimitNice => Resource::Nice,
                PosixRlimitType::RlimitRtprio => Resource::Rtprio,
                PosixRlimitType::RlimitRttime => Resource::Rttime,
            };
            if limit.soft() > limit.hard() {
                return Err(Error::invalid(format!("limit {}", limit.typ()), "the soft limit is above the hard one"));
            }
            Ok((resource, Rlimit { current: infinite(limit.soft()), maximum: infinite(limit.hard()) }))
        })
        .collect()
}

impl CapabilityPlan {
    /// Capabilities this process does not have itself are left out, as runc does.
    fn new(process: &Process) -> Result<Self> {
        let own = rustix::thread::capabilities(None).attempt(|| "read this process's capabilities")?.permitted.bits();
        let mask = |set: &Option<Capabilities>| -> u64 {
            set.iter().flatten().map(|&capability| 1 << crate::spec::capability_number(capability)).sum()
        };
        let Some(sets) = process.capabilities() else { return Ok(Self::default()) };
        let permitted = mask(sets.permitted()) & own;
        let inheritable = mask(sets.inheritable()) & own;
        Ok(Self {
            bounding: mask(sets.bounding()) & own,
            effective: mask(sets.effective()) & permitted,
            permitted,
            inheritable,
            ambient: mask(sets.ambient()) & permitted & inheritable,
        })
    }
}

/// The trampoline's argument list (candidate paths, an empty string, the command) and the environment.
fn command(process: &Process) -> Result<(CStringArray, CStringArray)> {
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = process.env().as_deref().unwrap_or_default();
    let program = arguments.first().filter(|program| !program.is_empty()).ok_or_else(|| Error::Exec {
        command: arguments.first().cloned().unwrap_or_default(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let mut list = Vec::new();
    if program.contains('/') {
        list.push(c_string("command", program.as_str())?);
    } else {
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(crate::spec::DEFAULT_PATH);
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            list.push(c_string("PATH", format!("{directory}/{program}"))?);
        }
    }
    list.push(CString::default());
    for argument in arguments {
        list.push(c_string("command argument", argument.as_str())?);
    }
    let variables =
        environment.iter().map(|variable| c_string("environment variable", variable.as_str())).collect::<Result<Vec<_>>>()?;
    Ok((CStringArray::new(list), CStringArray::new(variables)))
}
