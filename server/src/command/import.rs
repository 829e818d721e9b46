//! `rhub import`

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use longshore_server::blob::FsBlobStore;
use longshore_server::data_dir::DataDir;
use longshore_server::meta::import;

use super::rebuild::report;
use super::{Common, say};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What `rhub export` wrote.
    file: PathBuf,
    /// Replace the metadata that is there.
    #[arg(long)]
    replace: bool,
}

pub(super) fn run(common: &Common, flags: &Flags) -> anyhow::Result<()> {
    let config = common.load(Vec::new())?.config;
    let data = DataDir::open(&config.data)?;
    if data.journal().exists() && !flags.replace {
        bail!("{} has metadata already; say --replace to have it replaced", data.path().display());
    }
    let blobs = FsBlobStore::open(data.blobs(), &config.limits)?;
    let imported = import(&data, &blobs, &flags.file)?;
    say(&format!("imported: {} blobs, {} manifests, {} tags", imported.blobs, imported.manifests, imported.tags))?;
    report(&imported)
}
