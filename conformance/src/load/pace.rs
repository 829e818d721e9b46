//! When a request of a load is to start, and waiting for that moment.
//!
//! An asynchronous runtime's own timer ticks in milliseconds, which is longer than most of what is
//! measured here; the kernel's is as fine as its clock.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

/// When the requests of a load start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each connection asks again so long after it was answered. A slow registry is asked less.
    Closed {
        /// The pause.
        think: Duration,
    },
    /// So many requests a second, whatever the answers take: latency counts from the moment a request was to start.
    Open {
        /// Over all connections.
        per_second: f64,
    },
}

/// When each request is due.
#[derive(Debug, Clone)]
pub(super) enum Schedule {
    Pace(Pace),
    /// At these times after the beginning.
    At(Arc<[Duration]>),
}

impl Schedule {
    /// As fast as it is answered.
    pub(super) const EAGER: Self = Self::Pace(Pace::Closed { think: Duration::ZERO });

    /// How long after the beginning request `index` of a phase is to start; `None` in a closed load.
    pub(super) fn due(&self, index: u64) -> Option<Duration> {
        match self {
            Self::Pace(Pace::Closed { .. }) => None,
            Self::Pace(Pace::Open { per_second }) => Some(Duration::from_secs_f64(index as f64 / per_second)),
            Self::At(times) => usize::try_from(index).ok().and_then(|index| times.get(index).copied()),
        }
    }

    /// Whether the next request waits for an answer.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Pace(Pace::Closed { .. }))
    }

    /// The pause between two requests of one connection.
    pub(super) fn think(&self) -> Duration {
        if let Self::Pace(Pace::Closed { think }) = self { *think } else { Duration::ZERO }
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    waker: Waker,
}

/// The earliest is the greatest, as a heap wants it.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

/// One timer of the kernel for all connections of a thread.
#[derive(Debug)]
pub(super) struct Pacer {
    timer: AsyncFd<OwnedFd>,
    waiting: RefCell<BinaryHeap<Waiting>>,
}

impl Pacer {
    pub(super) fn new() -> anyhow::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        // What replaces it asks its caller to promise that the descriptor stays open and stays this one. An `OwnedFd`
        // nobody can take out of the pacer does, and only that promise would need `unsafe` here.
        #[expect(deprecated, reason = "the sound way to say it needs unsafe, and the descriptor is owned")]
        let timer = AsyncFd::new(timer.context("make a timer")?).context("watch a timer")?;
        Ok(Self { timer, waiting: RefCell::default() })
    }

    /// Returns at `due`, and only while [`Self::drive`] is polled.
    pub(super) async fn until(&self, due: Instant) -> anyhow::Result<()> {
        poll_fn(|context| {
            if Instant::now() >= due {
                return Poll::Ready(Ok(()));
            }
            let mut waiting = self.waiting.borrow_mut();
            let is_first = waiting.peek().is_none_or(|first| due < first.due);
            waiting.push(Waiting { due, waker: context.waker().clone() });
            if is_first && let Err(e) = self.arm(due) {
                return Poll::Ready(Err(e));
            }
            Poll::Pending
        })
        .await
    }

    /// Wakes who waits. Never done; what it returns went wrong.
    pub(super) async fn drive(&self) -> anyhow::Error {
        loop {
            match self.timer.readable().await {
                // What the timer counted need not be read: arming it again begins anew.
                Ok(mut ready) => ready.clear_ready(),
                Err(e) => return anyhow::Error::new(e).context("wait for a timer"),
            }
            let mut waiting = self.waiting.borrow_mut();
            let now = Instant::now();
            while waiting.peek().is_some_and(|first| first.due <= now) {
                waiting.pop().into_iter().for_each(|first| first.waker.wake());
            }
            if let Some(first) = waiting.peek()
                && let Err(e) = self.arm(first.due)
            {
                return e;
            }
        }
    }

    fn arm(&self, due: Instant) -> anyhow::Result<()> {
        // 0 would turn the timer off.
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let time = |duration: Duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: time(Duration::ZERO), it_value: time(left) };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once).context("set a timer")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn requests_are_spread_evenly_or_as_recorded() {
        let even = Schedule::Pace(Pace::Open { per_second: 400.0 });
        assert_eq!([0, 1, 400].map(|n| even.due(n).unwrap().as_micros()), [0, 2500, 1_000_000]);
        let recorded = Schedule::At([0, 7].map(Duration::from_millis).into());
        assert_eq!(recorded.due(1), Some(Duration::from_millis(7)));
        assert_eq!((recorded.due(2), Schedule::EAGER.due(0)), (None, None));
    }

    /// How late each of some waiters was woken.
    async fn lateness(steps: [u64; 6]) -> Vec<Duration> {
        let pacer = Pacer::new().unwrap();
        let mut drive = pin!(pacer.drive());
        let start = Instant::now();
        let due = steps.map(|step| start + Duration::from_micros(700 * step));
        let mut waiters = due.map(|due| Some(Box::pin(pacer.until(due))));
        let mut woken = [None; 6];
        poll_fn(|context| {
            assert!(drive.as_mut().poll(context).is_pending());
            for (waiter, woken) in waiters.iter_mut().zip(&mut woken) {
                if waiter.as_mut().is_some_and(|waiter| waiter.as_mut().poll(context).is_ready()) {
                    (*waiter, *woken) = (None, Some(Instant::now()));
                }
            }
            if waiters.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let late = |(woken, due): (Option<Instant>, Instant)| woken.unwrap().checked_duration_since(due).expect("woken early");
        woken.into_iter().zip(due).map(late).collect()
    }

    #[test]
    fn everybody_is_woken_in_time_and_nobody_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Not in the order of their times, and some at once. Again and again, as the machine may be busy with something
        // else; a timer of whole milliseconds would be late by half of one on average each time.
        let sums = (0..500).map(|_| runtime.block_on(lateness([6, 1, 3, 1, 2, 5])).iter().sum::<Duration>() / 6);
        let mut least = Duration::MAX;
        assert!(sums.inspect(|sum| least = least.min(*sum)).any(|sum| sum < Duration::from_micros(300)), "{least:?}");
    }
}
