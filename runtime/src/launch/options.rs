//! The options of a mount: fstab's words, sorted by what they change.
//!
//! Runtime-spec config.md, "Linux mount options". A word that is none of those is the filesystem's own.

use std::ffi::CString;

use oci_spec::runtime::Mount;
use rustix::mount::MountAttrFlags;

use super::rootfs::c_string;
use crate::error::{Error, Result};
use crate::sys::MountAttributes;
use crate::warning::warn;

/// The bits of `mount_setattr` that hold the access-time mode, cleared before one is set.
const ATIME_BITS: u64 = 0x70;

/// An option the filesystem itself is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) key: CString,
    pub(super) value: Option<CString>,
    /// `mount(8)` knows the word for every filesystem, most have no use for it: a refusal is no error.
    pub(super) optional: bool,
}

/// Which files' owners are shown as whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdMapped {
    /// This mount's.
    One,
    /// And those of all mounts below it.
    Tree,
}

/// All options of one mount.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    pub(super) idmap: Option<IdMapped>,
    pub(super) own: MountAttributes,
    /// From `rro`, `rnosuid`, ...: for the mount and all below it.
    pub(super) tree: MountAttributes,
    /// One of `MS_PRIVATE`, `MS_SLAVE`, ...; private if nothing was said.
    pub(super) propagation: u64,
    pub(super) tree_propagation: bool,
    pub(super) parameters: Vec<Parameter>,
}

impl Options {
    /// Sorts the options of `mount`. A word that belongs to another kind of mount is an error.
    pub(super) fn parse(mount: &Mount) -> Result<Self> {
        let mut options = Self { bind: mount.typ().as_deref() == Some("bind"), ..Self::default() };
        for option in mount.options().iter().flatten() {
            options.apply(option)?;
        }
        if options.propagation == 0 {
            options.propagation = libc::MS_PRIVATE;
            options.tree_propagation = true;
        }
        options.check(mount)?;
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<()> {
        match option {
            // Whether the kernel writes about a mount in its log is no option any more.
            "" | "defaults" | "silent" | "loud" => {}
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(IdMapped::One),
            "ridmap" => self.idmap = Some(IdMapped::Tree),
            "sync" | "async" | "dirsync" | "mand" | "nomand" | "lazytime" | "nolazytime" => {
                self.parameter(option, None, false)?;
            }
            "iversion" => self.parameter("i_version", None, true)?,
            // What the kernel does without the option.
            "noiversion" => {}
            "acl" | "noacl" => self.parameter(option, None, true)?,
            _ if self.set_propagation(option) => {}
            _ if attribute(option).is_some_and(|change| add(&mut self.own, change)) => {}
            _ if option.strip_prefix('r').and_then(attribute).is_some_and(|change| add(&mut self.tree, change)) => {}
            _ => match option.split_once('=') {
                Some((key, value)) => self.parameter(key, Some(value), false)?,
                None => self.parameter(option, None, false)?,
            },
        }
        Ok(())
    }

    fn parameter(&mut self, key: &str, value: Option<&str>, optional: bool) -> Result<()> {
        let key = c_string("mount option", key)?;
        let value = value.map(|value| c_string("mount option", value)).transpose()?;
        self.parameters.push(Parameter { key, value, optional });
        Ok(())
    }

    fn set_propagation(&mut self, option: &str) -> bool {
        match propagation(option) {
            Some((mode, recursive)) => (self.propagation, self.tree_propagation) = (mode, recursive),
            None => return false,
        }
        true
    }

    /// What makes no sense together is an error and not left out.
    fn check(&self, mount: &Mount) -> Result<()> {
        let fail = |why: String| Err(Error::invalid(format!("mount on {:?}", mount.destination()), why));
        let mapped = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let (uids, gids) = (mapped(mount.uid_mappings()), mapped(mount.gid_mappings()));
        if uids != gids {
            return fail("uidMappings and gidMappings have to be given together".into());
        }
        if self.copy_up && mount.typ().as_deref() != Some("tmpfs") {
            return fail("option \"tmpcopyup\" is for type tmpfs".into());
        }
        if self.remount && (self.idmap.is_some() || uids) {
            return fail("a mount cannot be given an id mapping by \"remount\"".into());
        }
        if self.bind && !self.remount {
            for parameter in &self.parameters {
                if !parameter.optional && !VFS_WORDS.contains(&word(parameter)) {
                    // The kernel has always ignored it, and with it all other runtimes.
                    let (destination, key) = (mount.destination(), &parameter.key);
                    warn(&format!("mount on {destination:?}: option {key:?} is ignored: it is none a bind mount has"));
                }
            }
        }
        Ok(())
    }
}

/// Words about a whole filesystem. The kernel has always ignored them for a bind mount, and so is done.
const VFS_WORDS: [&str; 7] = ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"];

fn word(parameter: &Parameter) -> &str {
    parameter.key.to_str().unwrap_or("")
}

/// The propagation mode a word names, and whether it is meant for all mounts below too.
pub(super) fn propagation(word: &str) -> Option<(u64, bool)> {
    let plain = word.strip_prefix('r').unwrap_or(word);
    let mode = match plain {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((mode, plain != word))
}

/// A later word replaces an earlier one that says otherwise.
fn add(attributes: &mut MountAttributes, (set, clear): (u64, u64)) -> bool {
    attributes.set = (attributes.set & !clear) | set;
    attributes.clear = (attributes.clear & !set) | clear;
    true
}

/// The attribute bits an option sets and clears.
pub(super) fn attribute(option: &str) -> Option<(u64, u64)> {
    let flag = |flag: MountAttrFlags| u64::from(flag.bits());
    Some(match option {
        "ro" => (flag(MountAttrFlags::MOUNT_ATTR_RDONLY), 0),
        "rw" => (0, flag(MountAttrFlags::MOUNT_ATTR_RDONLY)),
        "nosuid" => (flag(MountAttrFlags::MOUNT_ATTR_NOSUID), 0),
        "suid" => (0, flag(MountAttrFlags::MOUNT_ATTR_NOSUID)),
        "nodev" => (flag(MountAttrFlags::MOUNT_ATTR_NODEV), 0),
        "dev" => (0, flag(MountAttrFlags::MOUNT_ATTR_NODEV)),
        "noexec" => (flag(MountAttrFlags::MOUNT_ATTR_NOEXEC), 0),
        "exec" => (0, flag(MountAttrFlags::MOUNT_ATTR_NOEXEC)),
        "nodiratime" => (flag(MountAttrFlags::MOUNT_ATTR_NODIRATIME), 0),
        "diratime" => (0, flag(MountAttrFlags::MOUNT_ATTR_NODIRATIME)),
        "nosymfollow" => (flag(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW), 0),
        "symfollow" => (0, flag(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW)),
        "relatime" | "norelatime" | "nostrictatime" | "atime" => (0, ATIME_BITS),
        "noatime" => (flag(MountAttrFlags::MOUNT_ATTR_NOATIME), ATIME_BITS),
        "strictatime" => (flag(MountAttrFlags::MOUNT_ATTR_STRICTATIME), ATIME_BITS),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;

    fn parse(kind: &str, options: &[&str]) -> Result<Options> {
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        Options::parse(&MountBuilder::default().destination("/d").typ(kind).options(options).build().unwrap())
    }

    #[test]
    fn every_word_of_the_specification_is_known() {
        let words = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
             noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev \
             rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
             rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw \
             shared silent slave strictatime suid symfollow sync unbindable";
        for word in words.split_whitespace() {
            let options = parse("bind", &[word]).unwrap_or_else(|error| panic!("{word}: {error}"));
            let unknown =
                options.parameters.iter().any(|parameter| !parameter.optional && !VFS_WORDS.contains(&super::word(parameter)));
            assert!(!unknown, "{word} was taken for a filesystem's own");
        }
    }

    #[test]
    fn a_later_word_replaces_an_earlier_one() {
        let options = parse("bind", &["ro", "nosuid", "rw", "rro", "noatime"]).unwrap();
        assert_eq!(options.own.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOATIME);
        assert_eq!(options.own.clear, libc::MOUNT_ATTR_RDONLY | ATIME_BITS);
        assert_eq!(options.tree.set, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(parse("proc", &["tmpcopyup"]).is_err());
        assert!(parse("bind", &["remount", "idmap"]).is_err());
        assert!(parse("tmpfs", &["size=1k", "tmpcopyup"]).is_ok());
    }
}
