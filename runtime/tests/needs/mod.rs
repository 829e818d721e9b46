//! What a test needs of the machine. Where it is missing the test is left out and says so, past the
//! test harness, which keeps what is printed to itself; `LONGSHORE_REQUIRE_PEERS` makes it fail.

// Each test program uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// Whether a program of somebody else is installed.
pub fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    required(std::env::split_paths(&paths).any(|dir| dir.join(program).is_file()), program)
}

/// Whether the tests run as root.
pub fn root() -> bool {
    required(is_root(), "root")
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Says what is missing if it was not found.
pub fn required(found: bool, what: &str) -> bool {
    assert!(found || std::env::var_os("LONGSHORE_REQUIRE_PEERS").is_none(), "this test needs {what}");
    useful(found, what)
}

/// The same for what no package brings.
pub fn useful(found: bool, what: &str) -> bool {
    if !found {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: it needs {what}");
    }
    found
}
