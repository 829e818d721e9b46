//! Removing containers.

use rustix::fs::FlockOperation;

use super::record::Config;
use super::store::{Container, Containers};
use crate::error::{Attempt, Error, Result};
use crate::lifecycle::Signal;
use crate::store::{Lease, claims};
use crate::volume::Volumes;

impl Containers {
    /// Removes a container that does not run, with its log and all it wrote; its name is free then. With
    /// `volumes` go those of its volumes that nobody gave a name and nobody else has.
    ///
    /// An ordinary user's process must be in the user namespace of [`crate::userns::enter_rootless`]; to kill
    /// what runs, outside of it: [`Containers::kill_for_removal`].
    pub fn remove(&self, id: &str, volumes: bool) -> Result<()> {
        let container = self.load(id)?;
        let Some(_resting) = self.lock_resting(id, FlockOperation::LockExclusive)? else { return Err(runs(&container)) };
        self.discard(&container.config, volumes || container.config.auto_remove)
    }

    /// Kills a container that runs and waits until it has ended. True if that was the end of it, too, as it is
    /// of one that goes when it ends.
    pub fn kill_for_removal(&self, container: &Container) -> Result<bool> {
        let config = &container.config;
        if let Some(held) = self.hold(container)? {
            held.kill(Signal::KILL)?;
            held.waiter.wait()?;
        }
        Ok(config.auto_remove && !self.directory(&config.id).exists())
    }

    /// Takes a container away and its name back, and removes what it was made of; with `volumes` those
    /// that nobody gave a name.
    pub(super) fn discard(&self, config: &Config, volumes: bool) -> Result<()> {
        // Dropped last: the slow part, removing a tree, then happens after the lock is given back.
        self.discard_into(&self.store.lease()?, config, volumes)
    }

    /// The same with a lease there is, with which it goes.
    pub(super) fn discard_into(&self, lease: &Lease, config: &Config, volumes: bool) -> Result<()> {
        let lock = self.store.lock(FlockOperation::LockExclusive)?;
        let gone = lease.scratch().join("container");
        match std::fs::rename(self.directory(&config.id), &gone) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.attempt(|| format!("remove container {}", config.name))?,
        }
        self.give_names_back();
        if volumes {
            Volumes::of(&self.store).release(&config.options.volumes, lease)?;
        }
        drop(lock);
        self.tell("destroy", config, &[]);
        self.store.release(claims(&gone), lease)
    }
}

fn runs(container: &Container) -> Error {
    Error::Busy {
        what: format!("container {}", container.config.name),
        why: "it is running; stop it first (`rbox stop`), or remove it with --force".into(),
    }
}
