//! A few slices between the thread that reads and the one that sends. Either may leave at any time: who sends is sometimes kept
//! by a connection that nobody drives any more, and never says so.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use longshore_runtime::source::BlobRead;

/// Slices that are read ahead.
const AHEAD: usize = 4;

/// Slices on their way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    slices: VecDeque<Bytes>,
    /// No more will come, for a reason if there is one.
    end: Option<io::Result<()>>,
    /// Nobody wants more.
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place; `false` if no more is wanted.
    pub(super) fn push(&self, slice: Bytes) -> bool {
        let full = |state: &mut State| state.slices.len() >= AHEAD && !state.closed;
        let mut state = self.changed.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        if !state.closed {
            state.slices.push_back(slice);
            self.changed.notify_all();
        }
        !state.closed
    }

    /// Says that no more will come.
    pub(super) fn end(&self, how: io::Result<()>) {
        self.state().end = Some(how);
        self.changed.notify_all();
    }

    /// Says that no more is wanted.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// The next slice; `None` after the last.
    fn pop(&self) -> io::Result<Option<Bytes>> {
        let empty = |state: &mut State| state.slices.is_empty() && state.end.is_none() && !state.closed;
        let mut state = self.changed.wait_while(self.state(), empty).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(io::Error::other("it is not wanted any more"));
        }
        let slice = state.slices.pop_front();
        self.changed.notify_all();
        match (&slice, &mut state.end) {
            (None, Some(end)) => std::mem::replace(end, Ok(())).map(|()| None),
            _ => Ok(slice),
        }
    }
}

/// The reading end.
pub(super) struct Slices {
    queue: Arc<Queue>,
    slice: Bytes,
}

impl Slices {
    pub(super) fn of(queue: Arc<Queue>) -> Self {
        Self { queue, slice: Bytes::new() }
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Read for Slices {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.slice.is_empty() {
            self.slice = self.take_bytes()?;
        }
        let n = (&self.slice[..]).read(buffer)?;
        self.slice.advance(n);
        Ok(n)
    }
}

impl BlobRead for Slices {
    fn take_bytes(&mut self) -> io::Result<Bytes> {
        if self.slice.is_empty() { Ok(self.queue.pop()?.unwrap_or_default()) } else { Ok(std::mem::take(&mut self.slice)) }
    }
}
