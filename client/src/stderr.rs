//! Standard error: what is said beside what was asked for.
//!
//! One that is closed, or full, has no reader. That is no reason to leave half of the work undone, as `eprintln!`, which
//! panics, would.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a line.
pub(crate) fn say(line: impl Display) {
    say_part(format_args!("{line}\n"));
}

/// Says something that is no whole line, a question for instance.
pub(crate) fn say_part(text: impl Display) {
    // In one piece: others may write there, too.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}
