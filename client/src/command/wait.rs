//! `rbox wait`

use std::process::ExitCode;

use clap::Args;

use super::{Global, for_each};
use crate::error::Result;

/// Wait until containers stop, then print their exit codes
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Wait {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        // All of them first: one that goes when it ends is still known then.
        let found: Vec<Result<_>> = self
            .containers
            .iter()
            .map(|name| {
                let container = containers.get(name)?;
                Ok((containers.waiter(&container)?, container.status.exit_code))
            })
            .collect();
        for_each(found, |found| {
            let (waiter, code) = found?;
            Ok(waiter.map_or(Ok(code), |waiter| waiter.wait())?.to_string())
        })
    }
}
