//! The user of a container: from `USER` or `--user` to numbers, by the image's own `/etc/passwd` and
//! `/etc/group`.
//!
//! Both files are the image's and untrusted: opened by descriptor inside the root, regular files
//! only, read to a limit.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};
use crate::launch::open_in;

/// The largest passwd or group file accepted.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The largest id accepted, as Docker has it: above, tools disagree on the sign.
const ID_LIMIT: u32 = i32::MAX as u32;

/// The most groups one process can have (`NGROUPS_MAX`).
const GROUPS_LIMIT: usize = 65_536;

/// A user, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The primary group and those `/etc/group` lists the user in.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid` and their mixtures; empty is user 0.
pub(super) fn resolve(text: &str, root: BorrowedFd<'_>) -> Result<ResolvedUser> {
    let (user, group) = split(text)?;
    let passwd = read(root, c"etc/passwd")?;
    let number = id(user);
    let entry = passwd
        .lines()
        .filter_map(Entry::parse)
        .find(|entry| entry.name == user || number.is_some_and(|number| number == entry.uid));
    let (uid, own_gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(number)) => (number, 0),
        (None, None) => return Err(invalid(text, format!("there is no user {user:?} in the image's /etc/passwd"))),
    };
    let groups = read(root, c"etc/group")?;
    let gid = match group {
        None => own_gid,
        Some(group) => group_id(group, &groups)
            .ok_or_else(|| invalid(text, format!("there is no group {group:?} in the image's /etc/group")))?,
    };
    let mut all = vec![gid];
    // A group that is named replaces those the user is listed in.
    if let (None, Some(entry)) = (group, &entry) {
        all.extend(listed_in(entry.name, &groups));
        all.truncate(GROUPS_LIMIT);
        all.sort_unstable();
        all.dedup();
    }
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(ResolvedUser { uid, gid, groups: all, home: home.to_owned() })
}

/// The home directory of a user by number; `/` for one who is not in `/etc/passwd`, or if that cannot be read.
pub(crate) fn home(uid: u32, root: BorrowedFd<'_>) -> String {
    let passwd = read(root, c"etc/passwd").unwrap_or_default();
    let entry = passwd.lines().filter_map(Entry::parse).find(|entry| entry.uid == uid);
    entry.map(|entry| entry.home).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned()
}

fn invalid(text: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("user {text:?}"), why)
}

/// User and group of the text, each within the grammar: a name or a number up to [`ID_LIMIT`].
fn split(text: &str) -> Result<(&str, Option<&str>)> {
    let (user, group) = match text.split_once(':') {
        None => (text, None),
        Some((user, group)) => (user, Some(group)),
    };
    let user = if text.is_empty() { "0" } else { user };
    for part in [Some(user), group].into_iter().flatten() {
        if part.is_empty() || part.contains(':') || part.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(invalid(text, "it must be user, uid, user:group or uid:gid"));
        }
        let digits = part.trim_start_matches(['+', '-']);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && id(part).is_none() {
            return Err(invalid(text, format!("{part} is not between 0 and {ID_LIMIT}")));
        }
    }
    Ok((user, group))
}

/// Groups by name or number, looked up in the root filesystem `root`.
pub(super) fn resolve_groups(names: &[String], root: BorrowedFd<'_>) -> Result<Vec<u32>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let file = read(root, c"etc/group")?;
    let resolve = |name: &String| {
        let missing = || Error::invalid(format!("group {name:?}"), "it is not in the image's /etc/group");
        group_id(name, &file).ok_or_else(missing)
    };
    names.iter().map(resolve).collect()
}

/// Digits only, no sign, within the limit.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| digits && number <= ID_LIMIT)
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _, uid, gid, _, home) =
            (fields.next()?, fields.next()?, id(fields.next()?)?, id(fields.next()?)?, fields.next(), fields.next());
        (!name.is_empty()).then_some(Self { name, uid, gid, home: home.unwrap_or("/") })
    }
}

/// Name, id and members of a line of `/etc/group`.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let (name, _, gid, members) = (fields.next()?, fields.next()?, id(fields.next()?)?, fields.next().unwrap_or(""));
    (!name.is_empty()).then_some((name, gid, members))
}

fn group_id(group: &str, file: &str) -> Option<u32> {
    let number = id(group);
    let found = file.lines().filter_map(group_line).find(|(name, gid, _)| *name == group || number == Some(*gid));
    found.map(|(_, gid, _)| gid).or(number)
}

fn listed_in<'a>(user: &'a str, file: &'a str) -> impl Iterator<Item = u32> + 'a {
    let lines = file.lines().filter_map(group_line);
    lines.filter(move |(_, _, members)| members.split(',').any(|member| member.trim() == user)).map(|(_, gid, _)| gid)
}

/// The file's text; empty if there is no such file.
fn read(root: BorrowedFd<'_>, path: &CStr) -> Result<String> {
    // A FIFO or device in its place must not stop the launch: not blocking, and no reading from it.
    let file = match open_in(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, ResolveFlags::IN_ROOT) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        other => other.attempt(|| format!("open {path:?} of the image"))?,
    };
    let status = rustix::fs::fstat(&file).attempt(|| format!("look at {path:?} of the image"))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(Error::invalid(format!("{path:?} of the image"), "it is not a regular file"));
    }
    let mut text = Vec::new();
    File::from(file).take(FILE_LIMIT_BYTES + 1).read_to_end(&mut text).attempt(|| format!("read {path:?} of the image"))?;
    if text.len() as u64 > FILE_LIMIT_BYTES {
        return Err(Error::invalid(format!("{path:?} of the image"), format!("it is larger than {FILE_LIMIT_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/srv/web:/bin/false\nbad:x:99999999999:1::/:\n7:x:70:71::/seven:\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nwww:x:44:\nlog:x:50:root,web\ntls:x:51: web\n").unwrap();
        root
    }

    fn check(root: &tempfile::TempDir, text: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        let fd = File::open(root.path()).unwrap();
        resolve(text, fd.as_fd()).map(|user| (user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn every_form_of_user_is_resolved_by_the_image_s_files() {
        let root = image();
        assert_eq!(check(&root, "").unwrap(), (0, 0, vec![0, 50], "/root".into()));
        assert_eq!(check(&root, "web").unwrap(), (33, 44, vec![44, 50, 51], "/srv/web".into()));
        assert_eq!(check(&root, "33").unwrap(), (33, 44, vec![44, 50, 51], "/srv/web".into()));
        assert_eq!(check(&root, "web:log").unwrap(), (33, 50, vec![50], "/srv/web".into()));
        assert_eq!(check(&root, "1234").unwrap(), (1234, 0, vec![0], "/".into()));
        assert_eq!(check(&root, "1234:5678").unwrap(), (1234, 5678, vec![5678], "/".into()));
        assert_eq!(check(&root, "7").unwrap().0, 70, "a name made of digits is still a name");
    }

    #[test]
    fn cve_2024_40635_overflowing_and_odd_users_are_refused() {
        let root = image();
        for text in [
            "4294967296",
            "4294967295",
            "2147483648",
            "-1",
            "+5",
            "0x0",
            "nobody",
            "web:none",
            "bad",
            ":",
            "web:",
            ":44",
            "1:2:3",
            "web web",
            "web\n",
            "0:4294967296",
        ] {
            assert!(check(&root, text).is_err(), "{text:?}");
        }
        assert_eq!(check(&root, "2147483647").unwrap().0, 2_147_483_647);
    }

    #[test]
    fn cve_2026_47262_huge_or_strange_user_files_are_bounded() {
        let root = image();
        let passwd = root.path().join("etc/passwd");
        File::options().write(true).open(&passwd).unwrap().set_len(1 << 40).unwrap();
        assert!(check(&root, "web").unwrap_err().to_string().contains("larger than"));
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(check(&root, "web").unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_linked_passwd_is_looked_up_inside_the_image() {
        let root = image();
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/group", root.path().join("etc/passwd")).unwrap();
        std::fs::write(root.path().join("etc/group"), "inside:x:5:6::/in:\n").unwrap();
        assert_eq!(check(&root, "inside").unwrap().0, 5);
    }
}
