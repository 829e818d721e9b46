//! Results as JUnit XML, the form continuous integration reads.
//!
//! One `testsuite` a group of requirements, one `testcase` a requirement. A failure carries its level as
//! `type`, so that a reader may tell a MUST from a SHOULD; the exit code counts
//! MUSTs alone. What is not offered is skipped. What differs is no failure: it passes, with a note.

use std::io::{self, Write};

use super::escape::{attribute, text};
use super::measured::Measured;
use super::{Report, Row, Verdict, count};

const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

impl Report {
    /// Writes the report as JUnit XML.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_junit(&self, out: &mut dyn Write) -> io::Result<()> {
        let (failures, skipped) = (self.count(Verdict::Fail), self.count(Verdict::NotOffered));
        writeln!(out, "{DECLARATION}")?;
        writeln!(
            out,
            r#"<testsuites name="{}" tests="{}" failures="{failures}" errors="0" skipped="{skipped}">"#,
            attribute(&format!("rconform {}", self.subject)),
            self.requirements.len(),
        )?;
        for (group, rows) in self.groups() {
            let count = |verdict| count(rows.iter().copied(), verdict);
            write!(
                out,
                r#"  <testsuite name="{}" tests="{}" failures="{}" errors="0" skipped="{}""#,
                attribute(group),
                rows.len(),
                count(Verdict::Fail),
                count(Verdict::NotOffered),
            )?;
            if !self.judged_at.is_empty() {
                // The format knows no time zone; UTC is what its readers take it for.
                write!(out, r#" timestamp="{}""#, attribute(self.judged_at.trim_end_matches('Z')))?;
            }
            writeln!(out, ">\n    <properties>")?;
            for (name, value) in [("subject", self.subject.as_str()), ("specification", &self.specification)] {
                writeln!(out, r#"      <property name="{name}" value="{}"/>"#, attribute(value))?;
            }
            writeln!(out, "    </properties>")?;
            rows.iter().try_for_each(|row| write_case(row, out))?;
            writeln!(out, "  </testsuite>")?;
        }
        writeln!(out, "</testsuites>")
    }
}

fn write_case(row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let class = format!("rconform.{}", row.group());
    writeln!(out, r#"    <testcase classname="{}" name="{}">"#, attribute(&class), attribute(&row.id))?;
    let detail = row.detail.as_deref().unwrap_or_default();
    match row.verdict {
        Verdict::Pass | Verdict::Differs => {}
        Verdict::NotOffered => writeln!(out, r#"      <skipped message="not offered: {}"/>"#, attribute(detail))?,
        Verdict::Fail => writeln!(
            out,
            "      <failure type=\"{}\" message=\"expected: {}\">{}</failure>",
            row.level,
            attribute(detail),
            text(row.exchange.as_deref().unwrap_or_default()),
        )?,
    }
    write!(out, "      <system-out>{} ({}, section &quot;{}&quot;)", text(&row.title), row.level, text(&row.section))?;
    if row.verdict == Verdict::Differs {
        write!(out, "\ndiffers: {}", text(detail))?;
    }
    writeln!(out, "</system-out>\n    </testcase>")
}

/// Writes loads as JUnit XML: a case a load, failed when a request was.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_loads(loads: &[Measured], out: &mut dyn Write) -> io::Result<()> {
    let failed = loads.iter().filter(|load| load.failures > 0).count();
    let totals = format!(r#"tests="{}" failures="{failed}" errors="0" skipped="0""#, loads.len());
    writeln!(out, "{DECLARATION}\n<testsuites name=\"rconform load\" {totals}>\n  <testsuite name=\"load\" {totals}>")?;
    for load in loads {
        let name = format!("{} on {}", load.title(), load.registry);
        let seconds = load.seconds.max(0.0);
        writeln!(out, r#"    <testcase classname="rconform.load" name="{}" time="{seconds:.3}">"#, attribute(&name))?;
        if load.failures > 0 {
            let first = load.first_failure.as_deref().unwrap_or_default();
            let message = format!("{} requests failed; the first: {first}", load.failures);
            writeln!(out, r#"      <failure type="load" message="{}"/>"#, attribute(&message))?;
        }
        write!(out, "      <system-out>")?;
        for figure in load.figures() {
            writeln!(out, "{}", text(&figure.to_string()))?;
        }
        writeln!(out, "</system-out>\n    </testcase>")?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}
