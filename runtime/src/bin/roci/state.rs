//! `roci state`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

use super::list::print_json;

/// Print the state of a container
#[derive(Debug, Args)]
pub(crate) struct State {
    /// The container's name
    id: String,
}

impl State {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        print_json(&runtime.state(&self.id)?).map(|()| 0)
    }
}
