//! `rbox tag`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::Reference;

use super::Global;
use crate::config::name_here;
use crate::error::Result;

/// Give an image a further name
#[derive(Debug, Args)]
pub(super) struct Tag {
    /// A name or an image ID
    #[arg(value_name = "SOURCE_IMAGE")]
    source: String,
    /// NAME[:TAG]
    #[arg(value_name = "TARGET_IMAGE")]
    target: Reference,
}

impl Tag {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        store.tag(&name_here(&store, &self.source)?, &self.target)?;
        Ok(ExitCode::SUCCESS)
    }
}
