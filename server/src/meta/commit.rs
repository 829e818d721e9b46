//! The one thread that changes metadata. Changes that arrive while it flushes wait together and
//! share the next flush.
//!
//! The journal comes first and the database second: what readers see is on stable storage, and the
//! database never knows of anything the journal does not.
//!
//! A second thread flushes the database now and then, and writes the journal anew when it has grown.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{mpsc as channel, oneshot};

use super::change::Change;
use super::journal::{AppendError, Log, Rewriter, Rewritten, encode};
use super::keys;
use super::lease::{Key, Leases};
use super::table::{Changes, Table, View};
use crate::error::{Error, Result};
use crate::limits::{CHECKPOINT_INTERVAL, COMMIT_GROUP_LIMIT, COMMIT_QUEUE_LIMIT};

/// A change and whom to tell. The answer is whether there was what was to be changed.
type Request = (Change, oneshot::Sender<Result<bool>>);

/// The way to the committing thread.
#[derive(Debug)]
pub(super) struct Committer {
    /// `None` once stopped.
    requests: Option<channel::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// Starts the threads that change `table` and write `journal`, which `rewriter` writes anew.
    pub(super) fn start<T: Table>(table: T, journal: impl Log, rewriter: Option<Rewriter>, leases: Arc<Leases>) -> Self {
        let (requests, queue) = channel::channel(COMMIT_QUEUE_LIMIT);
        let thread = std::thread::spawn(move || run(&table, journal, rewriter, &leases, queue));
        Self { requests: Some(requests), thread: Some(thread) }
    }

    /// Makes a change; it is on stable storage when this returns.
    pub(super) async fn commit(&self, change: Change) -> Result<bool> {
        let stopped = || Error::Stopped("the committing thread is gone".into());
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send((change, answer)).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by its own message.
            let _ = thread.join();
        }
    }
}

fn run<T: Table>(
    table: &T,
    mut journal: impl Log,
    rewriter: Option<Rewriter>,
    leases: &Leases,
    mut queue: channel::Receiver<Request>,
) {
    let checkpoint = Checkpointer::start(table.clone(), journal.end(), rewriter);
    let mut broken = None;
    let mut group = Vec::with_capacity(COMMIT_GROUP_LIMIT);
    while queue.blocking_recv_many(&mut group, COMMIT_GROUP_LIMIT) > 0 {
        let mut waiting = Vec::with_capacity(group.len());
        let mut condemned = Vec::new();
        let outcome = match &broken {
            Some(why) => {
                group.drain(..).for_each(|(_, answer)| answer_with(answer, Err(Error::Stopped(String::clone(why)))));
                Ok(())
            }
            None => commit_group(table, &mut journal, leases, &mut group, &mut waiting, &mut condemned),
        };
        leases.bury(&condemned);
        match outcome {
            Ok(()) => waiting.into_iter().for_each(|(answer, found)| answer_with(answer, Ok(found))),
            Err(failure) => {
                tracing::error!("commit metadata: {}", failure.why);
                waiting.into_iter().for_each(|(answer, _)| answer_with(answer, Err(failure.error())));
                broken = failure.nothing_changed.is_none().then_some(failure.why);
            }
        }
        if let Ok(rewritten) = checkpoint.rewritten.try_recv()
            && broken.is_none()
        {
            broken = adopt(&mut journal, rewritten);
        }
        checkpoint.reached(journal.end());
    }
    checkpoint.stop();
}

/// Goes on in a journal written anew; why nothing can be written any more, if it cannot.
fn adopt(journal: &mut impl Log, rewritten: Rewritten) -> Option<String> {
    match journal.adopt(rewritten) {
        Ok(()) => None,
        Err(AppendError::Refused(e)) => {
            tracing::error!("write the journal anew: {e}; it goes on as it was");
            None
        }
        Err(AppendError::Unknown(e)) => {
            tracing::error!("write the journal anew: {e}");
            Some(e.to_string())
        }
    }
}

fn answer_with(answer: oneshot::Sender<Result<bool>>, result: Result<bool>) {
    // Whoever asked may have gone; the change stands.
    let _ = answer.send(result);
}

/// Commits a group. Whom to tell what if it succeeds is in `waiting`; changes that are impossible
/// by themselves are answered at once. What was condemned has to be buried, whatever comes of it.
fn commit_group<T: Table>(
    table: &T,
    journal: &mut impl Log,
    leases: &Leases,
    group: &mut Vec<Request>,
    waiting: &mut Vec<(oneshot::Sender<Result<bool>>, bool)>,
    condemned: &mut Vec<Key>,
) -> Result<(), Failure> {
    let mut view = View::new(table, leases.clock().now_ms());
    let mut lines = Vec::new();
    for (change, answer) in group.drain(..) {
        match change.resolve(&view, leases) {
            Err(e) => answer_with(answer, Err(e)),
            Ok(resolved) => {
                waiting.push((answer, resolved.found));
                condemned.extend(resolved.condemned);
                for record in resolved.records {
                    let done = encode(&record, &mut lines).and_then(|()| record.apply(&mut view));
                    done.map_err(|e| Failure::before(&e))?;
                }
            }
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    journal.append(&lines).map_err(|e| match e {
        AppendError::Refused(e) => Failure::before(&e),
        AppendError::Unknown(e) => Failure { why: e.to_string(), nothing_changed: None },
    })?;
    // The journal has it: a database that cannot follow must not go on without it.
    table.apply(&view.into_changes()).map_err(|e| Failure { why: e.to_string(), nothing_changed: None })
}

/// How a group failed.
struct Failure {
    why: String,
    /// The kind of error, when everything is as it was; nothing, when nobody knows what is stored.
    nothing_changed: Option<ErrorKind>,
}

impl Failure {
    fn before(error: &Error) -> Self {
        let kind = match error {
            Error::Common(longshore_runtime::Error::Io { source, .. }) => source.kind(),
            _ => ErrorKind::Other,
        };
        Self { why: error.to_string(), nothing_changed: Some(kind) }
    }

    fn error(&self) -> Error {
        match self.nothing_changed {
            Some(kind) => longshore_runtime::Error::io(&self.why, kind).into(),
            None => Error::Stopped(self.why.clone()),
        }
    }
}

/// Flushes the database now and then, and notes in it how much of the journal it has.
struct Checkpointer {
    reached: Arc<AtomicU64>,
    wake: mpsc::SyncSender<()>,
    /// A journal written anew, to be adopted.
    rewritten: mpsc::Receiver<Rewritten>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    fn start<T: Table>(table: T, already: u64, rewriter: Option<Rewriter>) -> Self {
        let reached = Arc::new(AtomicU64::new(already));
        let (wake, woken) = mpsc::sync_channel::<()>(1);
        let (hand_over, rewritten) = mpsc::sync_channel(1);
        let position = Arc::clone(&reached);
        let thread = std::thread::spawn(move || {
            let mut noted = already;
            let mut open = true;
            while open {
                open = woken.recv().is_ok() && gather(&woken);
                let position = position.load(Ordering::Acquire);
                if position != noted {
                    match note(&table, position) {
                        Ok(()) => noted = position,
                        // The journal has everything; the next start replays more of it.
                        Err(e) => tracing::error!("{e}"),
                    }
                }
                if let Some(rewriter) = rewriter.as_ref().filter(|_| open && noted == position) {
                    match rewriter.rewrite(&table, noted) {
                        Ok(rewritten) => rewritten.into_iter().for_each(|new| drop(hand_over.try_send(new))),
                        Err(e) => tracing::error!("write the journal anew: {e}; it goes on as it was"),
                    }
                }
            }
        });
        Self { reached, wake, rewritten, thread }
    }

    fn reached(&self, position: u64) {
        if self.reached.swap(position, Ordering::Release) != position {
            // Full means it is awake already.
            let _ = self.wake.try_send(());
        }
    }

    fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join();
    }
}

/// Lets changes gather for a while; `false` when it is time to stop.
fn gather(woken: &mpsc::Receiver<()>) -> bool {
    let deadline = Instant::now() + CHECKPOINT_INTERVAL;
    loop {
        match woken.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Everything the database has is flushed before the note is made, and then the note.
pub(super) fn note<T: Table>(table: &T, journal_end: u64) -> Result<()> {
    table.flush()?;
    let note = Changes::from([(keys::CHECKPOINT.to_vec(), Some(journal_end.to_be_bytes().to_vec()))]);
    table.apply(&note)?;
    table.flush()
}
