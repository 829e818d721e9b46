//! What a load found, as text or as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use super::phase::Tally;
use super::{Kind, Plan};

/// From so much of its one thread on, the generator may have been what was measured.
const BUSY: f64 = 0.9;

/// What a load found.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The registry, by its base URL.
    pub registry: String,
    /// The repository used.
    pub repository: String,
    /// What was asked for.
    pub kind: Kind,
    /// Connections asking at the same time.
    pub connections: usize,
    /// The size of blobs, in bytes.
    pub size_bytes: u64,
    /// Tags there were before.
    pub existing_tags: u64,
    /// Requests that succeeded.
    pub requests: u64,
    /// Requests that did not.
    pub failures: u64,
    /// What was wrong with the first of them.
    pub first_failure: Option<String>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests that succeeded.
    pub per_second: f64,
    /// Content moved, in units of 10^6 bytes.
    pub megabytes_per_second: f64,
    /// Of requests that succeeded.
    pub latency_ms: Latency,
    /// Of the registry's process.
    pub server: Option<Used>,
    /// Time of the processor the generator used.
    pub generator_cpu_s: f64,
    /// Whether the generator had no time left: then the registry can do more.
    pub generator_was_the_limit: bool,
    /// How much the registry refuses to delete.
    pub left_behind: u64,
}

/// Latencies, in milliseconds.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names are those of the field")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What a process used while it was measured.
#[derive(Debug, Serialize)]
pub struct Used {
    /// User and system time of all threads.
    pub cpu_s: f64,
    /// The most memory resident, in bytes.
    pub peak_bytes: u64,
}

impl Summary {
    pub(super) fn new(
        plan: &Plan,
        repository: String,
        tally: &Tally,
        server: Option<Used>,
        generator_cpu_s: f64,
        left_behind: u64,
    ) -> Self {
        let seconds = tally.wall.as_secs_f64().max(1e-9);
        let requests = tally.latencies.len();
        let at = |quantile| in_ms(tally.latencies.value_at_quantile(quantile) as f64);
        Self {
            registry: plan.url.to_string(),
            repository,
            kind: plan.kind,
            connections: plan.connections,
            size_bytes: plan.size_bytes,
            existing_tags: plan.existing_tags,
            requests,
            failures: tally.failures,
            first_failure: tally.first_failure.clone(),
            seconds,
            per_second: requests as f64 / seconds,
            megabytes_per_second: tally.content_bytes as f64 / 1e6 / seconds,
            latency_ms: Latency {
                mean: in_ms(tally.latencies.mean()),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: in_ms(tally.latencies.max() as f64),
            },
            server,
            generator_cpu_s,
            generator_was_the_limit: generator_cpu_s > BUSY * seconds,
            left_behind,
        }
    }

    /// Writes it for people.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Latency { mean, p50, p90, p99, p999, max } = self.latency_ms;
        writeln!(
            out,
            "{:?} over {} connections: {} requests in {:.2} s",
            self.kind, self.connections, self.requests, self.seconds
        )?;
        writeln!(out, "  {:>12.0} /s   {:>10.1} MB/s", self.per_second, self.megabytes_per_second)?;
        writeln!(
            out,
            "  latency in ms: mean {mean:.3}  p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p999:.3}  max {max:.3}"
        )?;
        if let Some(Used { cpu_s, peak_bytes }) = self.server {
            writeln!(out, "  registry: {cpu_s:.2} s of processor, {:.1} MiB at most", peak_bytes as f64 / f64::from(1 << 20))?;
        }
        writeln!(out, "  generator: {:.2} s of processor", self.generator_cpu_s)?;
        if self.generator_was_the_limit {
            writeln!(out, "  WARNING: the generator had no time left; the registry can do more than this")?;
        }
        if let Some(first) = &self.first_failure {
            writeln!(out, "  FAILED: {} requests; the first: {}", self.failures, first.escape_debug())?;
        }
        if self.left_behind > 0 {
            writeln!(out, "  left behind in {}: {} things the registry would not delete", self.repository, self.left_behind)?;
        }
        Ok(())
    }
}

fn in_ms(nanoseconds: f64) -> f64 {
    nanoseconds / 1e6
}
