//! The command `rconform`: one file a verb, each flags, one library call and an exit code.

mod compare;
mod load;
mod output;
mod report;
mod runtime;
mod spec;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Judges any registry, and measures it.
///
/// Exit codes: 0 every MUST holds and every request of a load succeeded, 1 a MUST fails or a request did,
/// or of two registries compared the second fails what the first passes, 2 the registry could not be
/// judged or measured, or a file not read or written.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge a registry by the distribution specification, requirement by requirement.
    Spec(spec::Flags),
    /// Put a load on a registry and measure it.
    Load(Box<load::Flags>),
    /// Make one page of what was saved as JSON, of any number of registries and loads.
    Report(report::Flags),
    /// Say where two registries differ: requirements whose verdict does, or a load's figures and their ratio.
    Compare(compare::Flags),
    /// Judge an OCI runtime by the runtime specification, or measure how fast it launches containers.
    Runtime(runtime::Flags),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Spec(flags) => spec::run(&flags),
        Command::Load(flags) => load::run(&flags),
        Command::Report(flags) => report::run(&flags),
        Command::Compare(flags) => compare::run(&flags),
        Command::Runtime(flags) => runtime::run(&flags),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // Who reads the output has had enough of it.
        Err(e) if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "rconform: {e:#}");
            ExitCode::from(2)
        }
    }
}
