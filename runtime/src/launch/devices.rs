//! The device nodes of a container (runtime-spec config-linux.md, "Devices" and "Default Devices").

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use rustix::fs::{Dev, FileType, makedev};

use super::mounts::{self, MountPlan};
use super::path::InRoot;
use super::plan::absolute;
use crate::error::{Error, Result};

/// A device node to be made.
#[derive(Debug)]
pub(super) struct DevicePlan {
    pub(super) path: InRoot,
    pub(super) kind: FileType,
    pub(super) number: Dev,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The host's node to be mounted there, where none can be made.
    pub(super) host: Option<OwnedFd>,
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The devices every container has, then the configuration's own. `can_make`: device nodes can be made
/// where the container lives, which takes the first user namespace.
pub(super) fn devices(linux: &Linux, mounts: &[MountPlan], can_make: bool) -> Result<Vec<DevicePlan>> {
    let configured = linux.devices().as_deref().unwrap_or_default();
    let mut plans = Vec::new();
    // A /dev bound from the host brings its own.
    let own_dev = !mounts.iter().any(|mount| mount.target.as_c_str() == c"dev" && mount.name.starts_with("bind "));
    for (path, major, minor) in DEFAULTS.into_iter().filter(|_| own_dev) {
        let plan = DevicePlan {
            path: absolute(Path::new(path))?,
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            host: if can_make { None } else { Some(mounts::device(Path::new(path))?) },
        };
        // Engines list them too, with owners of their own.
        if !configured.iter().any(|device| device.path() == Path::new(path)) {
            plans.push(plan);
        }
    }
    for device in configured {
        plans.push(one(device, can_make)?);
    }
    Ok(plans)
}

fn one(device: &LinuxDevice, can_make: bool) -> Result<DevicePlan> {
    let what = || format!("linux.devices: {:?}", device.path());
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::invalid(what(), "type \"a\" is for rules, not for nodes")),
    };
    let number = |number: i64| u32::try_from(number).map_err(|_| Error::invalid(what(), format!("{number} is no device number")));
    let path = absolute(device.path())?;
    if path.is_root() {
        return Err(Error::invalid(what(), "the root itself is no device"));
    }
    // Fifos are no devices: anyone may make them.
    let host = if can_make || kind == FileType::Fifo { None } else { Some(mounts::device(device.path())?) };
    Ok(DevicePlan {
        path,
        kind,
        number: if kind == FileType::Fifo { 0 } else { makedev(number(device.major())?, number(device.minor())?) },
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        host,
    })
}
