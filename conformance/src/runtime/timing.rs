//! How long a runtime takes for a typical container, by itself or in turns with another.

use std::io::{self, Write};
use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use super::bundle::Bundle;
use super::command::{Step, escaped};
use super::container::Container;
use super::context::Context;
use super::finding::{Finding, Outcome};
use crate::limits::TIMED_ROUNDS_LIMIT;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// The runtime measured: its program.
    pub subject: String,
    /// The one it was measured in turns with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versus: Option<String>,
    /// How often each operation was measured.
    pub rounds: usize,
    /// One row an operation that the runtime offers.
    pub operations: Vec<Comparison>,
}

/// The figures of one operation.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What was done: `run`, `create`, `start`, `delete`, `exec`.
    pub operation: &'static str,
    /// Of the runtime measured.
    pub subject: Figures,
    /// Of the other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versus: Option<Figures>,
    /// How many times as long the subject takes, round by round: quantiles 0.1, 0.5 and 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<[f64; 3]>,
}

/// Times of whole commands, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs, reason = "the names are those of the field")]
pub struct Figures {
    pub min_ms: f64,
    pub median_ms: f64,
    pub p90_ms: f64,
}

/// The operations, in the order in which a round does them.
const OPERATIONS: [&str; 5] = ["run", "create", "start", "delete", "exec"];

/// Milliseconds of each round, by operation; empty where it is not offered.
type Times = [Vec<f64>; OPERATIONS.len()];

/// One runtime with the bundles of its rounds.
struct Contestant<'a> {
    context: &'a Context,
    /// What runs `true`.
    short: Bundle,
    /// Where `exec` runs `true`, if the runtime offers that.
    held: Option<Container<'a>>,
    times_ms: Times,
}

impl<'a> Contestant<'a> {
    fn new(context: &'a Context) -> Outcome<Self> {
        let held = if context.offers("exec") && context.offers("create") {
            Some(context.running(&context.bundle()?.stays(""))?)
        } else {
            None
        };
        Ok(Self { context, short: context.bundle()?, held, times_ms: Times::default() })
    }

    /// Does every operation once and notes how long each took.
    fn round(&mut self) -> Outcome {
        self.context.forget_steps();
        if self.context.offers("run") {
            let step = self.context.run(&self.short)?;
            self.note(0, &step)?;
        }
        if self.context.offers("create") {
            let (container, created) = self.context.try_create(&self.short, &[])?;
            self.note(1, &created)?;
            let pid = container.pid()?;
            let started = container.start()?;
            self.note(2, &started)?;
            container.wait_until_stopped(pid)?;
            let deleted = container.delete(&[])?;
            self.note(3, &deleted)?;
        }
        if let Some(held) = &self.held {
            let step = held.exec(&[], &["/bin/true"])?;
            self.note(4, &step)?;
        }
        Ok(())
    }

    fn note(&mut self, operation: usize, step: &Step) -> Outcome {
        step.must_succeed()?;
        self.times_ms[operation].push(step.took.as_secs_f64() * 1e3);
        Ok(())
    }
}

/// Measures `program` in `rounds` rounds, in turns with `versus` where that is given. Each round runs
/// `/bin/true` in the typical bundle: by `run`, by `create`, `start` and `delete`, and by `exec` in a
/// container that runs; what a runtime does not offer is left out.
///
/// # Errors
/// When a command fails, or a runtime cannot be used at all.
pub fn time(program: &Path, versus: Option<&Path>, rootfs: Option<&Path>, rounds: usize) -> anyhow::Result<Timing> {
    ensure!((1..=TIMED_ROUNDS_LIMIT).contains(&rounds), "the number of rounds must be 1 to {TIMED_ROUNDS_LIMIT}");
    let programs: Vec<_> = std::iter::once(program).chain(versus).collect();
    let contexts = programs.iter().map(|program| Context::new(program, rootfs)).collect::<anyhow::Result<Vec<_>>>()?;
    let times = measure(&contexts, rounds);
    let left: Vec<_> = contexts.into_iter().flat_map(Context::clean_up).collect();
    let times = times?;
    ensure!(left.is_empty(), "left behind, it cannot be removed: {}", left.join(", "));
    let compare = |(at, operation): (usize, &&'static str)| {
        let own = &times[0][at];
        let other = times.get(1).map(|times| &times[at]).filter(|times| !times.is_empty());
        let subject = Figures::of(own)?;
        let ratio = other.map(|other| {
            let mut ratios: Vec<_> = own.iter().zip(other).map(|(own, other)| own / other.max(1e-9)).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            [0.1, 0.5, 0.9].map(|quantile| at_quantile(&ratios, quantile))
        });
        Some(Comparison { operation, subject, versus: other.and_then(|times| Figures::of(times)), ratio })
    };
    Ok(Timing {
        subject: program.display().to_string(),
        versus: versus.map(|program| program.display().to_string()),
        rounds,
        operations: OPERATIONS.iter().enumerate().filter_map(compare).collect(),
    })
}

/// Has all take turns; who begins changes from round to round. The first round only warms up.
fn measure(contexts: &[Context], rounds: usize) -> anyhow::Result<Vec<Times>> {
    let told = |context: &Context, finding: Finding| {
        let (Finding::Fail(what) | Finding::NotOffered(what) | Finding::Differs(what)) = finding;
        anyhow::anyhow!("expected: {what}\n{}", context.steps())
    };
    let begin = |context| Contestant::new(context).map_err(|finding| told(context, finding));
    let mut contestants = contexts.iter().map(begin).collect::<anyhow::Result<Vec<_>>>()?;
    for round in 0..=rounds {
        for turn in 0..contestants.len() {
            let at = (turn + round) % contexts.len();
            contestants[at].round().map_err(|finding| told(&contexts[at], finding))?;
        }
        if round == 0 {
            contestants.iter_mut().for_each(|contestant| contestant.times_ms = Times::default());
        }
    }
    Ok(contestants.into_iter().map(|contestant| contestant.times_ms).collect())
}

impl Figures {
    fn of(times_ms: &[f64]) -> Option<Self> {
        let mut sorted = times_ms.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let min_ms = *sorted.first()?;
        Some(Self { min_ms, median_ms: at_quantile(&sorted, 0.5), p90_ms: at_quantile(&sorted, 0.9) })
    }
}

/// The value below which that part of a sorted list lies, between neighbours by proportion.
fn at_quantile(sorted: &[f64], quantile: f64) -> f64 {
    let place = quantile * sorted.len().saturating_sub(1) as f64;
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(sorted.len() - 1)]);
    low + (high - low) * (place - place.floor())
}

impl Timing {
    /// Writes it for people.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let names =
            self.versus.as_ref().map_or_else(|| self.subject.clone(), |versus| format!("{} versus {versus}", self.subject));
        writeln!(out, "{}: {} rounds, milliseconds of whole commands", escaped(&names), self.rounds)?;
        writeln!(
            out,
            "{:9}  {:>8} {:>8} {:>8}  {:>8} {:>8} {:>8}  RATIO",
            "OPERATION", "MIN", "MEDIAN", "P90", "MIN", "MEDIAN", "P90"
        )?;
        for Comparison { operation, subject, versus, ratio } in &self.operations {
            write!(out, "{operation:9}  {subject}")?;
            if let (Some(versus), Some([low, middle, high])) = (versus, ratio) {
                write!(out, "  {versus}  {middle:.2} ({low:.2} to {high:.2})")?;
            }
            writeln!(out)?;
        }
        if self.operations.is_empty() {
            writeln!(out, "it offers nothing that could be measured")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:8.2} {:8.2} {:8.2}", self.min_ms, self.median_ms, self.p90_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let Figures { min_ms, median_ms, p90_ms } = Figures::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((min_ms, median_ms), (1.0, 2.5));
        assert!((p90_ms - 3.7).abs() < 1e-9, "{p90_ms}");
        assert!(Figures::of(&[]).is_none());
        assert_eq!(at_quantile(&[7.0], 0.9), 7.0);
    }
}
