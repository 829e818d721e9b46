//! What a check of a runtime can find.

use std::fmt::Display;
use std::io;

/// The answer of a check: `Ok` is a pass.
pub type Outcome<T = ()> = Result<T, Finding>;

/// Anything but a pass. The steps that led to it are kept by the [`Context`](super::Context).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The runtime does wrong what it offers: what was expected of it.
    Fail(String),
    /// The runtime, or this machine, does not offer what the check needs.
    NotOffered(String),
    /// The specification leaves this open, and the runtime does other than most.
    Differs(String),
}

/// Fails with `expected` unless `held`.
pub(super) fn require(held: bool, expected: impl Display) -> Outcome {
    if held { Ok(()) } else { Err(Finding::Fail(expected.to_string())) }
}

/// What the judge itself could not do; that is no fault of the runtime.
pub(super) fn here<T>(done: io::Result<T>, attempt: impl Display) -> Outcome<T> {
    done.map_err(|error| Finding::NotOffered(format!("it cannot be judged here: {attempt}: {error}")))
}

/// The finding that something is missing on the runtime's side.
pub(super) fn not_offered(what: impl Display) -> Finding {
    Finding::NotOffered(what.to_string())
}
