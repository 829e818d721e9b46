//! Mappings of user and group ids: of a new user namespace, and of mounts that show other owners.
//!
//! A privileged process writes them itself; any other asks `newuidmap` and `newgidmap`, which check
//! `/etc/subuid` and `/etc/subgid`. A single id, the caller's own, needs neither.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions};

use crate::error::{Attempt, Error, Result};
use crate::sys;

/// The most lines the kernel takes for one mapping.
const LINES_LIMIT: usize = 340;

/// Both mappings of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mappings {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl Mappings {
    /// The mappings of a configuration's field; `None` if it has none. Both are needed, none may be
    /// empty or too long.
    pub(crate) fn new(what: &str, uids: Option<&[LinuxIdMapping]>, gids: Option<&[LinuxIdMapping]>) -> Result<Option<Self>> {
        let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
        let fail = |why: &str| Err(Error::invalid(what, why));
        if uids.is_empty() && gids.is_empty() {
            return Ok(None);
        }
        if uids.is_empty() || gids.is_empty() {
            return fail("uidMappings and gidMappings have to be given together");
        }
        for list in [uids, gids] {
            if list.len() > LINES_LIMIT {
                return fail("the kernel takes at most 340 mappings");
            }
            let bad = |one: &LinuxIdMapping| {
                one.size() == 0
                    || one.container_id().checked_add(one.size()).is_none()
                    || one.host_id().checked_add(one.size()).is_none()
            };
            if list.iter().any(bad) {
                return fail("a mapping's size must be above 0 and its ids below 4294967295");
            }
        }
        Ok(Some(Self { uids: uids.to_vec(), gids: gids.to_vec() }))
    }

    /// The id outside that `uid` inside is.
    pub(super) fn host_uid(&self, uid: u32) -> Option<u32> {
        outside(&self.uids, uid)
    }

    /// The group id outside that `gid` inside is.
    pub(super) fn host_gid(&self, gid: u32) -> Option<u32> {
        outside(&self.gids, gid)
    }

    /// Gives the user namespace of process `pid`, which has none yet, these mappings.
    pub(crate) fn write(&self, pid: Pid) -> Result<()> {
        match write_map(pid, "uid_map", &self.uids) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                ask_helper("newuidmap", pid, &self.uids)?;
                return ask_helper("newgidmap", pid, &self.gids);
            }
            Err(error) => return Err(Error::io("write the user ids of the user namespace", error)),
        }
        match write_map(pid, "gid_map", &self.gids) {
            // An ordinary user's own id: a group that denies something must then not be dropped any more.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::write(format!("/proc/{}/setgroups", pid.as_raw_nonzero()), "deny")
                    .attempt(|| "deny setgroups in the user namespace")?;
                match write_map(pid, "gid_map", &self.gids) {
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => ask_helper("newgidmap", pid, &self.gids),
                    other => other.attempt(|| "map the user's own group"),
                }
            }
            other => other.attempt(|| "write the group ids of the user namespace"),
        }
    }

    /// A user namespace with these mappings and nobody in it.
    pub(super) fn namespace(&self) -> Result<OwnedFd> {
        let (child, _) = sys::spawn(libc::CLONE_NEWUSER, None, &mut || {
            let _ = sys::die_with_parent();
            wait_to_be_killed()
        })
        .attempt(|| "create a user namespace for an id-mapped mount")?;
        let mapped = self.write(child).and_then(|()| {
            let path = format!("/proc/{}/ns/user", child.as_raw_nonzero());
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(|| format!("open {path}"))
        });
        end(child);
        mapped
    }

    /// The mappings of a user namespace that is there, as seen from this process.
    pub(super) fn of(namespace: BorrowedFd<'_>) -> Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")?;
        let (child, _) = sys::spawn(0, None, &mut || {
            let _ = sys::die_with_parent();
            let joined = sys::join_namespace(namespace, libc::CLONE_NEWUSER);
            let errno = joined.err().map_or(0, Errno::raw_os_error);
            let _ = rustix::io::write(&write, &errno.to_ne_bytes());
            wait_to_be_killed()
        })
        .attempt(|| "start a process to look at a user namespace")?;
        drop(write);
        let mut errno = [0; 4];
        let heard = super::retry(|| rustix::io::read(&read, &mut errno));
        let map = |file: &str| {
            let path = format!("/proc/{}/{file}", child.as_raw_nonzero());
            fs::read_to_string(&path).attempt(|| format!("read {path}")).map(|text| parse_map(&text))
        };
        let maps = map("uid_map").and_then(|uids| Ok((uids, map("gid_map")?)));
        end(child);
        heard.attempt(|| "look at a user namespace")?;
        match i32::from_ne_bytes(errno) {
            0 => {
                let (uids, gids) = maps?;
                Ok(Self { uids, gids })
            }
            errno => Err(Error::io("join the user namespace", Errno::from_raw_os_error(errno))),
        }
    }
}

fn wait_to_be_killed() -> u8 {
    loop {
        rustix::event::pause();
    }
}

fn end(child: Pid) {
    let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    let _ = super::retry(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
}

fn parse_map(text: &str) -> Vec<LinuxIdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        let (inside, outside, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size).build().ok()
    };
    text.lines().filter_map(line).collect()
}

fn outside(list: &[LinuxIdMapping], id: u32) -> Option<u32> {
    let range = list.iter().find(|one| id >= one.container_id() && id - one.container_id() < one.size())?;
    Some(range.host_id() + (id - range.container_id()))
}

fn write_map(pid: Pid, file: &str, list: &[LinuxIdMapping]) -> std::io::Result<()> {
    let mut text = String::new();
    for one in list {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {} {}", one.container_id(), one.host_id(), one.size());
    }
    fs::write(format!("/proc/{}/{file}", pid.as_raw_nonzero()), text)
}

fn ask_helper(program: &str, pid: Pid, list: &[LinuxIdMapping]) -> Result<()> {
    let numbers = list.iter().flat_map(|one| [one.container_id(), one.host_id(), one.size()]).map(|number| number.to_string());
    let output = Command::new(program).arg(pid.as_raw_nonzero().to_string()).args(numbers).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::invalid(
            "user namespace",
            format!("{program} refused: {}", String::from_utf8_lossy(&output.stderr).trim()),
        )),
        Err(error) => Err(Error::io(
            format!("run {program}, which an ordinary user's mapping needs (package uidmap or shadow-utils)"),
            error,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn ids_are_found_in_their_ranges_and_nowhere_else() {
        let list = [mapping(0, 1000, 1), mapping(1, 100_000, 10)];
        let mappings = Mappings::new("x", Some(&list), Some(&list)).unwrap().unwrap();
        assert_eq!([0, 1, 10].map(|id| mappings.host_uid(id)), [Some(1000), Some(100_000), Some(100_009)]);
        assert_eq!(mappings.host_gid(11), None);
    }

    #[test]
    fn half_a_mapping_and_impossible_sizes_are_refused() {
        let good = [mapping(0, 1000, 1)];
        assert!(Mappings::new("x", Some(&good), None).is_err());
        assert!(Mappings::new("x", Some(&good), Some(&[mapping(0, 0, 0)])).is_err());
        assert!(Mappings::new("x", Some(&good), Some(&[mapping(0, u32::MAX, 2)])).is_err());
        assert_eq!(Mappings::new("x", None, Some(&[])).unwrap(), None);
    }
}
