//! Load on a registry, measured: many connections asking for one kind of thing or for several, as fast as
//! they are answered, at a rate, or at the times of a trace.
//!
//! Entry points: [`run`] makes a repository ready, warms up, measures and removes what it made; [`versus`] does so on
//! two registries in turn. Prepared bytes and one thread: about 100,000 requests a second from one core; whether the
//! generator or the registry was the limit is part of the [`Summary`].
//!
//! In an open load ([`Pace::Open`], a [`Replay`]) latency counts from the moment a request was to start, whether or not a
//! connection was free then: a registry that stops for a moment is charged with all that waited ("coordinated omission"
//! is what leaves them out).

mod content;
mod kind;
mod pace;
mod phase;
mod prepare;
mod process;
mod replay;
mod session;
mod summary;
mod tally;
mod target;
pub mod trace;
mod versus;
mod wire;
mod work;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use reqwest::Url;

pub use self::kind::{Kind, Mix};
pub use self::pace::Pace;
pub use self::phase::Until;
pub use self::replay::Replay;
pub use self::summary::{Latency, Offered, PartSummary, Replayed, Summary, Used};
pub use self::trace::Trace;
pub use self::versus::{Comparison, Figure, Other, versus};

use self::session::Session;
use crate::limits::{
    CONNECTIONS_LIMIT, INLINE_CONTENT_BYTES, RATE_LEAST_PER_SECOND, RATE_LIMIT_PER_SECOND, THINK_LIMIT, THREADS_LIMIT,
};

/// The media type of the manifests pushed.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// A load to be put on a registry.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The registry's base URL; plain HTTP.
    pub url: Url,
    /// The value of the header `Authorization` of every request.
    pub authorization: Option<String>,
    /// What is asked for.
    pub kind: Kind,
    /// What [`Kind::Mixed`] is made of.
    pub mix: Mix,
    /// The repository used; one never used before when not given.
    pub repository: Option<String>,
    /// Connections asking at the same time.
    pub connections: usize,
    /// Threads they are shared among.
    pub threads: usize,
    /// When requests start.
    pub pace: Pace,
    /// How long is measured.
    pub until: Until,
    /// How long before that requests are made and not measured.
    pub warm_up: Duration,
    /// The size of blobs.
    pub size_bytes: u64,
    /// Tags the repository has before anything is measured.
    pub existing_tags: u64,
    /// Manifests that refer to the one whose referrers are asked for.
    pub existing_referrers: u64,
    /// The repository was made ready by an earlier run that kept it.
    pub prepared: bool,
    /// Nothing is removed afterwards.
    pub keep: bool,
    /// The registry's process, if it is on this machine.
    pub pid: Option<u32>,
    /// A trace in place of `kind`, `pace`, `until`, `warm_up` and what exists before.
    pub replay: Option<Replay>,
}

impl Plan {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=CONNECTIONS_LIMIT).contains(&self.connections), "connections must be 1 to {CONNECTIONS_LIMIT}");
        ensure!((1..=THREADS_LIMIT).contains(&self.threads), "threads must be 1 to {THREADS_LIMIT}");
        ensure!(!self.prepared || self.repository.is_some(), "which repository is prepared? Say it with --repository");
        match self.pace {
            Pace::Closed { think } => ensure!(think <= THINK_LIMIT, "a connection thinks {} s at most", THINK_LIMIT.as_secs()),
            Pace::Open { per_second } => ensure!(
                (RATE_LEAST_PER_SECOND..=RATE_LIMIT_PER_SECOND).contains(&per_second),
                "a rate must be {RATE_LEAST_PER_SECOND} to {RATE_LIMIT_PER_SECOND} requests a second"
            ),
        }
        Ok(())
    }

    /// The kinds of requests, whether one or several.
    fn mix(&self) -> Mix {
        if self.kind == Kind::Mixed { self.mix.clone() } else { Mix::only(self.kind) }
    }

    /// Whether blobs are made and hashed while the load runs.
    fn has_small_content(&self) -> bool {
        self.size_bytes <= INLINE_CONTENT_BYTES
    }
}

/// A number that no other run has.
fn nonce() -> anyhow::Result<u64> {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(u64::try_from(nanoseconds & u128::from(u64::MAX))?)
}

/// Carries a plan out.
///
/// # Errors
/// When the registry cannot be made ready, or stops answering. Requests that fail are counted.
pub fn run(plan: &Plan) -> anyhow::Result<Summary> {
    plan.check()?;
    let mut session = Session::open(plan, nonce()?, 1)?;
    let mut summary = session.measure()?;
    summary.left_behind = session.close()?;
    Ok(summary)
}
