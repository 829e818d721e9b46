//! Where a container's cgroup is: in which hierarchies of the host, under which path.
//!
//! A host has one cgroup2 hierarchy, or cgroup v1 with one hierarchy a controller, or both (hybrid: the
//! controllers in v1, a cgroup2 hierarchy with few or none beside them). A container has a directory in
//! the cgroup2 hierarchy wherever there is one, and in those of v1 that it needs: for its limits, or all
//! of them if the configuration names the path, which is how engines look for it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxResources};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::settings::controllers_needed;
use crate::error::{Attempt, Error, Result};

const CGROUP2_MAGIC: i64 = 0x6367_7270;
const CGROUP1_MAGIC: i64 = 0x0027_e0eb;

/// A directory of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The container's directory in it.
    pub(crate) path: PathBuf,
    /// The v1 controllers of the hierarchy, comma-separated; empty for cgroup2.
    pub(crate) controllers: String,
}

impl Member {
    /// The cgroups of process `pid` in the hierarchies in which this process is in another one: a
    /// container's own, if `pid` is its first process.
    pub(crate) fn differing(pid: Pid) -> Result<Vec<Self>> {
        let read = |who: &str| {
            let path = format!("/proc/{who}/cgroup");
            fs::read_to_string(&path).attempt(|| format!("read {path}"))
        };
        let (own, other) = (read("self")?, read(&pid.as_raw_nonzero().to_string())?);
        Ok(differing(&own, &other).filter_map(|(controllers, path)| Self::locate(controllers, path)).collect())
    }

    /// The directory of a line of `/proc/PID/cgroup`; `None` where it is not mounted here.
    fn locate(controllers: &str, path: &str) -> Option<Self> {
        let mount = if controllers.is_empty() {
            unified_mount()?.to_owned()
        } else {
            Path::new(UNIFIED_ONLY).join(controllers.strip_prefix("name=").unwrap_or(controllers))
        };
        let path = mount.join(path.trim_start_matches('/'));
        path.is_dir().then(|| Self { mount, path, controllers: controllers.to_owned() })
    }

    fn below(mount: &Path, parent: &Path, controllers: &str, name: &Path) -> Self {
        Self { mount: mount.to_owned(), path: parent.join(name), controllers: controllers.to_owned() }
    }

    /// Whether it is in the cgroup2 hierarchy.
    pub(crate) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether it is in the v1 hierarchy of `controller`.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// Controllers and path of each line of `other` that `own` does not have. The root of a hierarchy is
/// nobody's own, and a path out of this cgroup namespace (`/..`) has no directory here.
fn differing<'a>(own: &'a str, other: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let fields = |line: &'a str| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next().and(parts.next())?, parts.next()?))
    };
    other
        .lines()
        .filter(|line| !own.lines().any(|own| own == *line))
        .filter_map(fields)
        .filter(|(_, path)| *path != "/" && !path.split('/').any(|part| part == ".."))
}

/// The directories of container `id`'s cgroup, the cgroup2 one first; none if this host or user cannot
/// have any.
pub(crate) fn place(id: &str, linux: &Linux, privileged: bool) -> Result<Vec<Member>> {
    let configured = linux.cgroups_path().as_deref().filter(|path| !path.as_os_str().is_empty());
    let name = match configured {
        Some(path) => below_mount(path)?,
        None => PathBuf::from(format!("longshore-{id}")),
    };
    let empty = LinuxResources::default();
    let needed = controllers_needed(linux.resources().as_ref().unwrap_or(&empty));
    let unified = unified_mount();
    let only = unified == Some(Path::new(UNIFIED_ONLY));
    let mut members = Vec::new();
    if let Some(mount) = unified {
        let parent = if configured.is_some() || privileged {
            Some(mount.to_owned())
        } else {
            own_parent(mount, "", only && !needed.is_empty())?
        };
        members.extend(parent.map(|parent| Member::below(mount, &parent, "", &name)));
    }
    if only {
        return Ok(members);
    }
    // Without cgroup2 these are the hierarchies by which processes are known and killed, and paused.
    let alone = unified.is_none();
    if configured.is_none() && needed.is_empty() && !alone {
        return Ok(members);
    }
    for controllers in v1_hierarchies()? {
        let has = |wanted: &str| controllers.split(',').any(|name| name == wanted);
        let wanted = configured.is_some() && privileged
            || needed.iter().any(|name| has(name))
            || alone && (has("devices") || has("freezer"));
        let mount = Path::new("/sys/fs/cgroup").join(&controllers);
        if wanted && magic(&mount) == Some(CGROUP1_MAGIC) {
            let parent =
                if configured.is_some() || privileged { Some(mount.clone()) } else { own_parent(&mount, &controllers, false)? };
            members.extend(parent.map(|parent| Member::below(&mount, &parent, &controllers, &name)));
        }
    }
    Ok(members)
}

/// The directories of a scope at `path` in each hierarchy: those systemd makes, and on hosts with cgroup v1 those
/// beside them.
pub(crate) fn place_scope(path: &Path, privileged: bool) -> Result<Vec<Member>> {
    let unified = unified_mount();
    let mut members: Vec<Member> = unified.map(|mount| Member::below(mount, mount, "", path)).into_iter().collect();
    if unified == Some(Path::new(UNIFIED_ONLY)) || !privileged {
        return if members.is_empty() {
            Err(Error::invalid("--systemd-cgroup", "on cgroup v1 alone only root's systemd makes cgroups; leave that flag out"))
        } else {
            Ok(members)
        };
    }
    // By the first of these systemd knows its processes, where there is no cgroup2.
    for controllers in std::iter::once("name=systemd".to_owned()).chain(v1_hierarchies()?) {
        let mount = Path::new(UNIFIED_ONLY).join(controllers.strip_prefix("name=").unwrap_or(&controllers));
        if magic(&mount) == Some(CGROUP1_MAGIC) {
            members.push(Member::below(&mount, &mount, &controllers, path));
        }
    }
    Ok(members)
}

/// Where cgroup2 alone is mounted, and where it is beside v1.
const UNIFIED_ONLY: &str = "/sys/fs/cgroup";
const UNIFIED_BESIDE: &str = "/sys/fs/cgroup/unified";

/// The cgroup2 hierarchy of this host.
pub(crate) fn unified_mount() -> Option<&'static Path> {
    [UNIFIED_ONLY, UNIFIED_BESIDE].map(Path::new).into_iter().find(|path| magic(path) == Some(CGROUP2_MAGIC))
}

/// For an ordinary user: the cgroup this process is in, if that is the user's own. One with processes in it
/// cannot hand controllers down (cgroup-v2.rst, "No Internal Process Constraint"): for limits it is the
/// nearest above without any, if that is the user's own too.
fn own_parent(mount: &Path, controllers: &str, limits: bool) -> Result<Option<PathBuf>> {
    let own = mount.join(own_cgroup(controllers)?.trim_start_matches('/'));
    let is_own = |path: &Path| rustix::fs::access(path.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok();
    let is_empty = |path: &Path| fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|list| list.trim().is_empty());
    let mut users = own.ancestors().take_while(|path| path.starts_with(mount) && is_own(path));
    let parent = if limits { users.find(|path| is_empty(path)) } else { users.next() };
    Ok(parent.map(Path::to_owned))
}

/// `linux.cgroupsPath` relative to a hierarchy's mount point, absolute or not.
fn below_mount(path: &Path) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    let fail = |why: &str| Err(Error::invalid(format!("linux.cgroupsPath {text:?}"), why));
    if text.matches(':').count() == 2 && !text.contains('/') {
        return fail(
            "slice:prefix:name asks systemd to make the cgroup: that takes the flag --systemd-cgroup, which the engine \
             gives if it uses the systemd driver (podman --cgroup-manager=systemd); otherwise name a path",
        );
    }
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return fail("\"..\" would lead out of the hierarchy"),
        }
    }
    if clean.as_os_str().is_empty() {
        return fail("the root of the hierarchy is the host's");
    }
    Ok(clean)
}

fn magic(path: &Path) -> Option<i64> {
    rustix::fs::statfs(path).ok().map(|status| status.f_type)
}

/// The v1 hierarchies with controllers, by their comma-separated names.
fn v1_hierarchies() -> Result<Vec<String>> {
    let list = own_cgroups()?;
    Ok(list
        .into_iter()
        .map(|(controllers, _)| controllers)
        .filter(|name| !name.is_empty() && !name.starts_with("name="))
        .collect())
}

/// This process's own cgroup in a hierarchy.
fn own_cgroup(controllers: &str) -> Result<String> {
    let list = own_cgroups()?;
    Ok(list.into_iter().find(|(name, _)| name == controllers).map_or_else(|| "/".to_owned(), |(_, path)| path))
}

/// `/proc/self/cgroup`: controllers and path of each hierarchy.
fn own_cgroups() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string("/proc/self/cgroup").attempt(|| "read /proc/self/cgroup")?;
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_mount_and_systemd_s_form_is_refused_with_advice() {
        assert_eq!(below_mount(Path::new("/a/./b")).unwrap(), Path::new("a/b"));
        assert_eq!(below_mount(Path::new("a")).unwrap(), Path::new("a"));
        for bad in ["/", "..", "/a/../../b", ""] {
            assert!(below_mount(Path::new(bad)).is_err(), "{bad}");
        }
        let refused = below_mount(Path::new("system.slice:libpod:1")).unwrap_err().to_string();
        assert!(refused.contains("--systemd-cgroup"), "{refused}");
        // A colon alone is a name like any other.
        assert!(below_mount(Path::new("/kube:pod/x")).is_ok());
    }

    #[test]
    fn a_container_s_own_cgroups_are_those_its_creator_is_not_in() {
        let own = "5:memory:/user\n4:cpu,cpuacct:/\n3:pids:/x\n1:name=systemd:/a\n0::/\n";
        let other = "5:memory:/user\n4:cpu,cpuacct:/c\n3:pids:/\n2:freezer:/../y\n1:name=systemd:/b\n0::/c:d\n";
        let found: Vec<_> = differing(own, other).collect();
        assert_eq!(found, [("cpu,cpuacct", "/c"), ("name=systemd", "/b"), ("", "/c:d")]);
    }
}
