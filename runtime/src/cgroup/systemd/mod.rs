//! Cgroups made by systemd: a scope unit for each container.
//!
//! systemd takes the directories that its units have for its own, so on hosts it runs, engines ask it for a
//! container's (`--systemd-cgroup`). It is told by D-Bus: the scope is started with a process in it that does
//! nothing, the container's first process is born there, and the first one goes. Limits are written to the
//! cgroup as elsewhere, before anything runs in it, and told to systemd as properties of the unit.

mod bus;
mod message;
mod unit;

use std::path::{Path, PathBuf};

use rustix::process::{Pid, WaitId, WaitIdOptions};

use super::Member;
use super::devices::Rules;
use super::settings::Setting;
use crate::error::{Attempt, Error, Result};
use crate::sys;
use crate::warning::warn;
use bus::{Answer, Connection};
use message::Writer;
use unit::{Property, Value};

pub(crate) use unit::Unit;

/// The name of the error for a property that is not there, or cannot be set.
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";

/// A scope that has been started for a container that is not in it yet.
#[derive(Debug)]
pub(crate) struct Scope {
    unit: Unit,
    /// Until the limits are told: systemd tells of everything there is on one, whether it is heard or not.
    connection: Option<Connection>,
    path: PathBuf,
    placeholder: Option<Placeholder>,
}

impl Scope {
    /// Has systemd make a container's cgroup.
    pub(crate) fn start(unit: Unit) -> Result<Self> {
        let mut connection = Connection::open(unit.user)?;
        // The user's systemd is itself in a cgroup of the system's.
        let above = if unit.user { connection.property("ControlGroup")? } else { String::new() };
        let path = PathBuf::from(above.trim_start_matches('/')).join(unit.path());
        let placeholder = Placeholder::start()?;
        let flag = |name| Property::new(name, Value::Flag(true));
        let properties = [
            Property::new("Description", Value::Text(format!("container {}", unit.name.trim_end_matches(".scope")))),
            Property::new("Slice", Value::Text(unit.slice.clone())),
            Property::new("PIDs", Value::Processes(vec![placeholder.pid.as_raw_nonzero().get().unsigned_abs()])),
            flag("Delegate"),
            Property::new("DefaultDependencies", Value::Flag(false)),
            // Not to be kept for somebody to look at after it failed: its name may be needed again.
            Property::new("CollectMode", Value::Text("inactive-or-failed".into())),
            flag("CPUAccounting"),
            flag("MemoryAccounting"),
            flag("TasksAccounting"),
        ];
        let mut body = Writer::default();
        body.text(&unit.name);
        body.text("fail");
        write_properties(&properties, &mut body);
        // No other units.
        body.array(8, |_| {});
        let attempted = format!("start the systemd unit {}", unit.name);
        let started = match connection.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)? {
            Answer::Error(name, _) if name == "org.freedesktop.systemd1.UnitExists" => {
                return Err(Error::Busy {
                    what: format!("systemd unit {}", unit.name),
                    why: "a container of this name is running; choose another name or stop it first".into(),
                });
            }
            answer => answer.or_error(&attempted)?,
        };
        match connection.job(&started, &attempted)?.as_str() {
            "done" => Ok(Self { unit, connection: Some(connection), path, placeholder: Some(placeholder) }),
            result => Err(Error::io(
                attempted,
                std::io::Error::other(format!("its job ended as {result:?}; `systemctl status {}` may say why", unit.name)),
            )),
        }
    }

    /// Its directory, relative to each hierarchy's mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory of cgroup v1 that systemd has not made, and keeps it: systemd removes those that it
    /// needs for none of its properties, unless somebody is in them.
    pub(super) fn hold(&self, member: &Member) -> Result<()> {
        let (false, Some(placeholder)) = (member.is_unified(), &self.placeholder) else { return Ok(()) };
        let path = &member.path;
        std::fs::create_dir_all(path).attempt(|| format!("create cgroup {path:?}"))?;
        if member.has("cpuset") {
            super::inherit_cpuset(member)?;
        }
        let pid = placeholder.pid.as_raw_nonzero().to_string();
        std::fs::write(path.join("cgroup.procs"), pid).attempt(|| format!("put a process into cgroup {path:?}"))
    }

    /// Tells systemd, once, of limits that were written to the cgroup.
    pub(super) fn set(&mut self, settings: &[Setting], v1_devices: Option<&Rules>) -> Result<()> {
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let mut properties = unit::properties(settings);
        properties.extend(v1_devices.into_iter().flat_map(device_properties));
        set(&mut connection, &self.unit, &properties)
    }

    /// The container is in it, and needs nobody else to be.
    pub(super) fn settle(&mut self) {
        self.placeholder = None;
    }

    /// Ends it, with all that is in it.
    pub(super) fn stop(self) -> Result<()> {
        self.unit.stop()
    }
}

impl Unit {
    /// Tells systemd of limits that were changed.
    pub(super) fn update(&self, settings: &[Setting]) -> Result<()> {
        set(&mut Connection::open(self.user)?, self, &unit::properties(settings))
    }

    /// Ends it, with all that is in it, and waits until systemd has forgotten it. One that is not there is no
    /// error.
    pub(crate) fn stop(&self) -> Result<()> {
        stop(&mut Connection::open(self.user)?, self)
    }
}

fn set(connection: &mut Connection, unit: &Unit, properties: &[Property]) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let attempted = format!("set limits of the systemd unit {}", unit.name);
    let mut call = |properties: &[Property]| {
        let mut body = Writer::default();
        body.text(&unit.name);
        // Until it ends.
        body.bool(true);
        write_properties(properties, &mut body);
        connection.call("SetUnitProperties", "sba(sv)", body)
    };
    match call(properties)? {
        // One of them an older systemd does not know.
        Answer::Error(name, _) if name == UNKNOWN_PROPERTY => {
            properties.iter().try_for_each(|property| match call(std::slice::from_ref(property))? {
                Answer::Error(name, _) if name == UNKNOWN_PROPERTY => {
                    let left = "what was written to the cgroup holds until systemd reloads its configuration";
                    warn(&format!("this systemd does not know {}: {left}", property.name));
                    Ok(())
                }
                answer => answer.or_error(&attempted).map(drop),
            })
        }
        answer => answer.or_error(&attempted).map(drop),
    }
}

fn stop(connection: &mut Connection, unit: &Unit) -> Result<()> {
    let attempted = format!("stop the systemd unit {}", unit.name);
    let mut body = Writer::default();
    body.text(&unit.name);
    body.text("replace");
    match connection.call("StopUnit", "ss", body)? {
        Answer::Error(name, _) if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
        answer => {
            let stopping = answer.or_error(&attempted)?;
            connection.job(&stopping, &attempted).map(drop)
        }
    }
}

fn write_properties(properties: &[Property], body: &mut Writer) {
    body.array(8, |body| properties.iter().for_each(|property| property.write(body)));
}

/// With cgroup v1, systemd writes the rules for devices, too, whenever it reloads its configuration.
fn device_properties(rules: &Rules) -> Vec<Property> {
    let drivers = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    vec![
        Property::new("DevicePolicy", Value::Text("strict".into())),
        Property::new("DeviceAllow", Value::Devices(rules.systemd(&drivers))),
    ]
}

/// A process that does nothing but be in a cgroup. It goes when this is dropped, or this process does.
#[derive(Debug)]
struct Placeholder {
    pid: Pid,
    pidfd: std::os::fd::OwnedFd,
}

impl Placeholder {
    fn start() -> Result<Self> {
        let parent = rustix::process::getpid();
        let (pid, pidfd) = sys::spawn(0, None, &mut || {
            let _ = sys::close_from(0);
            // Should the parent be gone already, nobody would end this one.
            if sys::die_with_parent().is_ok() && rustix::process::getppid() == Some(parent) {
                loop {
                    rustix::event::pause();
                }
            }
            1
        })
        .attempt(|| "start a process to hold the container's cgroup")?;
        Ok(Self { pid, pidfd })
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let pidfd = std::os::fd::AsFd::as_fd(&self.pidfd);
        let _ = sys::pidfd_signal(pidfd, libc::SIGKILL);
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {}
    }
}
