//! From `linux.resources` to what is written to which file of a cgroup.
//!
//! Pure: what a host has is asked through [`Host`], so that both versions are tested anywhere. A limit of
//! 0 is "not set", as engines write it; where 0 has a meaning (pids, swappiness) it counts.

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources};

use super::block_io;
use crate::error::{Error, Result};

/// The version of cgroups a controller is found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller, by its name in the version it is found in.
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// The field of the configuration, for messages.
    pub(super) field: &'static str,
    /// Another name of the file, on kernels that do not have the first.
    pub(super) alias: Option<(String, String)>,
    /// Left out where the file is missing.
    pub(super) optional: bool,
}

impl Setting {
    #[allow(clippy::needless_pass_by_value, reason = "a number or a text, written down where it is made")]
    pub(super) fn new(controller: &'static str, file: impl Into<String>, value: impl ToString, field: &'static str) -> Self {
        Self { controller, file: file.into(), value: value.to_string(), field, alias: None, optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// What the host and the cgroup are like.
pub(super) trait Host {
    /// Where a controller is, by its v1 name (`blkio`, not `io`).
    fn version(&self, controller: &str) -> Option<Version>;
    /// What a file of the container's cgroup holds now.
    fn current(&self, controller: &str, file: &str) -> Option<String>;
}

/// The v1 names of the controllers that `resources` has something for; devices are not among them.
pub(super) fn controllers_needed(resources: &LinuxResources) -> Vec<&'static str> {
    let memory = resources.memory().is_some_and(|memory| memory != LinuxMemory::default());
    let cpu = resources.cpu().as_ref();
    let lists = |cpu: &LinuxCpu| given(cpu.cpus()).is_some() || given(cpu.mems()).is_some();
    let times = |cpu: &LinuxCpu| {
        let mut rest = cpu.clone();
        rest.set_cpus(None).set_mems(None);
        rest != LinuxCpu::default()
    };
    let network = resources.network().as_ref();
    [
        ("memory", memory),
        ("cpu", cpu.is_some_and(times)),
        ("cpuset", cpu.is_some_and(lists)),
        ("pids", resources.pids().is_some()),
        ("blkio", resources.block_io().as_ref().is_some_and(|block| *block != oci_spec::runtime::LinuxBlockIo::default())),
        ("hugetlb", resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())),
        ("net_cls", network.is_some_and(|network| network.class_id().is_some_and(|id| id != 0))),
        ("net_prio", network.is_some_and(|network| network.priorities().as_ref().is_some_and(|list| !list.is_empty()))),
        ("rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty())),
    ]
    .into_iter()
    .filter_map(|(name, needed)| needed.then_some(name))
    .collect()
}

pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// All writes, in the order they have to be made. Devices are not among them.
pub(super) fn settings(resources: &LinuxResources, host: &dyn Host) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    for controller in controllers_needed(resources) {
        let version = host.version(controller).ok_or_else(|| {
            Error::invalid(
                format!("linux.resources ({controller})"),
                format!("this host has no cgroup controller {controller}, or it is not delegated to this user"),
            )
        })?;
        match controller {
            "memory" => list.extend(memory(&resources.memory().unwrap_or_default(), version, host)?),
            "cpu" => list.extend(cpu(&resources.cpu().clone().unwrap_or_default(), version, host)?),
            "cpuset" => list.extend(cpuset(&resources.cpu().clone().unwrap_or_default())?),
            "pids" => {
                let limit = resources.pids().map_or(-1, |pids| pids.limit());
                list.push(Setting::new("pids", "pids.max", max_if_negative(limit), "pids.limit"));
            }
            "blkio" => list.extend(block_io::settings(&resources.block_io().clone().unwrap_or_default(), version)?),
            "hugetlb" => list.extend(huge_pages(resources.hugepage_limits().as_deref().unwrap_or_default(), version)?),
            "net_cls" => list.extend(class_id(&resources.network().clone().unwrap_or_default(), version)?),
            "net_prio" => list.extend(priorities(&resources.network().clone().unwrap_or_default(), version)?),
            _ => list.extend(resources.rdma().iter().flatten().map(|(device, limits)| rdma(device, *limits))),
        }
    }
    list.extend(unified(resources)?);
    Ok(list)
}

fn invalid(field: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("linux.resources.{field}"), why)
}

fn max_if_negative(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// 0 is how engines write "not set".
fn set<T: Copy + Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn memory(memory: &LinuxMemory, version: Version, host: &dyn Host) -> Result<Vec<Setting>> {
    #[allow(deprecated, reason = "the field is read to say that it is left out")]
    if set(memory.kernel()).is_some_and(|limit| limit > 0) {
        crate::warning::warn("linux.resources.memory.kernel is ignored: kernels since 5.4 have no such limit");
    }
    let (limit, swap) = (set(memory.limit()), set(memory.swap()));
    if let (Some(limit), Some(swap)) = (limit, swap)
        && (0..limit).contains(&swap)
    {
        return Err(invalid(
            "memory.swap",
            format!("{swap}: memory and swap together, so it cannot be below memory.limit {limit}"),
        ));
    }
    if memory.swappiness().is_some_and(|value| value > 100) {
        return Err(invalid("memory.swappiness", "it must be from 0 to 100"));
    }
    match version {
        Version::One => Ok(memory_v1(memory, limit, swap)),
        Version::Two => memory_v2(memory, limit, swap, host),
    }
}

fn memory_v1(memory: &LinuxMemory, limit: Option<i64>, swap: Option<i64>) -> Vec<Setting> {
    let write = |file: &str, value: String, field| Setting::new("memory", format!("memory.{file}"), value, field);
    let mut list = Vec::new();
    list.extend(limit.map(|limit| write("limit_in_bytes", limit.max(-1).to_string(), "memory.limit")));
    match (limit, swap) {
        // No limit of memory has no meaning below one of memory and swap.
        (Some(-1), None) => list.push(write("memsw.limit_in_bytes", "-1".into(), "memory.limit").optional()),
        (_, Some(swap @ ..0)) => list.push(write("memsw.limit_in_bytes", swap.max(-1).to_string(), "memory.swap").optional()),
        (_, Some(swap)) => list.push(write("memsw.limit_in_bytes", swap.to_string(), "memory.swap")),
        _ => {}
    }
    list.extend(set(memory.reservation()).map(|value| write("soft_limit_in_bytes", value.to_string(), "memory.reservation")));
    list.extend(
        set(memory.kernel_tcp()).map(|value| write("kmem.tcp.limit_in_bytes", value.to_string(), "memory.kernelTCP").optional()),
    );
    list.extend(memory.swappiness().map(|value| write("swappiness", value.to_string(), "memory.swappiness")));
    if memory.disable_oom_killer() == Some(true) {
        list.push(write("oom_control", "1".into(), "memory.disableOOMKiller"));
    }
    list
}

fn memory_v2(memory: &LinuxMemory, limit: Option<i64>, swap: Option<i64>, host: &dyn Host) -> Result<Vec<Setting>> {
    for (field, present) in [
        ("memory.swappiness", memory.swappiness().is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("memory.kernelTCP", set(memory.kernel_tcp()).is_some_and(|value| value > 0)),
    ] {
        if present {
            return Err(invalid(field, "cgroup v2 has no such setting"));
        }
    }
    if let Some(limit) = limit.filter(|limit| *limit > 0 && memory.check_before_update() == Some(true)) {
        let usage: Option<i64> = host.current("memory", "memory.current").and_then(|text| text.trim().parse().ok());
        if let Some(usage) = usage.filter(|usage| *usage > limit) {
            return Err(invalid("memory.limit", format!("{limit} is below what is in use now, {usage} (checkBeforeUpdate)")));
        }
    }
    let mut list = Vec::new();
    match (limit, swap) {
        (_, None) => {}
        (_, Some(..0)) => list.push(Setting::new("memory", "memory.swap.max", "max", "memory.swap").optional()),
        (Some(limit @ 1..), Some(swap)) => {
            list.push(Setting::new("memory", "memory.swap.max", swap - limit, "memory.swap"));
        }
        (_, Some(_)) => return Err(invalid("memory.swap", "it is memory and swap together: it needs memory.limit")),
    }
    list.extend(limit.map(|limit| Setting::new("memory", "memory.max", max_if_negative(limit), "memory.limit")));
    list.extend(
        set(memory.reservation()).map(|value| Setting::new("memory", "memory.low", max_if_negative(value), "memory.reservation")),
    );
    Ok(list)
}

fn cpu(cpu: &LinuxCpu, version: Version, host: &dyn Host) -> Result<Vec<Setting>> {
    let (quota, period, burst) = (set(cpu.quota()), set(cpu.period()), cpu.burst());
    if let (Some(quota @ 1..), Some(burst)) = (quota, burst)
        && burst > quota as u64
    {
        return Err(invalid("cpu.burst", format!("{burst} is above cpu.quota {quota}")));
    }
    if cpu.idle().is_some_and(|idle| !(0..=1).contains(&idle)) {
        return Err(invalid("cpu.idle", "it must be 0 or 1"));
    }
    let write = |file: &str, value: String, field| Setting::new("cpu", file, value, field);
    let mut list = Vec::new();
    match version {
        Version::One => {
            list.extend(set(cpu.shares()).map(|value| write("cpu.shares", value.to_string(), "cpu.shares")));
            list.extend(period.map(|value| write("cpu.cfs_period_us", value.to_string(), "cpu.period")));
            list.extend(quota.map(|value| write("cpu.cfs_quota_us", value.max(-1).to_string(), "cpu.quota")));
            list.extend(burst.map(|value| write("cpu.cfs_burst_us", value.to_string(), "cpu.burst")));
            list.extend(
                set(cpu.realtime_period()).map(|value| write("cpu.rt_period_us", value.to_string(), "cpu.realtimePeriod")),
            );
            list.extend(
                set(cpu.realtime_runtime()).map(|value| write("cpu.rt_runtime_us", value.to_string(), "cpu.realtimeRuntime")),
            );
        }
        Version::Two => {
            if set(cpu.realtime_period()).is_some() || set(cpu.realtime_runtime()).is_some() {
                return Err(invalid("cpu.realtimeRuntime", "cgroup v2 has no limit of real time"));
            }
            list.extend(set(cpu.shares()).map(|value| write("cpu.weight", weight_of_shares(value).to_string(), "cpu.shares")));
            list.extend(cpu_max(quota, period, host).map(|value| write("cpu.max", value, "cpu.quota")));
            list.extend(burst.map(|value| write("cpu.max.burst", value.to_string(), "cpu.burst")));
        }
    }
    list.extend(cpu.idle().map(|value| write("cpu.idle", value.to_string(), "cpu.idle")));
    Ok(list)
}

/// `cpu.max`: what is not given stays what it is.
fn cpu_max(quota: Option<i64>, period: Option<u64>, host: &dyn Host) -> Option<String> {
    let quota = match (quota, period) {
        (Some(quota), _) => max_if_negative(quota),
        (None, Some(_)) => {
            let now = host.current("cpu", "cpu.max");
            now.and_then(|text| text.split_whitespace().next().map(str::to_owned)).unwrap_or_else(|| "max".into())
        }
        (None, None) => return None,
    };
    Some(period.map_or_else(|| quota.clone(), |period| format!("{quota} {period}")))
}

/// cgroup v1's shares (2 to 262144, 1024 by default) as v2's weight (1 to 10000, 100 by default): a
/// quadratic curve in the logarithms through the ends and through the defaults, as runc and crun have it.
fn weight_of_shares(shares: u64) -> u64 {
    const SHARES_MAX: u64 = 262_144;
    if shares <= 2 {
        return 1;
    }
    let log = (shares.min(SHARES_MAX) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).min(10_000)
}

fn cpuset(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    for (text, file, field) in [(cpu.mems(), "cpuset.mems", "cpu.mems"), (cpu.cpus(), "cpuset.cpus", "cpu.cpus")] {
        if let Some(text) = given(text) {
            crate::launch::cpu_list(&format!("linux.resources.{field}"), text)?;
            list.push(Setting::new("cpuset", file, text, field));
        }
    }
    Ok(list)
}

/// Both kinds of accounting: reservations where the kernel has them, and page faults.
fn huge_pages(limits: &[LinuxHugepageLimit], version: Version) -> Result<Vec<Setting>> {
    let suffix = if version == Version::One { "limit_in_bytes" } else { "max" };
    let mut list = Vec::new();
    for limit in limits {
        let size = limit.page_size();
        if size.is_empty() || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(invalid("hugepageLimits[].pageSize", format!("{size:?} is none like 2MB")));
        }
        let value = max_if_negative(limit.limit());
        list.push(Setting::new("hugetlb", format!("hugetlb.{size}.{suffix}"), &value, "hugepageLimits"));
        list.push(Setting::new("hugetlb", format!("hugetlb.{size}.rsvd.{suffix}"), &value, "hugepageLimits").optional());
    }
    Ok(list)
}

fn class_id(network: &LinuxNetwork, version: Version) -> Result<Option<Setting>> {
    only_v1(version, "network.classID")?;
    Ok(network.class_id().map(|id| Setting::new("net_cls", "net_cls.classid", id, "network.classID")))
}

fn priorities(network: &LinuxNetwork, version: Version) -> Result<Vec<Setting>> {
    only_v1(version, "network.priorities")?;
    let write = |one: &oci_spec::runtime::LinuxInterfacePriority| {
        Setting::new("net_prio", "net_prio.ifpriomap", format!("{} {}", one.name(), one.priority()), "network.priorities")
    };
    Ok(network.priorities().iter().flatten().map(write).collect())
}

fn only_v1(version: Version, field: &str) -> Result<()> {
    if version == Version::One { Ok(()) } else { Err(invalid(field, "cgroup v2 has no such controller")) }
}

fn rdma(device: &str, limits: LinuxRdma) -> Setting {
    let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
    let value = format!("{device}{}{}", part("hca_handle", limits.hca_handles()), part("hca_object", limits.hca_objects()));
    Setting::new("rdma", "rdma.max", value, "rdma")
}

/// `unified`: files of the cgroup2 directory, whatever they are.
pub(super) fn unified(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || !file.contains('.') || file.starts_with('.') {
            return Err(invalid("unified", format!("{file:?} is no file of a cgroup")));
        }
        // One line a write is what the kernel takes.
        list.extend(value.lines().map(|line| Setting::new("", file.as_str(), line, "unified")));
    }
    list.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Option<Version>, &'static str);

    impl Host for Given {
        fn version(&self, _: &str) -> Option<Version> {
            self.0
        }
        fn current(&self, _: &str, _: &str) -> Option<String> {
            Some(self.1.to_owned())
        }
    }

    fn writes(version: Version, current: &'static str, json: &str) -> Result<Vec<String>> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let list = settings(&resources, &Given(Some(version), current))?;
        Ok(list.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect())
    }

    #[test]
    fn memory_in_both_versions() {
        let json = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500}}"#;
        assert_eq!(
            writes(Version::One, "", json).unwrap(),
            ["memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes=1500", "memory.soft_limit_in_bytes=500"]
        );
        assert_eq!(writes(Version::Two, "", json).unwrap(), ["memory.swap.max=500", "memory.max=1000", "memory.low=500"]);
        let unlimited = r#"{"memory":{"limit":-1,"swap":-1,"swappiness":0}}"#;
        assert_eq!(
            writes(Version::One, "", unlimited).unwrap(),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1", "memory.swappiness=0"]
        );
        assert_eq!(
            writes(Version::Two, "", r#"{"memory":{"limit":-1,"swap":-1}}"#).unwrap(),
            ["memory.swap.max=max", "memory.max=max"]
        );
    }

    #[test]
    fn what_a_version_cannot_do_and_what_contradicts_itself_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":10}}"#, "memory.swappiness"),
            (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
            (r#"{"memory":{"swap":10}}"#, "memory.swap"),
            (r#"{"memory":{"swap":10,"limit":20}}"#, "memory.swap"),
            (r#"{"memory":{"limit":10,"checkBeforeUpdate":true}}"#, "memory.limit"),
            (r#"{"cpu":{"realtimeRuntime":10}}"#, "cpu.realtimeRuntime"),
            (r#"{"cpu":{"quota":10,"burst":20}}"#, "cpu.burst"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"cpu":{"cpus":"x"}}"#, "cpu.cpus"),
            (r#"{"network":{"classID":1}}"#, "network.classID"),
            (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO.leafWeight"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
            (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#, "hugepageLimits"),
        ] {
            let error = writes(Version::Two, "11", json).unwrap_err().to_string();
            assert!(error.contains(&format!("linux.resources.{field}")), "{json}: {error}");
        }
        let resources: LinuxResources = serde_json::from_str(r#"{"pids":{"limit":1}}"#).unwrap();
        assert!(settings(&resources, &Given(None, "")).unwrap_err().to_string().contains("controller pids"));
    }

    #[test]
    fn cpu_in_both_versions() {
        let json = r#"{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":1000,"idle":0,"cpus":"0-1","mems":"0"}}"#;
        assert_eq!(
            writes(Version::One, "", json).unwrap(),
            [
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=1000",
                "cpu.idle=0",
                "cpuset.mems=0",
                "cpuset.cpus=0-1"
            ]
        );
        assert_eq!(
            writes(Version::Two, "", json).unwrap(),
            ["cpu.weight=100", "cpu.max=50000 100000", "cpu.max.burst=1000", "cpu.idle=0", "cpuset.mems=0", "cpuset.cpus=0-1"]
        );
        assert_eq!(writes(Version::Two, "7000 100000", r#"{"cpu":{"period":20000}}"#).unwrap(), ["cpu.max=7000 20000"]);
        assert_eq!(writes(Version::Two, "", r#"{"cpu":{"quota":-1}}"#).unwrap(), ["cpu.max=max"]);
    }

    #[test]
    fn shares_become_weights_through_both_ends_and_the_default() {
        assert_eq!([0, 1, 2, 1024, 262_144, u64::MAX].map(weight_of_shares), [1, 1, 1, 100, 10_000, 10_000]);
    }

    #[test]
    fn what_is_not_set_is_not_written_and_zero_processes_are_a_limit() {
        let json = r#"{"memory":{},"cpu":{"shares":0,"quota":0},"blockIO":{},"hugepageLimits":[],"network":{},"rdma":{}}"#;
        assert_eq!(writes(Version::Two, "", json).unwrap(), [""; 0]);
        assert_eq!(writes(Version::One, "", r#"{"pids":{"limit":0}}"#).unwrap(), ["pids.max=0"]);
        assert_eq!(writes(Version::Two, "", r#"{"pids":{"limit":-1}}"#).unwrap(), ["pids.max=max"]);
    }

    #[test]
    fn the_rest_of_the_controllers() {
        let json = r#"{"network":{"classID":7,"priorities":[{"name":"eth0","priority":3}]},"rdma":{"mlx":{"hcaHandles":2,"hcaObjects":5}},
            "hugepageLimits":[{"pageSize":"2MB","limit":4096}],"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#;
        assert_eq!(
            writes(Version::One, "", json).unwrap(),
            [
                "hugetlb.2MB.limit_in_bytes=4096",
                "hugetlb.2MB.rsvd.limit_in_bytes=4096",
                "net_cls.classid=7",
                "net_prio.ifpriomap=eth0 3",
                "rdma.max=mlx hca_handle=2 hca_object=5",
                "io.max=8:0 rbps=1",
                "io.max=8:16 rbps=2"
            ]
        );
    }
}
