//! `rconform spec`

use std::io::Write;

use clap::Args;
use longshore_conformance::report::output::write_report;
use longshore_conformance::{Registry, spec};
use reqwest::Url;

use super::output::OutputFlags;

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
    #[command(flatten)]
    output: OutputFlags,
}

/// Whether every MUST holds.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let chosen = spec::choose(&flags.only)?;
    let Some(url) = flags.url.as_ref().filter(|_| !flags.list) else {
        let mut out = std::io::stdout().lock();
        for r in &chosen {
            writeln!(out, "{:32}  {:6}  {:44}  {}", r.id, r.level, r.section, r.title)?;
        }
        return Ok(true);
    };
    let registry = Registry::new(url.clone())?;
    let report = spec::run(&registry, &flags.namespace, &chosen)?;
    flags.output.put(|form, out| write_report(&report, form, out))?;
    Ok(report.conforms())
}
