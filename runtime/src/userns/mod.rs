//! Root without being root: this process moves into a user namespace of its own.
//!
//! In there it is user 0 with every capability over what it makes; unpacking, overlay mounts and
//! launching are then the same code as for root.

mod shared;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::WaitOptions;

use crate::error::{Attempt, Error, Result};
use crate::launch::Mappings;
use crate::sys;

pub(crate) use shared::{Members, leave_store, stay, strike_out_killed};
pub use shared::{enter_shared, leave};

/// The largest `/etc/subuid` or `/etc/subgid` that is read.
const SUBID_LIMIT_BYTES: u64 = 1 << 20;

/// The most ranges given to one namespace (the kernel takes 340 lines).
const RANGES_LIMIT: usize = 300;

/// Which ids exist inside the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// 0 is the caller, and from 1 up the ranges the system gave to the caller.
    Full {
        /// How many user ids there are, the caller's included.
        uids: u64,
        /// How many group ids there are, the caller's included.
        gids: u64,
    },
    /// 0 is the caller and there is no other id: every file is owned by it, and `setgroups` is denied.
    Single {
        /// Why there are not more, and what would change that.
        advice: &'static str,
    },
}

/// For a program this one executes, and no more than it needs.
impl std::fmt::Display for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full { uids, gids } => write!(f, "{uids}:{gids}"),
            Self::Single { .. } => f.write_str("1"),
        }
    }
}

impl std::str::FromStr for Mapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| Error::invalid(format!("mapping of user ids {text:?}"), "it is no number"))
        };
        match text.split_once(':') {
            Some((uids, gids)) => Ok(Self::Full { uids: number(uids)?, gids: number(gids)? }),
            None => number(text).map(|_| Self::Single { advice: "they had a single one when they were started" }),
        }
    }
}

/// Moves the calling process into a new user and mount namespace in which it is user 0.
///
/// Must be called before the process has a second thread. Without `newuidmap` or without ranges in
/// `/etc/subuid` and `/etc/subgid` the namespace has a single id.
pub fn enter_rootless() -> Result<Mapping> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let name = user_name(uid);
    let uids = ranges("/etc/subuid", uid, name.as_deref())?;
    let gids = ranges("/etc/subgid", uid, name.as_deref())?;
    if uids.is_empty() || gids.is_empty() {
        unshare()?;
        return single(
            uid,
            gid,
            "this user has no ranges in /etc/subuid and /etc/subgid; add some with usermod --add-subuids --add-subgids",
        );
    }
    let pid = rustix::process::getpid().as_raw_nonzero().to_string();
    let answer = unshare_and_have_mapped(&|| map_from_outside(&pid, &maps(uid, &uids), &maps(gid, &gids)))?;
    match answer.as_str() {
        "ok" => {
            become_root()?;
            let total = |ranges: &[(u32, u32)]| 1 + ranges.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
            Ok(Mapping::Full { uids: total(&uids), gids: total(&gids) })
        }
        "missing" => {
            single(uid, gid, "newuidmap and newgidmap are not installed; they come with the package uidmap or shadow-utils")
        }
        why => Err(Error::invalid("mapping of user ids", why)),
    }
}

/// Which ids exist in the user namespace this process is in, which is one of [`enter_rootless`].
pub(crate) fn mapping() -> Result<Mapping> {
    let count = |path: &str| -> Result<u64> {
        let text = fs::read_to_string(path).attempt(|| format!("read {path}"))?;
        Ok(text.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum())
    };
    Ok(match (count("/proc/self/uid_map")?, count("/proc/self/gid_map")?) {
        (1, _) => Mapping::Single {
            advice: "this user had no ranges in /etc/subuid and /etc/subgid when the first of the containers that run was started; \
                     stop them, and see that it has",
        },
        (uids, gids) => Mapping::Full { uids, gids },
    })
}

/// Moves the calling process into the user namespace that `spec` asks for, or without one into that of
/// [`enter_rootless`]; `spec` is then what is left to be done inside.
///
/// An ordinary user needs that namespace for everything a launch makes, so it cannot wait for the
/// container's process.
pub fn enter_rootless_for(spec: &mut Spec) -> Result<()> {
    let Some(linux) = spec.linux_mut() else { return enter_rootless().map(drop) };
    let asked = Mappings::new("linux", linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref())?;
    let is_new = |namespace: &LinuxNamespace| namespace.typ() == LinuxNamespaceType::User && namespace.path().is_none();
    let Some(mappings) = asked.filter(|_| linux.namespaces().iter().flatten().any(is_new)) else {
        return enter_rootless().map(drop);
    };
    enter_mapped(&mappings)?;
    linux.set_uid_mappings(None).set_gid_mappings(None);
    let rest = linux.namespaces().iter().flatten().filter(|namespace| !is_new(namespace)).cloned().collect();
    linux.set_namespaces(Some(rest));
    Ok(())
}

/// Moves this process into a new user namespace, for which a process that stays outside calls `map`: the
/// kernel and `newuidmap` look at who asks. What came of it is `ok`, or what `map` says was wrong.
fn unshare_and_have_mapped(map: &dyn Fn() -> std::result::Result<(), String>) -> Result<String> {
    let (go_read, go_write) = pipe()?;
    let (answer_read, answer_write) = pipe()?;
    let (helper, _) = sys::spawn(0, None, &mut || {
        sys::close(std::os::fd::AsFd::as_fd(&go_write));
        let mut byte = [0; 1];
        if rustix::io::read(&go_read, &mut byte) != Ok(1) {
            return 1;
        }
        let word = map().map_or_else(|word| word, |()| "ok".to_owned());
        u8::from(rustix::io::write(&answer_write, word.as_bytes()).is_err())
    })
    .attempt(|| "start the helper that maps user ids")?;
    drop((go_read, answer_write));
    let unshared = unshare();
    if unshared.is_ok() {
        rustix::io::write(&go_write, b"g").attempt(|| "signal the helper that maps user ids")?;
    }
    drop(go_write);
    let mut answer = String::new();
    let heard = File::from(answer_read).take(4096).read_to_string(&mut answer);
    let waited = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    unshared?;
    heard.attempt(|| "hear from the helper that maps user ids")?;
    waited.attempt(|| "wait for the helper that maps user ids")?;
    Ok(answer)
}

fn enter_mapped(mappings: &Mappings) -> Result<()> {
    let own = rustix::process::getpid();
    let answer = unshare_and_have_mapped(&|| mappings.write(own).map_err(|error| error.to_string()))?;
    if answer == "ok" { become_root() } else { Err(Error::invalid("linux.uidMappings", answer)) }
}

/// Whether this process is in the machine's first user namespace.
pub fn in_first() -> Result<bool> {
    crate::launch::in_first_user_namespace()
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")
}

fn unshare() -> Result<()> {
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(|errno| {
        let advice = match errno {
            Errno::PERM | Errno::ACCESS => {
                ": unprivileged user namespaces are disabled here; allow them with sysctl kernel.unprivileged_userns_clone=1 \
                 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run as root"
            }
            Errno::NOSPC | Errno::USERS => ": no user namespace is left; raise sysctl user.max_user_namespaces, or run as root",
            Errno::INVAL => ": this kernel has no user namespaces, or this process has several threads",
            _ => "",
        };
        Error::io(format!("create a user namespace{advice}"), errno)
    })
}

/// Has `newuidmap` and `newgidmap` map the namespace of process `pid`; else `missing`, or what went wrong.
fn map_from_outside(pid: &str, uids: &[String], gids: &[String]) -> std::result::Result<(), String> {
    let run = |program: &str, map: &[String]| match Command::new(program).arg(pid).args(map).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} refused: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("missing".into()),
        Err(error) => Err(format!("{program} could not be run: {error} (it comes with the package uidmap or shadow-utils)")),
    };
    run("newuidmap", uids).and_then(|()| run("newgidmap", gids))
}

/// The caller's own id as 0, then the ranges from 1 up, as `newuidmap` takes them.
fn maps(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut map = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1u64;
    for (start, count) in ranges {
        map.extend([inside.to_string(), start.to_string(), count.to_string()]);
        inside += u64::from(*count);
    }
    map
}

/// The mapping any process may give itself.
fn single(uid: u32, gid: u32, advice: &'static str) -> Result<Mapping> {
    for (file, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
        let path = format!("/proc/self/{file}");
        let written = fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.attempt(|| format!("write {text:?} to {path}"))?;
    }
    become_root()?;
    Ok(Mapping::Single { advice })
}

/// The caller is user 0 already, being mapped to it; its group and the saved ids follow.
fn become_root() -> Result<()> {
    let (user, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(group, group, group).attempt(|| "become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(user, user, user).attempt(|| "become user 0 of the user namespace")
}

/// Ranges of subordinate ids, `(start, count)`, given to a user by name or number.
fn ranges(path: &str, uid: u32, name: Option<&str>) -> Result<Vec<(u32, u32)>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("open {path}"), error)),
        Ok(file) => {
            let mut text = Vec::new();
            file.take(SUBID_LIMIT_BYTES).read_to_end(&mut text).attempt(|| format!("read {path}"))?;
            Ok(parse_ranges(&String::from_utf8_lossy(&text), uid, name))
        }
    }
}

fn parse_ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.split(':');
        let (owner, start, count) =
            (fields.next()?, fields.next()?.parse::<u32>().ok()?, fields.next()?.trim().parse::<u32>().ok()?);
        let ours = owner == number || Some(owner) == name;
        (ours && count > 0 && start.checked_add(count).is_some()).then_some((start, count))
    };
    text.lines().filter_map(range).take(RANGES_LIMIT).collect()
}

/// The user's name in `/etc/passwd`, which is read to a limit.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let mut text = Vec::new();
    File::open("/etc/passwd").ok()?.take(SUBID_LIMIT_BYTES).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let entry = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.to_string().as_str()))?;
    entry.first().map(|&name| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_told_to_the_next_program_and_nothing_else_is_one() {
        for mapping in [Mapping::Full { uids: 1001, gids: 7 }, Mapping::Single { advice: "" }] {
            let told: Mapping = mapping.to_string().parse().unwrap();
            assert_eq!(std::mem::discriminant(&told), std::mem::discriminant(&mapping));
            assert!(matches!(mapping, Mapping::Single { .. }) || told == mapping);
        }
        for bad in ["", "x", "1:", ":1", "1:2:3", "-1:2"] {
            assert!(bad.parse::<Mapping>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_found_by_name_and_number_and_bad_lines_are_skipped() {
        let text = "ann:100000:65536\n1000:300000:10\nbob:1:1\nann:x:1\nann:5\nann:4294967295:2\nann:1:0\n";
        assert_eq!(parse_ranges(text, 1000, Some("ann")), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(parse_ranges(text, 7, None), []);
        assert_eq!(
            maps(1000, &[(100_000, 65_536), (300_000, 10)]),
            "0 1000 1 1 100000 65536 65537 300000 10".split(' ').collect::<Vec<_>>()
        );
    }
}
