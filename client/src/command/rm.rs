//! `rbox rm`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::Containers;

use super::{Global, for_each};
use crate::error::Result;

/// Remove containers, with their logs and all they wrote
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Kill those that run first; one that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Remove their volumes without a name, too, as far as no other container has them
    #[arg(short, long)]
    volumes: bool,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        // What is killed is killed from outside of the namespace in which files are removed. `None`: it has gone.
        let find = |name: &String| -> Result<Option<String>> {
            let container = match containers.get(name) {
                Err(Error::NotFound { .. }) if self.force => return Ok(None),
                other => other?,
            };
            let gone = self.force && containers.kill_for_removal(&container)?;
            Ok((!gone).then_some(container.config.id))
        };
        let found: Vec<Result<_>> = self.containers.iter().map(find).collect();
        let containers = Containers::open(&global.own_store()?.store)?;
        for_each(self.containers.into_iter().zip(found), |(name, id)| {
            match id?.map_or(Ok(()), |id| containers.remove(&id, self.volumes)) {
                // Somebody else has removed it.
                Err(Error::NotFound { .. }) if self.force => {}
                other => other?,
            }
            Ok(name)
        })
    }
}
