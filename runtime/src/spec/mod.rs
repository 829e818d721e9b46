//! The runtime-spec configuration of a container, from an image's configuration and the user's
//! options.
//!
//! Of the image only command, environment, working directory, user and the paths of its volumes are taken: labels
//! and the rest never become configuration of the host (CVE-2026-53488).

mod capabilities;
mod files;
mod isolation;
mod limits;
mod mounts;
mod parse;
mod seccomp;
mod user;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::ContainerConfig;
use crate::network::NetworkOptions;
use crate::userns::Mapping;
use crate::volume::{Tmpfs, Volume};
use user::ResolvedUser;

pub(crate) use capabilities::all_capabilities;
pub use capabilities::parse_capability;
pub(crate) use capabilities::{CAPABILITY_NAMES, capability_number};
pub use files::ETC_FILES;
pub(crate) use files::{LOCAL_HOSTS, host_file};
pub(crate) use isolation::INIT_PATH;
pub use isolation::{Device, Isolation, NamespaceMode};
pub use limits::{Limits, Ulimit, parse_size};
pub use mounts::{masked_paths, read_only_paths};
pub(crate) use parse::parse_process;
pub use parse::parse_spec;
pub use seccomp::Seccomp;
pub(crate) use user::home;

/// Where commands are looked up if nothing says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The version of the runtime-spec that configurations follow.
pub(crate) const OCI_VERSION: &str = "1.2.0";

/// A container id's first characters are its host name, as with Docker.
pub(crate) const HOSTNAME_FROM_ID: usize = 12;

/// The longest host name (`HOST_NAME_MAX`).
const HOSTNAME_LIMIT_BYTES: usize = 64;

/// The network a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Loopback alone.
    #[default]
    None,
    /// The host's own.
    Host,
    /// That of the container with this ID.
    Container(String),
    /// Those it is attached to.
    Networks,
    /// What pasta passes on as an ordinary user's own.
    User,
}

/// What the user asks for when running an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunOptions {
    /// The container's id.
    #[serde(skip)]
    pub id: String,
    /// Replaces the image's `Cmd` if not empty.
    pub args: Vec<String>,
    /// Replaces the image's `Entrypoint`, and drops its `Cmd`; an empty one just drops both.
    pub entrypoint: Option<Vec<String>>,
    /// `K=V`, or `K` for the caller's own value.
    pub env: Vec<String>,
    /// Replaces the image's `WorkingDir`.
    pub workdir: Option<String>,
    /// Replaces the image's `User`.
    pub user: Option<String>,
    /// Else the id's first 12 characters, or the host's name with the host's network.
    pub hostname: Option<String>,
    /// The NIS domain name it has.
    #[serde(default)]
    pub domainname: Option<String>,
    /// What is told to who reads the runtime's configuration.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The container's network.
    pub network: Network,
    /// What else is asked of it.
    #[serde(default)]
    pub networking: NetworkOptions,
    /// The namespace that was made for [`Network::Networks`], [`Network::User`] or is another container's, to be
    /// joined.
    #[serde(skip)]
    pub network_namespace: Option<PathBuf>,
    /// Volumes, and host paths the container sees.
    pub volumes: Vec<Volume>,
    /// A terminal of its own.
    pub tty: bool,
    /// Nothing can gain privileges: setuid programs and file capabilities have no effect.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    #[serde(default)]
    pub seccomp: Seccomp,
    /// The root filesystem cannot be written.
    pub read_only: bool,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// Limits of each of its processes.
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
    /// How much `/dev/shm` holds, in bytes, if not docker's 64 MiB.
    #[serde(default)]
    pub shm_bytes: Option<u64>,
    /// Filesystems in memory.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
    /// Capabilities beside the default ones, by name.
    #[serde(default)]
    pub added_capabilities: Vec<String>,
    /// Capabilities that are taken away.
    #[serde(default)]
    pub dropped_capabilities: Vec<String>,
    /// Kernel settings of its namespaces, `KEY=VALUE`.
    #[serde(default)]
    pub sysctls: Vec<String>,
    /// How soon the kernel ends it for want of memory, -1000 to 1000.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Groups beside the user's, by name or number.
    #[serde(default)]
    pub added_groups: Vec<String>,
    /// How far it is kept apart from the host.
    #[serde(default)]
    pub isolation: Isolation,
    /// The user namespace this process has entered, if it has.
    #[serde(skip)]
    pub rootless: Option<Mapping>,
    /// A directory with the files of [`ETC_FILES`], to be mounted over those of the image.
    #[serde(skip)]
    pub etc_directory: Option<PathBuf>,
}

impl RunOptions {
    /// How much `/dev/shm` holds, in bytes.
    pub fn shm_bytes(&self) -> u64 {
        /// Docker's.
        const DEFAULT_BYTES: u64 = 64 << 20;
        self.shm_bytes.unwrap_or(DEFAULT_BYTES)
    }

    /// The container's host name.
    pub fn hostname(&self) -> Result<String> {
        let name = match (&self.hostname, &self.network) {
            (Some(name), _) => name.clone(),
            (None, Network::Host) => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            (None, _) => self.id.chars().take(HOSTNAME_FROM_ID).collect(),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || name.len() > HOSTNAME_LIMIT_BYTES || !name.chars().all(allowed) {
            return Err(Error::Name { what: "host name", input: name, why: "letters, digits, - . _ and at most 64 bytes" });
        }
        Ok(name)
    }
}

/// The configuration of a container of an image.
///
/// `root` is the container's root filesystem, in which the user is looked up. The result's
/// `root.path` is only a name: [`crate::launch::Launch`] takes the root by descriptor.
pub fn default_spec(image: &ContainerConfig, root: BorrowedFd<'_>, options: &RunOptions) -> Result<Spec> {
    let user_text = options.user.as_ref().unwrap_or(&image.user);
    let mut user = user::resolve(user_text, root)?;
    user.groups.extend(user::resolve_groups(&options.added_groups, root)?);
    check_mapped(&user, options).map_err(|why| Error::invalid(format!("user {user_text:?}"), why))?;
    let hostname = options.hostname()?;
    let capabilities = if options.isolation.privileged {
        capabilities::chosen(&["ALL".into()], &[])?
    } else {
        capabilities::chosen(&options.added_capabilities, &options.dropped_capabilities)?
    };
    let process = process(image, options, &user, &hostname, &capabilities)?;
    let root = RootBuilder::default().path("rootfs").readonly(options.read_only).build().map_err(|error| build_error(&error))?;
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root)
        .hostname(hostname)
        .mounts(mounts::mounts(options)?)
        .process(process)
        .linux(linux(options, &capabilities)?)
        .build()
        .map_err(|error| build_error(&error))?;
    let annotations = options.annotations.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    spec.set_annotations(Some(annotations).filter(|annotations: &HashMap<_, _>| !annotations.is_empty()));
    spec.set_domainname(options.domainname.clone());
    options.isolation.apply(&mut spec, options)?;
    Ok(spec)
}

/// User, group, further groups and home directory of a user named `text`, in the root filesystem `root`.
pub(crate) fn resolve_user(text: &str, root: BorrowedFd<'_>) -> Result<(u32, u32, Vec<u32>, String)> {
    let user = user::resolve(text, root)?;
    Ok((user.uid, user.gid, user.groups, user.home))
}

fn build_error(error: &oci_spec::OciSpecError) -> Error {
    Error::invalid("container configuration", error)
}

fn process(
    image: &ContainerConfig,
    options: &RunOptions,
    user: &ResolvedUser,
    hostname: &str,
    allowed: &Capabilities,
) -> Result<Process> {
    let runtime_user = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .umask(0o022u32)
        .additional_gids(groups(user, options))
        .build()
        .map_err(|error| build_error(&error))?;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(allowed.clone())
        .effective(allowed.clone())
        .permitted(allowed.clone())
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(|error| build_error(&error))?;
    let mut process = ProcessBuilder::default()
        .terminal(options.tty)
        .user(runtime_user)
        .args(command(image, options)?)
        .env(environment(image, options, user, hostname))
        .cwd(working_directory(image, options)?)
        .capabilities(capabilities)
        .rlimits(options.ulimits.iter().map(Ulimit::rlimit).collect::<Result<Vec<_>>>()?)
        .no_new_privileges(options.no_new_privileges)
        .build()
        .map_err(|error| build_error(&error))?;
    process.set_oom_score_adj(options.oom_score_adj);
    Ok(process)
}

/// An ordinary user's container has the ids mapped for it and no others.
fn check_mapped(user: &ResolvedUser, options: &RunOptions) -> std::result::Result<(), String> {
    match options.rootless {
        Some(Mapping::Single { advice }) if !options.added_groups.is_empty() => {
            Err(format!("it cannot have further groups, your containers have a single one: {advice}"))
        }
        Some(Mapping::Single { advice }) if (user.uid, user.gid) != (0, 0) => {
            Err(format!("only user 0 exists in your containers: {advice}"))
        }
        Some(Mapping::Full { uids, gids }) if u64::from(user.uid) >= uids || u64::from(user.gid) >= gids => Err(format!(
            "your containers have the user ids below {uids} and the group ids below {gids}; \
             more come with larger ranges in /etc/subuid and /etc/subgid"
        )),
        _ => Ok(()),
    }
}

/// A namespace with a single id denies `setgroups`: no groups then.
fn groups(user: &ResolvedUser, options: &RunOptions) -> Vec<u32> {
    match options.rootless {
        Some(Mapping::Single { .. }) => Vec::new(),
        _ => user.groups.clone(),
    }
}

/// Entrypoint, then the arguments given or the image's own.
///
/// # Errors
///
/// [`Error::Invalid`] when that is nothing.
pub fn command(image: &ContainerConfig, options: &RunOptions) -> Result<Vec<String>> {
    let (mut command, default_arguments) = match &options.entrypoint {
        Some(entrypoint) => (entrypoint.iter().filter(|part| !part.is_empty()).cloned().collect(), Vec::new()),
        None => (image.entrypoint.clone(), image.cmd.clone()),
    };
    command.extend(if options.args.is_empty() { default_arguments } else { options.args.clone() });
    if command.is_empty() {
        return Err(Error::invalid(
            "image",
            "no command specified: it has neither Entrypoint nor Cmd; give a command after the image's name",
        ));
    }
    Ok(command)
}

/// Docker's order: its defaults, the image's, the user's; a later value takes an earlier one's place.
fn environment(image: &ContainerConfig, options: &RunOptions, user: &ResolvedUser, hostname: &str) -> Vec<String> {
    let mut variables = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if options.tty {
        variables.push("TERM=xterm".into());
    }
    for variable in &image.env {
        set_variable(&mut variables, variable.clone());
    }
    for variable in &options.env {
        if variable.contains('=') {
            set_variable(&mut variables, variable.clone());
        } else if let Ok(value) = std::env::var(variable) {
            set_variable(&mut variables, format!("{variable}={value}"));
        } else {
            variables.retain(|other| key(other) != variable.as_str());
        }
    }
    if !variables.iter().any(|variable| key(variable) == "HOME") {
        variables.push(format!("HOME={}", user.home));
    }
    variables
}

fn key(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(key, _)| key)
}

/// Gives a variable a value, where it stands or at the end.
fn set_variable(variables: &mut Vec<String>, variable: String) {
    match variables.iter_mut().find(|other| key(other) == key(&variable)) {
        Some(place) => *place = variable,
        None => variables.push(variable),
    }
}

fn working_directory(image: &ContainerConfig, options: &RunOptions) -> Result<PathBuf> {
    let directory = match options.workdir.as_ref().unwrap_or(&image.working_dir).as_str() {
        "" => "/",
        directory => directory,
    };
    if !directory.starts_with('/') {
        return Err(Error::invalid(format!("working directory {directory:?}"), "it must be absolute"));
    }
    Ok(directory.into())
}

fn linux(options: &RunOptions, capabilities: &Capabilities) -> Result<Linux> {
    let deny_all = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().map_err(|error| build_error(&error))?;
    let mut resources = options.limits.resources();
    resources.set_devices(Some(vec![deny_all]));
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Cgroup,
    ];
    let mut sysctl = HashMap::new();
    if options.network == Network::None {
        kinds.push(LinuxNamespaceType::Network);
    }
    if matches!(options.network, Network::None | Network::Networks | Network::User) {
        // Within its own network a container may open any port and send pings without a capability.
        sysctl.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        if options.rootless.is_none() {
            sysctl.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        }
    }
    for setting in &options.sysctls {
        let (key, value) = setting
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Error::invalid(format!("sysctl {setting:?}"), "it must be KEY=VALUE"))?;
        sysctl.insert(key.to_owned(), value.to_owned());
    }
    let namespace = |kind| LinuxNamespaceBuilder::default().typ(kind).build().map_err(|error| build_error(&error));
    let mut namespaces = kinds.into_iter().map(namespace).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &options.network_namespace {
        let joined = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path.clone());
        namespaces.push(joined.build().map_err(|error| build_error(&error))?);
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .resources(resources)
        .sysctl(sysctl)
        .masked_paths(masked_paths())
        .readonly_paths(read_only_paths())
        .build()
        .map_err(|error| build_error(&error))?;
    linux.set_seccomp(options.seccomp.rules(capabilities)?);
    Ok(linux)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn image() -> ContainerConfig {
        let json = r#"{"Entrypoint":["/entry"],"Cmd":["default"],"Env":["PATH=/image","A=1"],"WorkingDir":"/work",
            "Labels":{"io.kubernetes.cri.privileged":"true"}}"#;
        serde_json::from_str(json).unwrap()
    }

    fn spec(options: &RunOptions) -> Result<Spec> {
        let root = tempfile::tempdir().unwrap();
        default_spec(
            &image(),
            std::fs::File::open(root.path()).unwrap().as_fd(),
            &RunOptions { id: "0123456789abcdef".into(), ..options.clone() },
        )
    }

    fn args(options: &RunOptions) -> Vec<String> {
        spec(options).unwrap().process().as_ref().unwrap().args().clone().unwrap()
    }

    #[test]
    fn command_follows_docker_s_rules() {
        let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
        assert_eq!(args(&RunOptions::default()), ["/entry", "default"]);
        assert_eq!(args(&RunOptions { args: list(&["x"]), ..Default::default() }), ["/entry", "x"]);
        assert_eq!(args(&RunOptions { entrypoint: Some(list(&["sh"])), ..Default::default() }), ["sh"]);
        let error = spec(&RunOptions { entrypoint: Some(list(&[""])), ..Default::default() }).unwrap_err();
        assert!(error.to_string().contains("no command specified"));
    }

    #[test]
    fn environment_is_layered() {
        let spec = spec(&RunOptions {
            env: vec!["A=2".into(), "B=3".into(), "NOT_SET_ANYWHERE_5".into()],
            tty: true,
            ..Default::default()
        })
        .unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["PATH=/image", "HOSTNAME=0123456789ab", "TERM=xterm", "A=2", "B=3", "HOME=/"]);
    }

    #[test]
    fn volumes_and_tmpfs_do_not_hide_each_other_whichever_is_inside() {
        for (volume, tmpfs) in [("/x:/a", "/a/b"), ("/x:/a/b", "/a")] {
            let options =
                RunOptions { volumes: vec![volume.parse().unwrap()], tmpfs: vec![tmpfs.parse().unwrap()], ..Default::default() };
            let mounts = spec(&options).unwrap().mounts().clone().unwrap();
            let last: Vec<_> = mounts[mounts.len() - 2..].iter().map(|mount| mount.destination().to_str().unwrap()).collect();
            assert_eq!(last, ["/a", "/a/b"], "{volume} {tmpfs}");
        }
    }

    #[test]
    fn further_groups_are_refused_where_there_is_only_one() {
        let added_groups = vec!["7".to_owned()];
        let rootless = Some(Mapping::Single { advice: "" });
        let error = spec(&RunOptions { added_groups, rootless, ..Default::default() }).unwrap_err().to_string();
        assert!(error.contains("further groups"), "{error}");
    }

    #[test]
    fn cve_2026_53488_labels_of_an_image_never_become_configuration() {
        let plain: ContainerConfig = serde_json::from_str(
            r#"{"Entrypoint":["/entry"],"Cmd":["default"],"Env":["PATH=/image","A=1"],"WorkingDir":"/work"}"#,
        )
        .unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(root.path()).unwrap();
        let options = RunOptions { id: "0123456789abcdef".into(), ..Default::default() };
        let of = |image: &ContainerConfig| default_spec(image, root.as_fd(), &options).unwrap();
        assert!(of(&image()) == of(&plain));
        assert_eq!(*of(&image()).annotations(), None);
    }

    #[test]
    fn cve_2022_29162_inheritable_and_ambient_capabilities_are_empty() {
        let spec = spec(&RunOptions::default()).unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.inheritable().as_ref().map_or(0, HashSet::len), 0);
        assert_eq!(sets.ambient().as_ref().map_or(0, HashSet::len), 0);
        assert_eq!(sets.bounding().as_ref().map_or(0, HashSet::len), 14);
    }
}
