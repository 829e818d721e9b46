//! `roci checkpoint` and `roci restore`: known, and refused.

use clap::Args;
use longshore_runtime::error::{Error, Result};

/// Refused: containers cannot be written to disk and continued later
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<String>,
}

/// Refused: containers cannot be written to disk and continued later
#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<String>,
}

impl Checkpoint {
    pub(crate) fn call(self) -> Result<u8> {
        refuse("checkpoint")
    }
}

impl Restore {
    pub(crate) fn call(self) -> Result<u8> {
        refuse("restore")
    }
}

fn refuse(verb: &str) -> Result<u8> {
    Err(Error::invalid(
        verb,
        "not supported: roci does not drive criu; run the container with runc or crun if it has to be moved",
    ))
}
