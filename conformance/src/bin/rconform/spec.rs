//! `rconform spec`

use std::io::Write;

use clap::Args;
use longshore_conformance::{Registry, spec};
use reqwest::Url;

use super::{Format, write_json};

#[derive(Debug, Args)]
pub(super) struct Flags {
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

/// Whether every MUST holds.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let chosen = spec::choose(&flags.only)?;
    let Some(url) = flags.url.as_ref().filter(|_| !flags.list) else {
        for r in &chosen {
            writeln!(out, "{:32}  {:6}  {:44}  {}", r.id, r.level, r.section, r.title)?;
        }
        return Ok(true);
    };
    let registry = Registry::new(url.clone())?;
    let report = spec::run(&registry, &flags.namespace, &chosen)?;
    match flags.format {
        Format::Table => report.write_table(&mut out)?,
        Format::Json => write_json(&mut out, &report)?,
    }
    Ok(report.conforms())
}
