//! What containers use.

use std::fs;
use std::time::Instant;

use super::store::{Container, Containers};
use crate::cgroup::processes;
use crate::cgroup::usage::Usage;
use crate::error::{Attempt, Result};
use crate::spec::Network;

/// What a container uses at a moment; all but memory and processes since it was started.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When that was.
    pub taken: Instant,
    /// Time on processors, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory without what is only cached of files and not used any more, in bytes.
    pub memory_bytes: u64,
    /// Its limit, or the machine's memory.
    pub memory_limit_bytes: u64,
    /// Received by all interfaces but the loopback; 0 in the host's network.
    pub received_bytes: u64,
    /// Sent by them.
    pub sent_bytes: u64,
    /// Read from block devices.
    pub read_bytes: u64,
    /// Written to them.
    pub written_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Sample {
    /// The share of one processor's time since `earlier`, in percent: of two processors at most 200.
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    pub fn cpu_percent(&self, earlier: &Self) -> f64 {
        let wall_ns = self.taken.saturating_duration_since(earlier.taken).as_nanos().max(1);
        self.cpu_ns.saturating_sub(earlier.cpu_ns) as f64 * 100.0 / wall_ns as f64
    }

    /// The share of the memory it may have, in percent.
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    pub fn memory_percent(&self) -> f64 {
        self.memory_bytes as f64 * 100.0 / self.memory_limit_bytes.max(1) as f64
    }
}

impl Containers {
    /// What a container that runs uses now: as its cgroups count it. What they do not count, because no controller
    /// is at work in them, is what its processes have.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Busy`] when it does not run.
    pub fn sample(&self, container: &Container) -> Result<Sample> {
        let cgroups = self.runtime.cgroups(&container.running()?.id)?;
        let usage = Usage::read(&cgroups)?;
        let pids = if cgroups.is_empty() { vec![container.status.pid] } else { processes::list(&cgroups)? };
        // One that ends meanwhile uses nothing.
        let sum = |of: fn(i32) -> Option<u64>| pids.iter().filter_map(|pid| of(*pid)).sum::<u64>();
        let inactive = ["inactive_file", "total_inactive_file"].iter().find_map(|key| usage.memory_raw.get(*key));
        let counted = usage.memory_bytes.saturating_sub(inactive.copied().unwrap_or(0));
        let (received_bytes, sent_bytes) = match container.config.options.network {
            Network::Host => (0, 0),
            _ => traffic(&fs::read_to_string(format!("/proc/{}/net/dev", container.status.pid)).unwrap_or_default()),
        };
        let block = |name: &str, key: fn(i32) -> Option<u64>| {
            let counted = usage.io_bytes.iter().filter(|(_, _, operation, _)| *operation == name).map(|(.., bytes)| bytes).sum();
            if usage.io_bytes.is_empty() { sum(key) } else { counted }
        };
        Ok(Sample {
            taken: Instant::now(),
            cpu_ns: if usage.cpu_ns > 0 { usage.cpu_ns } else { sum(cpu_ns) },
            memory_bytes: if usage.memory_bytes > 0 { counted } else { sum(memory_bytes) },
            memory_limit_bytes: match usage.memory_limit_bytes {
                0 => machine_bytes()?,
                limit => limit.min(machine_bytes()?),
            },
            received_bytes,
            sent_bytes,
            read_bytes: block("Read", |pid| io_bytes(pid, "read_bytes: ")),
            written_bytes: block("Write", |pid| io_bytes(pid, "write_bytes: ")),
            tasks: if usage.pids > 0 { usage.pids } else { sum(threads) },
        })
    }
}

/// Received and sent bytes of `/proc/PID/net/dev`, without the loopback interface.
fn traffic(text: &str) -> (u64, u64) {
    let of = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let number = |at| counters.split_ascii_whitespace().nth(at)?.parse::<u64>().ok();
        (name.trim() != "lo").then_some((number(0)?, number(8)?))
    };
    text.lines().filter_map(of).fold((0, 0), |(received, sent), one| (received + one.0, sent + one.1))
}

fn field(path: String, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().trim_end_matches(" kB").parse().ok()
}

/// Each page divided by how many processes share it.
fn memory_bytes(pid: i32) -> Option<u64> {
    field(format!("/proc/{pid}/smaps_rollup"), "Pss:").map(|kilobytes| kilobytes * 1024)
}

fn io_bytes(pid: i32, key: &str) -> Option<u64> {
    field(format!("/proc/{pid}/io"), key)
}

fn threads(pid: i32) -> Option<u64> {
    field(format!("/proc/{pid}/status"), "Threads:")
}

/// The first number of `schedstat`, of all threads that live.
fn cpu_ns(pid: i32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let spent = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(spent.sum())
}

fn machine_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").attempt(|| "read /proc/meminfo")?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.unwrap_or(0) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_interfaces_but_the_loopback() {
        let text = "Inter-|   Receive     |  Transmit\n face |bytes packets\n    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n\
                    eth0:2000 3 0 0 0 0 0 0 30 4 0 0 0 0 0 0\n  eth1: 5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n broken: 1\n";
        assert_eq!(traffic(text), (2005, 37));
        assert_eq!(traffic(""), (0, 0));
    }

    #[test]
    fn this_process_uses_what_it_uses() {
        let own = std::process::id().cast_signed();
        assert!(memory_bytes(own).unwrap() > 100_000 && machine_bytes().unwrap() > memory_bytes(own).unwrap());
        assert!(threads(own).unwrap() >= 1 && cpu_ns(own).unwrap() > 0);
        assert_eq!(threads(i32::MAX), None);
    }
}
