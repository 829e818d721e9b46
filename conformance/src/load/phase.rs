//! One phase of a load: a number of connections, shared among threads, each asking again as its pace says.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::task::LocalSet;

use super::pace::{Pace, Pacer, Schedule};
use super::process::Process;
use super::tally::Tally;
use super::wire::Connection;
use super::work::Work;
use crate::limits::{BACKLOG_LIMIT, STALL_TIMEOUT};

/// When a phase has done enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many requests were made.
    Requests(u64),
    /// So much time went by; what is under way is waited for.
    Elapsed(Duration),
}

/// What is to be done in a phase, and how.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    pub(super) address: SocketAddr,
    pub(super) work: Arc<Work>,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) schedule: Schedule,
    /// The number of its first request.
    pub(super) first: u64,
    pub(super) until: Until,
}

/// What the threads of a phase have in common.
#[derive(Debug)]
struct Shared {
    work: Arc<Work>,
    schedule: Schedule,
    start: Instant,
    deadline: Option<Instant>,
    first: u64,
    next: AtomicU64,
    end: u64,
}

/// What the connections of a thread have in common.
#[derive(Debug)]
struct Local {
    shared: Arc<Shared>,
    tally: RefCell<Tally>,
    pacer: Pacer,
    /// Bytes that went to and fro, and requests begun: whether anything moves.
    moved: Rc<Cell<u64>>,
    under_way: Cell<usize>,
    broken: RefCell<Option<anyhow::Error>>,
}

impl Phase {
    /// Does all of `count` once, as fast as it is answered.
    pub(super) fn once(address: SocketAddr, work: Work, connections: usize, count: u64) -> Self {
        let (schedule, until) = (Schedule::EAGER, Until::Requests(count));
        Self { address, work: Arc::new(work), connections, threads: 1, schedule, first: 0, until }
    }

    /// Carries it out.
    ///
    /// # Errors
    /// When nothing at all moves for [`STALL_TIMEOUT`]. Requests that fail are counted.
    pub(super) fn run(self) -> anyhow::Result<Tally> {
        let start = Instant::now();
        let (count, deadline) = match (self.until, &self.schedule) {
            (Until::Requests(count), _) => (count, None),
            // All that is due in this time.
            (Until::Elapsed(time), Schedule::Pace(Pace::Open { per_second })) => {
                ((time.as_secs_f64() * per_second).ceil() as u64, Some(start + time))
            }
            (Until::Elapsed(time), _) => (u64::MAX, Some(start + time)),
        };
        let (first, end) = (self.first, self.first.saturating_add(count));
        let next = AtomicU64::new(first);
        let shared = Arc::new(Shared { work: self.work, schedule: self.schedule, start, deadline, first, next, end });
        let threads = self.threads.clamp(1, self.connections.max(1));
        let share = |thread| self.connections / threads + usize::from(thread < self.connections % threads);
        let mut tally = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|n| (n, shared.clone())).collect();
            let others: Vec<_> = others
                .into_iter()
                .map(|(n, shared)| scope.spawn(move || on_this_thread(shared, self.address, share(n))))
                .collect();
            let mut tally = on_this_thread(shared.clone(), self.address, share(0))?;
            for other in others {
                tally.add(other.join().map_err(|_| anyhow!("a thread of the load panicked"))??)?;
            }
            anyhow::Ok(tally)
        })?;
        tally.wall = start.elapsed();
        tally.next = shared.next.load(Ordering::Relaxed).min(end);
        Ok(tally)
    }

    /// Carries it out; no request may fail.
    pub(super) fn run_whole(self) -> anyhow::Result<()> {
        let tally = self.run()?;
        let (failures, count) = (tally.failures(), tally.next);
        ensure!(failures == 0, "{failures} of {count} requests failed: {}", tally.first_failure.unwrap_or_default());
        Ok(())
    }
}

/// The share of one thread.
fn on_this_thread(shared: Arc<Shared>, address: SocketAddr, connections: usize) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("set up asynchronous work")?;
    let waited_before = Process::waited_by_this_thread();
    runtime.block_on(async {
        let (tally, pacer) = (RefCell::new(Tally::new(shared.work.kinds())?), Pacer::new()?);
        let local = Local { shared, tally, pacer, moved: Rc::default(), under_way: Cell::new(0), broken: RefCell::default() };
        let local = Rc::new(local);
        let tasks = LocalSet::new();
        for _ in 0..connections {
            tasks.spawn_local(ask_again_and_again(local.clone(), Connection::new(address, local.moved.clone())));
        }
        wait_for(&local, tasks, connections).await?;
        let local = Rc::into_inner(local).context("a connection is still in use")?;
        local.tally.borrow_mut().waited = Process::waited_by_this_thread().saturating_sub(waited_before);
        local.broken.into_inner().map_or_else(|| Ok(local.tally.into_inner()), Err)
    })
}

/// Waits until all tasks are done, waking those that wait for their time.
async fn wait_for(local: &Local, tasks: LocalSet, connections: usize) -> anyhow::Result<()> {
    let (mut tasks, mut driver) = (pin!(tasks), pin!(local.pacer.drive()));
    let mut before = None;
    loop {
        let all = poll_fn(|context| match driver.as_mut().poll(context) {
            Poll::Ready(e) => Poll::Ready(Err(e)),
            Poll::Pending => tasks.as_mut().poll(context).map(Ok),
        });
        if let Ok(done) = tokio::time::timeout(STALL_TIMEOUT, all).await {
            return done;
        }
        let now = local.moved.get();
        // Nothing moves either while all wait for their time.
        if before.replace(now) == Some(now) && local.under_way.get() > 0 {
            bail!("nothing moved on any of {connections} connections for {} s", STALL_TIMEOUT.as_secs());
        }
    }
}

async fn ask_again_and_again(local: Rc<Local>, mut connection: Connection) {
    let mut scratch = Vec::new();
    let mut think = Duration::ZERO;
    loop {
        let (number, start) = match local.next(think).await {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(e) => {
                local.broken.replace(Some(e));
                return;
            }
        };
        think = local.shared.schedule.think();
        if let Err(e) = local.ask(&mut connection, number, start, &mut scratch).await {
            local.broken.replace(Some(e));
            return;
        }
    }
}

impl Local {
    /// The next number, once it is its time, and the moment its latency counts from; `None` when there are enough.
    async fn next(&self, think: Duration) -> anyhow::Result<Option<(u64, Instant)>> {
        let Shared { schedule, start, deadline, first, end, .. } = &*self.shared;
        if !think.is_zero() {
            let rested = Instant::now() + think;
            self.pacer.until(deadline.map_or(rested, |deadline| rested.min(deadline))).await?;
        }
        loop {
            let is_over = |now: Instant| deadline.is_some_and(|deadline| now >= deadline);
            if schedule.is_closed() && is_over(Instant::now()) {
                return Ok(None);
            }
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if number >= *end {
                return Ok(None);
            }
            let Some(due) = schedule.due(number - first) else { return Ok(Some((number, Instant::now()))) };
            let intended = *start + due;
            self.pacer.until(intended).await?;
            let now = Instant::now();
            let late = now - intended;
            if late <= BACKLOG_LIMIT && !is_over(now) {
                self.tally.borrow_mut().starts(now - *start, late);
                return Ok(Some((number, intended)));
            }
            self.tally.borrow_mut().not_started += 1;
        }
    }

    /// Makes one request and counts what came of it.
    async fn ask(&self, connection: &mut Connection, number: u64, start: Instant, scratch: &mut Vec<u8>) -> anyhow::Result<()> {
        let (part, own) = self.shared.work.part(number)?;
        self.moved.set(self.moved.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        let outcome = part.task.perform(connection, own, scratch).await;
        self.under_way.set(self.under_way.get() - 1);
        let now = Instant::now();
        let mut tally = self.tally.borrow_mut();
        match outcome {
            Ok(bytes) => tally.succeeded(part.kind, now - start, now - self.shared.start, bytes),
            Err(e) => {
                connection.close();
                tally.failed(part.kind, &e);
            }
        }
        Ok(())
    }
}
