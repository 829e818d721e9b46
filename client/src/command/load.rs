//! `rbox load`

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::name::{Platform, Reference};
use longshore_runtime::origin::{Input, Origin, each_in_archive};
use longshore_runtime::pull::{self, Approve, Options};
use longshore_runtime::store::LayerForm;

use super::{Global, Own, print};
use crate::error::Result;
use crate::policy::Policy;
use crate::progress::{LOAD, reporter};

/// What the images of an archive that have no name are taken from.
const NAMELESS: &str = "localhost/archive";

/// Read images from an archive that `rbox save`, docker, podman or skopeo wrote
///
/// Compressed by gzip or zstd or not. All its images are loaded, with their names.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// A file, in place of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Which image of a multi-platform one, OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Print only the images' names
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        if self.input.is_none() && io::stdin().is_terminal() {
            return Err(
                Error::invalid("load", "no archive comes from a terminal: use --input, or redirect standard input").into()
            );
        }
        let Own { store, unpack, .. } = global.own_store()?;
        let platform = self.platform.unwrap_or_else(Platform::host);
        let form = LayerForm::from_environment()?;
        let policy = Policy::load()?;
        // Whether the names it is to have want a signature is looked at before: an archive has none.
        let approve: &Approve<'_> = &|_, _| Ok(());
        let mut options = Options { platform, jobs: None, unpack, form, named: true, action: "load", approve };
        let progress = reporter(LOAD, self.quiet);
        let lease = store.lease()?;
        let nameless: Reference = NAMELESS.parse()?;
        let mut load = |origin: Origin, names: Vec<Reference>| {
            names.iter().try_for_each(|name| policy.accept_unsigned(name))?;
            let name = names.first().unwrap_or(&nameless);
            options.named = !names.is_empty();
            let pulled = pull::pull(&store, &origin, name, &options, &*progress)?;
            names.iter().skip(1).try_for_each(|other| store.tag(&name.to_string(), other))?;
            // A reader that is gone is no reason to stop.
            let _ = print(|out| match names.is_empty() {
                true => writeln!(out, "Loaded image ID: {}", pulled.image_id),
                false => names.iter().try_for_each(|name| writeln!(out, "Loaded image: {}", name.familiar())),
            });
            Ok(())
        };
        each_in_archive(&self.input.map_or(Input::Stdin, Input::File), &lease.scratch(), &mut load)?;
        Ok(ExitCode::SUCCESS)
    }
}
