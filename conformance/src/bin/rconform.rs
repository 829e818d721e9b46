//! The command `rconform`: flags, one library call, an exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use longshore_conformance::load::{self, Kind, Plan, Until};
use longshore_conformance::{Registry, spec};
use reqwest::Url;

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
    Spec(SpecArguments),
    /// Put a load of one kind on a registry and measure it.
    Load(LoadArguments),
}

#[derive(Debug, clap::Args)]
struct LoadArguments {
    /// The registry's base URL, plain HTTP, as in http://localhost:5000
    url: Url,
    /// What to ask for
    #[arg(long, value_enum)]
    kind: Kind,
    /// Connections asking at the same time
    #[arg(long, short = 'c', default_value_t = 16)]
    connections: usize,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, conflicts_with = "requests")]
    duration: f64,
    /// How many requests to measure, instead of how long
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// How long to ask before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    /// The size of blobs, as in 4096, 4KiB or 1GiB
    #[arg(long, value_parser = size, default_value = "4KiB")]
    size: u64,
    /// Tags the repository is to have before anything is measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    existing_tags: u64,
    /// The repository to use [default: a new one]
    #[arg(long)]
    repository: Option<String>,
    /// The repository was prepared by an earlier run with --keep
    #[arg(long)]
    prepared: bool,
    /// Leave what was pushed where it is
    #[arg(long)]
    keep: bool,
    /// The registry's process, to have its processor time and memory told
    #[arg(long)]
    pid: Option<u32>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
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
    let outcome = match Arguments::parse().command {
        Command::Spec(arguments) => judge(&arguments),
        Command::Load(arguments) => measure(&arguments),
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
        Format::Json => write_json(&mut out, &report)?,
    }
    Ok(report.conforms())
}

/// Whether every request succeeded.
fn measure(arguments: &LoadArguments) -> anyhow::Result<bool> {
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).context("a number of seconds");
    let plan = Plan {
        url: arguments.url.clone(),
        kind: arguments.kind,
        repository: arguments.repository.clone(),
        connections: arguments.connections,
        until: arguments.requests.map_or_else(|| seconds(arguments.duration).map(Until::Elapsed), |n| Ok(Until::Requests(n)))?,
        warm_up: seconds(arguments.warm_up)?,
        size_bytes: arguments.size,
        existing_tags: arguments.existing_tags,
        prepared: arguments.prepared,
        keep: arguments.keep,
        pid: arguments.pid,
    };
    let summary = load::run(&plan)?;
    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Table => summary.write_text(&mut out)?,
        Format::Json => write_json(&mut out, &summary)?,
    }
    Ok(summary.failures == 0)
}

fn write_json(out: &mut impl Write, document: &impl serde::Serialize) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}

/// A number of bytes, with or without a unit of 1024.
fn size(text: &str) -> anyhow::Result<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no size; write it as 4096, 4KiB or 1GiB"))?;
    number.checked_mul(1 << shift).with_context(|| format!("{text:?} is too large"))
}
