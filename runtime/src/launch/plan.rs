//! Everything a launch needs, resolved from the runtime-spec configuration before the container's
//! process exists: strings as C strings, host paths as descriptors, the seccomp filter compiled.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use oci_spec::runtime::{Linux, LinuxSeccomp, Process, Spec};
use rustix::process::{Resource, Rlimit};

use super::devices::{self, DevicePlan};
use super::mounts::{self, MountPlan, Preparation};
use super::namespaces::Namespaces;
use super::options::propagation;
use super::path::InRoot;
use super::process::{self, CapabilityPlan, Label};
use super::{fsconfig, sysctls};
use crate::cgroup::Shown;
use crate::error::{Error, Result};
use crate::seccomp::{self, Filter, Listener};
use crate::sys::{self, CStringArray, MountAttributes, SchedulingAttributes};
use crate::warning::warn;

/// The most arguments, environment variables, mounts, devices and paths of one configuration.
const LIST_LIMIT: usize = 16 * 1024;

/// A launch, ready to be carried out without allocation.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) namespaces: Rc<Namespaces>,
    pub(super) root: OwnedFd,
    pub(super) root_readonly: bool,
    /// `linux.rootfsPropagation`, if it can only be set once all is mounted.
    pub(super) root_propagation: Option<(u64, bool)>,
    pub(super) mounts: Vec<MountPlan>,
    /// Filled by the container's process: the mounts it made itself, beside `mounts`.
    pub(super) made: Vec<Option<OwnedFd>>,
    pub(super) devices: Vec<DevicePlan>,
    pub(super) masked: Vec<InRoot>,
    pub(super) empty_directory: Option<OwnedFd>,
    pub(super) readonly: Vec<InRoot>,
    /// Path below `/proc`, value.
    pub(super) sysctls: Vec<(CString, Vec<u8>)>,
    pub(super) oom_score_adj: Option<Vec<u8>>,
    pub(super) hostname: Option<Vec<u8>>,
    pub(super) domainname: Option<Vec<u8>>,
    pub(super) limits: Vec<(Resource, Rlimit)>,
    pub(super) scheduling: Option<SchedulingAttributes>,
    /// Class and level.
    pub(super) io_priority: Option<(u32, u32)>,
    pub(super) personality: Option<u32>,
    pub(super) labels: Vec<Label>,
    pub(super) working_directory: InRoot,
    pub(super) umask: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<rustix::process::Gid>,
    pub(super) capabilities: CapabilityPlan,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Option<Filter>,
    /// Who is asked by the filter.
    pub(super) listener: Option<Listener>,
    pub(super) arguments: CStringArray,
    pub(super) environment: CStringArray,
}

impl Plan {
    /// Resolves `spec`. `shown` is what the container sees of cgroups; `None` for a process that joins a
    /// container: its filesystem is there, and nothing is made in it.
    pub(super) fn new(spec: &Spec, root: OwnedFd, shown: Option<&Shown>) -> Result<Self> {
        let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
        let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
        refuse_unsupported(spec, process, linux)?;
        warn_of_ignored(spec, linux);
        let namespaces = Namespaces::new(linux)?;
        let user_namespace = namespaces.separates(libc::CLONE_NEWUSER);
        let can_make_devices = !user_namespace && mounts::in_first_user_namespace()?;
        let (root_propagation, mounts, devices) = match shown {
            Some(shown) => {
                let propagation = root_propagation(linux, &root)?;
                let terminal = process.terminal().unwrap_or(false);
                let mounts = Preparation::new(root.as_fd(), &namespaces, shown, terminal)
                    .all(spec.mounts().as_deref().unwrap_or_default())?;
                let devices = devices::devices(linux, &mounts, can_make_devices)?;
                (propagation, mounts, devices)
            }
            None => (None, Vec::new(), Vec::new()),
        };
        let masked = paths("linux.maskedPaths", linux.masked_paths().as_deref())?;
        let (seccomp, listener) = filter(linux.seccomp().as_ref())?;
        let (arguments, environment) = process::command(process, root.as_fd())?;
        let user = process.user();
        let plan = Self {
            root_readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            made: mounts.iter().map(|_| None).collect(),
            devices,
            mounts,
            empty_directory: if masked.is_empty() { None } else { Some(fsconfig::empty_directory()?) },
            masked,
            readonly: paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
            sysctls: sysctls::read(spec, &namespaces)?,
            oom_score_adj: process.oom_score_adj().map(oom_score).transpose()?,
            hostname: name(spec.hostname(), "hostname", &namespaces)?,
            domainname: name(spec.domainname(), "domainname", &namespaces)?,
            limits: process::limits(process)?,
            scheduling: process::scheduling(process)?,
            io_priority: process::io_priority(process)?,
            personality: process::personality(linux)?,
            labels: process::labels(process)?,
            working_directory: absolute(process.cwd())?,
            // What runc and crun take if nothing is said.
            umask: user.umask().unwrap_or(0o022),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().iter().flatten().map(|&gid| rustix::process::Gid::from_raw(gid)).collect(),
            capabilities: CapabilityPlan::new(process, user_namespace)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            seccomp,
            listener,
            arguments,
            environment,
            root_propagation,
            root,
            namespaces: Rc::new(namespaces),
        };
        plan.check_ids()?;
        Ok(plan)
    }

    /// Ids a user namespace does not have are refused by name here; the kernel would only say EINVAL.
    fn check_ids(&self) -> Result<()> {
        let Some(mappings) = &self.namespaces.mappings else { return Ok(()) };
        let fail = |field: &str, id: u32| {
            Err(Error::invalid(format!("process.user.{field} {id}"), "it is not mapped in the container's user namespace"))
        };
        if mappings.host_uid(self.uid).is_none() {
            return fail("uid", self.uid);
        }
        let groups = self.groups.iter().map(|gid| gid.as_raw());
        match std::iter::once(self.gid).chain(groups).find(|gid| mappings.host_gid(*gid).is_none()) {
            Some(gid) => fail("gid", gid),
            None => Ok(()),
        }
    }
}

fn missing(part: &str) -> Error {
    Error::invalid("configuration", format!("it has no {part:?}"))
}

/// What is in the runtime-spec but not done here is refused, never silently left out.
fn refuse_unsupported(spec: &Spec, process: &Process, linux: &Linux) -> Result<()> {
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let label = selinux && linux.mount_label().as_ref().is_some_and(|text| !text.is_empty());
    let lists = spec.mounts().as_ref().map_or(0, Vec::len)
        + process.env().as_ref().map_or(0, Vec::len)
        + process.args().as_ref().map_or(0, Vec::len);
    let parts = [
        (label, "linux.mountLabel"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.net_devices().as_ref().is_some_and(|map| !map.is_empty()), "linux.netDevices"),
        (lists > LIST_LIMIT, "so many mounts, arguments and variables"),
    ];
    if let Some((_, name)) = parts.iter().find(|(present, _)| *present) {
        return Err(Error::invalid("configuration", format!("{name}: not supported")));
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        // Not for the container's first process: but what is wrong is wrong now.
        for (field, text) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                process::cpu_list(&format!("process.execCPUAffinity.{field}"), text)?;
            }
        }
    }
    Ok(())
}

/// What has no meaning here: parts for other systems, cache and bandwidth control of processors, and labels
/// where no file has one.
fn warn_of_ignored(spec: &Spec, linux: &Linux) {
    let label = linux.mount_label().as_ref().is_some_and(|text| !text.is_empty());
    let parts = [
        (label, "linux.mountLabel"),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (spec.vm().is_some(), "vm"),
        (spec.zos().is_some(), "zos"),
        (spec.solaris().is_some(), "solaris"),
        (spec.windows().is_some(), "windows"),
    ];
    for (_, name) in parts.iter().filter(|(present, _)| *present) {
        warn(&format!("{name} is ignored: this runtime does nothing with it"));
    }
}

fn filter(profile: Option<&LinuxSeccomp>) -> Result<(Option<Filter>, Option<Listener>)> {
    let Some(profile) = profile else { return Ok((None, None)) };
    let filter = seccomp::compile_cached(profile)?;
    let listener = Listener::new(profile, &filter)?;
    Ok((Some(filter), listener))
}

/// What the root's mount is to its peers. Private it is by birth; a slave it has to be made before it is
/// cut off from the host, and what spreads to others may only be set when all is mounted.
fn root_propagation(linux: &Linux, root: &OwnedFd) -> Result<Option<(u64, bool)>> {
    let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) else {
        return super::rootfs::separate(root, libc::MS_PRIVATE).map(|()| None);
    };
    let (mode, recursive) = propagation(word).ok_or_else(|| {
        Error::invalid(
            format!("linux.rootfsPropagation {word:?}"),
            "it must be shared, slave, private or unbindable, or that with an r before",
        )
    })?;
    if mode == libc::MS_SLAVE {
        return super::rootfs::separate(root, libc::MS_SLAVE).map(|()| None);
    }
    super::rootfs::separate(root, libc::MS_PRIVATE)?;
    Ok((mode != libc::MS_PRIVATE).then_some((mode, recursive)))
}

/// Sets what [`root_propagation`] left for the end.
pub(super) fn set_root_propagation(plan: &Plan) -> rustix::io::Result<()> {
    match plan.root_propagation {
        Some((propagation, recursive)) => {
            sys::mount_setattr(plan.root.as_fd(), MountAttributes { propagation, ..MountAttributes::default() }, recursive)
        }
        None => Ok(()),
    }
}

fn oom_score(score: i32) -> Result<Vec<u8>> {
    if (-1000..=1000).contains(&score) {
        return Ok(score.to_string().into_bytes());
    }
    Err(Error::invalid("process.oomScoreAdj", format!("{score}: it must be from -1000 to 1000")))
}

/// A name of the uts namespace; the host's is not changed.
fn name(name: &Option<String>, field: &str, namespaces: &Namespaces) -> Result<Option<Vec<u8>>> {
    /// `__NEW_UTS_LEN`.
    const NAME_LIMIT_BYTES: usize = 64;
    let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
    if !namespaces.separates(libc::CLONE_NEWUTS) {
        return Err(Error::invalid(format!("{field} {name:?}"), "it needs a uts namespace: it would change the host's"));
    }
    if name.len() > NAME_LIMIT_BYTES {
        return Err(Error::invalid(format!("{field} {name:?}"), "it is longer than 64 bytes"));
    }
    Ok(Some(name.as_bytes().to_vec()))
}

/// A path of the configuration that must be absolute.
pub(super) fn absolute(path: &Path) -> Result<InRoot> {
    let usable = if path.is_absolute() { InRoot::new(path) } else { None };
    usable.ok_or_else(|| {
        Error::invalid(format!("path {path:?} in the configuration"), "it must be absolute, without NUL, at most 128 levels deep")
    })
}

fn paths(field: &str, list: Option<&[String]>) -> Result<Vec<InRoot>> {
    let mut paths = Vec::new();
    for path in list.unwrap_or_default() {
        let found = absolute(Path::new(path)).map_err(|error| Error::invalid(field, error))?;
        if found.is_root() {
            return Err(Error::invalid(field, "the root itself cannot be one"));
        }
        paths.push(found);
    }
    Ok(paths)
}
