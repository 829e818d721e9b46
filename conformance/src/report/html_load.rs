//! The part of a page that shows loads: figures side by side, latency, throughput over time.

use std::io::{self, Write};

use super::escape::{attribute, text};
use super::html::spoken_time;
use super::measured::{Figure, Measured};
use super::plot::{Series, figure, write_latency, write_throughput};
use crate::limits::PLOT_SERIES_LIMIT;

/// The loads in groups of those that asked the same, each of a size that one plot can show.
pub(super) fn comparable(loads: &[Measured]) -> Vec<Vec<&Measured>> {
    let mut groups: Vec<Vec<&Measured>> = Vec::new();
    for load in loads {
        match groups.iter_mut().find(|group| group.len() < PLOT_SERIES_LIMIT && group[0].is_comparable(load)) {
            Some(group) => group.push(load),
            None => groups.push(vec![load]),
        }
    }
    groups
}

/// A section for loads that asked the same.
pub(super) fn write_load(number: usize, loads: &[&Measured], out: &mut dyn Write) -> io::Result<()> {
    let title = loads[0].title();
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
    write_figures(&title, &names, loads, out)?;
    writeln!(out, "</section>")
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
    if load.generator_was_the_limit {
        writeln!(out, "<p class=\"note differs\">The generator had no time left: the registry can do more than this.</p>")?;
    }
    Ok(())
}

fn write_figures(title: &str, names: &[String], loads: &[&Measured], out: &mut dyn Write) -> io::Result<()> {
    let columns: Vec<_> = loads.iter().map(|load| load.figures()).collect();
    let mut rows: Vec<Figure> = Vec::new();
    for figure in columns.iter().flatten() {
        if !rows.iter().any(|row| row.name == figure.name) {
            rows.push(*figure);
        }
    }
    writeln!(out, "<h3>Figures</h3>")?;
    let spoken = format!("Figures of {title}");
    writeln!(out, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">", attribute(&spoken))?;
    write!(out, "<table class=\"figures\">\n<thead><tr><th scope=\"col\">Figure</th>")?;
    names.iter().try_for_each(|name| write!(out, "<th scope=\"col\">{}</th>", text(name)))?;
    let has_ratio = loads.len() == 2;
    writeln!(out, "{}</tr></thead>\n<tbody>", if has_ratio { "<th scope=\"col\">second : first</th>" } else { "" })?;
    for row in rows {
        let unit = if row.unit.is_empty() { String::new() } else { format!(" <small>{}</small>", row.unit) };
        write!(out, "<tr><th scope=\"row\">{}{unit}</th>", row.name)?;
        let value = |column: &Vec<Figure>| column.iter().find(|figure| figure.name == row.name).map(|figure| figure.value);
        let values: Vec<_> = columns.iter().map(value).collect();
        values.iter().try_for_each(|value| write!(out, "<td>{}</td>", value.map_or("-".to_owned(), figure)))?;
        if let (true, [Some(first), Some(second)]) = (has_ratio, &values[..]) {
            let ratio = if *first > 0.0 { figure(second / first) } else { "-".to_owned() };
            write!(out, "<td>{ratio}</td>")?;
        } else if has_ratio {
            write!(out, "<td>-</td>")?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(registry: &str, kind: &str) -> Measured {
        let document =
            serde_json::json!({"registry": registry, "kind": kind, "requests": 1, "per_second": 2.0, "latency_ms": {}});
        Measured::all_of(&document).unwrap().remove(0)
    }

    #[test]
    fn loads_that_asked_the_same_share_a_section_up_to_what_a_plot_shows() {
        let mut loads: Vec<_> = (0..=PLOT_SERIES_LIMIT).map(|_| load("http://a/", "upload")).collect();
        loads.insert(1, load("http://a/", "blob-get"));
        let sizes: Vec<_> = comparable(&loads).iter().map(Vec::len).collect();
        assert_eq!(sizes, [PLOT_SERIES_LIMIT, 1, 1]);
        assert_eq!(names(&[&loads[0], &loads[2]]), ["http://a/", "http://a/ (2)"]);
    }
}
