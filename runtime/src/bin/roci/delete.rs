//! `roci delete`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

/// Remove what is left of a container
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill it first if it runs; one that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// The container's name
    id: String,
}

impl Delete {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        runtime.delete(&self.id, self.force).map(|()| 0)
    }
}
