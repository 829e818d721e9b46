//! How far a container is kept apart from its host: its namespaces, its devices, whether anything is.

use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceType,
    Mount, Spec,
};
use rustix::fs::{major, minor};
use serde::{Deserialize, Serialize};

use super::{RunOptions, Seccomp, build_error};
use crate::error::{Attempt, Error, Result};

/// Where `--init` shows this program in the container.
pub(crate) const INIT_PATH: &str = "/dev/init";

/// The most device nodes a privileged container gets.
const DEVICES_LIMIT: usize = 4096;

/// Whose namespace of a kind a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of a container, by its ID.
    Container(String),
    /// That at a path, as one of `/proc/PID/ns`.
    Path(PathBuf),
}

impl FromStr for NamespaceMode {
    type Err = Error;

    /// `host`, `private`, or `container:` and a name or ID.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("container:")) {
            ("host", _) => Ok(Self::Host),
            ("private" | "", _) => Ok(Self::Own),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            _ => Err(Error::Name { what: "namespace", input: text.to_owned(), why: "it is host, private or container:NAME" }),
        }
    }
}

/// A device of the host's that a container has: `HOST[:CONTAINER[:rwm]]`, as docker has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host, absolute.
    pub host: PathBuf,
    /// In the container, absolute.
    pub container: PathBuf,
    /// What may be done with it: read, write, mknod.
    pub access: String,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why| Error::Name { what: "device", input: text.to_owned(), why };
        let is_access = |text: &&str| !text.is_empty() && text.chars().all(|c| "rwm".contains(c));
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, access) = match parts[..] {
            [host] => (host, host, "rwm"),
            [host, access] if is_access(&access) => (host, host, access),
            [host, container] => (host, container, "rwm"),
            [host, container, access] if is_access(&access) => (host, container, access),
            [_, _, _] => return Err(bad("what may be done with it is some of r, w and m")),
            _ => return Err(bad("it must be HOST, HOST:CONTAINER or HOST:CONTAINER:rwm")),
        };
        if !host.starts_with('/') || !container.starts_with('/') || container == "/" {
            return Err(bad("its paths must be absolute"));
        }
        Ok(Self { host: host.into(), container: container.into(), access: access.into() })
    }
}

/// How far a container is kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Isolation {
    /// It has all capabilities and devices, and nothing of the kernel is hidden from it.
    pub privileged: bool,
    /// Devices of the host's.
    pub devices: Vec<Device>,
    /// A process of this program is its first one, passes signals on and reaps orphans.
    pub init: bool,
    /// Process numbers.
    pub pid: NamespaceMode,
    /// Message queues, semaphores, shared memory.
    pub ipc: NamespaceMode,
    /// The host name.
    pub uts: NamespaceMode,
}

impl Isolation {
    /// The namespaces that may be others', by their names in `/proc/PID/ns`: for who finds out whose.
    pub fn modes(&mut self) -> [(&'static str, &mut NamespaceMode); 3] {
        [("pid", &mut self.pid), ("ipc", &mut self.ipc), ("uts", &mut self.uts)]
    }

    /// Changes the configuration of a container that is kept apart in every way.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for what an ordinary user's container cannot have, or what contradicts itself.
    pub(super) fn apply(&self, spec: &mut Spec, options: &RunOptions) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        self.check(options)?;
        if let Some(linux) = spec.linux_mut() {
            for (kind, mode) in
                [(LinuxNamespaceType::Pid, &self.pid), (LinuxNamespaceType::Ipc, &self.ipc), (LinuxNamespaceType::Uts, &self.uts)]
            {
                share(linux, kind, mode);
            }
            self.add_devices(linux, options)?;
            if self.privileged {
                linux.set_masked_paths(None).set_readonly_paths(None);
                // Who gives a profile means it.
                if !matches!(options.seccomp, Seccomp::Profile(_)) {
                    linux.set_seccomp(None);
                }
            }
        }
        if self.uts != NamespaceMode::Own {
            // It is another's to choose.
            spec.set_hostname(None);
        }
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for mount in &mut mounts {
            self.change(mount, options);
        }
        if self.init {
            let source = std::fs::read_link("/proc/self/exe").attempt(|| "find this program for --init")?;
            let mut mount = Mount::default();
            mount.set_destination(INIT_PATH.into()).set_typ(Some("bind".into())).set_source(Some(source));
            // Whoever is in there never gets at the host's program to change it (CVE-2019-5736).
            mount.set_options(Some(["bind", "rprivate", "ro", "nosuid", "nodev"].map(str::to_owned).into()));
            mounts.push(mount);
            if let Some(process) = spec.process_mut() {
                let command = process.args().clone().unwrap_or_default();
                process.set_args(Some([vec![INIT_PATH.into(), "--".into()], command].concat()));
            }
        }
        spec.set_mounts(Some(mounts));
        Ok(())
    }

    fn check(&self, options: &RunOptions) -> Result<()> {
        let refuse = |what: &str, why: &str| Err(Error::invalid(what, why));
        if options.rootless.is_some() {
            if self.pid == NamespaceMode::Host {
                return refuse("--pid host", "only root may show the processes of the machine in a container");
            }
            if let Some(device) = self.devices.iter().find(|device| device.host != device.container) {
                let what = format!("device {:?}", device.host);
                return refuse(&what, "an ordinary user's containers have devices only where the host has them");
            }
        }
        if self.uts != NamespaceMode::Own && options.hostname.is_some() {
            return refuse("--hostname", "with --uts the host name is another's");
        }
        Ok(())
    }

    fn add_devices(&self, linux: &mut Linux, options: &RunOptions) -> Result<()> {
        let mut devices = linux.devices().clone().unwrap_or_default();
        let mut rules = linux.resources().as_ref().and_then(|resources| resources.devices().clone()).unwrap_or_default();
        for device in &self.devices {
            let (node, rule) = node(&device.host, &device.container, &device.access)?;
            devices.push(node);
            rules.push(rule);
        }
        if self.privileged {
            rules =
                vec![LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().map_err(|error| build_error(&error))?];
            // An ordinary user may open none that is not open to all.
            if options.rootless.is_none() {
                let mut found = Vec::new();
                find_devices(Path::new("/dev"), &mut found);
                found.retain(|path| !devices.iter().any(|device| device.path() == path));
                // One that goes meanwhile is none.
                devices.extend(found.iter().filter_map(|path| Some(node(path, path, "rwm").ok()?.0)));
            }
        }
        linux.set_devices(Some(devices));
        if let Some(resources) = linux.resources_mut() {
            resources.set_devices(Some(rules));
        }
        Ok(())
    }

    fn change(&self, mount: &mut Mount, options: &RunOptions) {
        let destination = mount.destination().clone();
        let bind = |mount: &mut Mount, more: &[&str]| {
            mount.set_typ(Some("bind".into())).set_source(Some(destination.clone()));
            let words = ["rbind", "rprivate", "nosuid", "noexec", "nodev"].iter().chain(more);
            mount.set_options(Some(words.map(|&word| word.to_owned()).collect()));
        };
        match destination.to_str() {
            Some("/dev/shm") if self.ipc == NamespaceMode::Host => bind(mount, &[]),
            Some("/sys" | "/sys/fs/cgroup") if self.privileged && options.rootless.is_none() => {
                let words = mount.options().iter().flatten().filter(|word| *word != "ro" && *word != "rro").cloned().collect();
                mount.set_options(Some(words));
            }
            _ => {}
        }
    }
}

fn share(linux: &mut Linux, kind: LinuxNamespaceType, mode: &NamespaceMode) {
    let path = match mode {
        NamespaceMode::Own => return,
        NamespaceMode::Path(path) => Some(path.clone()),
        NamespaceMode::Host | NamespaceMode::Container(_) => None,
    };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    match &path {
        Some(_) => {
            if let Some(namespace) = namespaces.iter_mut().find(|one| one.typ() == kind) {
                namespace.set_path(path);
            }
        }
        None => namespaces.retain(|one| one.typ() != kind),
    }
    linux.set_namespaces(Some(namespaces));
}

/// A device of the host's, and the rule that allows it.
fn node(host: &Path, container: &Path, access: &str) -> Result<(LinuxDevice, LinuxDeviceCgroup)> {
    let metadata = std::fs::metadata(host).attempt(|| format!("look at device {}", host.display()))?;
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Err(Error::invalid(format!("device {}", host.display()), "it is no device node")),
    };
    let (major, minor) = (i64::from(major(metadata.st_rdev())), i64::from(minor(metadata.st_rdev())));
    let node = LinuxDeviceBuilder::default()
        .path(container)
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(metadata.st_mode() & 0o7777)
        .uid(metadata.st_uid())
        .gid(metadata.st_gid())
        .build();
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor).access(access).build();
    Ok((node.map_err(|error| build_error(&error))?, rule.map_err(|error| build_error(&error))?))
}

/// The device nodes below a directory, but for those every container has of its own.
fn find_devices(directory: &Path, found: &mut Vec<PathBuf>) {
    const OWN: [&str; 5] = ["pts", "shm", "mqueue", "console", "ptmx"];
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if OWN.iter().any(|own| entry.file_name() == *own) || found.len() >= DEVICES_LIMIT {
            continue;
        }
        if kind.is_dir() {
            find_devices(&entry.path(), found);
        } else if kind.is_block_device() || kind.is_char_device() {
            found.push(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn devices_and_namespaces_read_as_dockers() {
        let device = |text: &str| text.parse::<Device>().map(|device| (device.host, device.container, device.access));
        let expected = |host: &str, container: &str, access: &str| (host.into(), container.into(), access.into());
        assert_eq!(device("/dev/a").unwrap(), expected("/dev/a", "/dev/a", "rwm"));
        assert_eq!(device("/dev/a:r").unwrap(), expected("/dev/a", "/dev/a", "r"));
        assert_eq!(device("/dev/a:/dev/b").unwrap(), expected("/dev/a", "/dev/b", "rwm"));
        assert_eq!(device("/dev/a:/dev/b:rw").unwrap(), expected("/dev/a", "/dev/b", "rw"));
        for bad in ["", "dev/a", "/dev/a:x", "/dev/a:/dev/b:x", "/dev/a:/dev/b:", "/a:/b:r:w", "/dev/a:/"] {
            assert!(device(bad).is_err(), "{bad:?}");
        }
        assert_eq!("host".parse::<NamespaceMode>().unwrap(), NamespaceMode::Host);
        assert_eq!("container:x".parse::<NamespaceMode>().unwrap(), NamespaceMode::Container("x".into()));
        for bad in ["container:", "other", "Host"] {
            assert!(bad.parse::<NamespaceMode>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,24}") {
            let _ = (text.parse::<Device>().is_ok(), text.parse::<NamespaceMode>());
        }
    }
}
