//! `rbox kill`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::lifecycle::Signal;

use super::{Global, for_each};
use crate::error::Result;

/// Send a signal to running containers
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Name or number of the signal
    #[arg(short, long, default_value = "KILL")]
    signal: Signal,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        for_each(self.containers, |name| {
            containers.kill(&containers.get(&name)?.config.id, self.signal)?;
            Ok(name)
        })
    }
}
