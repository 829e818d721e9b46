//! `rbox rename`

use std::process::ExitCode;

use clap::Args;

use super::Global;
use crate::error::Result;

/// Call a container something else
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// Name or ID
    container: String,
    /// What it is to be called
    name: String,
}

impl Rename {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        containers.rename(&containers.get(&self.container)?.config.id, &self.name)?;
        Ok(ExitCode::SUCCESS)
    }
}
