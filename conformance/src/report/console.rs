//! A report as a table for a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use super::escape::is_unfit;
use super::{Report, Verdict};

impl Report {
    /// Writes the table, each failure's exchange, and a summary.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_table(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let width = self.requirements.iter().map(|r| r.id.len()).max().unwrap_or(0);
        writeln!(out, "{:width$}  {:6}  {:11}  TITLE", "REQUIREMENT", "LEVEL", "VERDICT")?;
        for row in &self.requirements {
            writeln!(out, "{:width$}  {:6}  {:11}  {}", row.id, row.level, row.verdict.as_str(), row.title)?;
        }
        for row in self.requirements.iter().filter(|r| r.verdict != Verdict::Pass) {
            let detail = printable(row.detail.as_deref().unwrap_or_default());
            match &row.exchange {
                Some(exchange) => {
                    writeln!(out, "\nFAIL {} ({}, section \"{}\")", row.id, row.level, row.section)?;
                    writeln!(out, "expected: {detail}")?;
                    exchange.lines().try_for_each(|line| writeln!(out, "  {}", printable(line)))?;
                }
                None => writeln!(out, "\n{} {}: {detail}", row.verdict.as_str(), row.id)?,
            }
        }
        for item in &self.left_behind {
            writeln!(out, "\nleft behind, it cannot be removed: {}", printable(item))?;
        }
        writeln!(
            out,
            "\n{}: {} pass, {} fail, {} not offered, {} differ ({})",
            self.subject,
            self.count(Verdict::Pass),
            self.count(Verdict::Fail),
            self.count(Verdict::NotOffered),
            self.count(Verdict::Differs),
            self.specification,
        )
    }
}

/// Text as it may reach a terminal, on one line: what would steer the terminal is written out, as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_steering) {
        text.chars().map(|c| if is_steering(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
    } else {
        text.into()
    }
}

fn is_steering(c: char) -> bool {
    c.is_control() || is_unfit(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out_and_nothing_else_is_touched() {
        assert_eq!(printable("a\u{1b}[2J\n\u{9b}\u{202e}b"), "a\\u{1b}[2J\\u{a}\\u{9b}\\u{202e}b");
        assert_eq!(printable("Größe \\u{1b} 漢字"), "Größe \\u{1b} 漢字");
    }
}
