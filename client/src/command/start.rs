//! `rbox start`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::Containers;

use super::{Global, Own, for_each};
use crate::error::Result;

/// Start stopped containers
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let found: Vec<Result<_>> = self.containers.iter().map(|name| Ok(containers.get(name)?.config.id)).collect();
        start(global, self.containers.into_iter().zip(found))
    }
}

/// Starts containers given by what the user calls them and their IDs, as far as they were found.
pub(super) fn start(global: &Global, list: impl IntoIterator<Item = (String, Result<String>)>) -> Result<ExitCode> {
    let Own { store, rootless, .. } = global.own_store()?;
    let containers = Containers::open(&store)?;
    for_each(list, |(name, id)| {
        containers.start(&id?, rootless)?;
        Ok(name)
    })
}
