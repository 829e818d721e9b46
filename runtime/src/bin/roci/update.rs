//! `roci update`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use longshore_runtime::error::{Attempt, Result};
use longshore_runtime::lifecycle::Runtime;
use longshore_runtime::spec::{Limits, parse_size};

/// The most that is read of a document.
const DOCUMENT_LIMIT_BYTES: u64 = 4 << 20;

/// Change the limits of a container that runs
#[derive(Debug, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Update {
    /// A document with them (linux.resources), or - for standard input; other flags are left out then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// The length of a period in which CPU time is counted, in microseconds
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "US")]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Relative weight of CPU time
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    /// The period for real-time scheduling, in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    /// The time for real-time scheduling, in microseconds
    #[arg(long, value_name = "US")]
    cpu_rt_runtime: Option<i64>,
    /// 1 for idle CPU time only
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory in bytes, or with k, m, g; -1 for no limit
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    memory: Option<i64>,
    /// Memory that is left to it when there is little
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    memory_reservation: Option<i64>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    memory_swap: Option<i64>,
    /// Processes; -1 for no limit
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// The container's name
    id: String,
}

impl Update {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        if let Some(path) = &self.resources {
            return runtime.update_from_json(&self.id, &read(path)?).map(|()| 0);
        }
        let limits = Limits {
            blkio_weight: self.blkio_weight,
            cpu_period_us: self.cpu_period,
            cpu_quota_us: self.cpu_quota,
            cpu_burst_us: self.cpu_burst,
            cpu_shares: self.cpu_share,
            cpu_rt_period_us: self.cpu_rt_period,
            cpu_rt_runtime_us: self.cpu_rt_runtime,
            cpu_idle: self.cpu_idle,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            memory_bytes: self.memory,
            memory_reservation_bytes: self.memory_reservation,
            memory_swap_bytes: self.memory_swap,
            pids: self.pids_limit,
            ..Limits::default()
        };
        runtime.update(&self.id, limits.resources()).map(|()| 0)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(DOCUMENT_LIMIT_BYTES).read_to_end(&mut text).attempt(|| "read standard input")?;
    } else {
        let file = File::open(path).attempt(|| format!("open {path:?}"))?;
        file.take(DOCUMENT_LIMIT_BYTES).read_to_end(&mut text).attempt(|| format!("read {path:?}"))?;
    }
    Ok(text)
}

fn parse_bytes(text: &str) -> std::result::Result<i64, String> {
    let bytes = if text == "-1" { Some(-1) } else { parse_size(text).and_then(|bytes| bytes.try_into().ok()) };
    bytes.ok_or_else(|| "a number of bytes, with k, m or g behind it, or -1".to_owned())
}
