//! A run's results, and the forms they are put out in.
//!
//! [`Report`] is what `rconform spec` or `rconform runtime` found. It is written as a table, as JSON (what serde makes of
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

use crate::outcome::Level;
use crate::requirement::Requirement;

pub use self::console::printable;
pub use self::date::now;
pub use self::html::Page;
pub use self::measured::{Loads, Measured};

/// The results of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What was judged: a registry by its base URL, a runtime by its program.
    #[serde(alias = "registry")]
    pub subject: String,
    /// The specification judged by.
    pub specification: Cow<'static, str>,
    /// When it was judged, as in `2026-11-25T22:43:30Z`; empty in reports of before this was noted.
    #[serde(default)]
    pub judged_at: String,
    /// One row a requirement, in the order of the table.
    pub requirements: Vec<Row>,
    /// What was made and could not be removed afterwards.
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
    /// The exchange or the commands of a failure, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As required.
    Pass,
    /// Not as required.
    Fail,
    /// It is not offered.
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
    /// The row of a requirement that came to a verdict.
    pub(crate) fn new<C>(of: &Requirement<C>, verdict: Verdict, detail: Option<String>, exchange: Option<String>) -> Self {
        let Requirement { id, section, level, title, .. } = of;
        Self { id: (*id).into(), section: (*section).into(), level: *level, title: (*title).into(), verdict, detail, exchange }
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

    /// The ids of the requirements that got `verdict`.
    pub fn with(&self, verdict: Verdict) -> Vec<&str> {
        self.requirements.iter().filter(|r| r.verdict == verdict).map(|r| &*r.id).collect()
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
