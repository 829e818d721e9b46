//! What this machine has: its cgroup hierarchies, and the namespaces of a process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The kinds of namespaces a configuration may name, with the name in `/proc/PID/ns`.
pub(super) const NAMESPACES: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// The cgroup hierarchies mounted here.
#[derive(Debug, Default)]
pub(super) struct Hierarchies {
    /// Where each controller of version 1 is mounted; named hierarchies as `name=...`.
    v1: BTreeMap<String, PathBuf>,
    /// Where version 2 is mounted.
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Those of the mount namespace we are in.
    pub(super) fn here() -> io::Result<Self> {
        fs::read_to_string("/proc/self/mountinfo").map(|table| Self::parse(&table))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for (place, kind, options) in mountinfo.lines().filter_map(mount_of) {
            match kind {
                "cgroup2" => found.v2 = found.v2.or_else(|| Some(place.into())),
                "cgroup" => {
                    let flags = ["rw", "ro", "xattr", "noprefix", "clone_children"];
                    for controller in options.split(',').filter(|option| !flags.contains(option)) {
                        found.v1.insert(controller.to_owned(), place.into());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether `controller` is one of version 1 here.
    pub(super) fn is_v1(&self, controller: &str) -> bool {
        self.v1.contains_key(controller)
    }

    /// Whether version 2 has `controller`.
    pub(super) fn is_v2(&self, controller: &str) -> bool {
        let list = self.v2.as_ref().and_then(|mount| fs::read_to_string(mount.join("cgroup.controllers")).ok());
        list.is_some_and(|list| list.split_whitespace().any(|name| name == controller))
    }

    /// The directory of the cgroup that process `pid` is in, in the hierarchy of `controller`.
    pub(super) fn of_process(&self, pid: u32, controller: &str) -> Option<PathBuf> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let (mount, path) = table.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let mount = if self.is_v1(controller) {
                controllers.split(',').any(|name| name == controller).then(|| &self.v1[controller])
            } else {
                controllers.is_empty().then_some(self.v2.as_ref()).flatten()
            };
            Some((mount?, path.to_owned()))
        })?;
        Some(mount.join(path.trim_start_matches('/')))
    }

    /// Every place where the cgroup `path` exists.
    pub(super) fn directories(&self, path: &str) -> Vec<PathBuf> {
        let mut mounts: Vec<_> = self.v1.values().chain(&self.v2).collect();
        mounts.sort_unstable();
        mounts.dedup();
        mounts.iter().map(|mount| mount.join(path.trim_start_matches('/'))).filter(|dir| dir.is_dir()).collect()
    }

    /// Removes the cgroup `path` with all that is in it, everywhere; what could not be removed.
    pub(super) fn remove(&self, path: &str) -> Vec<String> {
        let directories = self.directories(path);
        let stays = |dir: &PathBuf| remove_cgroup(dir).err().map(|error| format!("cgroup {}: {error}", dir.display()));
        directories.iter().filter_map(stays).collect()
    }
}

fn remove_cgroup(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    let processes = fs::read_to_string(directory.join("cgroup.procs"))?;
    for pid in processes.lines().filter_map(|line| line.parse::<u32>().ok()) {
        if let Some(process) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            // It may be over by now.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        super::command::wait_for_end(pid, crate::limits::CONTAINER_TIMEOUT)?;
    }
    fs::remove_dir(directory)
}

/// Place, type and super options of a line of mountinfo (proc_pid_mountinfo(5)).
fn mount_of(line: &str) -> Option<(&str, &str, &str)> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    Some((front.split(' ').nth(4)?, back.next()?, back.nth(1)?))
}

/// The mount points below `directory` in our mount namespace, the innermost first.
pub(super) fn mounts_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // Blanks in names are written as \040; the directories made here have none.
    let places = table.lines().filter_map(mount_of).map(|(place, ..)| PathBuf::from(place));
    let mut below: Vec<_> = places.filter(|place| place.starts_with(directory)).collect();
    below.reverse();
    Ok(below)
}

/// The namespace a process is in, as `net:[4026531840]`; `name` as in `/proc/PID/ns`.
pub(super) fn namespace_of(pid: u32, name: &str) -> io::Result<String> {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).map(|link| link.to_string_lossy().into_owned())
}

/// Whether this kernel has a kind of namespace.
pub(super) fn has_namespace(name: &str) -> bool {
    Path::new("/proc/self/ns").join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_read_from_mountinfo() {
        let v1 = "31 22 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                  32 22 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                  33 22 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(v1);
        assert!(found.is_v1("cpu") && found.is_v1("cpuacct") && found.is_v1("name=systemd") && !found.is_v1("xattr"));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let v2 = Hierarchies::parse("33 22 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert!(v2.v1.is_empty() && !v2.is_v1("cpu"));
    }
}
