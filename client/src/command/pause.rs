//! `rbox pause` and `rbox unpause`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::{Container, Containers};

use super::{Global, for_each};
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Pause {
    /// `act` is [`Containers::pause`] or [`Containers::unpause`].
    pub(super) fn execute(
        self,
        global: &Global,
        act: fn(&Containers, &Container) -> longshore_runtime::Result<()>,
    ) -> Result<ExitCode> {
        let containers = global.containers()?;
        for_each(self.containers, |name| {
            act(&containers, &containers.get(&name)?)?;
            Ok(name)
        })
    }
}
