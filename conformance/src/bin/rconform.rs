//! The command `rconform`: flags, one library call, an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use longshore_conformance::{Registry, spec};
use reqwest::Url;

/// Judges any registry.
///
/// Exit codes: 0 every MUST holds, 1 a MUST fails, 2 the registry could not be judged.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge a registry by the distribution specification, requirement by requirement.
    Spec(SpecArguments),
}

#[derive(Debug, clap::Args)]
struct SpecArguments {
    /// The registry's base URL, as in http://localhost:5000
    #[arg(required_unless_present = "list")]
    url: Option<Url>,
    /// Print the requirements and stop
    #[arg(long)]
    list: bool,
    /// Judge only these: ids, or the beginnings of ids up to a dash, separated by commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// The repositories used are NAMESPACE/spec and NAMESPACE/spec-other
    #[arg(long, default_value = "rconform")]
    namespace: String,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let Command::Spec(arguments) = Arguments::parse().command;
    match judge(&arguments) {
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

/// Whether every MUST holds.
fn judge(arguments: &SpecArguments) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let chosen = spec::choose(&arguments.only)?;
    let Some(url) = arguments.url.as_ref().filter(|_| !arguments.list) else {
        for r in &chosen {
            writeln!(out, "{:32}  {:6}  {:44}  {}", r.id, r.level, r.section, r.title)?;
        }
        return Ok(true);
    };
    let registry = Registry::new(url.clone())?;
    let report = spec::run(&registry, &arguments.namespace, &chosen)?;
    match arguments.format {
        Format::Table => report.write_table(&mut out)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(report.conforms())
}
