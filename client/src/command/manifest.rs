//! `rbox manifest`: manifests as they are at a registry, and lists of images that are made here and pushed.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use longshore_runtime::Error;
use longshore_runtime::name::Reference;

use super::manifest_inspect::Inspect;
use super::{Global, for_each, print};
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::manifest_list::{ListType, ManifestList, ManifestLists, bring, entry_of};
use crate::registry::Repository;

/// Look at manifests at their registry, and make lists of images for several platforms
#[derive(Debug, Args)]
pub(super) struct Manifest {
    #[command(subcommand)]
    verb: ManifestVerb,
}

#[derive(Debug, Subcommand)]
enum ManifestVerb {
    Inspect(Inspect),
    Create(Create),
    Annotate(Annotate),
    Push(Push),
    Rm(Rm),
}

/// Make a list of images, here, to be pushed
///
/// What the images run on is read from their registry.
#[derive(Debug, Args)]
struct Create {
    /// Add to the list if it is there already
    #[arg(short, long)]
    amend: bool,
    /// The list's name
    #[arg(value_name = "LIST")]
    list: Reference,
    /// The images, at the same registry
    #[arg(value_name = "IMAGE", value_parser = image_name, required = true)]
    images: Vec<Reference>,
}

/// Say what an image of a list runs on
#[derive(Debug, Args)]
struct Annotate {
    /// The architecture: amd64, arm64, ...
    #[arg(long)]
    arch: Option<String>,
    /// The system: linux, ...
    #[arg(long)]
    os: Option<String>,
    /// What the system must be able to; several
    #[arg(long, value_delimiter = ',')]
    os_features: Vec<String>,
    /// The system's version
    #[arg(long)]
    os_version: Option<String>,
    /// The architecture's variant: v7, v8, ...
    #[arg(long)]
    variant: Option<String>,
    /// The list's name
    #[arg(value_name = "LIST")]
    list: Reference,
    /// The image in it
    #[arg(value_name = "IMAGE", value_parser = image_name)]
    image: Reference,
}

/// Push a list
///
/// Images in other repositories of the same registry are mounted from there.
#[derive(Debug, Args)]
struct Push {
    /// Forget the list here once it is pushed
    #[arg(short, long)]
    purge: bool,
    /// As what [default: docker if all images are docker's, else oci]
    #[arg(long = "type", value_enum)]
    list_type: Option<Type>,
    /// The list's name
    #[arg(value_name = "LIST")]
    list: Reference,
}

/// Forget lists that were made here
#[derive(Debug, Args)]
struct Rm {
    /// Their names
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<Reference>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Type {
    Oci,
    Docker,
}

impl Manifest {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let lists = ManifestLists::of(&global.store()?);
        match self.verb {
            ManifestVerb::Inspect(verb) => verb.execute(&lists),
            ManifestVerb::Create(verb) => verb.execute(&lists),
            ManifestVerb::Annotate(verb) => verb.execute(&lists),
            ManifestVerb::Push(verb) => verb.execute(&lists),
            ManifestVerb::Rm(verb) => for_each(&verb.lists, |list| {
                lists.remove(list)?;
                Ok(list.familiar())
            }),
        }
    }
}

impl Create {
    fn execute(self, lists: &ManifestLists) -> Result<ExitCode> {
        let exists = || Error::Busy {
            what: format!("manifest list {}", self.list.familiar()),
            why: "it is there already; add to it with --amend, or forget it with `rbox manifest rm`".into(),
        };
        if !self.amend && lists.find(&self.list)?.is_some() {
            return Err(exists().into());
        }
        let registries = Registries::load()?;
        let entries: Vec<_> = self
            .images
            .iter()
            .map(|image| entry_of(&Repository::new(&registries, image)?.without_mirrors(), image))
            .collect::<Result<_>>()?;
        lists.change(&self.list, |before| {
            // Meanwhile it may have come to be.
            let mut list = match before {
                Some(_) if !self.amend => return Err(exists().into()),
                before => before.unwrap_or_else(|| ManifestList { name: self.list.to_string(), entries: Vec::new() }),
            };
            entries.into_iter().try_for_each(|entry| list.put(entry))?;
            Ok(list)
        })?;
        print(|out| writeln!(out, "Created manifest list {}", self.list))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Annotate {
    fn execute(self, lists: &ManifestLists) -> Result<ExitCode> {
        let there = lists.get(&self.list)?;
        lists.change(&self.list, |before| {
            let mut list = before.unwrap_or(there);
            let missing = || Error::NotFound {
                what: format!("image {} in manifest list {}", self.image.familiar(), self.list.familiar()),
                hint: format!("`rbox manifest inspect {}` shows what it has", self.list.familiar()),
            };
            let platform = &mut list.entry_mut(&self.image).ok_or_else(missing)?.platform;
            platform.architecture = self.arch.unwrap_or_else(|| platform.architecture.clone());
            platform.os = self.os.unwrap_or_else(|| platform.os.clone());
            platform.variant = self.variant.or_else(|| platform.variant.clone());
            platform.os_version = self.os_version.or_else(|| platform.os_version.clone());
            platform.os_features.extend(self.os_features);
            platform.os_features.dedup();
            Ok(list)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Push {
    fn execute(self, lists: &ManifestLists) -> Result<ExitCode> {
        let list = lists.get(&self.list)?;
        let registries = Registries::load()?;
        let repository = Repository::new(&registries, &self.list)?.without_mirrors();
        for entry in &list.entries {
            let image: Reference = entry.name.parse()?;
            bring(&repository, &self.list, &Repository::new(&registries, &image)?.without_mirrors(), &image, entry)?;
            print(|out| writeln!(out, "Pushed ref {}@{} with digest: {1}", self.list.name(), entry.digest))?;
        }
        let list_type = match self.list_type {
            Some(Type::Oci) => ListType::Oci,
            Some(Type::Docker) => ListType::Docker,
            None => list.own_type(),
        };
        let raw = list.manifest(list_type);
        repository.put_manifest(self.list.identifier(), &raw)?;
        if self.purge {
            lists.remove(&self.list)?;
        }
        print(|out| writeln!(out, "{}", raw.digest))?;
        Ok(ExitCode::SUCCESS)
    }
}
