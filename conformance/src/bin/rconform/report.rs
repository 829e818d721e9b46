//! `rconform report`

use std::path::PathBuf;

use clap::Args;
use longshore_conformance::report::Page;
use longshore_conformance::report::output::{Form, Target};
use longshore_conformance::report::saved::Saved;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What `rconform spec` and `rconform load` wrote as JSON
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The page to make
    #[arg(long, value_name = "FILE.html", value_parser = page)]
    output: Target,
}

/// Only a page can show several results.
fn page(path: &str) -> anyhow::Result<Target> {
    let target = Target::parse(path)?;
    anyhow::ensure!(target.form() == Form::Html, "a page's name must end in .html");
    Ok(target)
}

pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let (mut reports, mut loads) = (Vec::new(), Vec::new());
    for file in &flags.files {
        match Saved::read(file)? {
            Saved::Spec(report) => reports.push(report),
            Saved::Load(more) => loads.push(more),
        }
    }
    flags.output.put(|_, out| Page { reports: &reports, loads: &loads }.write(out))?;
    Ok(true)
}
