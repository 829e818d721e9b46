//! `roci pause` and `roci resume`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

/// Freeze all processes of a container
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The container's name
    id: String,
}

/// Let the processes of a paused container go on
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The container's name
    id: String,
}

impl Pause {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        runtime.pause(&self.id).map(|()| 0)
    }
}

impl Resume {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        runtime.resume(&self.id).map(|()| 0)
    }
}
