//! When one connection is not enough: a server that limits each of them, a long way.
//!
//! A blob begins on one connection. Where its reader mostly waits for the network, and the network is slow,
//! others are added, twice as many each time, for as long as that makes it noticeably faster. Over a long way it begins on
//! several: there each waits for the other side most of its time.

use std::time::{Duration, Instant};

use super::plan::rate;

/// What is left of a blob must be longer than this for more connections to be worth it.
const RANGES_FROM_BYTES: u64 = 32 << 20;

/// How long bytes are counted before a verdict.
const WINDOW: Duration = Duration::from_millis(500);

/// One connection that is faster than this, in bytes a second, is left alone: a gigabit line is full with it.
const FAST_BYTES: u64 = 100 << 20;

/// Twice the connections must bring this much more, in percent, for twice as many again.
const GAIN_PERCENT: u64 = 25;

/// Connections for one blob at the most.
pub(super) const CONNECTIONS_LIMIT: usize = 8;

/// Connections with which a blob begins that is far away.
const FAR_CONNECTIONS: usize = 4;

/// What a download has seen of its network.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    arrived_bytes: u64,
    waited: Duration,
    connections: usize,
    best_rate: u64,
    settled: bool,
    /// Nothing is known yet but that it is far away.
    begins_far: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Stay,
    /// So many connections at a time.
    Connections(usize),
}

impl Pace {
    pub(super) fn new(now: Instant, is_far: bool) -> Self {
        let (arrived_bytes, waited, best_rate) = (0, Duration::ZERO, 0);
        Self { since: now, arrived_bytes, waited, connections: 1, best_rate, settled: false, begins_far: is_far }
    }

    /// So long the reader had nothing to do but wait for bytes.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Decides, once a window has passed. `arrived_bytes`: all that came so far, by all connections.
    pub(super) fn judge(&mut self, arrived_bytes: u64, left_bytes: u64, now: Instant) -> Verdict {
        if std::mem::take(&mut self.begins_far) && left_bytes >= RANGES_FROM_BYTES {
            (self.since, self.connections) = (now, FAR_CONNECTIONS);
            return Verdict::Connections(self.connections);
        }
        let passed = now.saturating_duration_since(self.since);
        if self.settled || passed < WINDOW {
            return Verdict::Stay;
        }
        let rate = rate(arrived_bytes.saturating_sub(self.arrived_bytes), passed);
        let is_waiting = self.waited * 2 > passed;
        let began = self.connections > 1;
        (self.since, self.arrived_bytes, self.waited) = (now, arrived_bytes, Duration::ZERO);
        if left_bytes < RANGES_FROM_BYTES || !is_waiting || (!began && rate > FAST_BYTES) {
            return Verdict::Stay;
        }
        if began && rate < self.best_rate.saturating_mul(100 + GAIN_PERCENT) / 100 {
            self.settled = true;
            return Verdict::Stay;
        }
        self.best_rate = rate;
        self.connections = (self.connections * 2).min(CONNECTIONS_LIMIT);
        self.settled = self.connections == CONNECTIONS_LIMIT;
        Verdict::Connections(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets half-second windows pass in each of which so many bytes come, and gives the verdicts.
    fn judged(windows: &[u64], waited: Duration, left_bytes: u64) -> Vec<usize> {
        judged_from(false, windows, waited, left_bytes)
    }

    fn judged_from(is_far: bool, windows: &[u64], waited: Duration, left_bytes: u64) -> Vec<usize> {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, is_far);
        let mut arrived = 0;
        let judge = |bytes: &u64| {
            now += WINDOW;
            arrived += bytes;
            pace.waited(waited);
            match pace.judge(arrived, left_bytes, now) {
                Verdict::Stay => 0,
                Verdict::Connections(n) => n,
            }
        };
        windows.iter().map(judge).collect()
    }

    #[test]
    fn connections_are_added_while_they_help() {
        let limited = [10 << 20, 20 << 20, 40 << 20, 80 << 20];
        assert_eq!(judged(&limited, WINDOW, u64::MAX), [2, 4, 8, 0]);
        let full_line = [20 << 20, 21 << 20, 60 << 20];
        assert_eq!(judged(&full_line, WINDOW, u64::MAX), [2, 0, 0], "a line that is full stays with two");
    }

    #[test]
    fn what_is_far_away_begins_on_several_and_stays_with_those_where_more_bring_nothing() {
        let limited = [1 << 20, 40 << 20, 80 << 20];
        assert_eq!(judged_from(true, &limited, WINDOW, u64::MAX), [4, 8, 0]);
        let full_line = [1 << 20, 5 << 20, 5 << 20, 60 << 20];
        assert_eq!(judged_from(true, &full_line, WINDOW, u64::MAX), [4, 8, 0, 0]);
        assert_eq!(judged_from(true, &[0], WINDOW, RANGES_FROM_BYTES - 1), [0]);
    }

    #[test]
    fn a_fast_network_a_busy_reader_and_a_short_rest_stay_with_one() {
        assert_eq!(judged(&[60 << 20; 3], WINDOW, u64::MAX), [0, 0, 0]);
        assert_eq!(judged(&[5 << 20; 3], WINDOW / 4, u64::MAX), [0, 0, 0]);
        assert_eq!(judged(&[5 << 20; 3], WINDOW, RANGES_FROM_BYTES - 1), [0, 0, 0]);
    }
}
