//! A container that its own command watches: no monitor, and its input and output are those of the command.
//!
//! It is made, listed and locked as others are, and goes when it ends. The command holds its lock as a monitor would;
//! should the command be killed, a guard process ends the container and removes it.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::FlockOperation;

use super::ending::Ended;
use super::launching::{Launched, Launching, null};
use super::monitor::HIGH_FD;
use super::record::Config;
use super::store::{Containers, Create};
use crate::error::{Attempt, Error, Result};
use crate::launch::{Exit, Guard, Signals, remove_tree, wait};
use crate::store::{Image, Lease};
use crate::userns::Mapping;
use crate::warning::{self, warn};
use crate::{files, sys};

impl Containers {
    /// Makes a container, runs it in the foreground until it ends, and removes it. `lease` must hold the image
    /// ([`Store::find_leased`]); `rootless` is the user namespace this process is in, if it is not root's. `made` is
    /// called with the container's ID before it is started.
    ///
    /// Call it while this process has one thread.
    ///
    /// # Errors
    ///
    /// Those of [`Containers::create`]; [`Error::Exec`] says that the command cannot be executed. There is no container
    /// after an error, either.
    ///
    /// [`Store::find_leased`]: crate::Store::find_leased
    pub fn run_here(
        &self,
        lease: &Lease,
        image: &Image,
        create: Create,
        rootless: Option<Mapping>,
        made: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Exit> {
        let guard = Guard::start(&mut || remove_tree(&lease.scratch()).is_ok() & self.remove_remains(lease.id()).is_ok())?;
        let config = self.create(lease, image, Create { direct: true, ..create })?;
        made(&config.id)?;
        let Some(lock) = self.lock_to_start(&config.id)? else {
            return Err(Error::Busy { what: format!("container {}", config.name), why: "somebody else has started it".into() });
        };
        let signals = Signals::catch()?;
        let launching =
            Launching { containers: self, config: &config, lock: lock.as_fd(), rootless, again: false, guard: Some(&guard) };
        let launched = launching.launch().inspect_err(|error| launching.failed(error))?;
        let exit = self.watch_here(&config, launched, &signals, &lock)?;
        // Its name may be another by now.
        self.discard_into(lease, &self.config(&config.id)?, true)?;
        // After an error it looks whether there is anything left.
        guard.dismiss();
        Ok(exit)
    }

    /// Removes a container whose command was killed, in the guard of that.
    fn remove_remains(&self, id: &str) -> Result<()> {
        // It has no descriptors, and nobody to be warned: what it opens must not become its standard error.
        warning::send_to(|_| {});
        let null = rustix::io::fcntl_dupfd_cloexec(null()?, HIGH_FD).attempt(|| "duplicate a file descriptor")?;
        for number in 0..3 {
            sys::place_fd(null.as_fd(), number, false).attempt(|| "open /dev/null")?;
        }
        // The command's descriptors are closed one after the other: that its guard wakes does not mean that all are.
        let ended = self.open_lock(id).and_then(|lock| files::try_lock(&lock, FlockOperation::LockShared));
        match ended.and_then(|_| self.load(id)) {
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
            // It was never started.
            Ok(container) if !container.status.is_live() => self.discard(&container.config, true),
            Ok(_) => Ok(()),
        }
    }

    /// Waits in the place of a monitor, and clears away what is not the container's own.
    fn watch_here(&self, config: &Config, launched: Launched, signals: &Signals, lock: &File) -> Result<Exit> {
        let Launched { pidfd, mut layers, mut attached, .. } = launched;
        let id = &config.id;
        layers.enter();
        self.tell("start", config, &[]);
        // Without it the container has no names; it runs all the same.
        let mut names = attached.name_server(&self.store, &config.options).unwrap_or_else(|error| {
            warn(&error.to_string());
            None
        });
        if let Some(names) = &mut names {
            names.follow(self.directory(id).join("status.json"));
        }
        let exit = wait(&pidfd, signals, None, names.as_mut())?;
        let Ended { end, cleared, .. } = self.clear_away(config, exit, lock)?;
        if end.oom_killed {
            warn("out of memory: the kernel killed a process of the container");
        }
        cleared.map(|()| exit)
    }
}
