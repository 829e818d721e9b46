//! `rbox restart`

use std::process::ExitCode;

use clap::Args;

use super::stop::How;
use super::{Global, start};
use crate::error::Result;

/// Stop containers, if they run, and start them again
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    how: How,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Restart {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let ids: Vec<Result<String>> = self.containers.iter().map(|name| Ok(containers.get(name)?.config.id)).collect();
        let stopping = self.how.begin(&containers, &self.containers);
        let stopped: Vec<Result<String>> = ids
            .into_iter()
            .zip(stopping)
            .map(|(id, stopping)| {
                stopping?.map_or(Ok(0), longshore_runtime::container::Stop::finish)?;
                id
            })
            .collect();
        start::start(global, self.containers.into_iter().zip(stopped))
    }
}
