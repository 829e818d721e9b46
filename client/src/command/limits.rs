//! What a container may use and do, as flags of `rrun`.

use std::path::{Path, PathBuf};

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::spec::{Limits, RunOptions, Ulimit, parse_size};

use crate::error::Result;

/// The longest file of variables.
const ENV_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// What can be changed of a container that runs, too.
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct ResourceFlags {
    /// Memory: bytes, or with k, m or g; with nothing said of swap as much of that again
    #[arg(short, long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<i64>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = bytes_or_none)]
    memory_swap: Option<i64>,
    /// Memory that is left to it when there is little
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// How many processors it may keep busy, 1.5 for example
    #[arg(long, value_name = "NUMBER", value_parser = processors, conflicts_with_all = ["cpu_quota", "cpu_period"])]
    cpus: Option<i64>,
    /// Relative weight of processor time, 2 to 262144 [default: 1024]
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time in a period
    #[arg(long, value_name = "US")]
    cpu_quota: Option<i64>,
    /// The length of such a period
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// Processors it may run on, 0-2,4 for example
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
}

/// With docker 0 is said by nobody.
fn given(number: Option<i64>) -> Option<i64> {
    number.filter(|number| *number != 0)
}

impl ResourceFlags {
    /// The same as limits; with nothing said of swap docker's default for it.
    pub(super) fn limits(self) -> Limits {
        Limits {
            memory_bytes: given(self.memory),
            memory_swap_bytes: given(self.memory_swap),
            memory_reservation_bytes: given(self.memory_reservation),
            nano_cpus: given(self.cpus),
            cpu_quota_us: self.cpu_quota,
            cpu_period_us: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids: self.pids_limit.map(|limit| if limit == 0 { -1 } else { limit }),
            blkio_weight: self.blkio_weight,
            ..Limits::default()
        }
        .with_default_swap()
    }
}

#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct LimitFlags {
    #[command(flatten)]
    resources: ResourceFlags,
    /// A limit of each process, nofile=1024:2048 for example
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<Ulimit>,
    /// How willingly its memory is swapped out, 0 to 100; with cgroup v1 only
    #[arg(long, value_name = "NUMBER")]
    memory_swappiness: Option<u64>,
    /// Processes that find no memory wait and are not ended; with cgroup v1 only
    #[arg(long, requires = "memory")]
    oom_kill_disable: bool,
    /// How soon it is ended when there is no memory left, -1000 to 1000
    #[arg(long, value_name = "SCORE")]
    oom_score_adj: Option<i32>,
    /// How much /dev/shm holds [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    shm_size: Option<i64>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// A kernel setting of its own namespaces
    #[arg(long = "sysctl", value_name = "KEY=VALUE")]
    sysctls: Vec<String>,
    /// A group beside the user's
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Environment variables from a file, NAME=VALUE a line
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
}

impl LimitFlags {
    /// Puts them into `options`; variables of files go before those given one by one.
    pub(super) fn apply(self, options: &mut RunOptions) -> Result<()> {
        let mut env = Vec::new();
        for file in &self.env_files {
            env.extend(read_assignments(file, "variable")?);
        }
        options.env.splice(0..0, env);
        options.limits = self.resources.limits();
        if options.limits.memory_swap_bytes.is_some_and(|bytes| bytes > 0) && options.limits.memory_bytes.is_none() {
            return Err(Error::invalid("--memory-swap", "it is memory and swap together: give --memory, too").into());
        }
        options.limits.memory_swappiness = self.memory_swappiness;
        options.limits.disable_oom_killer = self.oom_kill_disable.then_some(true);
        options.ulimits = self.ulimits;
        options.oom_score_adj = self.oom_score_adj;
        options.shm_bytes = self.shm_size.map(i64::unsigned_abs);
        options.added_capabilities = self.cap_add;
        options.dropped_capabilities = self.cap_drop;
        options.sysctls = self.sysctls;
        options.added_groups = self.group_add;
        Ok(())
    }
}

fn bytes(text: &str) -> std::result::Result<i64, String> {
    let bytes = parse_size(text).and_then(|bytes| i64::try_from(bytes).ok());
    bytes.ok_or_else(|| "a number of bytes, with k, m or g behind it".into())
}

fn bytes_or_none(text: &str) -> std::result::Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// Billionths of a processor.
fn processors(text: &str) -> std::result::Result<i64, String> {
    /// More than any machine has.
    const LIMIT: f64 = 65_536.0;
    let number = text.parse::<f64>().ok().filter(|number| *number == 0.0 || (0.01..=LIMIT).contains(number));
    #[expect(clippy::cast_possible_truncation, reason = "it is below the limit")]
    number.map(|number| (number * 1e9).round() as i64).ok_or_else(|| "a number of processors, 0.01 at least".into())
}

/// The lines of a file that are neither comments nor empty: `NAME=VALUE` or `NAME`, each a `what`.
pub(super) fn read_assignments(path: &Path, what: &str) -> Result<Vec<String>> {
    let bytes = longshore_runtime::files::read_bounded(path, ENV_FILE_LIMIT_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid(path.display(), "it is not UTF-8"))?;
    let mut variables = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(
                Error::invalid(format!("{}: {line:?}", path.display()), format!("a {what} is NAME=VALUE, or NAME")).into()
            );
        }
        variables.push(line.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_billionths_and_0_is_no_limit() {
        assert_eq!((processors("1.5"), processors("0.29"), processors("0")), (Ok(1_500_000_000), Ok(290_000_000), Ok(0)));
        for bad in ["0.001", "-1", "x", "", "NaN", "inf", "1e9"] {
            assert!(processors(bad).is_err(), "{bad:?}");
        }
        assert!(bytes("0") == Ok(0) && bytes("-5").is_err() && bytes_or_none("-1") == Ok(-1) && bytes_or_none("-2").is_err());
    }

    #[test]
    fn a_file_of_variables_is_read_as_dockers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("env");
        std::fs::write(&path, "# comment\nA=1\n\n  B=two words \nC\nD=\n").unwrap();
        assert_eq!(read_assignments(&path, "variable").unwrap(), ["A=1", "B=two words ", "C", "D="]);
        for bad in ["=x\n", "A B=1\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read_assignments(&path, "variable").is_err(), "{bad:?}");
        }
        std::fs::write(&path, [0xff, b'=', b'1']).unwrap();
        assert!(read_assignments(&path, "variable").unwrap_err().to_string().contains("UTF-8"));
    }
}
