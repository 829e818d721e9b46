//! `delete`: what is left of a container goes.

use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Spec;

use super::Runtime;
use super::create::hook_state;
use super::state::{Container, Directory, Status};
use crate::cgroup::{self, Unit, processes};
use crate::error::{Attempt, Error, Result};
use crate::hooks::{self, Kind};
use crate::sys;
use crate::warning::warn;

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Removes a container that has ended (runtime-spec runtime.md, "Delete"); with `force` any other is
    /// killed first, and one whose state cannot be read or that does not exist is no error.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let directory = match Directory::open(&self.root, id) {
            Err(Error::NotFound { .. }) if force => return Ok(()),
            other => other?,
        };
        match directory.lock() {
            Err(Error::NotFound { .. }) if force => return Ok(()),
            other => other?,
        }
        let container = match Container::load(directory) {
            Err(error) if force => {
                warn(&format!("{error}: its directory is removed, processes of it are not looked for"));
                return Directory::open(&self.root, id)?.remove();
            }
            other => other?,
        };
        match container.status()? {
            status if status != Status::Stopped && !force => Err(Error::Busy {
                what: format!("container {id:?}"),
                why: format!("it is {}; end it first, or use --force", status.name()),
            }),
            _ => {
                // Without its configuration it can be removed all the same, but for its hooks.
                let spec = container.spec().or_else(|error| if force { Ok(Spec::default()) } else { Err(error) })?;
                self.destroy(&container, &spec)
            }
        }
    }

    /// Ends all that is left of a container that nobody looks after any more, and removes its cgroups. Its
    /// directory stays.
    pub(crate) fn end(&self, id: &str) -> Result<()> {
        match self.look_at(id) {
            Ok(container) => {
                end_processes(&container)?;
                processes::destroy(&container.record.cgroups)?;
            }
            // It had no process yet.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        // Its process may not have been recorded as being in there yet.
        let directory = Directory::open(&self.root, id)?;
        if !directory.has("config.json") {
            return Ok(());
        }
        match super::state::read_spec(&directory, Path::new(""))?.linux() {
            Some(linux) => processes::destroy(&cgroup::place(id, linux, crate::userns::in_first()?)?),
            None => Ok(()),
        }
    }

    /// Ends all processes of a container, removes its cgroups and its directory, and runs the hooks that
    /// come after.
    pub(super) fn destroy(&self, container: &Container, spec: &Spec) -> Result<()> {
        end_processes(container)?;
        processes::destroy(&container.record.cgroups)?;
        if let Some(Err(error)) = container.record.unit.as_ref().map(Unit::stop) {
            // Nobody is in it any more: systemd finds that by itself, later.
            warn(&error.to_string());
        }
        container.record.mount.map_or(Ok(()), |mount| mount.detach(&container.record.rootfs))?;
        container.directory.remove()?;
        hooks::run_all(Kind::Poststop, spec, || hook_state(&container.record, Status::Stopped, 0));
        Ok(())
    }
}

/// Kills a container's first process, and with it all, and waits for its end.
fn end_processes(container: &Container) -> Result<()> {
    if let Some(process) = container.process()? {
        match sys::pidfd_signal(std::os::fd::AsFd::as_fd(&process.pidfd), libc::SIGKILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => super::kill::as_owner(&process, libc::SIGKILL, errno)?,
        }
        if processes::frozen(&container.record.cgroups) {
            processes::freeze(&container.record.cgroups, false)?;
        }
        if !hooks::ends_within(&process.pidfd, KILL_TIMEOUT).attempt(|| "wait for the container's process to end")? {
            return Err(Error::Busy {
                what: format!("container {:?}", container.id()),
                why: "its process cannot be killed".into(),
            });
        }
    }
    Ok(())
}
