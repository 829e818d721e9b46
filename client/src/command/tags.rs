//! `rbox tags` and `rbox catalog`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::{DEFAULT_REGISTRY, Reference};
use serde_json::json;

use super::format::{List, ListFormat};
use super::login::parse_registry;
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::registry::{Repository, catalog};

/// List the tags of a repository, in its registry's order
#[derive(Debug, Args)]
pub(super) struct Tags {
    #[command(flatten)]
    format: ListFormat,
    /// Only so many, the first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// [REGISTRY/]NAME
    #[arg(value_name = "REPOSITORY", value_parser = image_name)]
    repository: Reference,
}

/// List the repositories of a registry, as far as it tells
///
/// Docker Hub and some others tell nobody.
#[derive(Debug, Args)]
pub(super) struct Catalog {
    #[command(flatten)]
    format: ListFormat,
    /// Only so many, the first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// HOST[:PORT]
    #[arg(value_name = "REGISTRY", value_parser = parse_registry, default_value = DEFAULT_REGISTRY)]
    registry: String,
}

impl Tags {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let tags = Repository::new(&Registries::load()?, &self.repository)?.first_tags(self.limit.unwrap_or(usize::MAX))?;
        let list = List { headings: &[("Repository", "REPOSITORY"), ("Tag", "TAG")], default: "{{.Tag}}" };
        let name = self.repository.familiar_name();
        self.format.print(&list, tags.iter().map(|tag| json!({ "Repository": name, "Tag": tag.as_str() })))
    }
}

impl Catalog {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let repositories = catalog(&Registries::load()?, &self.registry, self.limit.unwrap_or(usize::MAX))?;
        let list = List { headings: &[("Registry", "REGISTRY"), ("Repository", "REPOSITORY")], default: "{{.Repository}}" };
        let row = |name: &longshore_runtime::name::RepoName| json!({ "Registry": self.registry, "Repository": name.as_str() });
        self.format.print(&list, repositories.iter().map(row))
    }
}
