//! `update`: other limits for a container that runs.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::state::Status;
use super::{Runtime, not_running};
use crate::cgroup;
use crate::error::{Error, Result};

/// The longest resources document.
const RESOURCES_LIMIT_BYTES: usize = 1 << 20;

/// Limits given one by one; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// The length of a period in which CPU time is counted, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit.
    pub cpu_quota_us: Option<i64>,
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
    /// Processes; -1 for no limit.
    pub pids: Option<i64>,
}

impl Limits {
    /// The same as the specification's document.
    #[must_use]
    pub fn resources(&self) -> LinuxResources {
        let mut cpu = LinuxCpu::default();
        cpu.set_period(self.cpu_period_us).set_quota(self.cpu_quota_us).set_burst(self.cpu_burst_us).set_shares(self.cpu_shares);
        cpu.set_realtime_period(self.cpu_rt_period_us).set_realtime_runtime(self.cpu_rt_runtime_us).set_idle(self.cpu_idle);
        cpu.set_cpus(self.cpuset_cpus.clone()).set_mems(self.cpuset_mems.clone());
        let mut memory = LinuxMemory::default();
        memory.set_limit(self.memory_bytes).set_reservation(self.memory_reservation_bytes).set_swap(self.memory_swap_bytes);
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

impl Runtime {
    /// Changes the limits that `resources` has; device rules stay as they are.
    pub fn update(&self, id: &str, mut resources: LinuxResources) -> Result<()> {
        let container = self.take(id)?;
        if matches!(container.status()?, Status::Stopped | Status::Creating) {
            return Err(not_running(id));
        }
        resources.set_devices(None);
        cgroup::update(&container.record.cgroups, container.record.unit.as_ref(), &resources)
    }

    /// The same with the specification's document (`linux.resources`) in JSON.
    pub fn update_from_json(&self, id: &str, text: &[u8]) -> Result<()> {
        if text.len() > RESOURCES_LIMIT_BYTES {
            return Err(Error::invalid("resources", format!("the document is longer than {RESOURCES_LIMIT_BYTES} bytes")));
        }
        // The types take a list for an object, too.
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(text).map_err(|error| Error::invalid("resources", error))?;
        self.update(id, serde_json::from_value(fields.into()).map_err(|error| Error::invalid("resources", error))?)
    }
}
