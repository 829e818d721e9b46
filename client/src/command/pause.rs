//! `rbox pause` and `rbox unpause`

use std::process::ExitCode;

use clap::Args;

use super::{Global, for_each};
use crate::error::Result;

/// Freeze all processes of running containers
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, Args)]
pub(super) struct Unpause {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Pause {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        for_each(self.containers, |name| {
            containers.pause(&containers.get(&name)?)?;
            Ok(name)
        })
    }
}

impl Unpause {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        for_each(self.containers, |name| {
            containers.unpause(&containers.get(&name)?)?;
            Ok(name)
        })
    }
}
