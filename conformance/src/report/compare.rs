//! Two results side by side: requirements whose verdict differs, figures and their ratio.

use std::io::{self, Write};

use anyhow::bail;
use serde::Serialize;

use super::console::printable;
use super::measured::Measured;
use super::plot::figure;
use super::saved::Saved;
use super::{Report, Verdict};
use crate::outcome::Level;

/// Two results, compared.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Comparison {
    /// Of reports.
    Spec(SpecComparison),
    /// Of loads.
    Load(LoadComparison),
}

/// Two reports, compared.
#[derive(Debug, Serialize)]
pub struct SpecComparison {
    /// The first registry.
    pub a: String,
    /// The second registry.
    pub b: String,
    /// Requirements whose verdict is not the same, in the order of the first report.
    pub differences: Vec<Difference>,
    /// Requirements with the same verdict in both.
    pub same: usize,
}

/// A requirement with two verdicts. `None` where a report does not have it.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The requirement's id.
    pub id: String,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: String,
    /// The verdict on the first registry.
    pub a: Option<Verdict>,
    /// The verdict on the second registry.
    pub b: Option<Verdict>,
}

/// Two loads, compared.
#[derive(Debug, Serialize)]
pub struct LoadComparison {
    /// The first registry.
    pub a: String,
    /// The second registry.
    pub b: String,
    /// What was asked of the first.
    pub load_a: String,
    /// What was asked of the second.
    pub load_b: String,
    /// Whether both were asked the same; otherwise the ratios say little.
    pub comparable: bool,
    /// The numbers both have.
    pub figures: Vec<Ratio>,
}

/// A number of two loads.
#[derive(Debug, Serialize)]
pub struct Ratio {
    /// What it is.
    pub name: &'static str,
    /// Its unit; empty for a plain count.
    pub unit: &'static str,
    /// Of the first.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// The second by the first; `None` where the first is 0.
    pub ratio: Option<f64>,
}

impl Comparison {
    /// Compares two results of one kind.
    ///
    /// # Errors
    /// When they are of different kinds, or one holds more than one load.
    pub fn new(a: &Saved, b: &Saved) -> anyhow::Result<Self> {
        match (a, b) {
            (Saved::Spec(a), Saved::Spec(b)) => Ok(Self::Spec(SpecComparison::new(a, b))),
            (Saved::Load(a), Saved::Load(b)) => match (&a.loads[..], &b.loads[..]) {
                ([a], [b]) => Ok(Self::Load(LoadComparison::new(a, b))),
                _ => bail!("what two registries gave in turn is compared already: `rconform report` shows it"),
            },
            _ => bail!("one is of `rconform spec`, the other of `rconform load`: two of one kind can be compared"),
        }
    }

    /// Whether the second fails nothing the first passes. Loads have nothing to fail.
    pub fn holds(&self) -> bool {
        match self {
            Self::Spec(comparison) => !comparison.differences.iter().any(Difference::is_regression),
            Self::Load(_) => true,
        }
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Spec(comparison) => comparison.write_table(out),
            Self::Load(comparison) => comparison.write_table(out),
        }
    }
}

impl Difference {
    /// Whether the second fails what the first passes.
    pub fn is_regression(&self) -> bool {
        (self.a, self.b) == (Some(Verdict::Pass), Some(Verdict::Fail))
    }
}

impl SpecComparison {
    fn new(a: &Report, b: &Report) -> Self {
        let verdict = |report: &Report, id: &str| report.requirements.iter().find(|r| r.id == id).map(|r| r.verdict);
        let only_in_b = b.requirements.iter().filter(|row| verdict(a, &row.id).is_none());
        let rows: Vec<_> = a.requirements.iter().chain(only_in_b).collect();
        let differences: Vec<_> = rows
            .iter()
            .map(|row| Difference {
                id: row.id.to_string(),
                level: row.level,
                title: row.title.to_string(),
                a: verdict(a, &row.id),
                b: verdict(b, &row.id),
            })
            .filter(|difference| difference.a != difference.b)
            .collect();
        Self { a: a.subject.clone(), b: b.subject.clone(), same: rows.len() - differences.len(), differences }
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let ids: Vec<_> = self.differences.iter().map(|difference| printable(&difference.id)).collect();
        let width = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0).max("REQUIREMENT".len());
        writeln!(out, "A: {}\nB: {}\n", printable(&self.a), printable(&self.b))?;
        if !self.differences.is_empty() {
            writeln!(out, "{:width$}  {:6}  {:11}  {:11}  TITLE", "REQUIREMENT", "LEVEL", "A", "B")?;
        }
        let name = |verdict: Option<Verdict>| verdict.map_or("not judged", Verdict::as_str);
        for (id, difference) in ids.iter().zip(&self.differences) {
            let Difference { level, a, b, title, .. } = difference;
            writeln!(out, "{id:width$}  {level:6}  {:11}  {:11}  {}", name(*a), name(*b), printable(title))?;
        }
        let regressions = self.differences.iter().filter(|difference| difference.is_regression()).count();
        let blank = if self.differences.is_empty() { "" } else { "\n" };
        writeln!(
            out,
            "{blank}{} verdicts differ, {} are the same; B fails {regressions} that A passes",
            self.differences.len(),
            self.same,
        )
    }
}

impl LoadComparison {
    fn new(a: &Measured, b: &Measured) -> Self {
        let others = b.figures();
        let ratio = |a: super::measured::Figure| {
            let b = others.iter().find(|b| b.name == a.name)?.value;
            let ratio = (a.value > 0.0).then(|| b / a.value).filter(|ratio| ratio.is_finite());
            Some(Ratio { name: a.name, unit: a.unit, a: a.value, b, ratio })
        };
        Self {
            a: a.registry.clone(),
            b: b.registry.clone(),
            load_a: a.title(),
            load_b: b.title(),
            comparable: a.is_comparable(b),
            figures: a.figures().into_iter().filter_map(ratio).collect(),
        }
    }

    fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "A: {}, {}", printable(&self.a), printable(&self.load_a))?;
        writeln!(out, "B: {}, {}\n", printable(&self.b), printable(&self.load_b))?;
        writeln!(out, "{:32}  {:>12}  {:>12}  {:>8}", "FIGURE", "A", "B", "B : A")?;
        for Ratio { name, unit, a, b, ratio } in &self.figures {
            let name = if unit.is_empty() { (*name).to_owned() } else { format!("{name}, {unit}") };
            let ratio = ratio.map_or("-".to_owned(), figure);
            writeln!(out, "{name:32}  {:>12}  {:>12}  {ratio:>8}", figure(*a), figure(*b))?;
        }
        if !self.comparable {
            writeln!(out, "\nWARNING: not the same was asked of both; the ratios say little")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(registry: &str, verdicts: &[(&str, &str)]) -> Saved {
        let row = |(id, verdict): &(&str, &str)| serde_json::json!({"id": id, "section": "s", "level": "MUST", "title": "t", "verdict": verdict});
        let rows: Vec<_> = verdicts.iter().map(row).collect();
        let document = serde_json::json!({"registry": registry, "specification": "s", "requirements": rows});
        Saved::parse(document.to_string().as_bytes()).unwrap()
    }

    fn table(comparison: &Comparison) -> String {
        let mut out = Vec::new();
        comparison.write_table(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_the_first_passes_and_the_second_fails_counts_against_it() {
        let a = report("A", &[("x-1", "pass"), ("x-2", "fail"), ("x-3", "not-offered"), ("x-4", "pass"), ("x-5", "pass")]);
        let better = report("B", &[("x-1", "pass"), ("x-2", "pass"), ("x-3", "fail"), ("x-4", "differs"), ("y-1", "fail")]);
        let comparison = Comparison::new(&a, &better).unwrap();
        assert!(comparison.holds());
        let Comparison::Spec(found) = &comparison else { panic!("of reports") };
        let ids: Vec<_> = found.differences.iter().map(|d| d.id.as_str()).collect();
        assert_eq!((ids, found.same), (vec!["x-2", "x-3", "x-4", "x-5", "y-1"], 1));
        assert!(table(&comparison).contains("x-5          MUST    pass         not judged   t"), "{}", table(&comparison));

        let worse = Comparison::new(&a, &report("B", &[("x-1", "fail")])).unwrap();
        assert!(!worse.holds());
        assert!(table(&worse).ends_with("B fails 1 that A passes\n"), "{}", table(&worse));
    }

    #[test]
    fn figures_are_set_against_each_other_and_what_was_not_the_same_is_said() {
        let load = |kind: &str, per_second: f64| {
            let document = serde_json::json!({"registry": "R\u{1b}[2J", "kind": kind, "requests": 0, "per_second": per_second, "latency_ms": {"p50": 2.0}});
            Saved::parse(document.to_string().as_bytes()).unwrap()
        };
        let comparison = Comparison::new(&load("upload", 10.0), &load("upload", 25.0)).unwrap();
        let Comparison::Load(found) = &comparison else { panic!("of loads") };
        let ratio = |name| found.figures.iter().find(|figure| figure.name == name).unwrap().ratio;
        assert_eq!((ratio("throughput"), ratio("latency, p50"), ratio("requests")), (Some(2.5), Some(1.0), None));
        let shown = table(&comparison);
        assert!(!shown.contains("WARNING") && !shown.contains('\u{1b}'), "{shown:?}");
        assert!(table(&Comparison::new(&load("upload", 1.0), &load("tag-put", 1.0)).unwrap()).contains("WARNING"));
        assert!(Comparison::new(&load("upload", 1.0), &report("A", &[])).is_err());
    }
}
