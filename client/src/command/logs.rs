//! `rbox logs`

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::LogQuery;

use super::Global;
use super::label::joined;
use crate::error::Result;
use crate::text::{parse_local, printable};

/// Show a detached container's output
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Wait for more, until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only entries since this time (2026-01-31, 2026-01-31T12:00, 2026-01-31T12:00:00Z), or for so long (1h30m)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<SystemTime>,
    /// Only entries before this time, or older than so long
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<SystemTime>,
    /// How many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = parse_tail)]
    tail: Tail,
    /// Begin each line with the time it was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show the labels and variables that --log-opt has chosen, too
    #[arg(long)]
    details: bool,
    /// Its name or ID
    container: String,
}

#[derive(Debug, Clone, Copy)]
struct Tail(Option<usize>);

fn parse_tail(text: &str) -> std::result::Result<Tail, String> {
    match text.parse::<i64>() {
        _ if text == "all" => Ok(Tail(None)),
        // Docker takes any negative number for all.
        Ok(lines) => Ok(Tail(usize::try_from(lines).ok())),
        Err(_) => Err("a number of lines, or all".into()),
    }
}

/// A point in time: a date with or without a time and a zone, seconds since 1970, or how long ago, in Go's way.
pub(super) fn parse_time(text: &str) -> std::result::Result<SystemTime, String> {
    let seconds = |text: &str| text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = parse_local(text)
        .or_else(|| SystemTime::UNIX_EPOCH.checked_add(seconds(text)?))
        .or_else(|| SystemTime::now().checked_sub(parse_duration(text)?));
    time.ok_or_else(|| {
        "a time as 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00:00Z, seconds since 1970, or how long ago as 1h30m".into()
    })
}

/// `1h30m`, `2.5s`, `100ms`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let seconds = match &after[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

impl Logs {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let container = containers.get(&self.container)?;
        let query = LogQuery { tail: self.tail.0, since: self.since, until: self.until, follow: self.follow };
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        containers.logs(&container, &query, &mut |entry| {
            let stream: &mut dyn Write = if entry.stream == "stderr" { &mut err } else { &mut out };
            let mut before = if self.timestamps { format!("{} ", entry.time) } else { String::new() };
            if self.details {
                // Labels may come from who made the image; the output is the container's own.
                before += &printable(&format!("{} ", joined(&entry.attributes, ",")));
            }
            let written = stream.write_all(before.as_bytes()).and_then(|()| stream.write_all(entry.log.as_bytes()));
            match written.and_then(|()| stream.flush()) {
                Ok(()) => Ok(true),
                // The reader has what it wanted.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                Err(e) => Err(Error::io("write the container's output", e)),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago_and_nothing_else() {
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2.5s100ms"), Some(Duration::from_millis(2600)));
        let epoch = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(parse_time("951825600").unwrap(), epoch(951_825_600));
        assert_eq!(parse_time("2000-02-29T12:00:00Z").unwrap(), epoch(951_825_600));
        let (before, ago, after) = (SystemTime::now(), parse_time("10m").unwrap(), SystemTime::now());
        assert!((before..=after).contains(&(ago + Duration::from_secs(600))));
        for bad in ["", "x", "1x", "h", "-1", "1.2.3s", "nan", "1h30"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
