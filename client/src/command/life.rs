//! How long a container lives and who looks after it, as flags of `rrun` and `rbox create`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::{Create, RestartPolicy};
use longshore_runtime::image::Healthcheck;

use super::label;
use super::limits::read_assignments;
use super::logs::parse_duration;
use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct LifeFlags {
    /// When the container is started again: no, on-failure[:NUMBER], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: RestartPolicy,
    /// A command of the container's shell that fails when the container is not well
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// From the end of such a command to the next, 1m30s for example [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_interval: Option<Duration>,
    /// How long such a command may take [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_timeout: Option<Duration>,
    /// How many must fail one after the other [default: 3]
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// For how long failures do not count until a first success [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = interval_or_none)]
    health_start_period: Option<Duration>,
    /// In place of the interval during that time [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    health_start_interval: Option<Duration>,
    /// No such commands, whatever the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period", "health_start_interval"])]
    no_healthcheck: bool,
    /// Say something of the container, for filters and other programs
    #[arg(short, long = "label", value_name = "NAME[=VALUE]", value_parser = label::parse)]
    labels: Vec<(String, String)>,
    /// Labels from a file, NAME[=VALUE] a line
    #[arg(long = "label-file", value_name = "FILE")]
    label_files: Vec<PathBuf>,
}

impl LifeFlags {
    /// Puts them into `create`. Labels given one by one are above those of files.
    pub(super) fn apply(self, create: &mut Create) -> Result<()> {
        if self.restart != RestartPolicy::No && create.auto_remove {
            return Err(Error::invalid("--restart", "with --rm there is nothing left to start: leave one of them out").into());
        }
        let ns = |time: Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
        let test = match (self.no_healthcheck, self.health_cmd) {
            (true, _) => vec!["NONE".into()],
            (false, Some(command)) => vec!["CMD-SHELL".into(), command],
            (false, None) => Vec::new(),
        };
        create.restart = self.restart;
        create.health = Healthcheck {
            test,
            interval_ns: ns(self.health_interval),
            timeout_ns: ns(self.health_timeout),
            start_period_ns: ns(self.health_start_period),
            start_interval_ns: ns(self.health_start_interval),
            retries: self.health_retries.unwrap_or(0),
        };
        let mut labels = BTreeMap::new();
        for file in &self.label_files {
            // Lines without a name are refused when they are read.
            labels.extend(read_assignments(file, "label")?.iter().flat_map(|line| label::parse(line)));
        }
        labels.extend(self.labels);
        create.labels = labels;
        Ok(())
    }
}

fn interval(text: &str) -> std::result::Result<Duration, String> {
    /// The shortest docker takes.
    const LEAST: Duration = Duration::from_millis(1);
    interval_or_none(text).and_then(|time| if time >= LEAST { Ok(time) } else { Err("at least 1ms".into()) })
}

fn interval_or_none(text: &str) -> std::result::Result<Duration, String> {
    let time = if text == "0" { Some(Duration::ZERO) } else { parse_duration(text) };
    time.ok_or_else(|| "a time as 30s, 1m30s or 500ms".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(interval_or_none("0"), Ok(Duration::ZERO));
        for bad in ["0", "0s", "-1s", "5", "x", "", "1y"] {
            assert!(interval(bad).is_err(), "{bad:?}");
        }
    }
}
