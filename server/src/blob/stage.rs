//! Work that follows an upload in a thread of its own: batches one after another, a few behind at most.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::error::{Error, Result};
use crate::limits::STAGE_DEPTH;

/// A value, and the batches that it has yet to take in.
///
/// A thread works on it as long as there are batches: it does not wait to be woken between two of a
/// quick client, and is not held by a slow one.
#[derive(Debug)]
pub(super) struct Stage<T> {
    step: fn(&mut T, &[Bytes]) -> Result<()>,
    line: Arc<Mutex<Line<T>>>,
    /// A permit for every batch that is waiting or being worked on; closed by a failure.
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<(Vec<Bytes>, OwnedSemaphorePermit)>,
    /// None while a thread has it, and after a failure.
    value: Option<T>,
    failure: Option<Error>,
}

impl<T: Send + 'static> Stage<T> {
    pub(super) fn new(value: T, step: fn(&mut T, &[Bytes]) -> Result<()>) -> Self {
        let line = Line { waiting: VecDeque::new(), value: Some(value), failure: None };
        Self { step, line: Arc::new(Mutex::new(line)), room: Arc::new(Semaphore::new(STAGE_DEPTH)) }
    }

    /// Waits until one more batch can be [`put`](Self::put).
    ///
    /// # Errors
    ///
    /// What an earlier batch failed with, once.
    pub(super) async fn room(&self) -> Result<OwnedSemaphorePermit> {
        self.room.clone().acquire_owned().await.map_err(|_| self.failure())
    }

    pub(super) fn put(&self, batch: Vec<Bytes>, room: OwnedSemaphorePermit) {
        let mut line = lock(&self.line);
        line.waiting.push_back((batch, room));
        if let Some(value) = line.value.take() {
            let (step, line, room) = (self.step, self.line.clone(), self.room.clone());
            spawn_blocking(move || work(value, step, &line, &room));
        }
    }

    /// The value with every batch taken in.
    pub(super) async fn end(self) -> Result<T> {
        let all = u32::try_from(STAGE_DEPTH).unwrap_or(u32::MAX);
        let worked_off = self.room.acquire_many(all).await.is_ok();
        let value = lock(&self.line).value.take();
        value.filter(|_| worked_off).ok_or_else(|| self.failure())
    }

    fn failure(&self) -> Error {
        let ended = || longshore_runtime::Error::io("follow an upload", io::Error::other("its thread ended")).into();
        lock(&self.line).failure.take().unwrap_or_else(ended)
    }
}

fn lock<T>(line: &Mutex<Line<T>>) -> MutexGuard<'_, Line<T>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work<T>(mut value: T, step: fn(&mut T, &[Bytes]) -> Result<()>, line: &Mutex<Line<T>>, room: &Semaphore) {
    let mut done = None;
    loop {
        let mut at = lock(line);
        let Some((batch, permit)) = at.waiting.pop_front() else {
            // There before the last permit is: whoever has all of them finds it.
            at.value = Some(value);
            drop(done);
            return;
        };
        drop(at);
        done = Some(permit);
        if let Err(e) = step(&mut value, &batch) {
            lock(line).failure = Some(e);
            room.close();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put<T: Send + 'static>(stage: &Stage<T>, byte: u8) -> Result<()> {
        let room = stage.room().await?;
        stage.put(vec![Bytes::from(vec![byte])], room);
        Ok(())
    }

    #[tokio::test]
    async fn every_batch_is_taken_in_by_its_order() {
        let stage = Stage::new(Vec::new(), |seen, batch| {
            seen.push(batch[0][0]);
            Ok(())
        });
        for byte in 0..=255 {
            put(&stage, byte).await.unwrap();
            if byte % 50 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
        assert_eq!(stage.end().await.unwrap(), (0..=255).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn a_failure_is_told_once_and_ends_the_work() {
        let stage = Stage::new(0, |_, _| Err(Error::UploadUnknown));
        let mut told = Vec::new();
        for byte in 0..20 {
            told.extend(put(&stage, byte).await.err());
        }
        assert!(matches!(told[0], Error::UploadUnknown), "{told:?}");
        assert!(told[1..].iter().all(|e| e.to_string().contains("its thread ended")), "{told:?}");
        assert!(stage.end().await.is_err());
    }
}
