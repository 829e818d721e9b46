//! What the registry promises, whatever happens: tests of the whole registry over stores in memory.
//!
//! - What was acknowledged is there after a power failure at any moment, and every byte of it right.
//! - A client that was told "exists" can push what refers to it, whoever deletes and collects
//!   meanwhile, as long as it does so within the grace period.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use longshore_runtime::name::{Algorithm, Digest, RepoName, Tag};
use proptest::prelude::*;

use crate::blob::{MemoryBlobStore, Upload};
use crate::collect::Policy;
use crate::error::{Error, Result};
use crate::faults::{Fault, Faults};
use crate::limits::Limits;
use crate::meta::{ManifestName, MemoryLog, Metadata, PutOptions};
use crate::registry::{NewManifest, Registry};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What one restart finds, and the registry over it.
fn start(blobs: &MemoryBlobStore, log: &MemoryLog) -> Registry<MemoryBlobStore, impl Metadata + use<>> {
    Registry::new(blobs.clone(), log.open(), Arc::new(Limits::default()))
}

fn content(n: u8) -> Bytes {
    format!("layer {n}").into()
}

/// An image of these layers; the first is its config, too.
fn image(layers: &[u8]) -> Bytes {
    let descriptor = |n: &u8| {
        let content = content(*n);
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":{}}}"#, Digest::of(&content), content.len())
    };
    let listed: Vec<_> = layers.iter().map(descriptor).collect();
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, listed[0], listed.join(",")).into()
}

async fn push_blob(registry: &Registry<MemoryBlobStore, impl Metadata>, repo: &RepoName, n: u8) -> Result<()> {
    let content = content(n);
    let id = registry.start_upload(repo, Algorithm::Sha256).await?;
    let mut upload = registry.open_upload(repo, id).await?;
    upload.write(vec![content.clone()]).await?;
    registry.finish_upload(repo, upload, &Digest::of(&content)).await
}

async fn put_image(
    registry: &Registry<MemoryBlobStore, impl Metadata>,
    repo: &RepoName,
    tag: &Tag,
    image: Bytes,
) -> Result<Digest> {
    let manifest = NewManifest { bytes: image, content_type: Some(OCI_MANIFEST), tags: Vec::new() };
    let options = PutOptions { overwrite: true, sparse: false };
    Ok(registry.put_manifest(repo, &ManifestName::Tag(tag.clone()), manifest, options).await?.digest)
}

async fn read_blob(registry: &Registry<MemoryBlobStore, impl Metadata>, repo: &RepoName, digest: &Digest) -> Result<Bytes> {
    let size = registry.blob_size(repo, digest).await?;
    let body = registry.read_blob(repo, digest, size, 0..size).await?;
    Ok(body.collect().await.unwrap().to_bytes())
}

async fn read_manifest(
    registry: &Registry<MemoryBlobStore, impl Metadata>,
    repo: &RepoName,
    name: &ManifestName,
) -> Result<Bytes> {
    let entry = registry.manifest(repo, name).await?;
    let body = registry.read_manifest(repo, &entry).await?;
    Ok(body.collect().await.unwrap().to_bytes())
}

/// Something a client does.
#[derive(Debug, Clone)]
enum Step {
    Push { repo: u8, layers: Vec<u8>, tag: u8 },
    Mount { from: u8, to: u8, layer: u8 },
    DeleteTag { repo: u8, tag: u8 },
    DeleteImage { repo: u8, tag: u8 },
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    let layers = proptest::collection::vec(0..6u8, 1..4);
    prop_oneof![
        4 => (0..2u8, layers, 0..3u8).prop_map(|(repo, layers, tag)| Step::Push { repo, layers, tag }),
        1 => (0..2u8, 0..2u8, 0..6u8).prop_map(|(from, to, layer)| Step::Mount { from, to, layer }),
        1 => (0..2u8, 0..3u8).prop_map(|(repo, tag)| Step::DeleteTag { repo, tag }),
        1 => (0..2u8, 0..3u8).prop_map(|(repo, tag)| Step::DeleteImage { repo, tag }),
        1 => Just(Step::Collect),
    ]
}

fn repo(n: u8) -> RepoName {
    format!("team/app{n}").parse().unwrap()
}

fn tag(n: u8) -> Tag {
    format!("t{n}").parse().unwrap()
}

/// What clients know: for every tag the image that was acknowledged last, and, while a change of it
/// was not acknowledged, what else may be there.
#[derive(Debug, Default)]
struct Known {
    tags: BTreeMap<(u8, u8), Vec<Option<Bytes>>>,
}

impl Known {
    fn may_become(&mut self, repo: u8, tag: u8, image: Option<Bytes>) {
        self.tags.entry((repo, tag)).or_insert_with(|| vec![None]).push(image);
    }

    fn is(&mut self, repo: u8, tag: u8, image: Option<Bytes>) {
        self.tags.insert((repo, tag), vec![image]);
    }

    /// The tags that are on the same image as this one, or may be.
    fn on_the_same(&self, repo: u8, tag: u8) -> BTreeSet<u8> {
        let images = self.tags.get(&(repo, tag)).cloned().unwrap_or_default();
        let shares = |other: &Vec<Option<Bytes>>| other.iter().flatten().any(|image| images.contains(&Some(image.clone())));
        self.tags.iter().filter(|((r, _), other)| *r == repo && shares(other)).map(|((_, t), _)| *t).collect()
    }

    async fn take(&mut self, registry: &Registry<MemoryBlobStore, impl Metadata>, step: &Step) -> Result<()> {
        match step {
            Step::Push { repo: r, layers, tag: t } => {
                for n in layers {
                    push_blob(registry, &repo(*r), *n).await?;
                }
                let image = image(layers);
                self.may_become(*r, *t, Some(image.clone()));
                put_image(registry, &repo(*r), &tag(*t), image.clone()).await?;
                self.is(*r, *t, Some(image));
            }
            Step::Mount { from, to, layer } => {
                registry.mount_blob(&repo(*from), &repo(*to), &Digest::of(&content(*layer))).await?;
            }
            Step::DeleteTag { repo: r, tag: t } => {
                self.may_become(*r, *t, None);
                match registry.delete_manifest(&repo(*r), &ManifestName::Tag(tag(*t))).await {
                    Ok(()) | Err(Error::ManifestUnknown(_)) => self.is(*r, *t, None),
                    Err(e) => return Err(e),
                }
            }
            Step::DeleteImage { repo: r, tag: t } => {
                let Ok(entry) = registry.manifest(&repo(*r), &ManifestName::Tag(tag(*t))).await else { return Ok(()) };
                let tags = self.on_the_same(*r, *t);
                tags.iter().for_each(|t| self.may_become(*r, *t, None));
                registry.delete_manifest(&repo(*r), &ManifestName::Digest(entry.digest)).await?;
                tags.iter().for_each(|t| self.is(*r, *t, None));
            }
            Step::Collect => {
                let now =
                    Policy { grace: Duration::ZERO, untagged: Some(Duration::ZERO), upload_expiry: Duration::from_secs(3600) };
                registry.collect(&now).await?;
            }
        }
        Ok(())
    }

    /// Every tag reads as somebody was told, or may have been, with everything it refers to.
    async fn hold(&mut self, registry: &Registry<MemoryBlobStore, impl Metadata>) {
        for ((r, t), possible) in &mut self.tags {
            let name = ManifestName::Tag(tag(*t));
            let found = match read_manifest(registry, &repo(*r), &name).await {
                Ok(bytes) => Some(bytes),
                Err(Error::ManifestUnknown(_)) => None,
                Err(e) => panic!("{r}/{t}: {e}"),
            };
            assert!(possible.contains(&found), "{r}/{t} is {found:?}, and was known as {possible:?}");
            for n in found.iter().flat_map(|image| (0..6u8).filter(|n| mentions(image, *n))) {
                let blob = read_blob(registry, &repo(*r), &Digest::of(&content(n))).await;
                assert_eq!(blob.unwrap(), content(n), "a layer of {r}/{t}");
            }
            *possible = vec![found];
        }
    }
}

fn mentions(image: &Bytes, n: u8) -> bool {
    String::from_utf8_lossy(image).contains(Digest::of(&content(n)).as_str())
}

fn in_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Runs the steps over storage with these faults; after each failure the machine starts again.
async fn survive(steps: &[Step], faults: Faults) -> u64 {
    let faults = Arc::new(faults);
    let (blobs, log) = (MemoryBlobStore::with(&faults), MemoryLog::with(&faults));
    let mut known = Known::default();
    let mut registry = start(&blobs, &log);
    let mut calls = 0;
    for step in steps {
        let taken = known.take(&registry, step).await;
        if taken.is_err() {
            drop(registry);
            calls = calls.max(faults.calls());
            faults.thaw();
            registry = start(&blobs, &log);
            known.hold(&registry).await;
        }
    }
    known.hold(&registry).await;
    calls.max(faults.calls())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_a_power_failure_at_every_call(steps in proptest::collection::vec(step(), 1..12), kept in 0..200usize) {
        in_runtime(async {
            let calls = survive(&steps, Faults::default()).await;
            for call in 0..calls {
                survive(&steps, Faults::plan([(call, Fault::Freeze { kept })])).await;
            }
        });
    }

    #[test]
    fn a_refused_write_loses_nothing(steps in proptest::collection::vec(step(), 1..16), refused in proptest::collection::vec(0..60u64, 1..6)) {
        in_runtime(async {
            survive(&steps, Faults::plan(refused.into_iter().map(|call| (call, Fault::Refuse)))).await;
        });
    }
}

/// An hour and more, simulated: clients that push what shares layers, as clients do (asking first,
/// sending only what is missing), others that delete images, and the collector, all at once. The
/// clock runs as fast as it can without any push taking longer than the grace period.
#[test]
fn a_client_that_was_told_exists_never_gets_a_broken_push() {
    const CLIENTS: usize = 8;
    const PUSHES: u64 = 6000;
    let start_ms = 1_000_000;
    let world = Arc::new(World {
        clock: Arc::new(AtomicU64::new(start_ms)),
        begun: (0..CLIENTS).map(|_| AtomicU64::new(u64::MAX)).collect(),
        pushes: AtomicU64::new(0),
    });
    let registry = Arc::new(start(&MemoryBlobStore::default(), &MemoryLog::at(&world.clock)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let (registry, world) = (Arc::clone(&registry), Arc::clone(&world));
            tasks.spawn(async move {
                let (mut random, mut spared) = (client as u64, 0);
                while world.pushes.fetch_add(1, Ordering::SeqCst) < PUSHES {
                    world.begun[client].store(world.now(), Ordering::SeqCst);
                    spared += push_as_clients_do(&registry, &mut random).await;
                    world.begun[client].store(u64::MAX, Ordering::SeqCst);
                }
                (spared, 0)
            });
        }
        let (deleting, ticking) = (Arc::clone(&registry), Arc::clone(&world));
        tasks.spawn(async move {
            let mut random = 100;
            while !ticking.is_over(PUSHES) {
                let (r, t) = (next(&mut random, 2), next(&mut random, 3));
                if let Ok(entry) = deleting.manifest(&repo(r), &ManifestName::Tag(tag(t))).await {
                    let _ = deleting.delete_manifest(&repo(r), &ManifestName::Digest(entry.digest)).await;
                }
                ticking.tick();
                // What is in memory is answered without a pause in which others could go on.
                tokio::task::yield_now().await;
            }
            (0, 0)
        });
        let collecting = Arc::clone(&world);
        tasks.spawn(async move {
            let grace = Duration::from_millis(GRACE_MS);
            let policy = Policy { grace, untagged: Some(grace), upload_expiry: Duration::from_secs(3600) };
            let mut collected = 0;
            while !collecting.is_over(PUSHES) {
                collected += registry.collect(&policy).await.unwrap().blobs;
            }
            (0, collected)
        });
        let (mut spared, mut collected) = (0, 0);
        while let Some(outcome) = tasks.join_next().await {
            let outcome = outcome.unwrap();
            spared += outcome.0;
            collected += outcome.1;
        }
        let simulated_ms = world.now() - start_ms;
        assert!(spared > 200 && collected > 100, "{spared} layers were there already, {collected} were collected");
        assert!(simulated_ms > 3_600_000, "{simulated_ms} ms");
    });
}

const GRACE_MS: u64 = 240_000;

/// What the clients, the collector and the clock share.
struct World {
    clock: Arc<AtomicU64>,
    /// When each client's push began; none under way is the greatest number.
    begun: Vec<AtomicU64>,
    pushes: AtomicU64,
}

impl World {
    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn is_over(&self, pushes: u64) -> bool {
        self.pushes.load(Ordering::SeqCst) >= pushes
    }

    /// Lets time pass, if every push under way is still within the grace period then.
    fn tick(&self) {
        let next = self.now() + GRACE_MS / 8;
        if self.begun.iter().all(|begun| next < begun.load(Ordering::SeqCst).saturating_add(GRACE_MS)) {
            self.clock.store(next, Ordering::SeqCst);
        }
    }
}

/// Pushes an image of a few layers; gives how many of them were there already.
async fn push_as_clients_do(registry: &Registry<MemoryBlobStore, impl Metadata>, random: &mut u64) -> u64 {
    let (r, t) = (next(random, 2), next(random, 3));
    let layers: Vec<u8> = (0..=next(random, 3)).map(|_| next(random, 250)).collect();
    let mut spared = 0;
    for n in &layers {
        match registry.blob_size(&repo(r), &Digest::of(&content(*n))).await {
            Ok(_) => spared += 1,
            Err(Error::BlobUnknown(_)) => push_blob(registry, &repo(r), *n).await.unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
    let image = image(&layers);
    let digest = put_image(registry, &repo(r), &tag(t), image.clone()).await.unwrap();
    // Deleted by somebody right away it may be; there, it is whole.
    match read_manifest(registry, &repo(r), &ManifestName::Digest(digest)).await {
        Ok(bytes) => assert_eq!(bytes, image),
        Err(Error::ManifestUnknown(_)) => return spared,
        Err(e) => panic!("{e}"),
    }
    for n in &layers {
        assert_eq!(read_blob(registry, &repo(r), &Digest::of(&content(*n))).await.unwrap(), content(*n));
    }
    spared
}

/// A number below `limit`.
fn next(random: &mut u64, limit: u8) -> u8 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    u8::try_from((*random >> 33) % u64::from(limit)).unwrap()
}
