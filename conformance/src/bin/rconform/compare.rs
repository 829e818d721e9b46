//! `rconform compare`

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use longshore_conformance::report::compare::Comparison;
use longshore_conformance::report::output::write_json;
use longshore_conformance::report::saved::Saved;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What `rconform spec` or `rconform load` wrote as JSON
    a: PathBuf,
    /// Another of the same kind, compared with it
    b: PathBuf,
    /// How to print what differs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Whether the second fails nothing the first passes.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let comparison = Comparison::new(&Saved::read(&flags.a)?, &Saved::read(&flags.b)?)?;
    let mut out = io::stdout().lock();
    match flags.format {
        Format::Table => comparison.write_table(&mut out)?,
        Format::Json => write_json(&comparison, &mut out)?,
    }
    Ok(comparison.holds())
}
