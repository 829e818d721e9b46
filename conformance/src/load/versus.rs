//! Two registries under the same load in turn, and the ratio of their figures.

use std::io::{self, Write};

use anyhow::ensure;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::session::Session;
use super::summary::Summary;
use super::{Plan, nonce};
use crate::limits::ROUNDS_LIMIT;

/// The registry to compare with.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its base URL; plain HTTP.
    pub url: Url,
    /// The value of the header `Authorization` of every request to it.
    pub authorization: Option<String>,
    /// Its process, if it is on this machine.
    pub pid: Option<u32>,
}

/// What a comparison found. Its JSON is an object with these members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The two registries, by their base URLs.
    pub registries: [String; 2],
    /// What each round found of the first and of the second.
    pub rounds: Vec<[Summary; 2]>,
    /// Medians over the rounds.
    pub figures: Vec<Figure>,
}

/// One figure of both registries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, its unit included.
    pub name: String,
    /// The median of the first registry.
    pub first: f64,
    /// The median of the second.
    pub second: f64,
    /// Second to first: the median over the rounds of the ratio within each.
    pub ratio: f64,
    /// The smallest of these ratios.
    pub ratio_min: f64,
    /// The largest.
    pub ratio_max: f64,
}

/// Puts the same load, with the same content, on the plan's registry and on another one in turn, so many times.
///
/// # Errors
/// When one of them cannot be made ready, or stops answering. Requests that fail are counted.
pub fn versus(plan: &Plan, other: &Other, rounds: u64) -> anyhow::Result<Comparison> {
    plan.check()?;
    ensure!((1..=ROUNDS_LIMIT).contains(&rounds), "rounds must be 1 to {ROUNDS_LIMIT}");
    let nonce = nonce()?;
    let Other { url, authorization, pid } = other.clone();
    let second_plan = Plan { url, authorization, pid, ..plan.clone() };
    let mut first = Session::open(plan, nonce, rounds)?;
    let mut second = match Session::open(&second_plan, nonce, rounds) {
        Ok(second) => second,
        Err(e) => {
            let _ = first.close();
            return Err(e);
        }
    };
    let mut found = Vec::new();
    for round in 0..rounds {
        // Who is first may find the machine in another state: they take turns in that, too.
        if round % 2 == 0 {
            let one = first.measure()?;
            found.push([one, second.measure()?]);
        } else {
            let two = second.measure()?;
            found.push([first.measure()?, two]);
        }
    }
    let left_behind = [first.close()?, second.close()?];
    if let Some(last) = found.last_mut() {
        last.iter_mut().zip(left_behind).for_each(|(summary, left)| summary.left_behind = left);
    }
    Ok(Comparison { registries: [plan.url.to_string(), other.url.to_string()], figures: figures(&found), rounds: found })
}

/// What is compared: a name and where it is in a summary.
type Row = (&'static str, fn(&Summary) -> Option<f64>);

const ROWS: [Row; 8] = [
    ("requests/s", |summary| Some(summary.per_second)),
    ("MB/s", |summary| Some(summary.megabytes_per_second)),
    ("p50 ms", |summary| Some(summary.latency_ms.p50)),
    ("p90 ms", |summary| Some(summary.latency_ms.p90)),
    ("p99 ms", |summary| Some(summary.latency_ms.p99)),
    ("p99.9 ms", |summary| Some(summary.latency_ms.p999)),
    ("CPU s per 1000 requests", |summary| {
        let cpu_s = summary.server?.cpu_s;
        (summary.requests > 0).then(|| cpu_s * 1000.0 / summary.requests as f64)
    }),
    ("peak MiB", |summary| Some(summary.server?.peak_bytes as f64 / f64::from(1 << 20))),
];

/// The figures that both have in every round and that have a ratio.
fn figures(rounds: &[[Summary; 2]]) -> Vec<Figure> {
    let figure = |(name, value): &Row| {
        let pairs = rounds.iter().map(|[first, second]| Some((value(first)?, value(second)?)));
        let pairs: Vec<(f64, f64)> = pairs.collect::<Option<_>>()?;
        let ratios: Vec<f64> = pairs.iter().map(|(first, second)| second / first).collect();
        (!ratios.is_empty() && ratios.iter().all(|ratio| ratio.is_finite())).then(|| Figure {
            name: (*name).to_owned(),
            first: median(pairs.iter().map(|(first, _)| *first)),
            second: median(pairs.iter().map(|(_, second)| *second)),
            ratio: median(ratios.iter().copied()),
            ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratio_max: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    };
    ROWS.iter().filter_map(figure).collect()
}

/// The middle one, or the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Comparison {
    /// Requests that failed, on either.
    pub fn failures(&self) -> u64 {
        self.rounds.iter().flatten().map(|summary| summary.failures).sum()
    }

    /// Writes it for people.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let [first, second] = &self.registries;
        let Some([summary, _]) = self.rounds.first() else { return Ok(()) };
        let (kind, connections, rounds) = (summary.kind, summary.connections, self.rounds.len());
        writeln!(out, "{kind} over {connections} connections, {rounds} rounds in turn, medians")?;
        writeln!(out, "  first:  {first}\n  second: {second}")?;
        writeln!(out, "  {:24} {:>14} {:>14}   second/first (least to most)", "", "first", "second")?;
        for Figure { name, first, second, ratio, ratio_min, ratio_max } in &self.figures {
            writeln!(out, "  {name:24} {first:>14.3} {second:>14.3}   {ratio:.3} ({ratio_min:.3} to {ratio_max:.3})")?;
        }
        for (place, name) in ["first", "second"].into_iter().enumerate() {
            let of = || self.rounds.iter().map(move |round| &round[place]);
            let count = |is: fn(&Summary) -> bool| of().filter(|summary| is(summary)).count();
            let limited = count(|summary| summary.generator_was_the_limit);
            if limited > 0 {
                writeln!(out, "  WARNING: {name}: the generator had no time left in {limited} rounds; the registry can do more")?;
            }
            let missed = count(|summary| summary.offered.as_ref().is_some_and(|offered| !offered.reached));
            if missed > 0 {
                writeln!(out, "  WARNING: {name}: the rate offered was not reached in {missed} rounds")?;
            }
            if let Some(why) = of().find_map(|summary| summary.first_failure.as_ref()) {
                let failures: u64 = of().map(|summary| summary.failures).sum();
                writeln!(out, "  FAILED: {name}: {failures} requests; the first: {}", why.escape_debug())?;
            }
            let left: u64 = of().map(|summary| summary.left_behind).sum();
            if left > 0 {
                writeln!(out, "  left behind on {name}, in {}: {left} things it would not delete", summary.repository)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
