//! Which repositories a registry has, as far as it tells: `_catalog`, which is docker's and in no specification.

use std::collections::BTreeSet;

use longshore_runtime::name::RepoName;
use serde::Deserialize;

use super::host::Host;
use super::listing::{Read, each_page};
use super::scope::Action;
use super::timing::Timing;
use crate::config::Registries;
use crate::error::Result;

/// Repositories asked for at a time. A registry may give fewer.
const PAGE_REPOSITORIES: usize = 1000;

/// The repositories of a registry, each once, in its order; at most `limit` of them.
pub fn catalog(registries: &Registries, registry: &str, limit: usize) -> Result<Vec<RepoName>> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        repositories: Option<Vec<RepoName>>,
    }
    let host = Host::whole(&registries.registry(registry)?, &registries.network, Timing::from_environment())?;
    let first = format!("{}_catalog?n={PAGE_REPOSITORIES}", host.base);
    let (mut repositories, mut seen) = (Vec::new(), BTreeSet::new());
    each_page(&host, Action::Catalog, first, &|| "list repositories".to_owned(), |body| {
        let page: Page = serde_json::from_slice(body)?;
        repositories.extend(page.repositories.into_iter().flatten().filter(|name| seen.insert(name.clone())));
        Ok(if repositories.len() >= limit { Read::Enough } else { Read::Entries(repositories.len()) })
    })?;
    repositories.truncate(limit);
    Ok(repositories)
}
