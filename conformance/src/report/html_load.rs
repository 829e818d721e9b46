//! The part of a page that shows loads: figures side by side, latency, throughput over time.

use std::io::{self, Write};

use super::escape::{attribute, text};
use super::html::spoken_time;
use super::measured::{Figure, Loads, Measured, Spread};
use super::plot::{Series, figure, write_latency, write_throughput};
use crate::limits::PLOT_SERIES_LIMIT;

/// Loads that asked the same, shown together.
pub(super) struct Section<'a> {
    loads: Vec<&'a Measured>,
    /// Where two registries took turns.
    ratios: &'a [Spread],
}

impl Section<'_> {
    /// What was asked.
    pub(super) fn title(&self) -> String {
        self.loads.first().map_or_else(String::new, |load| load.title())
    }
}

/// The loads by what they asked, each section of a size that one plot can show. Those that took turns
/// stay by themselves.
pub(super) fn sections(documents: &[Loads]) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for document in documents {
        let fits = |section: &&mut Section<'_>| {
            let (here, new) = (&section.loads, &document.loads);
            new.len() == 1 && section.ratios.is_empty() && here.len() < PLOT_SERIES_LIMIT && here[0].is_comparable(&new[0])
        };
        match sections.iter_mut().find(fits) {
            Some(section) => section.loads.extend(&document.loads),
            None if document.loads.is_empty() => {}
            None => sections.push(Section { loads: document.loads.iter().collect(), ratios: &document.ratios }),
        }
    }
    sections
}

/// Writes a section.
pub(super) fn write_load(number: usize, section: &Section<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (title, loads) = (section.title(), &section.loads);
    writeln!(out, "<section class=\"load\" id=\"load{number}\">\n<h2>Load: {}</h2>", text(&title))?;
    let names = names(loads);
    for (name, load) in names.iter().zip(loads) {
        write_summary(name, load, out)?;
    }
    let series = |points: fn(&Measured) -> Vec<(f64, f64)>| {
        let line = |(name, load): (&String, &&Measured)| Series { name: name.clone(), points: points(load) };
        names.iter().zip(loads).map(line).collect::<Vec<_>>()
    };
    writeln!(out, "<div class=\"plots\">")?;
    write_latency("Latency by percentile", series(Measured::quantiles), out)?;
    write_throughput("Throughput over time", series(|load| load.timeline.clone()), out)?;
    writeln!(out, "</div>")?;
    if let ([first, second], false) = (&names[..], section.ratios.is_empty()) {
        write_ratios(first, second, section.ratios, out)?;
        writeln!(out, "<h3>Figures of the middle rounds</h3>")?;
        return write_figures(&title, &names, loads, false, out);
    }
    writeln!(out, "<h3>Figures</h3>")?;
    write_figures(&title, &names, loads, loads.len() == 2, out)
}

/// The registries' names, told apart where the same was measured twice.
fn names(loads: &[&Measured]) -> Vec<String> {
    let name = |(i, load): (usize, &&Measured)| match loads[..i].iter().filter(|other| other.registry == load.registry).count() {
        0 => load.registry.clone(),
        before => format!("{} ({})", load.registry, before + 1),
    };
    loads.iter().enumerate().map(name).collect()
}

fn write_summary(name: &str, load: &Measured, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "<p class=\"measured\"><b>{}</b>: {} requests a second", text(name), figure(load.per_second))?;
    if !load.measured_at.is_empty() {
        write!(out, ", measured {}", text(&spoken_time(&load.measured_at)))?;
    }
    writeln!(out, ".</p>")?;
    if load.failures > 0 {
        let first = load.first_failure.as_deref().unwrap_or_default();
        writeln!(out, "<p class=\"note fail\">✗ {} requests failed; the first: {}</p>", load.failures, text(first))?;
    }
    if let Some(offered) = load.offered.filter(|offered| !offered.reached) {
        writeln!(
            out,
            "<p class=\"note differs\">The offered rate was not reached: {} requests a second started of {}.</p>",
            figure(offered.started_per_second),
            figure(offered.per_second),
        )?;
    }
    if load.generator_was_the_limit {
        writeln!(out, "<p class=\"note differs\">The generator had no time left: the registry can do more than this.</p>")?;
    }
    Ok(())
}

/// A table that scrolls in a box of its own, with a heading for each column.
fn begin_table(spoken: &str, columns: &[&str], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">", attribute(spoken))?;
    write!(out, "<table class=\"figures\">\n<thead><tr>")?;
    columns.iter().try_for_each(|name| write!(out, "<th scope=\"col\">{}</th>", text(name)))?;
    writeln!(out, "</tr></thead>\n<tbody>")
}

fn write_ratios(first: &str, second: &str, ratios: &[Spread], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<h3>Medians and ratios of all rounds</h3>")?;
    begin_table("Medians and ratios", &["Figure", first, second, "second : first", "least to most"], out)?;
    for Spread { name, first, second, ratio, ratio_min, ratio_max } in ratios {
        write!(out, "<tr><th scope=\"row\">{}</th>", text(name))?;
        [first, second, ratio].into_iter().try_for_each(|value| write!(out, "<td>{}</td>", figure(*value)))?;
        writeln!(out, "<td>{} to {}</td></tr>", figure(*ratio_min), figure(*ratio_max))?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")
}

fn write_figures(title: &str, names: &[String], loads: &[&Measured], has_ratio: bool, out: &mut dyn Write) -> io::Result<()> {
    let columns: Vec<_> = loads.iter().map(|load| load.figures()).collect();
    let mut rows: Vec<Figure> = Vec::new();
    for figure in columns.iter().flatten() {
        if !rows.iter().any(|row| row.name == figure.name) {
            rows.push(*figure);
        }
    }
    let headings = ["Figure"].into_iter().chain(names.iter().map(String::as_str)).chain(has_ratio.then_some("second : first"));
    begin_table(&format!("Figures of {title}"), &headings.collect::<Vec<_>>(), out)?;
    for row in rows {
        let unit = if row.unit.is_empty() { String::new() } else { format!(" <small>{}</small>", row.unit) };
        write!(out, "<tr><th scope=\"row\">{}{unit}</th>", row.name)?;
        let value = |column: &Vec<Figure>| column.iter().find(|figure| figure.name == row.name).map(|figure| figure.value);
        let values: Vec<_> = columns.iter().map(value).collect();
        let ratio = match &values[..] {
            [Some(first), Some(second)] if *first > 0.0 => Some(second / first),
            _ => None,
        };
        for value in values.into_iter().chain(has_ratio.then_some(ratio)) {
            write!(out, "<td>{}</td>", value.map_or("-".to_owned(), figure))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>\n</section>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(registry: &str, kind: &str) -> Loads {
        let document =
            serde_json::json!({"registry": registry, "kind": kind, "requests": 1, "per_second": 2.0, "latency_ms": {}});
        Loads::read(&document).unwrap()
    }

    #[test]
    fn loads_that_asked_the_same_share_a_section_up_to_what_a_plot_shows() {
        let mut loads: Vec<_> = (0..=PLOT_SERIES_LIMIT).map(|_| load("http://a/", "upload")).collect();
        loads.insert(1, load("http://a/", "blob-get"));
        let sections = sections(&loads);
        let sizes: Vec<_> = sections.iter().map(|section| section.loads.len()).collect();
        assert_eq!(sizes, [PLOT_SERIES_LIMIT, 1, 1]);
        assert_eq!(names(&sections[0].loads)[..2], ["http://a/", "http://a/ (2)"]);
    }

    #[test]
    fn a_page_says_what_an_open_load_did_not_reach_and_how_ratios_spread() {
        let mut load = load("http://a/", "upload");
        load.loads.push(load.loads[0].clone());
        load.loads[1].offered =
            Some(crate::report::measured::Offered { per_second: 5000.0, started_per_second: 4321.0, reached: false });
        let spread =
            serde_json::json!({"name": "MB/s <i>", "first": 1, "second": 2, "ratio": 2, "ratio_min": 1.5, "ratio_max": 2.5});
        load.ratios.push(serde_json::from_value(spread).unwrap());
        let mut out = Vec::new();
        write_load(0, &sections(&[load])[0], &mut out).unwrap();
        let page = String::from_utf8(out).unwrap();
        assert!(page.contains("4,321 requests a second started of 5,000"), "{page}");
        assert!(page.contains("MB/s &lt;i&gt;</th><td>1</td><td>2</td><td>2</td><td>1.5 to 2.5</td>"), "{page}");
    }
}
