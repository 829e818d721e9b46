//! The flags that say where results go, and the writing of them.

use std::io::{self, Write};

use clap::Args;
use longshore_conformance::report::output::{Form, Target, write_json};
use longshore_conformance::requirement::Requirement;

#[derive(Debug, Args)]
pub(super) struct OutputFlags {
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    /// Write it to a file too, in the form of its extension: .html, .json, .xml (JUnit) or .txt; may be given several times
    #[arg(long, value_name = "FILE", value_parser = Target::parse)]
    output: Vec<Target>,
}

impl OutputFlags {
    /// Prints, then writes each file. One that cannot be written keeps no other from being written; the
    /// first error is told.
    pub(super) fn put(&self, write: impl Fn(Form, &mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        let printed = write(self.format, &mut io::stdout().lock()).map_err(Into::into);
        let written: Vec<_> = self.output.iter().map(|target| target.put(&write)).collect();
        written.into_iter().chain([printed]).collect()
    }
}

/// Writes which requirements there are.
pub(super) fn write_list<C>(chosen: &[&Requirement<C>], form: Form, out: &mut dyn Write) -> io::Result<()> {
    match form {
        Form::Table => chosen.iter().try_for_each(|r| writeln!(out, "{:36}  {:6}  {:52}  {}", r.id, r.level, r.section, r.title)),
        Form::Json => write_json(&chosen, out),
        Form::Junit | Form::Html => Err(io::Error::other("a list of requirements is a table or JSON")),
    }
}
