//! `rbox digest`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::{Platform, Reference};

use super::print;
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::registry::Repository;

/// Show the digest a name stands for at its registry
#[derive(Debug, Args)]
pub(super) struct Digest {
    /// That of the image for a platform, OS/ARCH[/VARIANT]
    #[arg(long)]
    platform: Option<Platform>,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "NAME", value_parser = image_name)]
    name: Reference,
}

impl Digest {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let repository = Repository::new(&Registries::load()?, &self.name)?;
        let digest = match &self.platform {
            Some(platform) => repository.for_platform(&self.name, platform)?.digest,
            None => repository.head(&self.name)?.digest,
        };
        print(|out| writeln!(out, "{digest}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
