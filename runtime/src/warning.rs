//! Warnings: what a configuration asks for and is left out on purpose, what went wrong without harm.
//!
//! They go to standard error, unless the program has a log and says so once.

use std::io::Write;
use std::sync::OnceLock;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

/// Sends warnings elsewhere from now on. Only the first call counts.
pub fn send_to(sink: fn(&str)) {
    // A second log is no error of the first.
    let _ = SINK.set(sink);
}

/// Gives a warning, a sentence without a full stop.
pub(crate) fn warn(text: &str) {
    match SINK.get() {
        Some(sink) => sink(text),
        // A closed standard error must not stop a container.
        None => drop(writeln!(std::io::stderr(), "warning: {text}")),
    }
}
