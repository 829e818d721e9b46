//! `roci events`.

use std::time::Duration;

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::{EventsOptions, Runtime};

use super::list::print;

/// Print what a container uses, again and again, a line of JSON each
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Once
    #[arg(long)]
    stats: bool,
    /// The time between two lines: 500ms, 5s, 1m
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    interval: Duration,
    /// The container's name
    id: String,
}

impl Events {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        let options = EventsOptions { once: self.stats, interval: self.interval };
        runtime.events(&self.id, options, &mut |line| print(&format!("{line}\n"))).map(|()| 0)
    }
}

fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a number with one of the units ms, s, m, h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a whole number, then one of the units ms, s, m, h".to_owned())?;
    number.checked_mul(milliseconds).filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(|| "too long, or nothing".into())
}
