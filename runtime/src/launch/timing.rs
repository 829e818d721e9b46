//! How long each step of a launch takes: with `ROCI_TIMING=1` in the environment, on standard error.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Instant;

/// The steps of one launch in the launcher's process, as they are done.
pub(super) struct Timing(Option<RefCell<Record>>);

struct Record {
    begun: Instant,
    last: Instant,
    lines: String,
}

impl Timing {
    /// Starts the clock, if it is asked for.
    pub(super) fn new() -> Self {
        let wanted = std::env::var_os("ROCI_TIMING").is_some_and(|value| value == "1");
        let record = || RefCell::new(Record { begun: Instant::now(), last: Instant::now(), lines: String::new() });
        Self(wanted.then(record))
    }

    /// A step is done: it took the time since the one before.
    pub(super) fn done(&self, step: &str) {
        let Some(record) = &self.0 else { return };
        let mut record = record.borrow_mut();
        let now = Instant::now();
        let (took, since) = ((now - record.last).as_micros(), (now - record.begun).as_micros());
        record.last = now;
        // Writing to a string cannot fail.
        let _ = writeln!(record.lines, "timing: {took:>8} us {since:>8} us {step}");
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if let Some(record) = &self.0 {
            // All at once and at the end: writing takes time as well.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), record.borrow().lines.as_bytes());
        }
    }
}
