//! `roci list`.

use std::io::Write;

use clap::{Args, ValueEnum};
use longshore_runtime::error::{Attempt, Error, Result};
use longshore_runtime::lifecycle::{Runtime, State};
use serde::Serialize;

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// In columns
    Table,
    /// One JSON document
    Json,
}

/// List the containers below the root
#[derive(Debug, Args)]
pub(crate) struct List {
    /// In columns or as JSON
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// Names alone
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        let states = runtime.list()?;
        if self.quiet {
            let ids: Vec<_> = states.iter().map(|state| format!("{}\n", state.id)).collect();
            print(&ids.concat())?;
        } else if self.format == Format::Json {
            print_json(&states)?;
        } else {
            print(&table(&states))?;
        }
        Ok(0)
    }
}

fn table(states: &[State]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.iter().map(|state| {
        // Paths are the users' to choose: nothing of them reaches the terminal as anything but text.
        let bundle = state.bundle.to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let status = state.status.name().to_owned();
        [state.id.clone(), state.pid.to_string(), status, bundle, state.created.clone(), state.owner.clone()]
    });
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints a document as JSON.
pub(crate) fn print_json(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Error::invalid("JSON", error))?;
    print(&format!("{text}\n"))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Nobody reads any more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.attempt(|| "write to standard output"),
    }
}
