//! Results as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! The page is well-formed XML too, which is how the tests read it. Its policy forbids whatever a
//! registry's answer might smuggle in, should the escaping ever fail.

use std::io::{self, Write};

use super::escape::text;
use super::html_load::{Section, sections, write_load};
use super::measured::Loads;
use super::{Report, Row, Verdict, count};

const STYLE: &str = include_str!("page.css");
/// Nothing is fetched and nothing run; only the style above counts.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// A page of results.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The registries judged.
    pub reports: &'a [Report],
    /// The loads measured.
    pub loads: &'a [Loads],
}

impl Page<'_> {
    /// Writes the page.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let loads = sections(self.loads);
        let names: Vec<&str> = match self.reports {
            [] => self.loads.iter().flat_map(|l| &l.loads).map(|l| l.registry.as_str()).collect(),
            reports => reports.iter().map(|r| r.subject.as_str()).collect(),
        };
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <link rel=\"icon\" href=\"data:,\"/>\n<title>rconform: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            text(names.first().copied().unwrap_or("nothing")),
        )?;
        writeln!(out, "<header>\n<h1>Conformance report</h1>")?;
        if self.reports.len() + loads.len() > 1 {
            self.write_contents(&loads, out)?;
        }
        writeln!(out, "</header>\n<main>")?;
        for (number, report) in self.reports.iter().enumerate() {
            write_report(number, report, out)?;
        }
        for (number, loads) in loads.iter().enumerate() {
            write_load(number, loads, out)?;
        }
        writeln!(
            out,
            "</main>\n<footer><p>Made by rconform {} at {}.</p></footer>\n</body>\n</html>",
            env!("CARGO_PKG_VERSION"),
            spoken_time(&super::now()),
        )
    }

    fn write_contents(&self, loads: &[Section<'_>], out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "<nav aria-label=\"Contents\">\n<ul>")?;
        for (number, report) in self.reports.iter().enumerate() {
            let verdict = if report.conforms() { "conforms" } else { "does not conform" };
            writeln!(out, "<li><a href=\"#spec{number}\">{}</a> {verdict}</li>", text(&report.subject))?;
        }
        for (number, loads) in loads.iter().enumerate() {
            writeln!(out, "<li><a href=\"#load{number}\">Load: {}</a></li>", text(&loads.title()))?;
        }
        writeln!(out, "</ul>\n</nav>")
    }
}

/// `2026-11-25T22:43:30Z` as people read it; anything else as it is.
pub(super) fn spoken_time(time: &str) -> String {
    match time.strip_suffix('Z').and_then(|time| time.split_once('T')) {
        Some((day, time)) => format!("{day} {time} UTC"),
        None => time.to_owned(),
    }
}

/// The class a verdict has in the style sheet, and a sign that tells it without colour.
fn look(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Pass => ("pass", "✓"),
        Verdict::Fail => ("fail", "✗"),
        Verdict::NotOffered => ("absent", "–"),
        Verdict::Differs => ("differs", "≠"),
    }
}

fn write_report(number: usize, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<section class=\"report\" id=\"spec{number}\">\n<h2>{}</h2>", text(&report.subject))?;
    let (class, verdict) = match report.failed_musts() {
        0 => ("pass", "✓ Conforms: no MUST that was judged fails".to_owned()),
        1 => ("fail", "✗ Does not conform: 1 MUST fails".to_owned()),
        n => ("fail", format!("✗ Does not conform: {n} MUSTs fail")),
    };
    writeln!(out, "<p class=\"verdict {class}\">{verdict}</p>")?;
    writeln!(out, "<dl class=\"facts\">\n<div><dt>Specification</dt><dd>{}</dd></div>", text(&report.specification))?;
    if !report.judged_at.is_empty() {
        writeln!(out, "<div><dt>Judged</dt><dd>{}</dd></div>", text(&spoken_time(&report.judged_at)))?;
    }
    writeln!(out, "<div><dt>Requirements</dt><dd>{}</dd></div>\n</dl>", report.requirements.len())?;
    write_counts(report, out)?;
    write_failures(number, report, out)?;
    write_requirements(number, report, out)?;
    if !report.left_behind.is_empty() {
        writeln!(out, "<h3>Left behind</h3>\n<p>This cannot be removed:</p>\n<ul class=\"paths\">")?;
        report.left_behind.iter().try_for_each(|item| writeln!(out, "<li><code>{}</code></li>", text(item)))?;
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section>")
}

/// How many there are of each verdict: as words, and as a bar of their shares.
fn write_counts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let counts = Verdict::ALL.map(|verdict| (verdict, report.count(verdict)));
    writeln!(out, "<div class=\"bar\" aria-hidden=\"true\">")?;
    for (verdict, count) in counts.iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "<span class=\"{}\" style=\"flex-grow:{count}\"></span>", look(*verdict).0)?;
    }
    writeln!(out, "</div>\n<ul class=\"counts\">")?;
    for (verdict, count) in counts {
        let ((class, sign), name) = (look(verdict), verdict.as_str().to_lowercase());
        writeln!(out, "<li class=\"{class}\"><b>{count}</b> <span>{sign} {name}</span></li>")?;
    }
    writeln!(out, "</ul>")
}

fn write_failures(number: usize, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let failures = report.requirements.iter().enumerate().filter(|(_, row)| row.verdict == Verdict::Fail);
    for (i, (index, row)) in failures.enumerate() {
        if i == 0 {
            writeln!(out, "<h3>Failures</h3>")?;
        }
        writeln!(out, "<article class=\"failure\" id=\"fail{number}-{index}\">\n<h4>{}</h4>", text(&row.id))?;
        writeln!(out, "<p>{} {}</p>", text(&row.title), badge(row.level))?;
        let detail = row.detail.as_deref().unwrap_or_default();
        writeln!(out, "<p class=\"expected\"><b>Expected:</b> {}</p>", text(detail))?;
        writeln!(out, "<p class=\"section\">Section “{}”</p>", text(&row.section))?;
        if let Some(exchange) = &row.exchange {
            writeln!(
                out,
                "<details>\n<summary>The exchange</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>",
                text(exchange.trim_end())
            )?;
        }
        writeln!(out, "</article>")?;
    }
    Ok(())
}

fn badge(level: crate::outcome::Level) -> String {
    format!("<span class=\"level\">{level}</span>")
}

fn write_requirements(number: usize, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<h3>Requirements</h3>\n<fieldset class=\"filter\">\n<legend>Show</legend>")?;
    let choices = [("all", "all"), ("fail", "failures"), ("absent", "not offered"), ("differs", "differences")];
    for (i, (class, name)) in choices.into_iter().enumerate() {
        let checked = if i == 0 { " checked=\"checked\"" } else { "" };
        writeln!(
            out,
            "<label><input type=\"radio\" name=\"show{number}\" class=\"show-{class}\"{checked}/> <span>{name}</span></label>"
        )?;
    }
    writeln!(out, "</fieldset>\n<p class=\"none\">There are none.</p>")?;
    let index = |row: &Row| report.requirements.iter().position(|other| std::ptr::eq(other, row));
    for (group, rows) in report.groups() {
        let passed = count(rows.iter().copied(), Verdict::Pass);
        writeln!(out, "<section class=\"group\">\n<h4>{} <small>{passed} of {} pass</small></h4>", text(group), rows.len())?;
        // On a narrow screen the rows are cards; the roles keep them a table for who listens.
        writeln!(
            out,
            "<table role=\"table\">\n<thead role=\"rowgroup\"><tr role=\"row\">\
             <th role=\"columnheader\" scope=\"col\">Verdict</th>\
             <th role=\"columnheader\" scope=\"col\">Requirement</th>\
             <th role=\"columnheader\" scope=\"col\">Level</th>\
             <th role=\"columnheader\" scope=\"col\">Section</th></tr></thead>\n<tbody role=\"rowgroup\">"
        )?;
        for row in rows {
            write_row(number, index(row).unwrap_or_default(), row, out)?;
        }
        writeln!(out, "</tbody>\n</table>\n</section>")?;
    }
    Ok(())
}

fn write_row(number: usize, index: usize, row: &Row, out: &mut dyn Write) -> io::Result<()> {
    let (class, sign) = look(row.verdict);
    write!(
        out,
        "<tr role=\"row\" class=\"{class}\"><td role=\"cell\"><span class=\"mark {class}\">{sign} {}</span></td>\
         <th role=\"rowheader\" scope=\"row\"><code>",
        row.verdict.as_str().to_lowercase()
    )?;
    match row.verdict {
        Verdict::Fail => write!(out, "<a href=\"#fail{number}-{index}\">{}</a>", text(&row.id))?,
        _ => write!(out, "{}", text(&row.id))?,
    }
    write!(out, "</code> <span class=\"title\">{}</span>", text(&row.title))?;
    if let (Some(detail), Verdict::NotOffered | Verdict::Differs) = (&row.detail, row.verdict) {
        write!(out, " <span class=\"detail\">{}</span>", text(detail))?;
    }
    writeln!(
        out,
        "</th><td role=\"cell\">{}</td><td role=\"cell\" class=\"section\">{}</td></tr>",
        badge(row.level),
        text(&row.section)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What WCAG 2 asks for text (1.4.3, level AA).
    const READABLE: f64 = 4.5;

    /// The relative luminance of `#rrggbb` (WCAG 2).
    fn luminance(color: &str) -> f64 {
        let part = |at: usize| f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
        let linear = |c: f64| if c <= 0.03928 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5))
    }

    #[test]
    fn every_ink_is_readable_on_its_ground_in_the_light_in_the_dark_and_on_paper() {
        let palettes: Vec<_> = STYLE.split(":root {").skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
        assert_eq!(palettes.len(), 3);
        for palette in palettes {
            let color = |name: &str| {
                palette.split_once(&format!("--{name}: ")).unwrap_or_else(|| panic!("{name}")).1.split(';').next().unwrap()
            };
            let grounds = ["page", "raised"];
            let own = ["pass", "fail", "absent", "differs"].map(|verdict| (format!("{verdict}-ink"), format!("{verdict}-fill")));
            let everywhere = ["ink", "muted", "accent", "pass-ink", "fail-ink", "absent-ink", "differs-ink"];
            let pairs = everywhere.iter().flat_map(|ink| grounds.iter().map(move |ground| (ink.to_string(), ground.to_string())));
            for (ink, ground) in pairs.chain(own) {
                let (a, b) = (luminance(color(&ink)), luminance(color(&ground)));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= READABLE, "{ink} on {ground}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn times_are_shown_as_people_write_them_and_what_is_none_as_it_is() {
        assert_eq!(spoken_time("2026-11-25T22:43:30Z"), "2026-11-25 22:43:30 UTC");
        assert_eq!(spoken_time("yesterday"), "yesterday");
    }
}
