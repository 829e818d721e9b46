//! `rbox update`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::RestartPolicy;
use longshore_runtime::spec::Limits;

use super::limits::ResourceFlags;
use super::{Global, for_each};
use crate::error::Result;

/// Change the limits and the restart policy of containers, running or not
#[derive(Debug, Args)]
pub(super) struct Update {
    #[command(flatten)]
    resources: ResourceFlags,
    /// Start it again when it has ended: no, on-failure[:NUMBER], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Update {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let limits = self.resources.limits();
        if limits == Limits::default() && self.restart.is_none() {
            return Err(Error::invalid("update", "nothing is to be changed: give a flag, --memory for example").into());
        }
        for_each(self.containers, |name| {
            containers.update(&containers.get(&name)?, &limits, self.restart)?;
            Ok(name)
        })
    }
}
