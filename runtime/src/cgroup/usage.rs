//! What the processes of a container use, as its cgroups account for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Member;
use crate::error::{Attempt, Result};

/// One account. What no cgroup of the container counts is 0 or empty; a limit that is not set is
/// `u64::MAX` for memory and 0 for pids, as `runc events` has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    pub(crate) cpu_user_ns: u64,
    pub(crate) cpu_kernel_ns: u64,
    pub(crate) per_cpu_ns: Vec<u64>,
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    pub(crate) throttled_ns: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) memory_failures: u64,
    pub(crate) memory_cache_bytes: u64,
    pub(crate) memory_raw: BTreeMap<String, u64>,
    pub(crate) oom_kills: u64,
    pub(crate) pids: u64,
    pub(crate) pids_limit: u64,
    /// Major and minor number, `"Read"` or `"Write"`, bytes.
    pub(crate) io_bytes: Vec<(u64, u64, &'static str, u64)>,
}

impl Usage {
    /// Reads the account of a container's cgroups.
    pub(crate) fn read(cgroups: &[Member]) -> Result<Self> {
        let mut usage = Self::default();
        for cgroup in cgroups {
            if cgroup.is_unified() {
                usage.add_unified(&Files(&cgroup.path))?;
            } else {
                usage.add_v1(cgroup, &Files(&cgroup.path))?;
            }
        }
        Ok(usage)
    }

    fn add_unified(&mut self, files: &Files<'_>) -> Result<()> {
        let cpu = files.table("cpu.stat")?;
        if self.cpu_ns == 0 {
            let microseconds = |key: &str| value(&cpu, key).saturating_mul(1000);
            (self.cpu_ns, self.cpu_user_ns, self.cpu_kernel_ns) =
                (microseconds("usage_usec"), microseconds("user_usec"), microseconds("system_usec"));
            self.periods = value(&cpu, "nr_periods");
            self.throttled_periods = value(&cpu, "nr_throttled");
            self.throttled_ns = microseconds("throttled_usec");
        }
        if let Some(bytes) = files.number("memory.current")? {
            self.memory_bytes = bytes;
            self.memory_peak_bytes = files.number("memory.peak")?.unwrap_or(0);
            self.memory_limit_bytes = files.number("memory.max")?.unwrap_or(u64::MAX);
            self.memory_raw = files.table("memory.stat")?;
            self.memory_cache_bytes = value(&self.memory_raw, "file");
            let events = files.table("memory.events")?;
            self.memory_failures = value(&events, "max");
            self.oom_kills = value(&events, "oom_kill");
        }
        if let Some(pids) = files.number("pids.current")? {
            self.pids = pids;
            self.pids_limit = files.number("pids.max")?.unwrap_or(0);
        }
        for line in files.text("io.stat")?.lines() {
            self.add_io_line(line);
        }
        Ok(())
    }

    /// `8:0 rbytes=1 wbytes=2 rios=...`.
    fn add_io_line(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { return };
        for word in words {
            let counted = word.split_once('=').and_then(|(key, bytes)| {
                let operation = match key {
                    "rbytes" => "Read",
                    "wbytes" => "Write",
                    _ => return None,
                };
                Some((major, minor, operation, bytes.parse().ok()?))
            });
            self.io_bytes.extend(counted);
        }
    }

    fn add_v1(&mut self, cgroup: &Member, files: &Files<'_>) -> Result<()> {
        if cgroup.has("cpuacct") {
            self.cpu_ns = files.number("cpuacct.usage")?.unwrap_or(0);
            self.per_cpu_ns =
                files.text("cpuacct.usage_percpu")?.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
            self.cpu_user_ns = files.number("cpuacct.usage_user")?.unwrap_or(0);
            self.cpu_kernel_ns = files.number("cpuacct.usage_sys")?.unwrap_or(0);
        }
        if cgroup.has("cpu") {
            let cpu = files.table("cpu.stat")?;
            self.periods = value(&cpu, "nr_periods");
            self.throttled_periods = value(&cpu, "nr_throttled");
            self.throttled_ns = value(&cpu, "throttled_time");
        }
        if cgroup.has("memory") {
            let number = |file: &str| files.number(file).map(Option::unwrap_or_default);
            self.memory_bytes = number("memory.usage_in_bytes")?;
            self.memory_peak_bytes = number("memory.max_usage_in_bytes")?;
            self.memory_limit_bytes = number("memory.limit_in_bytes")?;
            self.memory_failures = number("memory.failcnt")?;
            self.memory_raw = files.table("memory.stat")?;
            self.memory_cache_bytes = value(&self.memory_raw, "cache");
            self.oom_kills = value(&files.table("memory.oom_control")?, "oom_kill");
        }
        if cgroup.has("pids") {
            self.pids = files.number("pids.current")?.unwrap_or(0);
            self.pids_limit = files.number("pids.max")?.unwrap_or(0);
        }
        if cgroup.has("blkio") {
            for line in files.text("blkio.throttle.io_service_bytes")?.lines() {
                let mut words = line.split_ascii_whitespace();
                let (Some((major, minor)), Some(operation), Some(bytes)) =
                    (words.next().and_then(device), words.next(), words.next().and_then(|word| word.parse().ok()))
                else {
                    continue;
                };
                let operation = ["Read", "Write"].into_iter().find(|name| *name == operation);
                self.io_bytes.extend(operation.map(|operation| (major, minor, operation, bytes)));
            }
        }
        Ok(())
    }
}

/// The files of a cgroup directory. One that is not there holds nothing.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> Result<String> {
        let path: PathBuf = self.0.join(name);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && self.0.exists() => Ok(String::new()),
            other => other.attempt(|| format!("read {path:?}")),
        }
    }

    /// `None` for `max`, and for a file that is not there.
    fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.text(name)?.trim().parse().ok())
    }

    fn table(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(name)?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.filter_map(|(key, number)| Some((key.to_owned(), number.trim().parse().ok()?))).collect())
    }
}

fn value(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

fn device(word: &str) -> Option<(u64, u64)> {
    let (major, minor) = word.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in list {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn member(controllers: &str, path: &Path) -> Member {
        Member { mount: path.into(), path: path.into(), controllers: controllers.into() }
    }

    #[test]
    fn both_versions_give_the_same_account() {
        let unified = files(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.events", "max 3\noom_kill 1\n"),
            ("pids.current", "2\n"),
            ("pids.max", "9\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n"),
        ]);
        let two = Usage::read(&[member("", unified.path())]).unwrap();
        assert_eq!((two.cpu_ns, two.cpu_user_ns, two.periods), (5000, 3000, 7));
        assert_eq!((two.memory_bytes, two.memory_limit_bytes, two.memory_cache_bytes), (4096, u64::MAX, 2));
        assert_eq!((two.oom_kills, two.pids, two.pids_limit), (1, 2, 9));
        assert_eq!(two.io_bytes, [(8, 0, "Read", 10), (8, 0, "Write", 20)]);

        let v1 = files(&[
            ("cpuacct.usage", "5000\n"),
            ("cpuacct.usage_percpu", "1 2 \n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.stat", "cache 2\n"),
            ("memory.oom_control", "oom_kill_disable 0\noom_kill 1\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Total 10\nTotal 10\n"),
        ]);
        let one = Usage::read(&[member("cpuacct,memory,pids,blkio", v1.path())]).unwrap();
        assert_eq!((one.cpu_ns, one.memory_bytes, one.memory_cache_bytes, one.oom_kills), (5000, 4096, 2, 1));
        assert_eq!((one.pids, one.pids_limit, one.io_bytes.as_slice()), (2, 0, &[(8, 0, "Read", 10)][..]));
    }
}
