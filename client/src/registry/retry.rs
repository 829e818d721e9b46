//! When a request that failed is sent again: after which failures, how often, and how long after.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use longshore_runtime::parallel::Cancel;

use super::timing::Timing;
use crate::error::{Error, Result};

/// Failures in a row, without one byte in between, that are put up with.
const FAILURES_LIMIT: u32 = 12;

/// The same of a host that has never answered: mostly there is none.
const UNREACHED_LIMIT: u32 = 3;

/// The longest wait a registry may ask for. Who asks for more is told to the user at once.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(120);

/// Attempts at one thing. Full jitter: between nothing and a bound that doubles.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    timing: Timing,
    cancel: &'a Cancel<'a>,
    failures: u32,
    first: Option<Instant>,
}

impl<'a> Retry<'a> {
    pub(super) fn new(timing: Timing, cancel: &'a Cancel<'a>) -> Self {
        Self { timing, cancel, failures: 0, first: None }
    }

    /// Something has moved: all counts from here anew.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.first = None;
    }

    /// Waits until it may be tried again, or gives the failure back. `reached`: whether the host has ever
    /// answered.
    pub(super) fn wait(&mut self, failure: Error, reached: bool) -> Result<()> {
        match transient(&failure) {
            Some(asked) => self.wait_at_least(asked, failure, reached),
            None => Err(failure),
        }
    }

    /// The same after a failure that may pass whatever it is.
    pub(super) fn wait_at_least(&mut self, asked: Duration, failure: Error, reached: bool) -> Result<()> {
        self.failures += 1;
        let first = *self.first.get_or_insert_with(Instant::now);
        let limit = if reached { FAILURES_LIMIT } else { UNREACHED_LIMIT };
        if self.failures >= limit || first.elapsed() > self.timing.give_up || asked > RETRY_AFTER_LIMIT {
            return Err(failure);
        }
        let bound = self.timing.backoff.saturating_mul(1 << (self.failures - 1).min(16)).min(self.timing.backoff_limit);
        let jitter = bound.mul_f64(fraction());
        if self.cancel.sleep(asked + jitter) { Ok(()) } else { Err(failure) }
    }

    /// Attempts something until it succeeds, or fails for good.
    pub(super) fn run<T>(mut self, reached: impl Fn() -> bool, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => self.wait(failure, reached())?,
            }
        }
    }
}

/// Whether a failure may pass, and how long its sender asks to be left alone.
pub(super) fn transient(failure: &Error) -> Option<Duration> {
    match failure {
        // A certificate that is wrong, a redirect that is refused.
        Error::Unreachable { kind: io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput, .. } => None,
        Error::Unreachable { .. } => Some(Duration::ZERO),
        Error::Refused { answer, .. } => match answer.status {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => Some(answer.retry_after.unwrap_or_default()),
            _ => None,
        },
        _ => None,
    }
}

/// How long an answer's headers ask to be left alone: `Retry-After` in seconds or as a date (RFC 9110
/// section 10.2.3), else what `RateLimit` says (draft-ietf-httpapi-ratelimit-headers, old form and new).
pub(super) fn asked_wait(header: impl Fn(&'static str) -> Option<String>, now: SystemTime) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
    if let Some(after) = header("retry-after") {
        let date = || Some(httpdate::parse_http_date(after.trim()).ok()?.duration_since(now).unwrap_or_default());
        return seconds(&after).or_else(date);
    }
    if let Some(policy) = header("ratelimit") {
        let parameter = |name: &str| policy.split([';', ',']).find_map(|part| part.trim().strip_prefix(name).map(str::to_owned));
        return (parameter("r=")?.trim() == "0").then(|| seconds(&parameter("t=")?)).flatten();
    }
    let remaining = header("ratelimit-remaining")?;
    let is_used_up = remaining.split(';').next().is_some_and(|left| left.trim() == "0");
    is_used_up.then(|| seconds(header("ratelimit-reset")?.split(';').next()?)).flatten()
}

/// A random number from 0 to 1. Nobody's secret depends on it.
fn fraction() -> f64 {
    f64::from((RandomState::new().hash_one(0) >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Answer;

    fn refused(status: u16, retry_after: Option<u64>) -> Error {
        let answer = Answer { retry_after: retry_after.map(Duration::from_secs), ..Answer::parse(status, b"") };
        Error::Refused { host: "h".into(), attempted: "a".into(), answer }
    }

    fn unreachable(kind: io::ErrorKind) -> Error {
        Error::Unreachable { host: "h".into(), why: "w".into(), kind }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(transient(&refused(status, Some(3))), Some(Duration::from_secs(3)), "{status}");
        }
        for status in [400, 401, 403, 404, 405, 413, 416, 501, 507] {
            assert_eq!(transient(&refused(status, None)), None, "{status}");
        }
        assert!(transient(&unreachable(io::ErrorKind::ConnectionRefused)).is_some());
        assert!(transient(&unreachable(io::ErrorKind::TimedOut)).is_some());
        assert!(transient(&unreachable(io::ErrorKind::InvalidData)).is_none(), "a wrong certificate stays wrong");
    }

    #[test]
    fn failures_are_counted_from_the_last_progress() {
        let (cancel, timing) = (Cancel::default(), Timing { backoff: Duration::ZERO, ..Timing::default() });
        let mut retry = Retry::new(timing, &cancel);
        for _ in 0..10 {
            for _ in 1..FAILURES_LIMIT {
                retry.wait(refused(503, None), true).unwrap();
            }
            retry.progressed();
        }
        for _ in 1..UNREACHED_LIMIT {
            retry.wait(unreachable(io::ErrorKind::ConnectionRefused), false).unwrap();
        }
        assert!(retry.wait(unreachable(io::ErrorKind::ConnectionRefused), false).is_err());
        let mut retry = Retry::new(timing, &cancel);
        assert!(retry.wait(refused(429, Some(3600)), true).is_err(), "an hour is not waited");
        assert!(retry.wait(refused(404, None), true).is_err());
        cancel.set();
        assert!(retry.wait(refused(503, Some(100)), true).is_err(), "who is not wanted does not wait");
    }

    #[test]
    fn a_registry_says_when_it_will_answer_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let wait = |headers: &[(&'static str, &str)]| {
            let headers: HashMap<_, _> = headers.iter().copied().collect();
            asked_wait(|name| headers.get(name).map(|&value| value.to_owned()), now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&[("retry-after", "7")]), Some(7));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(7));
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0));
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("ratelimit-remaining", "0;w=21600"), ("ratelimit-reset", "9")]), Some(9));
        assert_eq!(wait(&[("ratelimit-remaining", "5"), ("ratelimit-reset", "9")]), None);
        assert_eq!(wait(&[("ratelimit", "\"default\";r=0;t=11")]), Some(11));
        assert_eq!(wait(&[("ratelimit", "limit=10, r=4, t=11")]), None);
        assert_eq!(wait(&[]), None);
    }

    proptest! {
        #[test]
        fn reading_headers_never_panics(text in "\\PC{0,40}", likely in "[0-9rt=;,\" ]{0,20}") {
            for value in [&text, &likely] {
                for wanted in ["retry-after", "ratelimit", "ratelimit-remaining"] {
                    let _ = asked_wait(|name| (name == wanted || name == "ratelimit-reset").then(|| value.clone()), SystemTime::now());
                }
            }
        }
    }
}
