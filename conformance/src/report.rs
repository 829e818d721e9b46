//! A run's results, as a table or as one JSON document.

use std::io::{self, Write};

use serde::Serialize;

use crate::outcome::{Finding, Level, Outcome};
use crate::spec::Requirement;

/// The results of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The registry judged, by its base URL.
    pub registry: String,
    /// The specification judged by.
    pub specification: &'static str,
    /// One row a requirement, in the order of the table.
    pub requirements: Vec<Row>,
    /// What could not be removed from the registry afterwards.
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
    /// The exchange of a failure, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// An [`Outcome`] by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As required.
    Pass,
    /// Not as required.
    Fail,
    /// The registry does not offer it.
    NotOffered,
    /// The specification leaves it open.
    Differs,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotOffered => "not offered",
            Self::Differs => "differs",
        }
    }
}

impl Row {
    /// The row for a requirement's outcome.
    pub fn new(requirement: &Requirement, outcome: Outcome) -> Self {
        let (verdict, detail, exchange) = match outcome {
            Ok(()) => (Verdict::Pass, None, None),
            Err(Finding::Fail { expected, exchange }) => (Verdict::Fail, Some(expected), Some(exchange.to_string())),
            Err(Finding::NotOffered(what)) => (Verdict::NotOffered, Some(what), None),
            Err(Finding::Differs(how)) => (Verdict::Differs, Some(how), None),
        };
        let Requirement { id, section, level, title, .. } = *requirement;
        Self { id, section, level, title, verdict, detail, exchange }
    }
}

impl Report {
    /// Whether every MUST that is offered holds.
    pub fn conforms(&self) -> bool {
        !self.requirements.iter().any(|r| r.level == Level::Must && r.verdict == Verdict::Fail)
    }

    /// How many requirements got `verdict`.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.requirements.iter().filter(|r| r.verdict == verdict).count()
    }

    /// Writes the table, each failure's exchange, and a summary.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.requirements.iter().map(|r| r.id.len()).max().unwrap_or(0);
        writeln!(out, "{:width$}  {:6}  {:11}  TITLE", "REQUIREMENT", "LEVEL", "VERDICT")?;
        for row in &self.requirements {
            writeln!(out, "{:width$}  {:6}  {:11}  {}", row.id, row.level, row.verdict.as_str(), row.title)?;
        }
        for row in self.requirements.iter().filter(|r| r.verdict != Verdict::Pass) {
            let detail = row.detail.as_deref().unwrap_or_default();
            match &row.exchange {
                Some(exchange) => {
                    writeln!(out, "\nFAIL {} ({}, section \"{}\")", row.id, row.level, row.section)?;
                    writeln!(out, "expected: {detail}")?;
                    exchange.lines().try_for_each(|line| writeln!(out, "  {line}"))?;
                }
                None => writeln!(out, "\n{} {}: {detail}", row.verdict.as_str(), row.id)?,
            }
        }
        for item in &self.left_behind {
            writeln!(out, "\nleft behind, the registry does not let it be deleted: {item}")?;
        }
        writeln!(
            out,
            "\n{}: {} pass, {} fail, {} not offered, {} differ ({})",
            self.registry,
            self.count(Verdict::Pass),
            self.count(Verdict::Fail),
            self.count(Verdict::NotOffered),
            self.count(Verdict::Differs),
            self.specification,
        )
    }
}
