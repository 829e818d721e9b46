//! How long registries are waited for.

use std::time::Duration;

/// By which tests make it short: `stall=200,backoff=1`, in milliseconds.
const VARIABLE: &str = "LONGSHORE_TEST_TIMING";

/// The waits of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Until a connection stands.
    pub(super) connect: Duration,
    /// Silence in the middle of a body that is received.
    pub(super) stall: Duration,
    /// From the first byte of a small body, a manifest's, to its last.
    pub(super) small_body: Duration,
    /// From a request to its answer.
    pub(super) answer: Duration,
    /// Until more of an upload is taken, and from its last byte to its answer: buffers on a slow way hold
    /// much, and a registry hashes or copies what it got.
    pub(super) finish: Duration,
    /// The bound of the first wait between two attempts; it doubles.
    pub(super) backoff: Duration,
    /// What it doubles to.
    pub(super) backoff_limit: Duration,
    /// After so long without one byte it is given up.
    pub(super) give_up: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            small_body: Duration::from_secs(120),
            answer: Duration::from_secs(60),
            finish: Duration::from_secs(300),
            backoff: Duration::from_millis(250),
            backoff_limit: Duration::from_secs(20),
            give_up: Duration::from_secs(300),
        }
    }
}

impl Timing {
    /// The usual waits, or those a test asks for.
    pub(super) fn from_environment() -> Self {
        std::env::var(VARIABLE).map_or_else(|_| Self::default(), |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut timing = Self::default();
        let settings = text.split(',').filter_map(|setting| setting.split_once('='));
        for (name, value) in settings.filter_map(|(name, value)| Some((name, Duration::from_millis(value.parse().ok()?)))) {
            match name {
                "stall" => (timing.stall, timing.answer, timing.finish, timing.small_body) = (value, value, value, value * 4),
                "backoff" => (timing.backoff, timing.backoff_limit) = (value, value * 16),
                _ => {}
            }
        }
        timing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_may_shorten_the_waits() {
        let timing = Timing::parse("stall=200,backoff=1,x,y=z");
        assert_eq!((timing.stall, timing.backoff), (Duration::from_millis(200), Duration::from_millis(1)));
        assert_eq!(timing.connect, Timing::default().connect);
    }
}
