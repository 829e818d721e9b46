//! `rbox pull`, `rpull`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::pull::{self, Options, Pulled};
use longshore_runtime::store::LayerForm;
use longshore_runtime::{Store, unpack};

use super::explicit_credentials::OneCredentials;
use super::{Global, Own, print};
use crate::config::{self, Registries};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::policy::Policy;
use crate::progress::{Form, PULL, reporter_as};
use crate::registry::Repository;
use crate::signature;

/// Download an image from a registry and unpack it
#[derive(Debug, Args)]
pub(super) struct Pull {
    #[command(flatten)]
    fetch: Fetch,
    #[command(flatten)]
    credentials: OneCredentials,
    /// Print only the image's name
    #[arg(short, long)]
    quiet: bool,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "IMAGE", value_parser = config::image_name)]
    image: Reference,
}

/// How images are fetched; `run` takes the same.
#[derive(Debug, Args)]
pub(super) struct Fetch {
    /// Which image of a multi-platform one, OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Layers fetched and unpacked at a time [default: 4, or 20 a long way off]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// How progress is shown, on standard error
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    progress: Form,
}

impl Fetch {
    /// Brings an image into the store.
    pub(super) fn pull(&self, store: &Store, unpack: unpack::Options, image: &Reference, quiet: bool) -> Result<Pulled> {
        self.pull_with(None, store, unpack, image, quiet)
    }

    /// The same, with credentials in place of those kept.
    fn pull_with(
        &self,
        credentials: Option<Credentials>,
        store: &Store,
        unpack: unpack::Options,
        image: &Reference,
        quiet: bool,
    ) -> Result<Pulled> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let policy = Policy::load()?;
        let rule = policy.rule(image)?;
        let repository = Repository::with_credentials(&Registries::load()?, image, credentials)?;
        let approve = |resolved: &Digest, chosen: &Digest| Ok(signature::approve(&repository, rule, image, [resolved, chosen])?);
        let form = LayerForm::from_environment()?;
        let options = Options { platform, jobs: self.jobs, unpack, form, named: true, action: "pull", approve: &approve };
        Ok(pull::pull(store, &repository, image, &options, &*reporter_as(PULL, if quiet { Form::Quiet } else { self.progress }))?)
    }
}

impl Pull {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let Self { fetch, credentials, quiet, image } = self;
        let credentials = credentials.get()?;
        let Own { store, unpack, .. } = global.own_store()?;
        if !quiet {
            print(|out| writeln!(out, "{}: Pulling from {}", image.identifier(), image.repository()))?;
        }
        let pulled = fetch.pull_with(credentials, &store, unpack, &image, quiet)?;
        print(|out| {
            if !quiet {
                writeln!(out, "Digest: {}", pulled.resolved)?;
                let news = if pulled.up_to_date { "Image is up to date" } else { "Downloaded newer image" };
                writeln!(out, "Status: {news} for {}", image.familiar())?;
            }
            writeln!(out, "{image}")
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
