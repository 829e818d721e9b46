//! Results read back from the JSON they were saved as.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize as _;
use serde_json::Value;

use super::Report;
use super::measured::Loads;
use crate::limits::JSON_LIMIT_BYTES;

/// What such a file should be, for errors.
const EXPECTED: &str = "what `rconform spec --output NAME.json` or `rconform load --output NAME.json` wrote";

/// What a file held.
#[derive(Debug, Clone)]
pub enum Saved {
    /// The report of `rconform spec` or `rconform runtime`.
    Spec(Report),
    /// The loads of `rconform load`: one, or one for each of two registries that took turns.
    Load(Loads),
}

impl Saved {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is longer than [`JSON_LIMIT_BYTES`], or is no results; the file is named.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut bytes = Vec::new();
        let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
        file.take(JSON_LIMIT_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {shown}"))?;
        ensure!(bytes.len() as u64 <= JSON_LIMIT_BYTES, "{shown} is over {JSON_LIMIT_BYTES} bytes: it should be {EXPECTED}");
        Self::parse(&bytes).with_context(|| format!("{shown} should be {EXPECTED}, and is not"))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is no JSON, or JSON of something else.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let document: Value = serde_json::from_slice(bytes).context("it is no JSON")?;
        if document.get("requirements").is_some() {
            return Ok(Self::Spec(Report::deserialize(&document).context("it is no whole report")?));
        }
        if document.get("latency_ms").or(document.get("rounds")).is_none() {
            bail!("it has none of `requirements`, `latency_ms` and `rounds`");
        }
        Ok(Self::Load(Loads::read(&document).context("it is no whole summary of a load")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_the_same_after_being_saved() {
        let row = r#"{"id":"pull-blob","section":"Pulling","level":"MUST","title":"t","verdict":"not-offered","detail":"d"}"#;
        let text = format!(
            r#"{{"subject":"http://a/","specification":"s","judged_at":"then","requirements":[{row}],"left_behind":["x"]}}"#
        );
        let Saved::Spec(report) = Saved::parse(text.as_bytes()).unwrap() else { panic!("a report") };
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no JSON"),
            ("{\"requirements\": [1]}", "no whole report"),
            ("{\"requirements\": []}", "missing field `subject`"),
            ("{\"latency_ms\": {}}", "missing field `registry`"),
            ("{\"rounds\": [[]]}", "no whole summary"),
            ("[1, 2]", "it has none"),
            ("null", "it has none"),
        ] {
            let error = format!("{:#}", Saved::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
        let deep = "[".repeat(100_000);
        assert!(Saved::parse(deep.as_bytes()).is_err());
    }
}
