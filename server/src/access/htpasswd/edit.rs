//! Changing an htpasswd file: whole or not at all, one change at a time, everything else in it kept.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use longshore_runtime::files::{lock_path, random_hex, write_atomically};
use rustix::fs::FlockOperation;

use super::file::{Hash, check_user_name, entry, parse, unusable};
use super::read;
use crate::error::{Attempt, Result};
use crate::limits::{BCRYPT_COST, PASSWORD_LIMIT_BYTES};

/// Adds a user; creates the file when it is not there.
///
/// # Errors
/// When the name or the password cannot be one, or the file has the user already.
pub fn add(path: &Path, user: &str, password: &str) -> Result<()> {
    check_user_name(user).map_err(|why| longshore_runtime::Error::invalid(format_args!("user name {user:?}"), why))?;
    let hash = new_hash(password)?;
    change(path, |lines, path| {
        if line_of(lines, user).is_some() {
            let why = format!("user {user} is in it already; change the password with `rhub user passwd {user}`");
            return Err(unusable(path.display(), why));
        }
        lines.push(format!("{user}:{}", hash.as_str()));
        Ok(())
    })
}

/// Gives a user another password.
///
/// # Errors
/// When the password cannot be one, or the file does not have the user.
pub fn set_password(path: &Path, user: &str, password: &str) -> Result<()> {
    let hash = new_hash(password)?;
    must_exist(path)?;
    change(path, |lines, path| {
        let at = line_of(lines, user).ok_or_else(|| unknown(path, user))?;
        lines[at] = format!("{user}:{}", hash.as_str());
        Ok(())
    })
}

/// Removes a user.
///
/// # Errors
/// When the file does not have the user.
pub fn remove(path: &Path, user: &str) -> Result<()> {
    must_exist(path)?;
    change(path, |lines, path| {
        let at = line_of(lines, user).ok_or_else(|| unknown(path, user))?;
        lines.remove(at);
        Ok(())
    })
}

/// The users' names, in the order of the file.
pub fn list(path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    parse(path, &text)?;
    Ok(text.lines().filter_map(|line| Some(entry(line).ok()??.0.to_owned())).collect())
}

fn new_hash(password: &str) -> Result<Hash> {
    let invalid = |why: &str| Err(longshore_runtime::Error::invalid("the password", why).into());
    match password {
        "" => invalid("it is empty"),
        _ if password.contains('\0') => invalid("it has a NUL"),
        _ if password.len() > PASSWORD_LIMIT_BYTES => invalid("it is longer than 72 bytes, and bcrypt ignores the rest"),
        _ => Hash::of(password, BCRYPT_COST),
    }
}

fn unknown(path: &Path, user: &str) -> crate::Error {
    unusable(path.display(), format_args!("user {user:?} is not in it; `rhub user list` shows who is"))
}

fn line_of(lines: &[String], user: &str) -> Option<usize> {
    lines.iter().position(|line| matches!(entry(line), Ok(Some((name, _))) if name == user))
}

/// So that no change but an addition creates it, by taking the lock.
fn must_exist(path: &Path) -> Result<()> {
    fs::metadata(path).attempt(|| format!("look up {}", path.display()))?;
    Ok(())
}

/// Replaces the file by one with other lines. Whoever reads it sees the old or the new one.
fn change(path: &Path, edit: impl FnOnce(&mut Vec<String>, &Path) -> Result<()>) -> Result<()> {
    // A symbolic link is a way to the file, not the file.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let locked = lock_path(path, FlockOperation::LockExclusive)?;
    let text = read(path)?;
    parse(path, &text)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    edit(&mut lines, path)?;
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    let scratch = scratch_like(path)?;
    write_atomically(path, &scratch, text.as_bytes())?;
    drop(locked);
    Ok(())
}

/// An empty file beside `path`, with its mode and owner: the server may not be who changes the file.
fn scratch_like(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let scratch = path.with_file_name(format!(".{name}.{}", random_hex(8)?));
    let create = || {
        let old = fs::metadata(path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&scratch)?;
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o777))
    };
    let created = create().attempt(|| format!("create {} with the mode and owner of {}", scratch.display(), path.display()));
    if created.is_err() {
        // The error that counts is on its way already.
        let _ = fs::remove_file(&scratch);
    }
    created?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn users(path: &Path) -> std::collections::HashMap<Box<str>, Hash> {
        parse(path, &fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn users_come_and_go_and_nothing_else_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        add(&path, "alice", "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = format!("# people\n\n{}# the end", fs::read_to_string(&path).unwrap());
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();

        add(&path, "bob", "two").unwrap();
        assert_eq!(list(&path).unwrap(), ["alice", "bob"]);
        assert!(users(&path)["alice"].verify("one") && users(&path)["bob"].verify("two"));
        set_password(&path, "alice", "three").unwrap();
        assert!(users(&path)["alice"].verify("three") && !users(&path)["alice"].verify("one"));
        remove(&path, "alice").unwrap();
        assert_eq!(list(&path).unwrap(), ["bob"]);

        let left = fs::read_to_string(&path).unwrap();
        assert!(left.starts_with("# people\n\n# the end\nbob:$2b$10$") && left.ends_with('\n'), "{left}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "the mode is kept");
        assert_eq!(names(dir.path()), ["users"], "nothing is left over");
    }

    #[test]
    fn what_cannot_be_done_says_so_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        assert!(remove(&path, "alice").is_err() && set_password(&path, "alice", "x").is_err() && list(&path).is_err());
        assert!(names(dir.path()).is_empty(), "no file is made by the way");
        add(&path, "alice", "one").unwrap();
        let before = fs::read(&path).unwrap();
        let said = |outcome: Result<()>| outcome.unwrap_err().to_string();
        assert!(said(add(&path, "alice", "two")).contains("rhub user passwd alice"));
        assert!(said(remove(&path, "bob")).contains("\"bob\" is not in it"));
        assert!(said(set_password(&path, "bob", "x")).contains("\"bob\" is not in it"));
        for bad in ["", "a:b", "a\nb", " a", "#a", &"a".repeat(129)] {
            assert!(said(add(&path, bad, "x")).contains("name"), "{bad:?}");
        }
        for bad in ["", "a\0b", &"a".repeat(73)] {
            assert!(said(add(&path, "bob", bad)).contains("the password"), "{bad:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::write(&path, "alice:plain\n").unwrap();
        assert!(said(add(&path, "bob", "x")).contains("line 1"), "a file the server would refuse is not made to look good");
        assert_eq!(fs::read(&path).unwrap(), b"alice:plain\n");
    }

    #[test]
    fn a_symbolic_link_still_leads_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("users"), dir.path().join("link"));
        add(&path, "alice", "one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, "bob", "two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(list(&path).unwrap(), ["alice", "bob"]);
    }

    #[test]
    fn changes_at_the_same_time_are_all_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("users");
        std::thread::scope(|scope| {
            for n in 0..6 {
                scope.spawn(move || add(path, &format!("user{n}"), "x").unwrap());
            }
        });
        assert_eq!(list(path).unwrap().len(), 6);
    }
}
