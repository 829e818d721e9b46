//! What a load needs in its repository before it starts, and its removal afterwards.

use std::rc::Rc;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use super::content::Content;
use super::phase::{self, Until};
use super::target::Target;
use super::work::{Expected, Work, tag};
use super::{Kind, MANIFEST_TYPE, Plan};
use crate::digest::sha256;
use crate::limits::TAG_PAGE;

/// Connections used to prepare and to remove.
const CONNECTIONS: usize = 16;
/// What existing tags are called.
const EXISTING: &str = "t";
/// How many places of a list of tags are asked for in turn.
const PLACES: u64 = 16;
/// The answer to most.
const ANSWERED: Expected = Expected { statuses: &[200], is_head: false, body_bytes: None };

/// A repository ready for a load.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) work: Rc<Work>,
    target: Target,
    /// The paths of what was made, in the order it can be deleted in.
    made: Vec<String>,
}

/// Makes what the plan's kind of load needs. `measured` is how many requests there will be, when that is
/// known.
pub(super) async fn prepare(plan: &Plan, target: Target, nonce: u64, measured: Option<u64>) -> anyhow::Result<Prepared> {
    // By the repository's name, so that a later run finds what this one keeps.
    let name = Sha256::digest(&target.repository);
    let content = Content::new(plan.size_bytes, name.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    let mut prepared = Prepared {
        work: Rc::new(Work::Repeat { requests: Vec::new(), expected: ANSWERED }),
        target: target.clone(),
        made: Vec::new(),
    };
    let manifest = manifest(&content);
    if !plan.prepared && plan.kind != Kind::Upload {
        prepared.push_image(&content, &manifest).await?;
        if plan.existing_tags > 0 {
            let work = Work::Tag { target: target.clone(), prefix: EXISTING.into(), manifest: manifest.clone() };
            all(&target, work, plan.existing_tags).await.context("make the existing tags")?;
        }
    }
    let blob = target.path(&format!("blobs/{}", content.digest(0)));
    let prefix = format!("run{nonce:016x}-");
    let work = match plan.kind {
        Kind::ManifestGet => {
            let expected = Expected { body_bytes: Some(manifest.len() as u64), ..ANSWERED };
            Work::Repeat { requests: vec![target.request("GET", &target.path("manifests/latest"))], expected }
        }
        Kind::BlobGet => {
            let expected = Expected { body_bytes: Some(content.size), ..ANSWERED };
            Work::Repeat { requests: vec![target.request("GET", &blob)], expected }
        }
        Kind::BlobHead => {
            Work::Repeat { requests: vec![target.request("HEAD", &blob)], expected: Expected { is_head: true, ..ANSWERED } }
        }
        Kind::TagList => Work::Repeat { requests: pages(&target, plan.existing_tags), expected: ANSWERED },
        Kind::TagPut => Work::Tag { target, prefix, manifest },
        Kind::ManifestPut => Work::Manifest { target, prefix, template: manifest },
        Kind::Upload => {
            let content = Content::new(plan.size_bytes, nonce);
            let many = || measured.context("uploads of this size are made before they are sent: say how many with --requests");
            let numbers = if content.is_small() { 0..0 } else { 0..many()? };
            Work::Upload { target, digests: numbers.map(|number| content.digest(number)).collect(), content }
        }
    };
    prepared.work = Rc::new(work);
    Ok(prepared)
}

/// An image of one layer, which is the config too.
fn manifest(content: &Content) -> Vec<u8> {
    let (digest, size) = (content.digest(0), content.size);
    let descriptor = |kind| format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#);
    let (config, layer) = (descriptor("config.v1+json"), descriptor("layer.v1.tar"));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[{layer}]}}"#).into_bytes()
}

/// Pages of tags from places all over the list.
fn pages(target: &Target, tags: u64) -> Vec<Vec<u8>> {
    let list = target.path(&format!("tags/list?n={TAG_PAGE}"));
    let places = (0..PLACES).map(|place| match tags * place / PLACES {
        0 => list.clone(),
        number => format!("{list}&last={}", tag(EXISTING, number)),
    });
    places.map(|path| target.request("GET", &path)).collect()
}

/// Does all of `count` once.
async fn all(target: &Target, work: Work, count: u64) -> anyhow::Result<()> {
    let tally = phase::run(target.address, Rc::new(work), CONNECTIONS, 0, Until::Requests(count)).await?;
    ensure!(tally.failures == 0, "{} of {count} requests failed: {}", tally.failures, tally.first_failure.unwrap_or_default());
    Ok(())
}

impl Prepared {
    async fn push_image(&mut self, content: &Content, manifest: &[u8]) -> anyhow::Result<()> {
        let target = &self.target;
        let digest = content.digest(0);
        let digests = vec![digest.clone()];
        all(target, Work::Upload { target: target.clone(), content: content.clone(), digests }, 1)
            .await
            .context("push a blob")?;
        let latest = target.path("manifests/latest");
        let put = target.request_with("PUT", &latest, MANIFEST_TYPE, manifest);
        let put = Work::Repeat { requests: vec![put], expected: Expected { statuses: &[201], ..ANSWERED } };
        all(target, put, 1).await.context("push a manifest")?;
        self.made = vec![target.path(&format!("manifests/{}", sha256(manifest))), target.path(&format!("blobs/{digest}"))];
        Ok(())
    }

    /// Deletes what was made, by the load too, which used the numbers up to `next`. The number of
    /// things the registry refuses to delete.
    pub(super) async fn remove(self, next: u64) -> anyhow::Result<u64> {
        let mut paths = Vec::new();
        match &*self.work {
            // Tags go with their manifest.
            Work::Repeat { .. } | Work::Tag { .. } => {}
            Work::Upload { target, content, digests } => {
                let digest = |number: u64| {
                    let known = usize::try_from(number).ok().and_then(|number| digests.get(number).cloned());
                    known.unwrap_or_else(|| content.digest(number))
                };
                paths.extend((0..next).map(|number| target.path(&format!("blobs/{}", digest(number)))));
            }
            Work::Manifest { target, prefix, template } => paths.extend((0..next).map(|number| {
                let digest = sha256(&super::work::annotated(template, &tag(prefix, number)));
                target.path(&format!("manifests/{digest}"))
            })),
        }
        paths.extend(self.made);
        if paths.is_empty() {
            return Ok(0);
        }
        let requests: Vec<_> = paths.iter().map(|path| self.target.request("DELETE", path)).collect();
        let count = requests.len() as u64;
        let expected = Expected { statuses: &[200, 202, 204, 404], ..ANSWERED };
        let work = Work::Repeat { requests, expected };
        let tally = phase::run(self.target.address, Rc::new(work), CONNECTIONS, 0, Until::Requests(count)).await?;
        Ok(tally.failures)
    }
}
