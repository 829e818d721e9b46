//! Line plots as SVG inside a page.
//!
//! A plot is drawn in the coordinates of [`WIDTH`] by [`HEIGHT`] and scales with the page. Colours are
//! classes of the page's style sheet; series differ by dashes and by their marks too.

use std::io::{self, Write};

use super::escape::{attribute, text};
use crate::limits::{PLOT_POINT_LIMIT, PLOT_SERIES_LIMIT};

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 258.0;
/// Where the area of the lines begins and ends.
const LEFT: f64 = 50.0;
const RIGHT: f64 = 368.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 218.0;
/// From this relation of the largest value to the median on, the latency axis is logarithmic.
const WIDE_SPREAD: f64 = 20.0;
/// What a number may be to be drawn; more is a mistake of whoever wrote it.
const DRAWN: std::ops::RangeInclusive<f64> = 0.0..=1e15;
/// The quantile axis ends here, at 99.999 %.
const MOST_NINES: f64 = 5.0;

/// A line.
pub(super) struct Series {
    /// What the line is of.
    pub(super) name: String,
    /// Its points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// An axis: where values lie on it, from 0 to 1, and what is written along it.
struct Axis {
    low: f64,
    high: f64,
    place: fn(f64) -> f64,
    ticks: Vec<(f64, String)>,
    label: String,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let (low, high) = ((self.place)(self.low), (self.place)(self.high));
        (((self.place)(value) - low) / (high - low).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    }

    /// From 0 to a round number at or above `high`, evenly.
    fn linear(high: f64, label: &str) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = round_step(high / 4.0);
        let count = (high / step).ceil().max(1.0);
        let ticks = (0..=count as usize).map(|i| (i as f64 * step, figure(i as f64 * step))).collect();
        Self { low: 0.0, high: count * step, place: |value| value, ticks, label: label.to_owned() }
    }

    /// By powers of ten around `low` to `high`.
    fn logarithmic(low: f64, high: f64, label: &str) -> Self {
        let (first, last) = (low.max(1e-6).log10().floor() as i32, high.log10().ceil() as i32);
        let last = last.max(first + 1);
        let marks: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let values = (first..last).flat_map(|power| marks.iter().map(move |mark| mark * 10f64.powi(power)));
        let ticks = values.chain([10f64.powi(last)]).map(|value| (value, figure(value))).collect();
        let place = |value: f64| value.max(1e-9).log10();
        Self { low: 10f64.powi(first), high: 10f64.powi(last), place, ticks, label: format!("{label}, logarithmic") }
    }

    /// Quantiles by their nines: 0, 90, 99, 99.9 % at equal distances, the largest value at the end.
    fn nines(highest: f64, label: &str) -> Self {
        let last = nines(highest).ceil().clamp(1.0, MOST_NINES);
        let end = if highest >= 1.0 { "max" } else { "99.999" };
        let names = ["0", "90", "99", "99.9", "99.99", end];
        let ticks = (0..=last as usize).map(|i| (1.0 - 10f64.powi(-(i as i32)), names[i].to_owned())).collect();
        Self { low: 0.0, high: 1.0 - 10f64.powf(-last), place: nines, ticks, label: label.to_owned() }
    }
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(10f64.powf(-MOST_NINES)).log10()
}

/// Latency by quantile, the slow requests given as much room as the many.
pub(super) fn write_latency(title: &str, series: Vec<Series>, out: &mut dyn Write) -> io::Result<()> {
    let series = drawn(series);
    let values = || series.iter().flat_map(|s| &s.points).map(|(_, ms)| *ms);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let near_median = series.iter().filter_map(|s| s.points.iter().find(|(q, _)| *q >= 0.5)).map(|(_, ms)| *ms);
    let is_wide = high > WIDE_SPREAD * near_median.fold(f64::INFINITY, f64::min);
    let highest = series.iter().flat_map(|s| &s.points).map(|(quantile, _)| *quantile).fold(0.0, f64::max);
    let x = Axis::nines(highest, "percentile");
    let y = if is_wide { Axis::logarithmic(low, high, "ms") } else { Axis::linear(high, "ms") };
    write_plot(title, &x, &y, &series, out)
}

/// Requests a second over time.
pub(super) fn write_throughput(title: &str, series: Vec<Series>, out: &mut dyn Write) -> io::Result<()> {
    let series = drawn(series);
    let high = |pick: fn(&(f64, f64)) -> f64| series.iter().flat_map(|s| &s.points).map(pick).fold(0.0, f64::max);
    let x = Axis { high: high(|p| p.0), ..Axis::linear(high(|p| p.0), "seconds since the beginning") };
    write_plot(title, &x, &Axis::linear(high(|p| p.1), "requests a second"), &series, out)
}

/// The series as they can be drawn: points that are numbers, and no more of them than the eye can see.
fn drawn(series: Vec<Series>) -> Vec<Series> {
    let thin = |mut series: Series| {
        series.points.retain(|(x, y)| DRAWN.contains(x) && DRAWN.contains(y));
        let each = series.points.len().div_ceil(PLOT_POINT_LIMIT).max(1);
        let last = series.points.last().copied();
        series.points = series.points.into_iter().step_by(each).collect();
        // What comes last is the worst latency: it stays.
        if let Some(last) = last.filter(|last| series.points.last() != Some(last)) {
            series.points.push(last);
        }
        series
    };
    series.into_iter().take(PLOT_SERIES_LIMIT).map(thin).filter(|s| !s.points.is_empty()).collect()
}

fn write_plot(title: &str, x: &Axis, y: &Axis, series: &[Series], out: &mut dyn Write) -> io::Result<()> {
    if series.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = series.iter().map(|s| s.name.as_str()).collect();
    let spoken =
        format!("{title}: {} against {}, for {}. The figures stand in the table.", y.label, x.label, names.join(" and "));
    writeln!(out, "<figure class=\"plot\">\n<figcaption>{}</figcaption>", text(title))?;
    writeln!(out, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, attribute(&spoken))?;
    write_axes(x, y, out)?;
    for (number, line) in series.iter().enumerate() {
        let at = |(a, b): &(f64, f64)| (LEFT + x.at(*a) * (RIGHT - LEFT), BOTTOM - y.at(*b) * (BOTTOM - TOP));
        write!(out, r#"<polyline class="s{number}" points=""#)?;
        for (i, (x, y)) in line.points.iter().map(at).enumerate() {
            write!(out, "{}{x:.1},{y:.1}", if i == 0 { "" } else { " " })?;
        }
        writeln!(out, r#""/>"#)?;
        if let Some((x, y)) = line.points.last().map(at) {
            write_mark(number, x, y, out)?;
        }
    }
    writeln!(out, "</svg>")?;
    write_legend(&names, out)?;
    writeln!(out, "</figure>")
}

fn write_axes(x: &Axis, y: &Axis, out: &mut dyn Write) -> io::Result<()> {
    for (value, name) in &y.ticks {
        let at = BOTTOM - y.at(*value) * (BOTTOM - TOP);
        writeln!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#)?;
        writeln!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 6.0, at + 4.0, text(name))?;
    }
    for (value, name) in &x.ticks {
        // The high end need not be a round number: what lies beyond it is not written.
        if *value <= x.high * (1.0 + 1e-9) {
            let at = LEFT + x.at(*value) * (RIGHT - LEFT);
            let side = if at > RIGHT - 10.0 { "end" } else { "middle" };
            writeln!(out, r#"<path class="tick" d="M{at:.1} {BOTTOM}v4"/>"#)?;
            writeln!(out, r#"<text class="{side}" x="{at:.1}" y="{:.1}">{}</text>"#, BOTTOM + 18.0, text(name))?;
        }
    }
    writeln!(out, r#"<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#)?;
    writeln!(out, r#"<text class="start" x="{}" y="{:.1}">{}</text>"#, 0, TOP - 14.0, text(&y.label))?;
    writeln!(out, r#"<text class="end" x="{RIGHT}" y="{:.1}">{}</text>"#, BOTTOM + 36.0, text(&x.label))
}

/// The mark at a line's end, of another shape for each.
fn write_mark(number: usize, x: f64, y: f64, out: &mut dyn Write) -> io::Result<()> {
    let shape = match number {
        0 => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        1 => "m-4 -4h8v8h-8z",
        2 => "m0 -5l5 9h-10z",
        _ => "m0 -5l5 5l-5 5l-5 -5z",
    };
    writeln!(out, r#"<path class="m{number}" d="M{x:.1} {y:.1}{shape}"/>"#)
}

/// Which line is whose; text of the page, so that long names break and can be copied.
fn write_legend(names: &[&str], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, r#"<ul class="legend">"#)?;
    for (number, name) in names.iter().enumerate() {
        write!(out, r#"<li><svg viewBox="0 0 34 12" aria-hidden="true"><path class="s{number}" d="M1 6H33"/>"#)?;
        write_mark(number, 17.0, 6.0, out)?;
        writeln!(out, "</svg> {}</li>", text(name))?;
    }
    writeln!(out, "</ul>")
}

/// The step of 1, 2 or 5 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|times| times * power >= least * (1.0 - 1e-9));
    times.unwrap_or(10.0) * power
}

/// A number to three significant digits, or whole with its thousands apart: `0.0371`, `4.5`, `12,400`.
pub(super) fn figure(value: f64) -> String {
    if !value.is_finite() || value.abs() >= 1e15 {
        return "-".to_owned();
    }
    let digits = if value == 0.0 { 0 } else { (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize };
    let plain = format!("{value:.digits$}");
    if digits > 0 {
        return plain.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let (sign, whole) = plain.strip_prefix('-').map_or(("", plain.as_str()), |whole| ("-", whole));
    let mut apart = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn series(points: &[(f64, f64)]) -> Series {
        Series { name: "http://a/".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.03714, 0.5, 4.5, 99.96, 123.4, 12_400.0, 1_234_567.0, -1500.0, f64::NAN].map(figure);
        assert_eq!(shown, ["0", "0.0371", "0.5", "4.5", "100", "123", "12,400", "1,234,567", "-1,500", "-"]);
    }

    #[test]
    fn quantiles_stand_by_their_nines_and_the_largest_at_the_end() {
        let points = [(0.0, 0.0), (0.9, 1.0), (0.99, 2.0), (0.999, 4.0)];
        let plot = written(|out| write_latency("latency", vec![series(&points)], out));
        // A third of the width a nine; linear from 0 at the bottom to 4 at the top.
        assert!(plot.contains(r#"points="50.0,218.0 156.0,170.0 262.0,122.0 368.0,26.0""#), "{plot}");
        assert!(plot.contains(">99.9<") && !plot.contains(">99.99<") && !plot.contains("logarithmic"), "{plot}");
        let wide = written(|out| write_latency("latency", vec![series(&[(0.5, 1.0), (0.99, 10.0), (1.0, 1000.0)])], out));
        assert!(wide.contains("logarithmic") && wide.contains(">max<") && wide.contains(">1,000<"), "{wide}");
    }

    #[test]
    fn a_plot_of_anything_has_no_number_that_is_none() {
        let wild = [0.0, -1.0, 1.0, 0.5, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, 1e15];
        for a in wild {
            for b in wild {
                for write in [write_latency, write_throughput] {
                    let plot = written(|out| write("p", vec![series(&[(a, b)]), series(&[(a, b), (b, a)])], out));
                    assert!(!plot.contains("NaN") && !plot.contains("inf"), "{a} {b}: {plot}");
                    assert!(plot.len() < 20_000, "{a} {b}: {} bytes", plot.len());
                }
            }
        }
        assert_eq!(written(|out| write_throughput("p", Vec::new(), out)), "");
    }

    #[test]
    fn many_points_are_thinned_and_the_last_kept() {
        let points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        let thinned = drawn(vec![series(&points)]);
        assert!(thinned[0].points.len() <= PLOT_POINT_LIMIT + 1, "{}", thinned[0].points.len());
        assert_eq!(thinned[0].points.last(), points.last());
    }
}
