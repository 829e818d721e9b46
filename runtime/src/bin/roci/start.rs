//! `roci start`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

/// Start a container that was created
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// The container's name
    id: String,
}

impl Start {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        runtime.start(&self.id).map(|()| 0)
    }
}
