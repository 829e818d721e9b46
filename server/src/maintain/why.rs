//! `rhub why`: which tags, manifests and leases keep content.

use longshore_runtime::name::Digest;

use super::{Out, say};
use crate::blob::BlobStore;
use crate::collect::Policy;
use crate::error::Result;
use crate::meta::{Keeper, ManifestName, Metadata, now_ms};
use crate::registry::Registry;

/// Repositories and reasons listed at most.
const LISTED_LIMIT: usize = 100;

pub(super) async fn explain<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    digest: &Digest,
    policy: &Policy,
    out: Out<'_>,
) -> Result<()> {
    let Some(size) = registry.blobs.size(digest).await? else {
        return say(out, &format!("{digest} is not stored")).await;
    };
    let repositories = registry.metadata.holders(digest, None, LISTED_LIMIT).await?;
    if repositories.is_empty() {
        return say(out, &format!("{digest}, {size} bytes, is in no repository; the next collection removes it")).await;
    }
    say(out, &format!("{digest}, {size} bytes, is in")).await?;
    for repo in &repositories {
        let is_manifest = registry.metadata.manifest(repo, &ManifestName::Digest(digest.clone())).await?.is_some();
        let grace = if is_manifest { policy.untagged } else { Some(policy.grace) };
        let mut keepers = registry.metadata.keepers(repo, digest, LISTED_LIMIT).await?;
        if keepers.iter().any(|keeper| !matches!(keeper, Keeper::Unreferenced { .. })) {
            keepers.retain(|keeper| !matches!(keeper, Keeper::Unreferenced { .. }));
        }
        let kind = if is_manifest { "manifest" } else { "blob" };
        for keeper in keepers {
            let reason = match keeper {
                Keeper::Tag(tag) => format!("tag {tag}"),
                Keeper::Manifest(manifest) => format!("manifest {manifest} refers to it"),
                Keeper::Subject(subject) => format!("it is a referrer of {subject}"),
                Keeper::Unreferenced { since_ms } => {
                    let since = format!("nothing has referred to it for {} s", now_ms().saturating_sub(since_ms) / 1000);
                    match grace {
                        Some(grace) => {
                            format!("{since}; it is kept for {} s after that, or after a client was told of it", grace.as_secs())
                        }
                        None => format!("{since}, and untagged manifests are kept (gc.untagged_after_s is not set)"),
                    }
                }
            };
            say(out, &format!("{repo} ({kind}): {reason}")).await?;
        }
    }
    if repositories.len() == LISTED_LIMIT {
        say(out, "and perhaps in more").await?;
    }
    Ok(())
}
