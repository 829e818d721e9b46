//! The life of a container as the runtime-spec has it (runtime.md): created, started, signalled,
//! deleted, by one short command after the other.
//!
//! No process of this program lives on beside a container. What the next command has to know is in the
//! container's [directory](state) below the runtime's root, and what it asks about is asked of the
//! kernel: **a container runs if the process recorded for it is alive and began when the record says**,
//! never because a number in a file exists.
//!
//! Each operation is a method of [`Runtime`], in a file of its own.

mod bundle;
mod checkpoint;
mod clock;
mod create;
mod criu;
mod delete;
mod events;
mod exec;
mod features;
mod first_process;
mod freeze;
mod handover;
mod helper;
mod kill;
mod list;
mod ps;
mod restore;
mod start;
mod state;
mod update;

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::cgroup::{Member, Unit};
use crate::error::{Error, Result};
use state::Container;

pub use checkpoint::CheckpointOptions;
pub use clock::rfc3339;
pub use create::CreateOptions;
pub use criu::{CriuOptions, ManageCgroups, Switch};
pub use events::EventsOptions;
pub use exec::ExecOptions;
pub use features::features;
pub(crate) use first_process::FirstProcess;
pub(crate) use helper::apart;
pub use kill::Signal;
pub use restore::RestoreOptions;
pub(crate) use state::{Directory, Record, boot, process_start_ticks, replace_file};
pub use state::{State, Status};

/// The containers below one root directory.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    /// Cgroups of new containers are made by systemd.
    systemd_cgroup: bool,
}

impl Runtime {
    /// The containers whose state is kept below `root`; made, for its owner alone, when it is needed.
    pub fn new(root: PathBuf) -> Self {
        Self { root, systemd_cgroup: false }
    }

    /// The same with cgroups of new containers made by systemd, as scopes that `linux.cgroupsPath` names as
    /// `slice:prefix:name`: by that of the system, or of an ordinary user's own.
    #[must_use]
    pub fn with_systemd_cgroup(self, systemd_cgroup: bool) -> Self {
        Self { systemd_cgroup, ..self }
    }

    /// The unit for a new container.
    fn unit(&self, id: &str, spec: &Spec) -> Result<Option<Unit>> {
        match spec.linux() {
            Some(linux) if self.systemd_cgroup => Unit::new(id, linux, !crate::userns::in_first()?).map(Some),
            _ => Ok(None),
        }
    }

    /// The state of a container (runtime-spec runtime.md, "Query State").
    pub fn state(&self, id: &str) -> Result<State> {
        self.look_at(id)?.state()
    }

    /// The cgroups of a container's own.
    pub(crate) fn cgroups(&self, id: &str) -> Result<Vec<Member>> {
        Ok(self.look_at(id)?.record.cgroups)
    }

    /// The first process of a container, if that has not ended.
    pub(crate) fn first_process(&self, id: &str) -> Result<Option<FirstProcess>> {
        let container = match self.look_at(id) {
            Err(Error::NotFound { .. }) => return Ok(None),
            container => container?,
        };
        Ok(container.process()?.map(|process| FirstProcess { container, process }))
    }

    /// A container nobody else changes meanwhile.
    fn take(&self, id: &str) -> Result<Container> {
        let directory = Directory::open(&self.root, id)?;
        directory.lock()?;
        Container::load(directory)
    }

    /// A container as it is at this moment.
    fn look_at(&self, id: &str) -> Result<Container> {
        Container::load(Directory::open(&self.root, id)?)
    }
}

/// The error of an operation that needs a running process; engines look for these words.
fn not_running(id: &str) -> Error {
    Error::Busy { what: format!("container {id:?}"), why: "container not running".into() }
}
