//! What a load found, as text or as one JSON document.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::pace::{Pace, Schedule};
use super::phase::Until;
use super::tally::Tally;
use super::{Kind, Plan};

/// From so much of its threads on, the generator may have been what was measured.
const BUSY: f64 = 0.9;
/// An offered rate was reached when no more than this part of it was left out, or came late.
const MISSED: f64 = 0.01;
/// So much later than it should, the last request of an open load may always start.
const LATE_S: f64 = 0.1;
/// What is told of a distribution: closer and closer to its end, as percentiles are drawn.
const QUANTILES: [f64; 26] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995, 0.9975, 0.999,
    0.9995, 0.9999, 0.99995, 0.99999, 1.0,
];

/// What a load found. Its JSON is an object with these members, numbers in the unit their name ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The registry, by its base URL.
    pub registry: String,
    /// The repository used.
    pub repository: String,
    /// What was asked for.
    pub kind: Kind,
    /// Connections asking at the same time.
    pub connections: usize,
    /// Threads they were shared among.
    pub threads: usize,
    /// How long each connection of a closed load paused between requests.
    pub think_ms: f64,
    /// The size of blobs, in bytes.
    pub size_bytes: u64,
    /// Tags there were before.
    pub existing_tags: u64,
    /// Manifests that referred to another one before.
    pub existing_referrers: u64,
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
    /// Of requests that succeeded; in an open load from the moment each was to start.
    pub latency_ms: Latency,
    /// The same in full: pairs of a quantile (0 to 1, rising) and milliseconds. It ends with the maximum; quantiles
    /// that so few requests do not tell apart from it are left out. Empty when no request succeeded.
    pub latency_distribution: Vec<(f64, f64)>,
    /// Requests that succeeded over time, in about 50 equal parts of the run: pairs of the middle of a part, in
    /// seconds after the beginning, and requests a second.
    pub timeline: Vec<(f64, f64)>,
    /// By kind of request, where there were several.
    pub parts: Vec<PartSummary>,
    /// Of an open load: what was asked of the registry.
    pub offered: Option<Offered>,
    /// Of a replay: what was replayed.
    pub replayed: Option<Replayed>,
    /// Of the registry's process.
    pub server: Option<Used>,
    /// Time of the processor the generator used.
    pub generator_cpu_s: f64,
    /// Time its threads were ready to run and something else did: latencies include it.
    pub generator_waited_s: f64,
    /// Whether the generator had no time left: then the registry can do more.
    pub generator_was_the_limit: bool,
    /// How much the registry refuses to delete.
    pub left_behind: u64,
}

/// Latencies, in milliseconds; all 0 when no request succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the field")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

/// One kind of request among several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartSummary {
    /// What was asked for.
    pub kind: Kind,
    /// Requests that succeeded.
    pub requests: u64,
    /// Requests that did not.
    pub failures: u64,
    /// Of those that succeeded.
    pub latency_ms: Latency,
}

/// What an open load asked of a registry, and how far that was possible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Requests a second that were to start, on average.
    pub per_second: f64,
    /// Requests a second that did.
    pub started_per_second: f64,
    /// Requests left out, because no connection was free before the end or for too long.
    pub not_started: u64,
    /// How much later than it should a request started, at most.
    pub latest_start_ms: f64,
    /// Whether what was offered was asked. If not, latencies are better than they would be at that rate.
    pub reached: bool,
}

/// What of a trace was replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// How many times faster than recorded.
    pub speed: f64,
    /// Requests made.
    pub requests: u64,
    /// Recorded requests that were part of an upload, which is one request here.
    pub merged: u64,
    /// Recorded requests that cannot be replayed.
    pub skipped: u64,
}

/// What a process used while it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// User and system time of all threads.
    pub cpu_s: f64,
    /// The most memory resident, in bytes.
    pub peak_bytes: u64,
}

/// What was measured.
pub(super) struct Measured {
    pub(super) repository: String,
    pub(super) tally: Tally,
    pub(super) server: Option<Used>,
    pub(super) generator_cpu_s: f64,
}

impl Summary {
    pub(super) fn new(plan: &Plan, schedule: &Schedule, measured: Measured) -> anyhow::Result<Self> {
        let Measured { repository, tally, server, generator_cpu_s } = measured;
        let seconds = tally.wall.as_secs_f64().max(1e-9);
        let latencies = tally.latencies()?;
        let requests = latencies.len();
        let part = |(kind, part): (&Kind, &super::tally::Part)| PartSummary {
            kind: *kind,
            requests: part.latencies.len(),
            failures: part.failures,
            latency_ms: Latency::of(&part.latencies),
        };
        let parts = if tally.parts.len() > 1 { tally.parts.iter().map(part).collect() } else { Vec::new() };
        let kind = if plan.replay.is_some() { Kind::Trace } else { plan.kind };
        let threads = plan.threads.min(plan.connections);
        Ok(Self {
            registry: plan.url.to_string(),
            repository,
            kind,
            connections: plan.connections,
            threads,
            think_ms: schedule.think().as_secs_f64() * 1e3,
            size_bytes: plan.size_bytes,
            existing_tags: plan.existing_tags,
            existing_referrers: plan.existing_referrers,
            requests,
            failures: tally.failures(),
            first_failure: tally.first_failure.clone(),
            seconds,
            per_second: requests as f64 / seconds,
            megabytes_per_second: tally.content_bytes as f64 / 1e6 / seconds,
            latency_ms: Latency::of(&latencies),
            latency_distribution: distribution(&latencies),
            timeline: tally.timeline.points(tally.wall),
            parts: parts.into_iter().filter(|part| part.requests + part.failures > 0).collect(),
            offered: Offered::of(plan.until, schedule, &tally),
            replayed: plan.replay.as_ref().map(|replay| Replayed {
                speed: replay.speed,
                requests: replay.trace.requests.len() as u64,
                merged: replay.trace.merged,
                skipped: replay.trace.skipped,
            }),
            server,
            generator_cpu_s,
            generator_waited_s: tally.waited.as_secs_f64(),
            generator_was_the_limit: generator_cpu_s > BUSY * seconds * threads as f64,
            left_behind: 0,
        })
    }

    /// Writes it for people.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { kind, connections, requests, seconds, .. } = self;
        writeln!(out, "{kind} over {connections} connections: {requests} requests in {seconds:.2} s")?;
        writeln!(out, "  {:>12.0} /s   {:>10.1} MB/s", self.per_second, self.megabytes_per_second)?;
        writeln!(out, "  latency in ms: {}", self.latency_ms)?;
        for PartSummary { kind, requests, failures, latency_ms } in &self.parts {
            let failed = if *failures > 0 { format!(", {failures} FAILED") } else { String::new() };
            writeln!(out, "    {kind}: {requests}{failed}; {latency_ms}")?;
        }
        if let Some(Replayed { speed, requests, merged, skipped }) = self.replayed {
            writeln!(
                out,
                "  trace: {requests} requests at {speed} times its speed; {merged} more are part of uploads, {skipped} left out"
            )?;
        }
        if let Some(offered) = &self.offered {
            let Offered { per_second, started_per_second, not_started, latest_start_ms, reached } = offered;
            writeln!(out, "  offered: {per_second:.1} /s; a request started {latest_start_ms:.3} ms late at most")?;
            if !reached {
                writeln!(
                    out,
                    "  WARNING: the rate was not reached: {started_per_second:.1} /s started, {not_started} requests never did"
                )?;
            }
        }
        if let Some(Used { cpu_s, peak_bytes }) = self.server {
            writeln!(out, "  registry: {cpu_s:.2} s of processor, {:.1} MiB at most", peak_bytes as f64 / f64::from(1 << 20))?;
        }
        writeln!(
            out,
            "  generator: {:.2} s of processor, {:.2} s of waiting for one",
            self.generator_cpu_s, self.generator_waited_s
        )?;
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

impl Latency {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |quantile| in_ms(latencies.value_at_quantile(quantile) as f64);
        Self {
            mean: in_ms(latencies.mean()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: in_ms(latencies.max() as f64),
        }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mean, p50, p90, p99, p999, p9999, max } = self;
        write!(f, "mean {mean:.3}  p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p999:.3}  p99.99 {p9999:.3}  max {max:.3}")
    }
}

impl Offered {
    /// `None` for a closed load.
    fn of(until: Until, schedule: &Schedule, tally: &Tally) -> Option<Self> {
        let count = tally.started + tally.not_started;
        // From the first start to one interval after the last, or what comes near it in a trace.
        let planned_s = match (schedule, until) {
            (Schedule::Pace(Pace::Closed { .. }), _) => return None,
            (Schedule::Pace(Pace::Open { .. }), Until::Elapsed(time)) => time.as_secs_f64(),
            (Schedule::Pace(Pace::Open { per_second }), Until::Requests(count)) => count as f64 / per_second,
            (Schedule::At(times), _) => times.last().map_or(0.0, |last| last.as_secs_f64() * (1.0 + 1.0 / count.max(1) as f64)),
        };
        let took_s = tally.last_start.as_secs_f64().max(planned_s).max(1e-3);
        let is_complete = tally.not_started as f64 <= MISSED * count as f64;
        Some(Self {
            per_second: count as f64 / planned_s.max(1e-3),
            started_per_second: tally.started as f64 / took_s,
            not_started: tally.not_started,
            latest_start_ms: tally.latest_start.as_secs_f64() * 1e3,
            reached: is_complete && tally.last_start.as_secs_f64() <= planned_s + (MISSED * planned_s).max(LATE_S),
        })
    }
}

/// Latencies by quantile, in milliseconds.
fn distribution(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let count = latencies.len() as f64;
    let told = QUANTILES.into_iter().filter(|quantile| (1.0 - quantile) * count >= 1.0 || (*quantile >= 1.0 && count > 0.0));
    told.map(|quantile| (quantile, in_ms(latencies.value_at_quantile(quantile) as f64))).collect()
}

fn in_ms(nanoseconds: f64) -> f64 {
    nanoseconds / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_reached_when_all_but_one_in_a_hundred_started_in_time() {
        let schedule = Schedule::Pace(Pace::Open { per_second: 100.0 });
        let offered = |until: Until, started: u64, not_started: u64, last_start_s: f64| {
            let mut tally = Tally::new(std::iter::empty()).unwrap();
            (tally.started, tally.not_started) = (started, not_started);
            tally.last_start = Duration::from_secs_f64(last_start_s);
            Offered::of(until, &schedule, &tally).unwrap()
        };
        let (ten_s, thousand) = (Until::Elapsed(Duration::from_secs(10)), Until::Requests(1000));
        for (until, started, not_started, last_start_s, reached) in [
            (ten_s, 1000, 0, 9.99, true),
            (ten_s, 990, 10, 9.99, true),
            (ten_s, 980, 20, 9.99, false),
            (thousand, 1000, 0, 10.09, true),
            (thousand, 1000, 0, 10.2, false),
        ] {
            let offered = offered(until, started, not_started, last_start_s);
            assert_eq!(offered.reached, reached, "{offered:?}");
            assert!((offered.per_second - 100.0).abs() < 1e-9, "{offered:?}");
        }
        assert!((offered(thousand, 1000, 0, 20.0).started_per_second - 50.0).abs() < 1e-9);
        assert_eq!(Offered::of(ten_s, &Schedule::EAGER, &Tally::new(std::iter::empty()).unwrap()), None);
    }

    #[test]
    fn a_distribution_rises_to_the_maximum_and_says_no_more_than_there_is() {
        let mut latencies = Histogram::new(3).unwrap();
        (1..=1000_u64).for_each(|ms| latencies.record(ms * 1_000_000).unwrap());
        let told = distribution(&latencies);
        assert!(told.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{told:?}");
        let (last, before) = (told[told.len() - 1], told[told.len() - 2]);
        assert_eq!((last.0, before.0), (1.0, 0.999));
        assert!((last.1 - 1000.0).abs() < 1.0 && (told[5].1 - 500.0).abs() < 1.0, "{told:?}");
        assert!(distribution(&Histogram::new(3).unwrap()).is_empty());
    }
}
