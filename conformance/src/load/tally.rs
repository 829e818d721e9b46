//! What is counted while a load runs: latencies by kind of request, and answers over time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::Kind;
use crate::limits::{TIMELINE_INTERVALS, TIMELINE_POINTS};

/// Requests of one kind.
#[derive(Debug)]
pub(super) struct Part {
    /// Of the requests that succeeded, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) failures: u64,
}

/// What came of a phase.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) parts: BTreeMap<Kind, Part>,
    pub(super) content_bytes: u64,
    pub(super) first_failure: Option<String>,
    pub(super) timeline: Timeline,
    /// How long the threads waited for a processor.
    pub(super) waited: Duration,
    /// From the beginning to the last answer.
    pub(super) wall: Duration,
    /// The number after the last one used.
    pub(super) next: u64,
    /// Requests of an open load that were made, and that were left out because they were late.
    pub(super) started: u64,
    pub(super) not_started: u64,
    /// When the last of them started, after the beginning.
    pub(super) last_start: Duration,
    /// How much later than it should one started, at most.
    pub(super) latest_start: Duration,
}

/// A histogram of latencies, three significant digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new(3).context("set up a histogram")
}

impl Tally {
    pub(super) fn new(kinds: impl Iterator<Item = Kind>) -> anyhow::Result<Self> {
        let part = |kind| anyhow::Ok((kind, Part { latencies: histogram()?, failures: 0 }));
        Ok(Self {
            parts: kinds.map(part).collect::<anyhow::Result<_>>()?,
            content_bytes: 0,
            first_failure: None,
            timeline: Timeline::default(),
            waited: Duration::ZERO,
            wall: Duration::ZERO,
            next: 0,
            started: 0,
            not_started: 0,
            last_start: Duration::ZERO,
            latest_start: Duration::ZERO,
        })
    }

    /// A request that was answered as it should, `at` after the beginning.
    pub(super) fn succeeded(&mut self, kind: Kind, latency: Duration, at: Duration, content_bytes: u64) {
        self.content_bytes += content_bytes;
        self.timeline.add(at);
        if let Some(part) = self.parts.get_mut(&kind) {
            let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            // A histogram that sizes itself takes any value but a size memory does not have.
            let _ = part.latencies.record(nanoseconds.max(1));
        }
    }

    /// A request that was not.
    pub(super) fn failed(&mut self, kind: Kind, why: &anyhow::Error) {
        self.first_failure.get_or_insert_with(|| format!("{why:#}"));
        if let Some(part) = self.parts.get_mut(&kind) {
            part.failures += 1;
        }
    }

    /// A request of an open load that starts.
    pub(super) fn starts(&mut self, at: Duration, late: Duration) {
        self.started += 1;
        self.last_start = self.last_start.max(at);
        self.latest_start = self.latest_start.max(late);
    }

    pub(super) fn failures(&self) -> u64 {
        self.parts.values().map(|part| part.failures).sum()
    }

    /// All kinds together.
    pub(super) fn latencies(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = histogram()?;
        self.parts.values().try_for_each(|part| all.add(&part.latencies)).context("add up histograms")?;
        Ok(all)
    }

    /// Adds what another thread counted in the same phase.
    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        for (kind, theirs) in other.parts {
            let ours = self.parts.entry(kind).or_insert(Part { latencies: histogram()?, failures: 0 });
            ours.latencies.add(&theirs.latencies).context("add up histograms")?;
            ours.failures += theirs.failures;
        }
        self.content_bytes += other.content_bytes;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.timeline.merge(other.timeline);
        self.waited += other.waited;
        self.started += other.started;
        self.not_started += other.not_started;
        self.last_start = self.last_start.max(other.last_start);
        self.latest_start = self.latest_start.max(other.latest_start);
        Ok(())
    }
}

/// How many answers came in each interval. Intervals become longer as a load does, never more.
#[derive(Debug)]
pub(super) struct Timeline {
    interval: Duration,
    counts: Vec<u64>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { interval: Duration::from_millis(1), counts: Vec::new() }
    }
}

impl Timeline {
    fn add(&mut self, at: Duration) {
        let place = loop {
            match usize::try_from(at.as_nanos() / self.interval.as_nanos()) {
                Ok(place) if place < TIMELINE_INTERVALS => break place,
                _ => self.widen(),
            }
        };
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
    }

    fn widen(&mut self) {
        self.interval *= 2;
        self.counts = self.counts.chunks(2).map(|two| two.iter().sum()).collect();
    }

    fn merge(&mut self, mut other: Self) {
        while self.interval < other.interval {
            self.widen();
        }
        while other.interval < self.interval {
            other.widen();
        }
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(other.counts).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Answers a second in about [`TIMELINE_POINTS`] equal parts of a run so long; each with the middle of the part,
    /// in seconds after the beginning.
    pub(super) fn points(&self, run: Duration) -> Vec<(f64, f64)> {
        let interval_s = self.interval.as_secs_f64();
        let in_all = (run.as_secs_f64() / interval_s).max(self.counts.len() as f64).max(1e-6);
        let each = (in_all / TIMELINE_POINTS as f64).ceil().max(1.0);
        // A rest shorter than half a part would be a point of noise; it belongs to the last one.
        let points = (in_all / each).round().max(1.0) as usize;
        let bound = |point: usize| if point == points { in_all } else { point as f64 * each };
        let count = |from: f64, to: f64| self.counts.iter().skip(from as usize).take((to.ceil() - from) as usize).sum::<u64>();
        let point = |n: usize| {
            let (from, to) = (bound(n), bound(n + 1));
            ((from + to) / 2.0 * interval_s, count(from, to) as f64 / ((to - from) * interval_s))
        };
        (0..points).map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_says_when_answers_came() {
        let mut timeline = Timeline::default();
        // 1000 a second for 2 s, then half of it for 2 s.
        (0..2000).for_each(|ms| timeline.add(Duration::from_micros(1000 * ms + 500)));
        (0..1000).for_each(|two_ms| timeline.add(Duration::from_micros(2_000_000 + 2000 * two_ms + 500)));
        let points = timeline.points(Duration::from_secs(4));
        assert_eq!(points.len(), TIMELINE_POINTS);
        for (t_s, per_second) in points {
            let expected = if t_s < 2.0 { 1000.0 } else { 500.0 };
            assert!((per_second - expected).abs() < 15.0, "{t_s}: {per_second}");
        }
    }

    #[test]
    fn a_long_load_takes_no_more_room_and_loses_nothing() {
        let mut timeline = Timeline::default();
        (0..100_000).for_each(|second| timeline.add(Duration::from_secs(second)));
        assert!(timeline.counts.len() <= TIMELINE_INTERVALS);
        let mut short = Timeline::default();
        (0..500).for_each(|_| short.add(Duration::from_millis(3)));
        short.merge(timeline);
        assert_eq!(short.counts.iter().sum::<u64>(), 100_500);
        let points = short.points(Duration::from_secs(100_000));
        assert!((points[10].1 - 1.0).abs() < 0.05 && points[0].1 > points[1].1, "{points:?}");
        let all: f64 = points.windows(2).map(|two| two[0].1 * (two[1].0 - two[0].0)).sum();
        assert!((96_000.0..=100_500.0).contains(&all), "{all}");
    }

    #[test]
    fn a_run_of_a_moment_is_one_point() {
        let mut timeline = Timeline::default();
        timeline.add(Duration::from_micros(100));
        let points = timeline.points(Duration::from_micros(200));
        assert_eq!(points.len(), 1);
        assert!(Timeline::default().points(Duration::ZERO).iter().all(|(t, n)| t.is_finite() && n.is_finite()));
    }

    #[test]
    fn what_two_threads_counted_is_added_up() {
        let kinds = || [Kind::BlobGet, Kind::Upload].into_iter();
        let mut one = Tally::new(kinds()).unwrap();
        let mut other = Tally::new(kinds()).unwrap();
        one.succeeded(Kind::BlobGet, Duration::from_millis(1), Duration::ZERO, 10);
        other.succeeded(Kind::Upload, Duration::from_millis(9), Duration::ZERO, 5);
        other.failed(Kind::Upload, &anyhow::anyhow!("no"));
        one.add(other).unwrap();
        assert_eq!((one.content_bytes, one.failures(), one.first_failure.as_deref()), (15, 1, Some("no")));
        let all = one.latencies().unwrap();
        assert_eq!((all.len(), all.max() / 1_000_000), (2, 9));
        assert!(all.min() < 1_001_000, "{}", all.min());
        assert_eq!(one.parts[&Kind::Upload].latencies.len(), 1);
    }
}
