//! `rconform load`

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use longshore_conformance::load::{self, Kind, Plan, Until};
use longshore_conformance::report::{self, measured::Dated, output::write_load};
use reqwest::Url;

use super::output::OutputFlags;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The registry's base URL, plain HTTP, as in http://localhost:5000
    url: Url,
    /// What to ask for
    #[arg(long, value_enum)]
    kind: Kind,
    /// Connections asking at the same time
    #[arg(long, short = 'c', default_value_t = 16)]
    connections: usize,
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
    /// The repository to use [default: a new one]
    #[arg(long)]
    repository: Option<String>,
    /// The repository was prepared by an earlier run with --keep
    #[arg(long)]
    prepared: bool,
    /// Leave what was pushed where it is
    #[arg(long)]
    keep: bool,
    /// The registry's process, to have its processor time and memory told
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    output: OutputFlags,
}

/// Whether every request succeeded.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).context("a number of seconds");
    let plan = Plan {
        url: flags.url.clone(),
        kind: flags.kind,
        repository: flags.repository.clone(),
        connections: flags.connections,
        until: flags.requests.map_or_else(|| seconds(flags.duration).map(Until::Elapsed), |n| Ok(Until::Requests(n)))?,
        warm_up: seconds(flags.warm_up)?,
        size_bytes: flags.size,
        existing_tags: flags.existing_tags,
        prepared: flags.prepared,
        keep: flags.keep,
        pid: flags.pid,
    };
    let measured_at = report::now();
    let summary = load::run(&plan)?;
    let document = Dated { measured_at, summary: &summary };
    flags.output.put(|form, out| write_load(&document, |mut out| summary.write_text(&mut out), form, out))?;
    Ok(summary.failures == 0)
}

/// A number of bytes, with or without a unit of 1024.
fn size(text: &str) -> anyhow::Result<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no size; write it as 4096, 4KiB or 1GiB"))?;
    number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}
