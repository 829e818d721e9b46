//! A run's results, and the forms they are put out in.
//!
//! [`Report`] is what `rconform spec` found. It is written as a table, as JSON (what serde makes of
//! it), as JUnit XML and as an HTML page; [`saved`] reads the JSON of it and of a load back, and
//! [`compare`] sets two of them side by side.

pub mod compare;
mod console;
mod date;
mod escape;
mod html;
mod html_load;
mod junit;
pub mod measured;
pub mod output;
mod plot;
pub mod saved;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::outcome::{Finding, Level, Outcome};
use crate::spec::Requirement;

pub use self::console::printable;
pub use self::date::now;
pub use self::html::Page;
pub use self::measured::{Loads, Measured};

/// The results of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The registry judged, by its base URL.
    pub registry: String,
    /// The specification judged by.
    pub specification: Cow<'static, str>,
    /// When it was judged, as in `2026-11-25T22:43:30Z`; empty in reports of before this was noted.
    #[serde(default)]
    pub judged_at: String,
    /// One row a requirement, in the order of the table.
    pub requirements: Vec<Row>,
    /// What could not be removed from the registry afterwards.
    #[serde(default)]
    pub left_behind: Vec<String>,
}

/// A requirement and what was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The requirement's id, stable across versions.
    pub id: Cow<'static, str>,
    /// The section of the specification it stands in.
    pub section: Cow<'static, str>,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: Cow<'static, str>,
    /// What was found.
    pub verdict: Verdict,
    /// On a failure what was expected, otherwise what is not offered or differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The exchange of a failure, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// An [`Outcome`] by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Every verdict, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Fail, Self::NotOffered, Self::Differs];

    /// The verdict in a word or two; a failure stands out.
    pub fn as_str(self) -> &'static str {
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
        Self { id: id.into(), section: section.into(), level, title: title.into(), verdict, detail, exchange }
    }

    /// The group the requirement is of: its id up to the first dash.
    pub fn group(&self) -> &str {
        self.id.split_once('-').map_or(&self.id, |(group, _)| group)
    }
}

impl Report {
    /// Whether every MUST that is offered holds.
    pub fn conforms(&self) -> bool {
        self.failed_musts() == 0
    }

    /// How many MUSTs fail.
    pub fn failed_musts(&self) -> usize {
        self.requirements.iter().filter(|r| r.level == Level::Must && r.verdict == Verdict::Fail).count()
    }

    /// How many requirements got `verdict`.
    pub fn count(&self, verdict: Verdict) -> usize {
        count(&self.requirements, verdict)
    }

    /// The groups by name with their rows, in the order in which each was first met.
    pub fn groups(&self) -> Vec<(&str, Vec<&Row>)> {
        let mut groups: Vec<(&str, Vec<&Row>)> = Vec::new();
        for row in &self.requirements {
            match groups.iter_mut().find(|(name, _)| *name == row.group()) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((row.group(), vec![row])),
            }
        }
        groups
    }
}

/// How many of `rows` got `verdict`.
fn count<'a>(rows: impl IntoIterator<Item = &'a Row>, verdict: Verdict) -> usize {
    rows.into_iter().filter(|r| r.verdict == verdict).count()
}
