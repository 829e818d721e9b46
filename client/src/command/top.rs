//! `rbox top`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::{Global, print};
use crate::error::Result;

/// List the processes of a running container
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Name or ID
    container: String,
    /// Options for ps [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Top {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let table = containers.top(&containers.get(&self.container)?, &self.options)?;
        print(|out| out.write_all(table.as_bytes()))?;
        Ok(ExitCode::SUCCESS)
    }
}
