//! What a load needs in its repository before it starts, and its removal afterwards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::content::Content;
use super::pace::Schedule;
use super::phase::{Phase, Until};
use super::target::Target;
use super::wire::Connection;
use super::work::{Expected, Order, Part, Request, Task, Work, tag};
use super::{Kind, MANIFEST_TYPE, Plan};
use crate::digest::sha256;
use crate::limits::{ANSWER_LIMIT_BYTES, TAG_PAGE};

/// Connections used to prepare and to remove.
const CONNECTIONS: usize = 16;
/// What existing tags are called.
const EXISTING: &str = "t";
/// What existing referrers are called in an annotation.
const REFERRER: &str = "referrer";
/// How many places of a list of tags are asked for in turn.
const PLACES: u64 = 16;

/// A repository ready for a load.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) work: Arc<Work>,
    pub(super) schedule: Schedule,
    pub(super) target: Target,
    /// The paths of what was made.
    made: Vec<String>,
}

/// Makes what the plan's kinds of load need. `measured` is how many requests there will be, when that is known.
///
/// # Errors
/// When the registry refuses something; what was made is removed again, if it lets that happen.
pub(super) fn prepare(plan: &Plan, target: Target, nonce: u64, measured: Option<u64>) -> anyhow::Result<Prepared> {
    let mut prepared = Prepared::empty(target, Schedule::Pace(plan.pace));
    match prepared.fill(plan, nonce, measured) {
        Ok(work) => {
            prepared.work = Arc::new(work);
            Ok(prepared)
        }
        Err(e) => {
            let _ = prepared.remove(0);
            Err(e)
        }
    }
}

/// The blobs of a repository. By its name, so that a later run finds what this one keeps.
pub(super) fn content_of(repository: &str, size_bytes: u64) -> Content {
    let name = Sha256::digest(repository);
    Content::new(size_bytes, name.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// An image of one layer, which is the config too, with further members at its end.
pub(super) fn manifest(digest: &str, size: u64, further: &str) -> Vec<u8> {
    let descriptor = |kind| format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#);
    let (config, layer) = (descriptor("config.v1+json"), descriptor("layer.v1.tar"));
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{config},"layers":[{layer}]{further}}}"#).into_bytes()
}

/// Pages of tags from places all over the list.
fn pages(target: &Target, tags: u64) -> Vec<Request> {
    let list = target.path(&format!("tags/list?n={TAG_PAGE}"));
    let places = (0..PLACES).map(|place| match tags * place / PLACES {
        0 => list.clone(),
        number => format!("{list}&last={}", tag(EXISTING, number)),
    });
    places.map(|path| Request::new(target.request("GET", &path), Expected::OK)).collect()
}

/// The path of the list of what refers to `digest`.
fn list_of_referrers(target: &Target, digest: &str) -> String {
    target.path(&format!("referrers/{digest}"))
}

/// Asks once for the list of referrers. A registry that finds none would look fast: they have to be there.
fn check_referrers(target: &Target, digest: &str, existing: u64) -> anyhow::Result<()> {
    let request = target.request("GET", &list_of_referrers(target, digest));
    let mut body = Vec::new();
    let mut keep = |part: &[u8]| {
        if body.len() <= ANSWER_LIMIT_BYTES {
            body.extend_from_slice(part);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("set up asynchronous work")?;
    let answer =
        runtime.block_on(Connection::new(target.address, std::rc::Rc::default()).exchange(&request, false, &mut keep))?;
    let status = answer.head.status;
    ensure!(status == 200, "the list of referrers is answered with {status}; does the registry offer it?");
    // A list this long is cut into pages by some, and not read here to the end in any case.
    ensure!(body.len() <= ANSWER_LIMIT_BYTES, "the list of referrers is over {ANSWER_LIMIT_BYTES} bytes; take fewer");
    let list: serde_json::Value = serde_json::from_slice(&body).context("the list of referrers is not JSON")?;
    let found = list["manifests"].as_array().map_or(0, Vec::len);
    ensure!(existing == 0 || found > 0, "the list of referrers is empty, although there are {existing}");
    Ok(())
}

impl Prepared {
    /// Nothing made yet.
    pub(super) fn empty(target: Target, schedule: Schedule) -> Self {
        Self { work: Arc::new(Work::new(Vec::new(), Order::Steps(Vec::new()))), schedule, target, made: Vec::new() }
    }

    fn fill(&mut self, plan: &Plan, nonce: u64, measured: Option<u64>) -> anyhow::Result<Work> {
        let content = content_of(&self.target.repository, plan.size_bytes);
        let blob = content.digest(0);
        let manifest = manifest(&blob, content.size, "");
        let mix = plan.mix();
        if !plan.prepared && mix.kinds().any(|kind| kind != Kind::Upload) {
            self.push_image(&content, &blob, &manifest)?;
            if plan.existing_tags > 0 {
                let (target, manifest) = (self.target.clone(), manifest.clone());
                self.all(Task::Tag { target, prefix: EXISTING.into(), manifest }, plan.existing_tags)
                    .context("make the existing tags")?;
            }
            if plan.existing_referrers > 0 {
                self.push_referrers(&blob, content.size, &manifest, plan.existing_referrers).context("make the referrers")?;
            }
        }
        if mix.kinds().any(|kind| kind == Kind::Referrers) {
            check_referrers(&self.target, &sha256(&manifest), plan.existing_referrers)?;
        }
        let order = mix.order();
        let mut parts = Vec::new();
        for (place, kind) in mix.kinds().enumerate() {
            let numbers = measured.map(|count| (0..count).filter(|n| order[(*n % order.len() as u64) as usize] == place));
            let task = if kind == Kind::Upload {
                self.uploads(Content::new(plan.size_bytes, nonce), numbers)?
            } else {
                self.task(plan, kind, nonce, &content, &manifest)?
            };
            parts.push(Part { kind, task });
        }
        Ok(Work::new(parts, Order::Turns(order)))
    }

    /// What is done for a kind, on the image that was pushed.
    fn task(&self, plan: &Plan, kind: Kind, nonce: u64, content: &Content, manifest: &[u8]) -> anyhow::Result<Task> {
        let target = self.target.clone();
        let latest = target.path("manifests/latest");
        let blob = target.path(&format!("blobs/{}", content.digest(0)));
        let ask = |method: &str, path: &str, body_bytes: Option<u64>| {
            let expected = Expected { is_head: method == "HEAD", body_bytes, ..Expected::OK };
            Task::Repeat(vec![Request::new(target.request(method, path), expected)])
        };
        let prefix = format!("run{nonce:016x}-");
        Ok(match kind {
            Kind::ManifestGet => ask("GET", &latest, Some(manifest.len() as u64)),
            Kind::ManifestHead => ask("HEAD", &latest, None),
            Kind::BlobGet => ask("GET", &blob, Some(content.size)),
            Kind::BlobHead => ask("HEAD", &blob, None),
            Kind::Referrers => ask("GET", &list_of_referrers(&target, &sha256(manifest)), None),
            Kind::TagList => Task::Repeat(pages(&target, plan.existing_tags)),
            Kind::TagPut => Task::Tag { target, prefix, manifest: manifest.to_vec() },
            Kind::ManifestPut => Task::Manifest { target, prefix, template: manifest.to_vec(), is_tagged: true },
            Kind::Upload | Kind::Mixed | Kind::Trace => bail!("{kind} is not prepared like other kinds"),
        })
    }

    /// New blobs. The digests of large ones are worked out now, so that it takes no time of the load.
    fn uploads(&self, content: Content, numbers: Option<impl Iterator<Item = u64>>) -> anyhow::Result<Task> {
        let digests = if content.is_small() {
            BTreeMap::new()
        } else {
            let numbers = numbers.context("uploads of this size are made before they are sent: say how many with --requests")?;
            numbers.map(|number| (number, content.digest(number))).collect()
        };
        Ok(Task::Upload { target: self.target.clone(), content, digests })
    }

    /// Does `task` so often before the load.
    pub(super) fn all(&self, task: Task, count: u64) -> anyhow::Result<()> {
        // The kind is that of a part nobody sees.
        Phase::once(self.target.address, Work::only(Kind::Mixed, task), CONNECTIONS, count).run_whole()
    }

    /// Something to be removed in the end.
    pub(super) fn will_remove(&mut self, paths: impl IntoIterator<Item = String>) {
        self.made.extend(paths);
    }

    fn push_image(&mut self, content: &Content, digest: &str, manifest: &[u8]) -> anyhow::Result<()> {
        let target = self.target.clone();
        let digests = BTreeMap::from([(0, digest.to_owned())]);
        self.will_remove([target.path(&format!("blobs/{digest}"))]);
        self.all(Task::Upload { target: target.clone(), content: content.clone(), digests }, 1).context("push a blob")?;
        let put = target.request_with("PUT", &target.path("manifests/latest"), MANIFEST_TYPE, manifest);
        self.will_remove([target.path(&format!("manifests/{}", sha256(manifest)))]);
        self.all(Task::Repeat(vec![Request::new(put, Expected::CREATED)]), 1).context("push a manifest")
    }

    fn push_referrers(&mut self, blob: &str, blob_bytes: u64, subject: &[u8], count: u64) -> anyhow::Result<()> {
        let (digest, size) = (sha256(subject), subject.len());
        let subject = format!(
            r#","artifactType":"application/vnd.rconform.load","subject":{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":{size}}}"#
        );
        let template = manifest(blob, blob_bytes, &subject);
        let task = Task::Manifest { target: self.target.clone(), prefix: REFERRER.into(), template, is_tagged: false };
        let work = Work::only(Kind::Mixed, task);
        self.will_remove((0..count).filter_map(|number| work.made(number)));
        Phase::once(self.target.address, work, CONNECTIONS, count).run_whole()
    }

    /// Deletes what was made, by the load too, which used the numbers up to `next`. The number of
    /// things the registry refuses to delete.
    pub(super) fn remove(self, next: u64) -> anyhow::Result<u64> {
        let paths = self.made.into_iter().chain((0..next).filter_map(|number| self.work.made(number)));
        // What a manifest names may have to stay as long as the manifest does.
        let (manifests, blobs): (Vec<_>, Vec<_>) = paths.partition(|path| path.contains("/manifests/"));
        let mut left = 0;
        for paths in [manifests, blobs].into_iter().filter(|paths| !paths.is_empty()) {
            let delete = |path: &String| Request::new(self.target.request("DELETE", path), Expected::REMOVED);
            let requests: Vec<_> = paths.iter().map(delete).collect();
            let count = requests.len() as u64;
            let work = Work::only(Kind::Mixed, Task::Repeat(requests));
            left += Phase::once(self.target.address, work, CONNECTIONS, count).run()?.failures();
        }
        Ok(left)
    }

    /// The phase of a load that begins with number `first`.
    pub(super) fn phase(&self, plan: &Plan, first: u64, until: Until) -> Phase {
        let address: SocketAddr = self.target.address;
        let (work, schedule) = (self.work.clone(), self.schedule.clone());
        Phase { address, work, connections: plan.connections, threads: plan.threads, schedule, first, until }
    }
}
