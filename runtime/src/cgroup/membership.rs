//! Which cgroups a process is in, and what can be done to all processes of one.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::{CGROUP2_MAGIC, magic};
use crate::error::{Attempt, Result};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// A process's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// The v1 controllers of the hierarchy, separated by commas; empty for cgroup2.
    pub(crate) controllers: String,
    /// The directory.
    pub(crate) path: PathBuf,
}

impl Membership {
    /// The cgroups of process `pid` in the hierarchies in which this process is in another one.
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
            [MOUNT, "/sys/fs/cgroup/unified"].map(Path::new).into_iter().find(|path| magic(path) == Some(CGROUP2_MAGIC))?.to_owned()
        } else {
            Path::new(MOUNT).join(controllers.strip_prefix("name=").unwrap_or(controllers))
        };
        let path = mount.join(path.trim_start_matches('/'));
        path.is_dir().then(|| Self { controllers: controllers.to_owned(), path })
    }

    /// Whether this is the cgroup2 hierarchy.
    pub(crate) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether this is the v1 hierarchy of `controller`.
    pub(crate) fn has(&self, controller: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_own_cgroups_are_those_its_creator_is_not_in() {
        let own = "5:memory:/user\n4:cpu,cpuacct:/\n3:pids:/x\n1:name=systemd:/a\n0::/\n";
        let other = "5:memory:/user\n4:cpu,cpuacct:/c\n3:pids:/\n2:freezer:/../y\n1:name=systemd:/b\n0::/c:d\n";
        let found: Vec<_> = differing(own, other).collect();
        assert_eq!(found, [("cpu,cpuacct", "/c"), ("name=systemd", "/b"), ("", "/c:d")]);
    }
}
