//! `rbox logout`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::DEFAULT_REGISTRY;

use super::login::parse_registry;
use super::print;
use crate::config::Registries;
use crate::credentials;
use crate::error::Result;

/// Forget the credentials for a registry
///
/// In every file where they would be found, and in the credential helpers that those name.
#[derive(Debug, Args)]
pub(super) struct Logout {
    /// HOST[:PORT]
    #[arg(value_name = "REGISTRY", value_parser = parse_registry, default_value = DEFAULT_REGISTRY)]
    registry: String,
}

impl Logout {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let place = Registries::load()?.registry(&self.registry)?;
        let (account, keeper) = place.account();
        let forgotten = credentials::forget(account, keeper)?;
        print(|out| match forgotten {
            true => writeln!(out, "Removed login credentials for {account}"),
            false => writeln!(out, "Not logged in to {account}"),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
