//! Maintenance of a registry: what `rhub gc`, `why`, `check` and `export` do. Each works on a data
//! directory that nobody serves, and through the serving process when somebody does (see
//! [`control`]); it writes what it has to say as lines.

pub mod check;
pub mod control;
mod why;

use std::time::Duration;

use longshore_runtime::name::Digest;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::blob::BlobStore;
use crate::collect::{Collected, Policy};
use crate::error::{Attempt, Result};
use crate::meta::{Metadata, export_lines};
use crate::registry::Registry;

/// Facts of an export taken from the metadata at once.
const EXPORT_PAGE: usize = 1000;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Collect garbage.
    Gc {
        /// Only say what would be removed.
        dry_run: bool,
        /// Instead of the configured grace period.
        grace_s: Option<u64>,
    },
    /// Say what keeps a digest.
    Why {
        /// The digest.
        digest: Digest,
    },
    /// Look at everything that is stored.
    Check(check::Options),
    /// Write down everything the metadata knows.
    Export,
}

/// Where a task's lines go.
pub type Out<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);

impl Task {
    /// Does it. What it has to say goes to `out`; `false` when it found something wrong.
    pub async fn run<B: BlobStore, M: Metadata>(&self, registry: &Registry<B, M>, policy: &Policy, out: Out<'_>) -> Result<bool> {
        match self {
            Self::Gc { dry_run, grace_s } => {
                let policy = Policy { grace: grace_s.map_or(policy.grace, Duration::from_secs), ..*policy };
                let collected = if *dry_run { registry.collectable(&policy).await? } else { registry.collect(&policy).await? };
                say(out, &sentence(&collected, *dry_run)).await?;
            }
            Self::Why { digest } => why::explain(registry, digest, policy, out).await?,
            Self::Check(options) => return check::check(registry, options, out).await,
            Self::Export => export(registry, out).await?,
        }
        Ok(true)
    }
}

fn sentence(collected: &Collected, dry_run: bool) -> String {
    let Collected { blobs, manifests, uploads, contents, bytes } = collected;
    let verb = if dry_run { "would be" } else { "were" };
    format!(
        "{manifests} manifests and {blobs} blobs {verb} taken out of repositories; {contents} blobs of {bytes} bytes {verb} \
         removed; {uploads} stale uploads {verb} ended"
    )
}

async fn export<B: BlobStore, M: Metadata>(registry: &Registry<B, M>, out: Out<'_>) -> Result<()> {
    let mut after = None;
    loop {
        let page = registry.metadata.facts(after.as_deref(), EXPORT_PAGE).await?;
        let mut lines = Vec::new();
        export_lines(page.facts, &mut lines)?;
        out.write_all(&lines).await.attempt(|| "write the export")?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Writes a line.
async fn say(out: Out<'_>, line: &str) -> Result<()> {
    Ok(out.write_all(format!("{line}\n").as_bytes()).await.attempt(|| "write the result")?)
}
