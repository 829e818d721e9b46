//! `roci features`.

use clap::Args;
use longshore_runtime::error::Result;

use super::list::print_json;

/// Print what this runtime can do
#[derive(Debug, Args)]
pub(crate) struct Features {}

impl Features {
    pub(crate) fn call(self) -> Result<u8> {
        print_json(&longshore_runtime::lifecycle::features()).map(|()| 0)
    }
}
