//! The command `rconform`: one file a verb, each flags, one library call and an exit code.

mod load;
mod spec;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Judges any registry, and measures it.
///
/// Exit codes: 0 every MUST holds and every request of a load succeeded, 1 a MUST fails or a request did,
/// 2 the registry could not be judged or measured.
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Spec(flags) => spec::run(&flags),
        Command::Load(flags) => load::run(&flags),
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

fn write_json(out: &mut impl Write, document: &impl serde::Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}
