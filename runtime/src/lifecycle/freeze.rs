//! `pause` and `resume`: a container's processes are frozen and go on.

use super::state::Status;
use super::{Runtime, not_running};
use crate::cgroup::processes;
use crate::error::{Error, Result};

impl Runtime {
    /// Freezes all processes of a running container.
    pub fn pause(&self, id: &str) -> Result<()> {
        self.set_frozen(id, true)
    }

    /// Lets the processes of a paused container go on.
    pub fn resume(&self, id: &str) -> Result<()> {
        self.set_frozen(id, false)
    }

    fn set_frozen(&self, id: &str, frozen: bool) -> Result<()> {
        let container = self.take(id)?;
        match (container.status()?, frozen) {
            (Status::Running | Status::Created, true) | (Status::Paused, false) => {
                processes::freeze(&container.record.cgroups, frozen)
            }
            (Status::Stopped | Status::Creating, _) => Err(not_running(id)),
            (status, _) => Err(Error::Busy { what: format!("container {id:?}"), why: format!("it is {}", status.name()) }),
        }
    }
}
