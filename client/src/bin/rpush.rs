//! `rpush`: see `longshore_client::command`.

use std::process::ExitCode;

fn main() -> ExitCode {
    longshore_client::command::rpush()
}
