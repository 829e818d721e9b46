//! Limits of a container, as flags give them.

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The length of the periods in which a number of CPUs counts, in microseconds: docker's.
const PERIOD_US: u64 = 100_000;

/// Limits given one by one; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// The length of a period in which CPU time is counted, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit.
    pub cpu_quota_us: Option<i64>,
    /// CPUs that may be kept busy, in billionths: a quota, said otherwise.
    pub nano_cpus: Option<i64>,
    /// CPU time that may be saved up for a burst, in microseconds.
    pub cpu_burst_us: Option<u64>,
    /// Relative weight of CPU time.
    pub cpu_shares: Option<u64>,
    /// The period for real-time scheduling, in microseconds.
    pub cpu_rt_period_us: Option<u64>,
    /// The time for real-time scheduling, in microseconds.
    pub cpu_rt_runtime_us: Option<i64>,
    /// 1: only idle CPU time.
    pub cpu_idle: Option<i64>,
    /// CPUs, as a list of ranges.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list of ranges.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes; -1 for no limit.
    pub memory_bytes: Option<i64>,
    /// Memory that is left to the container when there is little, in bytes.
    pub memory_reservation_bytes: Option<i64>,
    /// Memory and swap together, in bytes; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// How willingly memory is swapped out, 0 to 100. Only cgroup v1 has it.
    pub memory_swappiness: Option<u64>,
    /// Who needs more memory than there is waits for it, and is not ended. Only cgroup v1 has it.
    pub disable_oom_killer: Option<bool>,
    /// Processes; -1 for no limit.
    pub pids: Option<i64>,
}

impl Limits {
    /// With docker's default for swap, as much as there is memory, where swap can be limited: cgroup v1 may have been
    /// told at boot not to count it.
    #[must_use]
    pub fn with_default_swap(mut self) -> Self {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if self.memory_swap_bytes.is_none() && (!v1.exists() || v1.join("memory.memsw.limit_in_bytes").exists()) {
            self.memory_swap_bytes = self.memory_bytes.map(|bytes| bytes.saturating_mul(2));
        }
        self
    }

    /// These where they are given, else `others`.
    #[must_use]
    pub fn over(self, others: Self) -> Self {
        // Whichever of the two was said last counts.
        let is_quota = self.cpu_period_us.is_some() || self.cpu_quota_us.is_some();
        let (nano_cpus, period, quota) = match self.nano_cpus {
            None if is_quota => (None, others.cpu_period_us, others.cpu_quota_us),
            None => (others.nano_cpus, others.cpu_period_us, others.cpu_quota_us),
            own => (own, None, None),
        };
        Self {
            nano_cpus,
            blkio_weight: self.blkio_weight.or(others.blkio_weight),
            cpu_period_us: self.cpu_period_us.or(period),
            cpu_quota_us: self.cpu_quota_us.or(quota),
            cpu_burst_us: self.cpu_burst_us.or(others.cpu_burst_us),
            cpu_shares: self.cpu_shares.or(others.cpu_shares),
            cpu_rt_period_us: self.cpu_rt_period_us.or(others.cpu_rt_period_us),
            cpu_rt_runtime_us: self.cpu_rt_runtime_us.or(others.cpu_rt_runtime_us),
            cpu_idle: self.cpu_idle.or(others.cpu_idle),
            cpuset_cpus: self.cpuset_cpus.or(others.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.or(others.cpuset_mems),
            memory_bytes: self.memory_bytes.or(others.memory_bytes),
            memory_reservation_bytes: self.memory_reservation_bytes.or(others.memory_reservation_bytes),
            memory_swap_bytes: self.memory_swap_bytes.or(others.memory_swap_bytes),
            memory_swappiness: self.memory_swappiness.or(others.memory_swappiness),
            disable_oom_killer: self.disable_oom_killer.or(others.disable_oom_killer),
            pids: self.pids.or(others.pids),
        }
    }

    /// The same as the specification's document.
    #[must_use]
    pub fn resources(&self) -> LinuxResources {
        let mut cpu = LinuxCpu::default();
        let period = self.cpu_period_us.or(self.nano_cpus.map(|_| PERIOD_US));
        // A billionth of a CPU for a period.
        let quota = self.cpu_quota_us.or(self.nano_cpus.map(|cpus| cpus / (1_000_000_000 / PERIOD_US.cast_signed())));
        cpu.set_period(period).set_quota(quota).set_burst(self.cpu_burst_us).set_shares(self.cpu_shares);
        cpu.set_realtime_period(self.cpu_rt_period_us).set_realtime_runtime(self.cpu_rt_runtime_us).set_idle(self.cpu_idle);
        cpu.set_cpus(self.cpuset_cpus.clone()).set_mems(self.cpuset_mems.clone());
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory_bytes).set_reservation(self.memory_reservation_bytes).set_swap(self.memory_swap_bytes);
        memory.set_swappiness(self.memory_swappiness).set_disable_oom_killer(self.disable_oom_killer);
        if self.memory_bytes == Some(-1) && self.memory_swap_bytes.is_none() {
            // The limit of both together can never be below that of memory alone.
            memory.set_swap(Some(-1));
        }
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(self.blkio_weight);
        let mut resources = LinuxResources::default();
        resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_block_io(Some(block_io)).set_devices(None);
        resources.set_pids(self.pids.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        }));
        resources
    }
}

/// A number of bytes as docker reads it: with b, k, m, g or t behind it, which count in 1024s, and as a fraction of
/// one of these, too.
pub fn parse_size(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    /// More digits than that tell nothing of bytes.
    const FRACTION_LIMIT: usize = 12;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    if !digits(whole) || !digits(fraction) || fraction.len() > FRACTION_LIMIT {
        return None;
    }
    let part = (fraction.parse::<u128>().ok()? << shift) / 10_u128.pow(fraction.len() as u32);
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(part.try_into().ok()?)
}

/// `NAME=SOFT[:HARD]`, a limit of setrlimit(2); -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    kind: PosixRlimitType,
    soft: u64,
    hard: u64,
}

impl Ulimit {
    /// Its name as in `nofile`, and its soft and hard value.
    pub fn parts(&self) -> (String, u64, u64) {
        let name = serde_json::to_value(self.kind).ok().and_then(|name| Some(name.as_str()?.to_ascii_lowercase()));
        let name = name.as_deref().and_then(|name| name.strip_prefix("rlimit_")).unwrap_or_default().to_owned();
        (name, self.soft, self.hard)
    }

    pub(super) fn rlimit(&self) -> Result<PosixRlimit> {
        let limit = PosixRlimitBuilder::default().typ(self.kind).soft(self.soft).hard(self.hard);
        limit.build().map_err(|error| super::build_error(&error))
    }
}

impl std::str::FromStr for Ulimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("ulimit {text:?}"), why);
        let (name, values) = text.split_once('=').ok_or_else(|| invalid("it must be NAME=SOFT or NAME=SOFT:HARD"))?;
        let kind = serde_json::from_value(format!("RLIMIT_{}", name.to_ascii_uppercase()).into())
            .map_err(|_| invalid("there is no limit of that name; see setrlimit(2): nofile, nproc, core, memlock, ..."))?;
        let number = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (Some(soft), Some(hard)) = (number(soft), number(hard)) else {
            return Err(invalid("a value is a number, or -1 for no limit"));
        };
        if soft > hard {
            return Err(invalid("the soft limit is above the hard one"));
        }
        Ok(Self { kind, soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_dockers() {
        for (text, bytes) in [("0", 0), ("7b", 7), ("64k", 64 << 10), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("0.5m", 1 << 19)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "-1", "k", ".5k", "1.", "1.2.3", "1x", "1 k", "99999999999999999999", "99999999999t", "１k"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ulimits_are_read_as_dockers() {
        let limit = |text: &str| {
            let limit = text.parse::<Ulimit>().unwrap().rlimit().unwrap();
            (limit.typ(), limit.soft(), limit.hard())
        };
        assert_eq!(limit("nofile=1024:2048"), (PosixRlimitType::RlimitNofile, 1024, 2048));
        assert_eq!(limit("core=0"), (PosixRlimitType::RlimitCore, 0, 0));
        assert_eq!(limit("memlock=-1"), (PosixRlimitType::RlimitMemlock, u64::MAX, u64::MAX));
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=2:1", "files=1", "=1", "nofile=1:2:3"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,24}") {
            let _ = (parse_size(&text), text.parse::<Ulimit>().is_ok());
        }
    }
}
