//! A runtime's results, as a table or as one JSON document with the field names of a registry's report.

use std::io::{self, Write};

use serde::Serialize;

use super::command::escaped;
use super::finding::{Finding, Outcome};
use crate::outcome::Level;
use crate::report::Verdict;

/// The results of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The runtime judged: its program.
    pub subject: String,
    /// The specification judged by.
    pub specification: &'static str,
    /// One row a requirement, in the order of the table.
    pub requirements: Vec<Row>,
    /// What could not be removed afterwards: containers, cgroups, mounts, directories.
    pub left_behind: Vec<String>,
}

/// A requirement and what was found.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The requirement's id, stable across versions.
    pub id: &'static str,
    /// The section of the specification it stands in.
    pub section: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// On a failure what was expected, otherwise what is not offered or differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The command lines of a failure and what they said, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

impl Row {
    /// The row for an outcome; `steps` is asked for on a failure only.
    pub(super) fn new(requirement: &super::Requirement, outcome: Outcome, steps: impl FnOnce() -> String) -> Self {
        let (verdict, detail, exchange) = match outcome {
            Ok(()) => (Verdict::Pass, None, None),
            Err(Finding::Fail(expected)) => (Verdict::Fail, Some(expected), Some(steps())),
            Err(Finding::NotOffered(what)) => (Verdict::NotOffered, Some(what), None),
            Err(Finding::Differs(how)) => (Verdict::Differs, Some(how), None),
        };
        let super::Requirement { id, section, level, title, .. } = *requirement;
        Self { id, section, level, title, verdict, detail, exchange }
    }
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::NotOffered => "not offered",
        Verdict::Differs => "differs",
    }
}

impl Report {
    /// Whether every MUST that is offered holds.
    pub fn conforms(&self) -> bool {
        !self.requirements.iter().any(|r| r.level == Level::Must && r.verdict == Verdict::Fail)
    }

    /// The ids of the requirements that got `verdict`.
    pub fn with(&self, verdict: Verdict) -> Vec<&'static str> {
        self.requirements.iter().filter(|r| r.verdict == verdict).map(|r| r.id).collect()
    }

    /// Writes the table, the steps of each failure, and a summary.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.requirements.iter().map(|r| r.id.len()).max().unwrap_or(0);
        writeln!(out, "{:width$}  {:6}  {:11}  TITLE", "REQUIREMENT", "LEVEL", "VERDICT")?;
        for row in &self.requirements {
            writeln!(out, "{:width$}  {:6}  {:11}  {}", row.id, row.level, name(row.verdict), row.title)?;
        }
        for row in self.requirements.iter().filter(|r| r.verdict != Verdict::Pass) {
            let detail = escaped(row.detail.as_deref().unwrap_or_default());
            match &row.exchange {
                Some(steps) => {
                    writeln!(out, "\nFAIL {} ({}, section \"{}\")", row.id, row.level, row.section)?;
                    writeln!(out, "expected: {detail}")?;
                    steps.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
                }
                None => writeln!(out, "\n{} {}: {detail}", name(row.verdict), row.id)?,
            }
        }
        for item in &self.left_behind {
            writeln!(out, "\nleft behind, it cannot be removed: {}", escaped(item))?;
        }
        writeln!(
            out,
            "\n{}: {} pass, {} fail, {} not offered, {} differ ({})",
            escaped(&self.subject),
            self.with(Verdict::Pass).len(),
            self.with(Verdict::Fail).len(),
            self.with(Verdict::NotOffered).len(),
            self.with(Verdict::Differs).len(),
            self.specification,
        )
    }
}
