//! Failures of storage, made at will, for tests.

use std::io;
use std::sync::Mutex;

use crate::error::Error;

/// What happens to one call that would change storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and nothing is changed: no space, an I/O error before the first byte.
    Refuse,
    /// The power fails during it: of what it wrote, `kept` bytes are there; nothing after it is.
    Freeze {
        /// How much of it reached the disk.
        kept: usize,
    },
}

/// Which call fails how. Calls are counted over everything that shares this.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    calls: u64,
    plan: Vec<(u64, Fault)>,
    frozen: bool,
}

impl Faults {
    /// Fails the call with each number as the plan says; the first call is number 0.
    pub(crate) fn plan(plan: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self(Mutex::new(State { plan: plan.into_iter().collect(), ..State::default() }))
    }

    /// To be asked by every call that changes storage, before it does.
    pub(crate) fn next(&self, attempted: &str) -> Result<(), (Fault, Error)> {
        let mut state = self.0.lock().unwrap();
        let call = state.calls;
        state.calls += 1;
        let fault = if state.frozen {
            Some(Fault::Freeze { kept: 0 })
        } else {
            state.plan.iter().find(|(number, _)| *number == call).map(|(_, fault)| *fault)
        };
        let Some(fault) = fault else { return Ok(()) };
        state.frozen |= fault != Fault::Refuse;
        Err((fault, longshore_runtime::Error::io(attempted, io::Error::from(io::ErrorKind::StorageFull)).into()))
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// The machine is started again: everything works.
    pub(crate) fn thaw(&self) {
        *self.0.lock().unwrap() = State::default();
    }
}
