//! `rbox delete`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::Reference;

use super::for_each;
use crate::config::Registries;
use crate::deletion::{self, Deleted};
use crate::error::Result;
use crate::registry::Repository;

/// Delete tags and manifests at their registry
///
/// Of a tag only the name goes, wherever the registry can do that; else its manifest goes with it, unless another tag has
/// the same. A digest is deleted with all its tags. What takes place is given free when the registry next collects garbage.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Reference>,
}

impl Delete {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let registries = Registries::load()?;
        for_each(&self.names, |name| {
            let deleted = deletion::delete(&Repository::new(&registries, name)?.without_mirrors(), name, self.dry_run)?;
            let (tag, repository) = (name.familiar(), name.familiar_name());
            let said = match deleted {
                Deleted::Tag(digest) => format!("Untagged: {tag} ({digest})"),
                Deleted::OnlyTag(digest) => {
                    format!(
                        "Untagged: {tag}\nDeleted: {repository}@{digest} (the registry deletes no tag alone; no other had it)"
                    )
                }
                Deleted::Manifest(digest) => format!("Deleted: {repository}@{digest}"),
            };
            Ok(if self.dry_run { format!("Would be {}", said[..1].to_lowercase() + &said[1..]) } else { said })
        })
    }
}
