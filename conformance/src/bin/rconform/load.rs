//! `rconform load`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use longshore_conformance::load::{self, Kind, Mix, Other, Pace, Plan, Replay, Until};
use longshore_conformance::report::{self, measured::Dated, output::write_load};
use reqwest::Url;

use super::output::OutputFlags;

/// Where the password of --user is.
const PASSWORD: &str = "RCONFORM_PASSWORD";
/// Where that of --versus-user is.
const VERSUS_PASSWORD: &str = "RCONFORM_VERSUS_PASSWORD";

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The registry's base URL, plain HTTP, as in http://localhost:5000
    url: Url,
    /// What to ask for
    #[arg(long, value_enum, required_unless_present_any = ["mix", "trace"])]
    kind: Option<Kind>,
    /// What "mixed" is made of: KIND=WEIGHT,... [default:
    /// manifest-get=70,blob-get=20,upload=5,tag-put=3,tag-list=2]
    #[arg(long, value_name = "MIX")]
    mix: Option<Mix>,
    /// Connections asking at the same time
    #[arg(long, short = 'c', default_value_t = 16)]
    connections: usize,
    /// Threads they are shared among
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Ask at this rate over all connections, in requests a second, whatever the answers take; latency
    /// counts from the moment a request was to start [default: ask again as soon as answered]
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long each connection pauses before it asks again
    #[arg(long, value_name = "MS", conflicts_with = "rate", default_value_t = 0)]
    think_ms: u64,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, conflicts_with = "requests")]
    duration: f64,
    /// How many requests to measure, instead of how long
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// How long to ask before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    /// The size of blobs, as in 4096, 4KiB or 1GiB
    #[arg(long, value_parser = size, default_value = "4KiB")]
    size: u64,
    /// Tags the repository is to have before anything is measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    existing_tags: u64,
    /// Manifests that are to refer to the one whose referrers are asked for
    #[arg(long, value_name = "N", default_value_t = 10)]
    existing_referrers: u64,
    /// Replay a trace instead: a file in the format of the IBM Docker registry traces (FAST 2018)
    #[arg(long, value_name = "FILE", conflicts_with_all =
        ["kind", "mix", "rate", "think_ms", "duration", "requests", "warm_up", "existing_tags", "existing_referrers", "prepared"])]
    trace: Option<PathBuf>,
    /// How many of its requests to replay
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "trace")]
    trace_limit: usize,
    /// How many times faster than it was recorded
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "trace")]
    speed: f64,
    /// Make larger blobs of the trace this large
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "trace", default_value = "16MiB")]
    layer_limit: u64,
    /// The repository to use [default: a new one]
    #[arg(long)]
    repository: Option<String>,
    /// The repository was prepared by an earlier run with --keep
    #[arg(long)]
    prepared: bool,
    /// Leave what was pushed where it is
    #[arg(long)]
    keep: bool,
    /// Who asks; the password is in the environment variable RCONFORM_PASSWORD
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The registry's process, to have its processor time and memory told
    #[arg(long)]
    pid: Option<u32>,
    /// Another registry to put the same load on, in turn; prints the ratio of their figures
    #[arg(long, value_name = "URL")]
    versus: Option<Url>,
    /// Who asks there; the password is in the environment variable RCONFORM_VERSUS_PASSWORD
    #[arg(long, value_name = "NAME", requires = "versus")]
    versus_user: Option<String>,
    /// Its process
    #[arg(long, value_name = "PID", requires = "versus")]
    versus_pid: Option<u32>,
    /// How many times each is measured
    #[arg(long, value_name = "N", default_value_t = 5, requires = "versus")]
    rounds: u64,
    #[command(flatten)]
    output: OutputFlags,
}

/// Whether every request succeeded.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let (plan, measured_at) = (flags.plan()?, report::now());
    let Some(url) = &flags.versus else {
        let summary = load::run(&plan)?;
        let document = Dated { measured_at, summary: &summary };
        flags.output.put(|form, out| write_load(&document, |mut out| summary.write_text(&mut out), form, out))?;
        return Ok(summary.failures == 0);
    };
    let authorization = authorization(flags.versus_user.as_deref(), VERSUS_PASSWORD)?;
    let other = Other { url: url.clone(), authorization, pid: flags.versus_pid };
    let comparison = load::versus(&plan, &other, flags.rounds)?;
    let document = Dated { measured_at, summary: &comparison };
    flags.output.put(|form, out| write_load(&document, |mut out| comparison.write_text(&mut out), form, out))?;
    Ok(comparison.failures() == 0)
}

impl Flags {
    fn plan(&self) -> anyhow::Result<Plan> {
        let seconds = |seconds| Duration::try_from_secs_f64(seconds).context("a number of seconds");
        let kind = self.kind.unwrap_or(Kind::Mixed);
        ensure!(kind == Kind::Mixed || self.mix.is_none(), "--mix says what \"mixed\" is made of, and --kind says {kind}");
        let think = Duration::from_millis(self.think_ms);
        let replay = self.trace.as_ref().map(|path| {
            let trace = Arc::new(load::trace::read(path, self.trace_limit)?);
            anyhow::Ok(Replay { trace, speed: self.speed, layer_limit_bytes: self.layer_limit })
        });
        Ok(Plan {
            url: self.url.clone(),
            authorization: authorization(self.user.as_deref(), PASSWORD)?,
            kind,
            mix: self.mix.clone().unwrap_or_default(),
            repository: self.repository.clone(),
            connections: self.connections,
            threads: self.threads,
            pace: self.rate.map_or(Pace::Closed { think }, |per_second| Pace::Open { per_second }),
            until: self.requests.map_or_else(|| seconds(self.duration).map(Until::Elapsed), |n| Ok(Until::Requests(n)))?,
            warm_up: seconds(self.warm_up)?,
            size_bytes: self.size,
            existing_tags: self.existing_tags,
            existing_referrers: if self.asks_for(kind, Kind::Referrers) { self.existing_referrers } else { 0 },
            prepared: self.prepared,
            keep: self.keep,
            pid: self.pid,
            replay: replay.transpose()?,
        })
    }

    /// Whether requests of that kind are made.
    fn asks_for(&self, kind: Kind, wanted: Kind) -> bool {
        kind == wanted || self.mix.as_ref().is_some_and(|mix| mix.kinds().any(|kind| kind == wanted))
    }
}

/// The value of `Authorization` for somebody whose password is in an environment variable.
fn authorization(user: Option<&str>, variable: &str) -> anyhow::Result<Option<String>> {
    let Some(user) = user else { return Ok(None) };
    ensure!(!user.contains(':'), "a user's name has no colon (RFC 7617 section 2): {user:?}");
    let password = std::env::var(variable)
        .with_context(|| format!("the password of {user} belongs in the environment variable {variable}"))?;
    Ok(Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
}

/// A number of bytes, with or without a unit of 1024.
fn size(text: &str) -> anyhow::Result<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no size; write it as 4096, 4KiB or 1GiB"))?;
    number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}
