//! Load on a registry, measured: many connections asking for one kind of thing, as fast as it is
//! answered.
//!
//! Entry point: [`run`]. It makes a repository ready, warms up, measures one [`Kind`] of request and
//! removes what it made. One thread and prepared bytes: about 100,000 requests a second from one
//! core; whether the generator or the registry was the limit is part of the [`Summary`].

mod content;
mod phase;
mod prepare;
mod process;
mod summary;
mod target;
mod wire;
mod work;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use reqwest::Url;

pub use self::phase::Until;
pub use self::summary::{Latency, Summary, Used};

use self::prepare::prepare;
use self::process::Process;
use self::target::Target;
use crate::limits::CONNECTIONS_LIMIT;

/// The media type of the manifests pushed.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A manifest by its tag
    ManifestGet,
    /// A blob
    BlobGet,
    /// Whether a blob is there
    BlobHead,
    /// A blob by POST and PUT, another one each time
    Upload,
    /// A manifest under a tag of its own, another one each time
    ManifestPut,
    /// The same manifest under one more tag each time
    TagPut,
    /// 100 tags of a list, from places all over it
    TagList,
}

/// A load to be put on a registry.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The registry's base URL; plain HTTP.
    pub url: Url,
    /// What is asked for.
    pub kind: Kind,
    /// The repository used; one never used before when not given.
    pub repository: Option<String>,
    /// Connections asking at the same time.
    pub connections: usize,
    /// How long is measured.
    pub until: Until,
    /// How long before that requests are made and not measured.
    pub warm_up: Duration,
    /// The size of blobs.
    pub size_bytes: u64,
    /// Tags the repository has before anything is measured.
    pub existing_tags: u64,
    /// The repository was made ready by an earlier run that kept it.
    pub prepared: bool,
    /// Nothing is removed afterwards.
    pub keep: bool,
    /// The registry's process, if it is on this machine.
    pub pid: Option<u32>,
}

/// Carries a plan out.
///
/// # Errors
/// When the registry cannot be made ready, or stops answering. Requests that fail are counted.
pub fn run(plan: &Plan) -> anyhow::Result<Summary> {
    ensure!((1..=CONNECTIONS_LIMIT).contains(&plan.connections), "connections must be 1 to {CONNECTIONS_LIMIT}");
    ensure!(!plan.prepared || plan.repository.is_some(), "which repository is prepared? Say it with --repository");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("set up asynchronous work")?;
    runtime.block_on(measure(plan))
}

async fn measure(plan: &Plan) -> anyhow::Result<Summary> {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let nonce = u64::try_from(nanoseconds & u128::from(u64::MAX))?;
    let repository = plan.repository.clone().unwrap_or_else(|| format!("rconform/load-{nonce:016x}"));
    let target = Target::new(&plan.url, repository.clone())?;
    let address = target.address;
    let count = if let Until::Requests(count) = plan.until { Some(count) } else { None };
    let prepared = prepare(plan, target, nonce, count).await.context("make the repository ready")?;

    // Large uploads are made before, so many as are measured.
    let warm_up = if plan.kind == Kind::Upload && count.is_some() { Duration::ZERO } else { plan.warm_up };
    let first = if warm_up.is_zero() {
        0
    } else {
        phase::run(address, prepared.work.clone(), plan.connections, 0, Until::Elapsed(warm_up)).await?.next
    };
    let server = plan.pid.map(Process::of);
    server.inspect(|server| server.forget_peak());
    let cpu = |process: Option<Process>| process.map(Process::cpu_seconds).transpose();
    let (server_before, own_before) = (cpu(server)?, Process::own().cpu_seconds()?);
    let tally = phase::run(address, prepared.work.clone(), plan.connections, first, plan.until).await?;
    let own_cpu_s = Process::own().cpu_seconds()? - own_before;
    let used = match (server, server_before) {
        (Some(server), Some(before)) => Some(Used { cpu_s: server.cpu_seconds()? - before, peak_bytes: server.peak_bytes()? }),
        _ => None,
    };
    let left_behind = if plan.keep { 0 } else { prepared.remove(tally.next).await.context("remove what was made")? };
    Ok(Summary::new(plan, repository, &tally, used, own_cpu_s, left_behind))
}
