//! One phase of a load: a number of connections, each asking again as soon as it was answered, on one
//! thread.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use super::wire::Connection;
use super::work::Work;
use crate::limits::STALL_TIMEOUT;

/// When a phase has done enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many requests were made.
    Requests(u64),
    /// So much time went by; what is under way is waited for.
    Elapsed(Duration),
}

/// What came of a phase.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of the requests that succeeded, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    pub(super) content_bytes: u64,
    pub(super) failures: u64,
    pub(super) first_failure: Option<String>,
    /// From the first request to the last answer.
    pub(super) wall: Duration,
    /// The number after the last one used.
    pub(super) next: u64,
}

#[derive(Debug)]
struct Shared {
    work: Rc<Work>,
    next: Cell<u64>,
    end: u64,
    deadline: Option<Instant>,
    tally: RefCell<Tally>,
}

/// Does `work` from number `first` on over so many connections.
///
/// # Errors
/// When nothing at all moves for [`STALL_TIMEOUT`]. Requests that fail are counted.
pub(super) async fn run(
    address: SocketAddr,
    work: Rc<Work>,
    connections: usize,
    first: u64,
    until: Until,
) -> anyhow::Result<Tally> {
    let start = Instant::now();
    let (end, deadline) = match until {
        Until::Requests(count) => (first + count, None),
        Until::Elapsed(time) => (u64::MAX, Some(start + time)),
    };
    let latencies = Histogram::new(3).context("set up a histogram")?;
    let wall = Duration::ZERO;
    let tally = Tally { latencies, content_bytes: 0, failures: 0, first_failure: None, wall, next: first };
    let shared = Rc::new(Shared { work, next: Cell::new(first), end, deadline, tally: tally.into() });
    let moved = Rc::new(Cell::new(0));
    let tasks = LocalSet::new();
    for _ in 0..connections {
        tasks.spawn_local(ask_again_and_again(shared.clone(), Connection::new(address, moved.clone())));
    }
    tokio::pin!(tasks);
    let mut before = None;
    while tokio::time::timeout(STALL_TIMEOUT, tasks.as_mut()).await.is_err() {
        if before.replace(moved.get()) == Some(moved.get()) {
            bail!("nothing moved on any of {connections} connections for {} s", STALL_TIMEOUT.as_secs());
        }
    }
    let wall = start.elapsed();
    let shared = Rc::into_inner(shared).context("a connection is still in use")?;
    Ok(Tally { wall, next: shared.next.get().min(shared.end), ..shared.tally.into_inner() })
}

async fn ask_again_and_again(shared: Rc<Shared>, mut connection: Connection) {
    let mut scratch = Vec::new();
    let mut start = Instant::now();
    while shared.deadline.is_none_or(|deadline| start < deadline) && shared.next.get() < shared.end {
        let number = shared.next.get();
        shared.next.set(number + 1);
        let outcome = shared.work.perform(&mut connection, number, &mut scratch).await;
        let now = Instant::now();
        let mut tally = shared.tally.borrow_mut();
        match outcome {
            Ok(bytes) => {
                tally.content_bytes += bytes;
                let nanoseconds = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
                // A histogram that sizes itself takes any value but a size memory does not have.
                let _ = tally.latencies.record(nanoseconds.max(1));
            }
            Err(e) => {
                connection.close();
                tally.failures += 1;
                tally.first_failure.get_or_insert_with(|| format!("{e:#}"));
            }
        }
        start = now;
    }
}
