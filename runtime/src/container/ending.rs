//! The end of a container: what who watched it says and clears away, be that its monitor or the command itself.

use std::fs::File;

use super::record::{Config, End, Status};
use super::store::Containers;
use crate::cgroup::{Cgroup, processes};
use crate::error::Result;
use crate::launch::Exit;

/// A container that has ended and been cleared away, but for what it wrote.
pub(super) struct Ended {
    pub(super) end: End,
    /// Where it stood before.
    pub(super) status: Result<Status>,
    /// Whether nothing of it is left.
    pub(super) cleared: Result<()>,
}

impl Containers {
    /// Says how a container ended, first of all in its `lock`, and clears away what it had while it ran.
    pub(super) fn clear_away(&self, config: &Config, exit: Exit, lock: &File) -> Result<Ended> {
        let id = &config.id;
        let cgroups = self.runtime.cgroups(id).unwrap_or_default();
        let oom_killed = Cgroup::open(cgroups.clone()).is_ok_and(|cgroup| {
            let kills = cgroup.oom_kills();
            cgroup.keep();
            kills > 0
        });
        let end = End::new(exit, oom_killed);
        End::write(Some(&end), lock)?;
        // Each part whatever becomes of the others.
        let cleared = processes::destroy(&cgroups);
        // What stays is found by who wants it next.
        let status = self.status(id);
        let _ = self.release_network(config, status.as_ref().map_or(&[], |status| &status.endpoints));
        let _ = std::fs::remove_file(self.directory(id).join("state.json"));
        if oom_killed {
            self.tell("oom", config, &[]);
        }
        self.tell_end(config, status.as_ref().map_or(&[], |status| &status.endpoints), end.code);
        Ok(Ended { end, status, cleared })
    }
}
