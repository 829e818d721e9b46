//! `rbox copy`

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::layout::{DockerArchive, Layout, LayoutArchive};
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::origin::Location;
use longshore_runtime::pull::{self, Approve, Options};
use longshore_runtime::store::LayerForm;
use longshore_runtime::{Error, RawManifest};

use super::explicit_credentials::BothCredentials;
use super::places::{Place, Renamed};
use super::{Global, Own, print};
use crate::config::Registries;
use crate::error::Result;
use crate::policy::Policy;
use crate::progress::{COPY, PULL, reporter};
use crate::registry::Repository;
use crate::signature;
use crate::transfer::{Choice, Destination, InLayout, Neighbours, Plan, Remote, Root, Transfer};

/// Copy an image from one place to another, byte for byte
///
/// A place is a registry (docker://NAME[:TAG|@DIGEST], or the name alone), an image layout (oci:DIR[:TAG],
/// oci-archive:FILE[:TAG]), what `docker load` reads (docker-archive:FILE[:NAME]), or the local store (store:NAME), into which it
/// is unpacked. Only what is missing there moves.
#[derive(Debug, Args)]
pub(super) struct Copy {
    /// All images of a multi-platform one, and the index that names them
    #[arg(short, long, visible_alias = "all-platforms", conflicts_with = "platform")]
    all: bool,
    /// Which image of a multi-platform one, OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Also what refers to the image: signatures, SBOMs
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    credentials: BothCredentials,
    /// Blobs moved at a time [default: 4, or 20 a long way off]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Write the digest of what was copied to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// From where
    #[arg(value_name = "SOURCE")]
    source: Location,
    /// Where to
    #[arg(value_name = "DESTINATION")]
    destination: Location,
}

impl Copy {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let copied = match &self.destination {
            Location::Store(name) => self.unpack(global, &name.parse()?)?,
            _ => self.between(global)?,
        };
        if let Some(path) = &self.digestfile {
            std::fs::write(path, copied.digest.as_str()).map_err(|e| Error::io(format!("write {}", path.display()), e))?;
        }
        print(|out| match self.quiet {
            true => writeln!(out, "{}", copied.digest),
            false => writeln!(out, "{}: digest: {} size: {}", copied.name, copied.digest, copied.size),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn choice(&self) -> Choice {
        if self.all { Choice::All } else { Choice::Platform(self.platform.clone().unwrap_or_else(Platform::host)) }
    }

    /// To a place where images are kept as they travel.
    fn between(&self, global: &Global) -> Result<Copied> {
        let place = Place::open(global, &self.source, self.credentials.source()?)?;
        let Root { manifest, .. } = Root::find(place.source(), place.reference(), &self.choice())?;
        let mut plan = Plan::of(place.source(), place.reference(), manifest)?;
        if self.referrers {
            plan.add_referrers(place.source(), place.reference())?;
        }
        let name = match &self.destination {
            Location::Registry(reference) => self.to_registry(&place, &plan, reference)?,
            Location::Name(name) => self.to_registry(&place, &plan, &name.parse()?)?,
            Location::OciLayout(dir, tag) => {
                let layout = Layout::open_or_create(dir)?;
                self.transfer(&place, &plan, &InLayout { layout: &layout, name: tag.as_deref() })?;
                dir.display().to_string()
            }
            Location::OciArchive(path, tag) => {
                self.transfer(&place, &plan, &archive(path, tag.as_deref(), &plan)?)?;
                path.display().to_string()
            }
            Location::DockerArchive(path, name) => {
                if self.referrers {
                    return Err(Error::invalid("docker-archive", "it cannot hold what refers to an image").into());
                }
                let name = name.as_ref().map(|name| name.parse()).transpose()?;
                self.transfer(&place, &plan, &DockerArchive::create(path, &plan.root, name)?)?;
                path.display().to_string()
            }
            Location::Store(_) => unreachable!("what goes into the store is unpacked"),
        };
        Ok(Copied { name, digest: plan.root.digest, size: plan.root.bytes.len() })
    }

    fn to_registry(&self, place: &Place, plan: &Plan, reference: &Reference) -> Result<String> {
        if let Some(expected) = reference.digest().filter(|expected| **expected != plan.root.digest) {
            let (what, got) = ("what is to be copied".to_owned(), plan.root.digest.clone());
            return Err(Error::Mismatch { what, expected: expected.clone(), got }.into());
        }
        let repository = Repository::with_credentials(&Registries::load()?, reference, self.credentials.destination()?)?;
        let neighbours = match place {
            Place::Remote(_, source) => Neighbours::source(source, reference),
            Place::Files { .. } => Neighbours::Unknown,
        };
        self.transfer(place, plan, &Remote { reference, repository: &repository, neighbours })?;
        Ok(reference.familiar())
    }

    fn transfer(&self, place: &Place, plan: &Plan, destination: &dyn Destination) -> Result<()> {
        let progress = &reporter(COPY, self.quiet);
        let (source, reference) = (place.source(), place.reference());
        Transfer { source, reference, destination, jobs: self.jobs, progress }.run(plan)
    }

    /// Unpacked, as a pull or a load does it.
    fn unpack(&self, global: &Global, name: &Reference) -> Result<Copied> {
        let refused = |why: &str| Err(Error::invalid("store", why).into());
        if self.all {
            return refused("it holds one image of a name: leave --all out, or choose one with --platform");
        }
        if self.referrers {
            return refused("it does not hold what refers to an image: leave --referrers out");
        }
        if name.digest().is_some() {
            return refused("what is copied there gets a name with a tag, not a digest");
        }
        let Own { store, unpack, .. } = global.own_store()?;
        let place = Place::open(global, &self.source, self.credentials.source()?)?;
        let (policy, reference) = (Policy::load()?, place.reference());
        // Both names count: what it has, and what it is to have.
        let remote = match &place {
            Place::Remote(repository, _) => {
                Some((repository, [(policy.rule(reference)?, reference), (policy.rule(name)?, name)]))
            }
            Place::Files { .. } => {
                policy.accept_unsigned(name)?;
                None
            }
        };
        let approve: &Approve<'_> = &|resolved, chosen| {
            let Some((repository, rules)) = &remote else { return Ok(()) };
            rules.iter().try_for_each(|(rule, image)| signature::approve(repository, rule, image, [resolved, chosen]))?;
            Ok(())
        };
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let form = LayerForm::from_environment()?;
        let options = Options { platform, jobs: self.jobs, unpack, form, named: true, action: "pull", approve };
        let source = Renamed { source: place.source(), reference };
        pull::pull(&store, &source, name, &options, &*reporter(PULL, self.quiet))?;
        let raw = store.get(&name.to_string())?.raw;
        Ok(Copied { name: name.familiar(), digest: raw.digest, size: raw.bytes.len() })
    }
}

/// What was copied.
struct Copied {
    /// Where to.
    name: String,
    digest: Digest,
    size: usize,
}

fn archive(path: &std::path::Path, name: Option<&str>, plan: &Plan) -> Result<LayoutArchive> {
    let blobs: Vec<_> = plan.blobs().cloned().collect();
    let manifests: Vec<RawManifest> = plan.manifests().map(|manifest| &manifest.raw).chain([&plan.root]).cloned().collect();
    let others = plan.listed().map(|manifest| (&manifest.raw, manifest.name()));
    let listed: Vec<_> = others.chain([(&plan.root, name)]).collect();
    Ok(LayoutArchive::create(path, &blobs, &manifests, &listed)?)
}
