//! `rconform runtime`

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use longshore_conformance::report::output::{Form, write_json, write_report};
use longshore_conformance::runtime;

use super::output::{OutputFlags, write_list};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The runtime: a program with runc's command line, by path or name
    #[arg(required_unless_present = "list")]
    program: Option<PathBuf>,
    /// Print the requirements and stop
    #[arg(long)]
    list: bool,
    /// Judge only these: ids, or the beginnings of ids up to a dash, separated by commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these out, named in the same way
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    skip: Vec<String>,
    /// The root filesystem of the containers: a shell and the usual tools that need no libraries
    /// [default: made of this machine's static busybox]
    #[arg(long, value_name = "DIR")]
    rootfs: Option<PathBuf>,
    /// Measure how long it takes to launch containers, instead
    #[arg(long, conflicts_with_all = ["only", "skip", "list"])]
    time: bool,
    /// Measure in turns with another runtime, and compare
    #[arg(long, value_name = "PROGRAM", requires = "time")]
    versus: Option<PathBuf>,
    /// How often each operation is measured
    #[arg(long, short = 'n', value_name = "N", requires = "time", default_value_t = 20)]
    rounds: usize,
    #[command(flatten)]
    output: OutputFlags,
}

/// Whether every MUST holds.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let chosen = runtime::choose(&flags.only, &flags.skip)?;
    let Some(program) = flags.program.as_ref().filter(|_| !flags.list) else {
        flags.output.put(|form, out| write_list(&chosen, form, out))?;
        return Ok(true);
    };
    let program = found(program)?;
    let rootfs = flags.rootfs.as_deref();
    if flags.time {
        let versus = flags.versus.as_deref().map(found).transpose()?;
        let timing = runtime::time(&program, versus.as_deref(), rootfs, flags.rounds)?;
        flags.output.put(|form, mut out| match form {
            Form::Table => timing.write_text(&mut out),
            Form::Json => write_json(&timing, out),
            Form::Junit | Form::Html => Err(io::Error::other("times of launches are a table or JSON")),
        })?;
        return Ok(true);
    }
    let report = runtime::run(&program, rootfs, &chosen)?;
    flags.output.put(|form, out| write_report(&report, form, out))?;
    Ok(report.conforms())
}

/// The program as it can be executed from any directory: checks change theirs.
fn found(program: &Path) -> anyhow::Result<PathBuf> {
    let name = program.display();
    if program.components().count() > 1 {
        ensure!(program.is_file(), "there is no program {name}");
        return std::path::absolute(program).with_context(|| format!("find the directory of {name}"));
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let candidate = std::env::split_paths(&paths).map(|directory| directory.join(program)).find(|path| path.is_file());
    candidate.with_context(|| format!("there is no {name} in PATH: install it, or give its path"))
}
