//! `rbox create`

use std::process::ExitCode;

use clap::Args;

use super::Global;
use super::run::Run;
use crate::error::Result;

/// Make a container without starting it
///
/// `rbox start` starts it. Its ID is printed.
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    run: Run,
}

impl Create {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        self.run.create(global)
    }
}
