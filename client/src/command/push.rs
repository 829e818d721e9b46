//! `rbox push`, `rpush`

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::Reference;
use longshore_runtime::origin::Location;
use longshore_runtime::{Error, Store};

use super::explicit_credentials::OneCredentials;
use super::places::open_files;
use super::{Global, print};
use crate::config::Registries;
use crate::error::Result;
use crate::progress::{Form, PUSH, reporter_as};
use crate::registry::Repository;
use crate::signature::{self, PrivateKey};
use crate::transfer::{Neighbours, Plan, Remote, Transfer};

/// Upload an image to a registry
///
/// The image comes from the local store, from an OCI layout (oci:DIR[:TAG], oci-archive:FILE[:TAG]) or
/// from what `docker save` writes (docker-archive:FILE[:NAME]).
#[derive(Debug, Args)]
pub(super) struct Push {
    /// All tags that the store has of a repository, which is named without one
    #[arg(short, long, conflicts_with = "destination")]
    all_tags: bool,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Blobs uploaded at a time [default: 4, or 20 a long way off]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// How progress is shown, on standard error
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    progress: Form,
    /// Also what refers to the image in its layout: signatures, SBOMs
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    credentials: OneCredentials,
    /// Sign the image with this private key, of cosign's or openssl's; a password is taken from COSIGN_PASSWORD, else asked for
    #[arg(long, value_name = "FILE")]
    sign_by: Option<PathBuf>,
    /// The image; where it goes by its own name, that is all
    #[arg(value_name = "IMAGE")]
    source: Location,
    /// Where it goes, NAME[:TAG]
    #[arg(value_name = "DESTINATION")]
    destination: Option<Reference>,
}

impl Push {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        // Before anything is sent.
        let key = self.sign_by.as_ref().map(|path| PrivateKey::read(path, super::login::key_password)).transpose()?;
        let store = global.store()?;
        if self.all_tags {
            for name in self.tags(&store)? {
                self.push(&store, &Location::Store(name.to_string()), &name, key.as_ref())?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let (source, destination) = match (&self.destination, &self.source) {
            (Some(destination), source) => (source.clone(), destination.clone()),
            // By its own name and nobody's alias: it goes where that says.
            (None, Location::Store(name) | Location::Name(name)) => {
                let name: Reference = name.parse()?;
                (Location::Store(name.to_string()), name)
            }
            (None, _) => {
                let why = "say where it goes: rpush SOURCE NAME[:TAG]";
                return Err(Error::Name { what: "push", input: "no destination".into(), why }.into());
            }
        };
        self.push(&store, &source, &destination, key.as_ref())?;
        Ok(ExitCode::SUCCESS)
    }

    /// The names with a tag that images in the store have of the repository that is named.
    fn tags(&self, store: &Store) -> Result<Vec<Reference>> {
        let (Location::Store(text) | Location::Name(text)) = &self.source else {
            return Err(Error::invalid("--all-tags", "it is for images of the local store").into());
        };
        let repository: Reference = text.parse()?;
        if repository.digest().is_some() || text.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(
                Error::invalid("--all-tags", format_args!("name the repository alone, {}", repository.familiar_name())).into()
            );
        }
        let names = store.images()?.into_iter().flatten().flat_map(|image| image.names);
        let mut tags: Vec<_> = names.filter(|name| name.tag().is_some() && name.name() == repository.name()).collect();
        tags.sort_by_cached_key(Reference::to_string);
        if tags.is_empty() {
            let (what, hint) = (format!("image of {}", repository.familiar_name()), "`rbox images` lists those there are".into());
            return Err(Error::NotFound { what, hint }.into());
        }
        Ok(tags)
    }

    fn push(&self, store: &Store, source: &Location, destination: &Reference, key: Option<&PrivateKey>) -> Result<()> {
        let lease = store.lease()?;
        let origin = open_files(Some((store, &lease)), source)?;
        let mut plan = Plan::of(&origin, destination, origin.root.clone())?;
        if self.referrers {
            plan.add_referrers(&origin, destination)?;
        }
        if !self.quiet {
            print(|out| writeln!(out, "The push refers to repository [{}]", destination.name()))?;
        }
        let repository = Repository::with_credentials(&Registries::load()?, destination, self.credentials.get()?)?;
        let neighbours = Neighbours::in_store(store, destination);
        Transfer {
            source: &origin,
            reference: destination,
            destination: &Remote { reference: destination, repository: &repository, neighbours },
            jobs: self.jobs,
            progress: &reporter_as(PUSH, if self.quiet { Form::Quiet } else { self.progress }),
        }
        .run(&plan)?;
        key.map_or(Ok(()), |key| signature::sign(&repository, destination, &origin.root.digest, key))?;
        store.tell_image("push", &destination.familiar(), &destination.familiar_name(), &BTreeMap::new());
        print(|out| {
            if self.quiet {
                return writeln!(out, "{}", origin.root.digest);
            }
            writeln!(out, "{}: digest: {} size: {}", destination.identifier(), origin.root.digest, origin.root.bytes.len())
        })
    }
}
