//! A trace made into a load: content of the recorded sizes, and requests for it at the recorded times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::content::Content;
use super::pace::Schedule;
use super::prepare::{Prepared, content_of, manifest};
use super::target::Target;
use super::trace::{Recorded, Trace};
use super::work::{Blob, Expected, Order, Part, Request, Task, Work};
use super::{Kind, MANIFEST_TYPE, Plan};
use crate::digest::sha256;
use crate::limits::{INLINE_CONTENT_BYTES, TRACE_CONTENT_LIMIT_BYTES, TRACE_MANIFEST_LIMIT_BYTES, TRACE_MANIFESTS_LIMIT_BYTES};

/// A trace to be replayed.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What was recorded.
    pub trace: Arc<Trace>,
    /// How many times faster than it was recorded.
    pub speed: f64,
    /// Larger blobs become this large.
    pub layer_limit_bytes: u64,
}

/// The parts of the load, by their place in it.
const KINDS: [Kind; 6] = [Kind::ManifestGet, Kind::ManifestHead, Kind::BlobGet, Kind::BlobHead, Kind::ManifestPut, Kind::Upload];

/// Pushes what a replay asks for. It can be replayed so many times, and writes something new each time.
///
/// # Errors
/// When the trace is too large, or the registry refuses something; what was made is removed again, if it lets that happen.
pub(super) fn prepare(plan: &Plan, replay: &Replay, target: Target, nonce: u64, rounds: u64) -> anyhow::Result<Prepared> {
    ensure!(replay.speed.is_finite() && replay.speed > 0.0, "{} is no speed; 1 is that of the recording", replay.speed);
    let at = |recorded: &Recorded| Duration::try_from_secs_f64(recorded.at.as_secs_f64() / replay.speed);
    let times = replay.trace.requests.iter().map(at).collect::<Result<_, _>>().context("replay that slowly")?;
    let mut prepared = Prepared::empty(target.clone(), Schedule::At(times));
    let mut builder = Builder::new(plan, replay, target, nonce);
    builder.check_sizes(rounds)?;
    let filled = builder.push(&mut prepared).and_then(|()| builder.work(&mut prepared, rounds));
    match filled {
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

/// Something that is read: its repository, whether it is a manifest, and what the trace calls it.
type Name<'a> = (&'a str, bool, &'a str);

/// Something that is read, as it is here.
#[derive(Debug)]
struct Stored {
    path: String,
    size_bytes: u64,
}

struct Builder<'a> {
    replay: &'a Replay,
    target: Target,
    nonce: u64,
    content: Content,
    /// The size of what the trace does not know the size of, and of what every manifest names.
    default_bytes: u64,
    /// Numbered in the order of their names.
    repositories: BTreeMap<&'a str, Target>,
    /// What is read and has to be there, with the largest size it was read with.
    sizes: BTreeMap<Name<'a>, u64>,
    stored: BTreeMap<Name<'a>, Stored>,
}

fn is_manifest(kind: Kind) -> bool {
    matches!(kind, Kind::ManifestGet | Kind::ManifestHead | Kind::ManifestPut)
}

fn is_read(kind: Kind) -> bool {
    !matches!(kind, Kind::ManifestPut | Kind::Upload)
}

impl<'a> Builder<'a> {
    fn new(plan: &Plan, replay: &'a Replay, target: Target, nonce: u64) -> Self {
        let mut repositories: BTreeMap<&str, Target> = BTreeMap::new();
        let mut sizes: BTreeMap<Name<'_>, u64> = BTreeMap::new();
        for recorded in &replay.trace.requests {
            let number = repositories.len();
            repositories.entry(&recorded.repository).or_insert_with(|| target.below(&format!("r{number}")));
            if is_read(recorded.kind) && recorded.found {
                let name = (recorded.repository.as_str(), is_manifest(recorded.kind), recorded.reference.as_str());
                let size = sizes.entry(name).or_default();
                *size = (*size).max(recorded.size_bytes);
            }
        }
        let default_bytes = plan.size_bytes.min(INLINE_CONTENT_BYTES);
        let content = content_of(&target.repository, default_bytes);
        Self { replay, target, nonce, content, default_bytes, repositories, sizes, stored: BTreeMap::new() }
    }

    /// The size of a blob here.
    fn blob_bytes(&self, recorded: u64) -> u64 {
        let limit = self.replay.layer_limit_bytes.min(TRACE_CONTENT_LIMIT_BYTES);
        if recorded == 0 { self.default_bytes } else { recorded.min(limit) }
    }

    /// The trace may say anything.
    fn check_sizes(&self, rounds: u64) -> anyhow::Result<()> {
        let is_upload = |recorded: &&Recorded| recorded.kind == Kind::Upload;
        let uploads = self.replay.trace.requests.iter().filter(is_upload).map(|recorded| self.blob_bytes(recorded.size_bytes));
        let read = self.sizes.iter().filter(|((_, is_manifest, _), _)| !is_manifest).map(|(_, size)| self.blob_bytes(*size));
        let blobs = uploads.sum::<u64>().saturating_mul(rounds).saturating_add(read.sum());
        ensure!(
            blobs <= TRACE_CONTENT_LIMIT_BYTES,
            "the trace has {blobs} bytes of blobs, over {TRACE_CONTENT_LIMIT_BYTES}: take fewer requests with --trace-limit, \
             or make blobs smaller with --layer-limit"
        );
        let put = self.replay.trace.requests.iter().filter(|recorded| recorded.kind == Kind::ManifestPut);
        let put = put.map(|recorded| recorded.size_bytes.clamp(1024, TRACE_MANIFEST_LIMIT_BYTES)).sum::<u64>();
        let read = self.sizes.iter().filter(|((_, is_manifest, _), _)| *is_manifest);
        let read = read.map(|(_, size)| (*size).clamp(1024, TRACE_MANIFEST_LIMIT_BYTES)).sum::<u64>();
        let manifests = put.saturating_mul(rounds).saturating_add(read);
        ensure!(
            manifests <= TRACE_MANIFESTS_LIMIT_BYTES,
            "the trace has {manifests} bytes of manifests, over {TRACE_MANIFESTS_LIMIT_BYTES}: take fewer requests with --trace-limit"
        );
        Ok(())
    }

    /// A manifest of the recorded size, or as small as it can be.
    fn manifest(&self, note: &str, recorded: u64) -> Vec<u8> {
        let config = self.content.digest(0);
        let with = |padding: usize| {
            let annotations = format!(r#","annotations":{{"note":"{note}","padding":"{}"}}"#, "x".repeat(padding));
            manifest(&config, self.default_bytes, &annotations)
        };
        let wanted = usize::try_from(recorded.min(TRACE_MANIFEST_LIMIT_BYTES)).unwrap_or(0);
        with(wanted.saturating_sub(with(0).len()))
    }

    /// Pushes what is read.
    fn push(&mut self, prepared: &mut Prepared) -> anyhow::Result<()> {
        let blob = |target: &Target, content: Content, number| {
            let digest = content.digest(number);
            Blob { target: target.clone(), content, number, digest }
        };
        // Each repository has the blob that its manifests name.
        let mut blobs: Vec<_> = self.repositories.values().map(|target| blob(target, self.content.clone(), 0)).collect();
        let mut manifests = Vec::new();
        for (number, ((repository, is_manifest, reference), recorded)) in (1..).zip(&self.sizes) {
            let target = &self.repositories[repository];
            let stored = if *is_manifest {
                let manifest = self.manifest(&format!("read{number}"), *recorded);
                let path = target.path(&format!("manifests/m{number}"));
                prepared.will_remove([target.path(&format!("manifests/{}", sha256(&manifest)))]);
                manifests.push(Request::new(target.request_with("PUT", &path, MANIFEST_TYPE, &manifest), Expected::CREATED));
                Stored { path, size_bytes: manifest.len() as u64 }
            } else {
                let size_bytes = self.blob_bytes(*recorded);
                let blob = blob(target, self.content.sized(size_bytes), number);
                let path = target.path(&format!("blobs/{}", blob.digest));
                blobs.push(blob);
                Stored { path, size_bytes }
            };
            self.stored.insert((*repository, *is_manifest, *reference), stored);
        }
        prepared.will_remove(blobs.iter().map(|blob| blob.target.path(&format!("blobs/{}", blob.digest))));
        let (blob_count, manifest_count) = (blobs.len() as u64, manifests.len() as u64);
        prepared.all(Task::Blobs(blobs), blob_count).context("push the blobs of the trace")?;
        prepared.all(Task::Repeat(manifests), manifest_count).context("push the manifests of the trace")
    }

    /// The requests of the trace, as often as it is replayed.
    fn work(&self, prepared: &mut Prepared, rounds: u64) -> anyhow::Result<Work> {
        let mut requests: [Vec<Request>; KINDS.len() - 1] = Default::default();
        let mut uploads = Vec::new();
        let mut steps = Vec::new();
        let mut known: BTreeMap<(Kind, Name<'_>, bool), (usize, u64)> = BTreeMap::new();
        let fresh = Content::new(self.default_bytes, self.nonce);
        for number in 0..rounds * self.replay.trace.requests.len() as u64 {
            let recorded = &self.replay.trace.requests[usize::try_from(number)? % self.replay.trace.requests.len()];
            let part = KINDS.iter().position(|kind| *kind == recorded.kind).context("a kind that cannot be replayed")?;
            let target = &self.repositories[recorded.repository.as_str()];
            let name = (recorded.repository.as_str(), is_manifest(recorded.kind), recorded.reference.as_str());
            match recorded.kind {
                Kind::Upload => {
                    let content = fresh.sized(self.blob_bytes(recorded.size_bytes));
                    let digest = content.digest(number);
                    prepared.will_remove([target.path(&format!("blobs/{digest}"))]);
                    steps.push((part, uploads.len() as u64));
                    uploads.push(Blob { target: target.clone(), content, number, digest });
                }
                Kind::ManifestPut => {
                    steps.push((part, requests[part].len() as u64));
                    requests[part].push(self.put(prepared, target, number, recorded.size_bytes));
                }
                kind => {
                    let key = (kind, name, recorded.found);
                    let step = known.entry(key).or_insert_with(|| {
                        requests[part].push(self.read(target, recorded, self.stored.get(&name)));
                        (part, requests[part].len() as u64 - 1)
                    });
                    steps.push(*step);
                }
            }
        }
        let tasks = requests.into_iter().map(Task::Repeat).chain([Task::Blobs(uploads)]);
        let parts = KINDS.into_iter().zip(tasks).map(|(kind, task)| Part { kind, task }).collect();
        Ok(Work::new(parts, Order::Steps(steps)))
    }

    /// A manifest nobody has pushed before, under a tag of its own: what is read stays as it is.
    fn put(&self, prepared: &mut Prepared, target: &Target, number: u64, recorded: u64) -> Request {
        let tag = format!("put{:016x}-{number}", self.nonce);
        let manifest = self.manifest(&tag, recorded);
        prepared.will_remove([target.path(&format!("manifests/{}", sha256(&manifest)))]);
        let bytes = target.request_with("PUT", &target.path(&format!("manifests/{tag}")), MANIFEST_TYPE, &manifest);
        Request { bytes, sent_bytes: manifest.len() as u64, expected: Expected::CREATED }
    }

    /// A request for something that is there, or that is not, as it was then.
    fn read(&self, target: &Target, recorded: &Recorded, stored: Option<&Stored>) -> Request {
        let is_head = matches!(recorded.kind, Kind::ManifestHead | Kind::BlobHead);
        let method = if is_head { "HEAD" } else { "GET" };
        match stored.filter(|_| recorded.found) {
            Some(Stored { path, size_bytes }) => {
                let body_bytes = (!is_head).then_some(*size_bytes);
                Request::new(target.request(method, path), Expected { is_head, body_bytes, ..Expected::OK })
            }
            None => {
                let digest = sha256(format!("{} is not here, nor is {}", self.target.repository, recorded.reference).as_bytes());
                let path = if is_manifest(recorded.kind) {
                    format!("manifests/absent-{}", &digest[7..23])
                } else {
                    format!("blobs/{digest}")
                };
                Request::new(target.request(method, &target.path(&path)), Expected { is_head, ..Expected::ABSENT })
            }
        }
    }
}
