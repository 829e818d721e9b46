//! Freezing containers, and letting them go on.

use super::record::Config;
use super::store::{Container, Containers};
use crate::error::Result;
use crate::lifecycle;

impl Containers {
    /// Freezes all processes of a container that runs.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Busy`] when it does not run or is paused already, [`crate::Error::Invalid`] where it has no
    /// cgroup, as an ordinary user's may not.
    pub fn pause(&self, container: &Container) -> Result<()> {
        self.runtime.pause(&container.running()?.id).map(|()| self.tell("pause", &container.config, &[]))
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Busy`] when it is not paused.
    pub fn unpause(&self, container: &Container) -> Result<()> {
        self.runtime.resume(&container.running()?.id).map(|()| self.tell("unpause", &container.config, &[]))
    }

    /// Whether it is paused.
    pub fn is_paused(&self, container: &Container) -> bool {
        let paused =
            |config: &Config| self.runtime.state(&config.id).is_ok_and(|state| state.status == lifecycle::Status::Paused);
        container.running().is_ok_and(paused)
    }

    /// What `ps` prints of a container's processes, with `options` or with `-ef`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Busy`] when it does not run, [`crate::Error::Invalid`] when `ps` does not like the options.
    pub fn top(&self, container: &Container, options: &[String]) -> Result<String> {
        self.runtime.process_table(&container.running()?.id, options)
    }
}
