//! `rhub gc`, `rhub why`, `rhub check`, `rhub export`: in the data directory, or, when it is being
//! served, by the process that serves it.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use longshore_runtime::name::Digest;
use longshore_server::blob::FsBlobStore;
use longshore_server::collect::Policy;
use longshore_server::config::Config;
use longshore_server::data_dir::DataDir;
use longshore_server::maintain::check::Options;
use longshore_server::maintain::{Task, control};
use longshore_server::meta::SledMetadata;
use longshore_server::{Error, Registry};

use super::Common;

#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Seconds that content nothing refers to is kept, instead of gc.grace_s.
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Why {
    /// sha256:... or sha512:...
    digest: String,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Put damaged content aside, and take blobs without content out of their repositories.
    #[arg(long)]
    repair: bool,
    /// Read at most so many MiB a second.
    #[arg(long, value_name = "MIB")]
    rate: Option<u64>,
}

impl From<&Gc> for Task {
    fn from(flags: &Gc) -> Self {
        Self::Gc { dry_run: flags.dry_run, grace_s: flags.grace }
    }
}

impl TryFrom<&Why> for Task {
    type Error = anyhow::Error;

    fn try_from(flags: &Why) -> anyhow::Result<Self> {
        let digest: Digest = flags.digest.parse()?;
        Ok(Self::Why { digest })
    }
}

impl From<&Check> for Task {
    fn from(flags: &Check) -> Self {
        let bytes_per_s = flags.rate.map(|mib| mib.saturating_mul(1 << 20));
        Self::Check(Options { repair: flags.repair, bytes_per_s })
    }
}

pub(super) fn run(common: &Common, task: &Task) -> anyhow::Result<()> {
    let config = common.load(Vec::new())?.config;
    let well = match DataDir::open(&config.data) {
        Ok(data) => run_here(&config, &data, task)?,
        Err(Error::InUse(_)) => control::ask(&config.data, task, &mut std::io::stdout().lock())?,
        Err(e) => return Err(e.into()),
    };
    if !well {
        bail!("not everything is well");
    }
    Ok(())
}

fn run_here(config: &Config, data: &DataDir, task: &Task) -> anyhow::Result<bool> {
    let limits = Arc::new(config.limits.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let metadata = SledMetadata::open(data, &config.limits)?;
    let blobs = FsBlobStore::open(data.blobs(), &limits)?;
    let registry = Registry::new(blobs, metadata, limits);
    let policy = Policy::from(config);
    runtime.block_on(async {
        use tokio::io::AsyncWriteExt;
        let mut out = tokio::io::BufWriter::new(tokio::io::stdout());
        let well = task.run(&registry, &policy, &mut out).await?;
        out.flush().await?;
        Ok(well)
    })
}
