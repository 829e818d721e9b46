//! `rbox pull`, `rpull`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::image::Document;
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::pull::{self, Options, Pulled};
use longshore_runtime::store::LayerForm;
use longshore_runtime::{Source, Store, unpack};

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
    /// Also the images for other platforms, each by its digest (`rbox images --digests`)
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
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
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        self.prepare(None, store, unpack, image, quiet)?.pull(image, platform, None)
    }

    /// Makes ready to bring images of a name into the store, with credentials in place of those kept if there are some.
    fn prepare<'a>(
        &self,
        credentials: Option<Credentials>,
        store: &'a Store,
        unpack: unpack::Options,
        image: &'a Reference,
        quiet: bool,
    ) -> Result<Pulling<'a>> {
        Ok(Pulling {
            image,
            store,
            unpack,
            policy: Policy::load()?,
            repository: Repository::with_credentials(&Registries::load()?, image, credentials)?,
            form: LayerForm::from_environment()?,
            jobs: self.jobs,
            progress: if quiet { Form::Quiet } else { self.progress },
        })
    }
}

/// Images of one name on their way into the store.
struct Pulling<'a> {
    image: &'a Reference,
    store: &'a Store,
    unpack: unpack::Options,
    policy: Policy,
    repository: Repository,
    form: Option<LayerForm>,
    jobs: Option<usize>,
    progress: Form,
}

impl Pulling<'_> {
    /// Brings the one for a platform, under `name`. It may be one of an index that is signed as a whole.
    fn pull(&self, name: &Reference, platform: Platform, index: Option<&Digest>) -> Result<Pulled> {
        let rule = self.policy.rule(self.image)?;
        let approve = |resolved: &Digest, chosen: &Digest| {
            Ok(signature::approve(&self.repository, rule, self.image, [index.unwrap_or(resolved), chosen])?)
        };
        let (unpack, form, jobs) = (self.unpack.clone(), self.form, self.jobs);
        let options = Options { platform, jobs, unpack, form, named: true, action: "pull", approve: &approve };
        Ok(pull::pull(self.store, &self.repository, name, &options, &*reporter_as(PULL, self.progress))?)
    }

    /// Brings all of an index, each under its digest but for this machine's, or else the first, which gets the name.
    fn pull_all(&self) -> Result<Pulled> {
        let resolved = self.repository.manifest(self.image)?;
        let host = Platform::host();
        let Document::Index(index) = Document::parse(&resolved.media_type, &resolved.bytes)? else {
            return self.pull(self.image, host, None);
        };
        // What says how an image was made has this platform, and is none.
        let images = index.manifests.iter().filter_map(|entry| Some((entry, entry.platform.as_ref()?)));
        let images: Vec<_> = images.filter(|(_, platform)| platform.os != "unknown").collect();
        for (entry, platform) in &images {
            self.pull(&self.image.with_digest(entry.digest.clone()), (*platform).clone(), Some(&resolved.digest))?;
        }
        let first = images.first().filter(|_| index.choose(&host).is_none());
        self.pull(self.image, first.map_or(host, |(_, platform)| (*platform).clone()), None)
    }
}

impl Pull {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let Self { fetch, credentials, all_platforms, quiet, image } = self;
        let credentials = credentials.get()?;
        let Own { store, unpack, .. } = global.own_store()?;
        if !quiet {
            print(|out| writeln!(out, "{}: Pulling from {}", image.identifier(), image.repository()))?;
        }
        let pulling = fetch.prepare(credentials, &store, unpack, &image, quiet)?;
        let platform = fetch.platform.clone().unwrap_or_else(Platform::host);
        let pulled = if all_platforms { pulling.pull_all()? } else { pulling.pull(&image, platform, None)? };
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
