//! `rhub rebuild`

use longshore_server::blob::FsBlobStore;
use longshore_server::data_dir::DataDir;
use longshore_server::meta::{Rebuilt, rebuild};

use super::{Common, say};

pub(super) fn run(common: &Common) -> anyhow::Result<()> {
    let config = common.load(Vec::new())?.config;
    let data = DataDir::open(&config.data)?;
    let blobs = FsBlobStore::open(data.blobs(), &config.limits)?;
    let rebuilt = rebuild(&data, &blobs)?;
    say(&format!("rebuilt: {} blobs, {} manifests, {} tags", rebuilt.blobs, rebuilt.manifests, rebuilt.tags))?;
    report(&rebuilt)
}

/// Says what was not as it should be.
pub(super) fn report(rebuilt: &Rebuilt) -> anyhow::Result<()> {
    if rebuilt.unlinked > 0 {
        say(&format!("{} blobs are in no repository; the next collection removes them", rebuilt.unlinked))?;
    }
    if rebuilt.lost > 0 {
        say(&format!(
            "{} blobs, manifests and tags are gone from the blob store and were left out; push them again",
            rebuilt.lost
        ))?;
    }
    if rebuilt.damaged_lines > 0 {
        say(&format!("{} damaged lines of the journal were left out", rebuilt.damaged_lines))?;
    }
    Ok(())
}
