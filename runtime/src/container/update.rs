//! Other limits, and another restart policy, for a container there is.

use rustix::fs::FlockOperation;

use super::record::Phase;
use super::restart::RestartPolicy;
use super::store::{Container, Containers, save};
use crate::error::{Error, Result};
use crate::spec::Limits;

impl Containers {
    /// Changes the limits that `limits` has and the restart policy, if one is given: of one that runs at once, and for
    /// every start from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where it cannot have them; nothing has changed then.
    pub fn update(&self, container: &Container, limits: &Limits, restart: Option<RestartPolicy>) -> Result<()> {
        let id = &container.config.id;
        if container.config.auto_remove && restart.is_some_and(|policy| policy != RestartPolicy::No) {
            let why = "it goes when it ends (--rm): it cannot be started again";
            return Err(Error::invalid(format!("restart policy of container {}", container.config.name), why));
        }
        let kept = limits.clone().over(container.config.options.limits.clone());
        let both = kept.memory_swap_bytes.filter(|bytes| *bytes > 0);
        if both.is_some_and(|both| kept.memory_bytes.is_none_or(|memory| memory > both)) {
            let why = "it is memory and swap together: it needs a limit of memory, and cannot be below that";
            return Err(Error::invalid(format!("swap of container {}", container.config.name), why));
        }
        // The kernel counts swap by itself: what both together leave for it depends on the limit of memory.
        let limits =
            &Limits { memory_bytes: limits.memory_bytes.or(limits.memory_swap_bytes.and(kept.memory_bytes)), ..limits.clone() };
        if container.status.phase == Phase::Running && *limits != Limits::default() {
            self.privileged("change limits", &mut || self.runtime.update(id, limits.resources()))?;
        }
        // As with names: one changes it at a time.
        let _lock = self.store.lock(FlockOperation::LockExclusive)?;
        let mut config = self.config(id)?;
        config.options.limits = limits.clone().over(config.options.limits);
        config.restart = restart.unwrap_or(config.restart);
        save(&self.directory(id), "container.json", &config)?;
        self.tell("update", &config, &[]);
        Ok(())
    }
}
