//! Content that is being put into a repository must not be removed meanwhile, and what is being
//! removed must not be put into a repository until it is gone.
//!
//! Content is stored before the metadata knows of it. Whoever does that holds a pin from before the
//! content is stored until the metadata has it; the collector removes only what nobody holds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use longshore_runtime::name::Digest;
use tokio::sync::Notify;

/// Who has which content in hand.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    state: Mutex<HashMap<Digest, State>>,
    removed: Notify,
}

#[derive(Debug)]
enum State {
    /// By so many.
    Held(usize),
    Removing,
}

/// Content that stays as long as this does.
#[derive(Debug)]
pub(crate) struct Pin<'a>(&'a Pins, Digest);

/// Content that is put into no repository as long as this lives.
#[derive(Debug)]
pub(crate) struct Removing<'a>(&'a Pins, Digest);

impl Pins {
    fn state(&self) -> MutexGuard<'_, HashMap<Digest, State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds content; waits while it is being removed.
    pub(crate) async fn hold(&self, digest: &Digest) -> Pin<'_> {
        loop {
            let removed = self.removed.notified();
            match self.state().entry(digest.clone()).or_insert(State::Held(0)) {
                State::Held(count) => {
                    *count += 1;
                    return Pin(self, digest.clone());
                }
                State::Removing => {}
            }
            removed.await;
        }
    }

    /// Begins the removal of content; `None` while somebody holds it.
    pub(crate) fn remove(&self, digest: &Digest) -> Option<Removing<'_>> {
        let mut state = self.state();
        if state.contains_key(digest) {
            return None;
        }
        state.insert(digest.clone(), State::Removing);
        Some(Removing(self, digest.clone()))
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        match state.get_mut(&self.1) {
            Some(State::Held(count)) if *count > 1 => *count -= 1,
            _ => drop(state.remove(&self.1)),
        }
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        self.0.state().remove(&self.1);
        self.0.removed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn content_in_hand_is_not_removed_and_content_being_removed_is_waited_for() {
        let (pins, digest) = (Pins::default(), Digest::of(b"x"));
        let (first, second) = (pins.hold(&digest).await, pins.hold(&digest).await);
        drop(first);
        assert!(pins.remove(&digest).is_none());
        drop(second);
        let removing = pins.remove(&digest).unwrap();
        assert!(pins.remove(&digest).is_none());
        let mut hold = Box::pin(pins.hold(&digest));
        let pending = std::future::poll_fn(|cx| Poll::Ready(hold.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
        drop(removing);
        drop(hold.await);
        assert!(pins.state().is_empty());
    }
}
