//! `HostConfig` of a container as `rbox inspect` shows it.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_runtime::container::Config;
use longshore_runtime::spec::{NamespaceMode, masked_paths, read_only_paths};
use longshore_runtime::volume::Volume;
use serde_json::{Map, Value, json};

use super::{inspect_network, security};

/// docker's keys.
pub(super) fn describe(config: &Config) -> Value {
    let parts = [asked_for(config), limits(config), nothing_here()];
    let mut all: Map<String, Value> = parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect();
    all.extend(inspect_network::host_config(&config.options));
    all.into()
}

fn asked_for(config: &Config) -> Value {
    let options = &config.options;
    // Those without a name are not what somebody asked for by one.
    let binds: Vec<String> = options.volumes.iter().filter(|volume| !volume.is_anonymous()).map(Volume::describe).collect();
    let tmpfs: BTreeMap<&Path, String> = options.tmpfs.iter().map(|one| (one.destination(), one.options())).collect();
    let log_config: BTreeMap<_, _> = config.log.described().into_iter().collect();
    let devices = options.isolation.devices.iter();
    let devices: Vec<Value> = devices
        .map(|one| json!({ "PathOnHost": one.host, "PathInContainer": one.container, "CgroupPermissions": one.access }))
        .collect();
    let hidden = |paths: Vec<String>| if options.isolation.privileged { Value::Null } else { paths.into() };
    let sysctls: Map<String, Value> = options
        .sysctls
        .iter()
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({
        "Binds": binds,
        "LogConfig": { "Type": config.log.driver.name(), "Config": log_config },
        "AutoRemove": config.auto_remove,
        "RestartPolicy": { "Name": config.restart.name(), "MaximumRetryCount": config.restart.max_retries() },
        "ReadonlyRootfs": options.read_only,
        "Privileged": options.isolation.privileged,
        "Init": options.isolation.init,
        "CgroupnsMode": "private",
        "PidMode": mode_of(&options.isolation.pid, ""),
        "IpcMode": mode_of(&options.isolation.ipc, "private"),
        "UTSMode": mode_of(&options.isolation.uts, ""),
        "Devices": devices,
        "Tmpfs": tmpfs,
        "Sysctls": sysctls,
        "CapAdd": options.added_capabilities,
        "CapDrop": options.dropped_capabilities,
        "GroupAdd": options.added_groups,
        "SecurityOpt": security::described(options),
        "MaskedPaths": hidden(masked_paths()),
        "ReadonlyPaths": hidden(read_only_paths()),
    })
}

fn limits(config: &Config) -> Value {
    let (options, limits) = (&config.options, &config.options.limits);
    let ulimits: Vec<Value> = options
        .ulimits
        .iter()
        .map(longshore_runtime::spec::Ulimit::parts)
        .map(|(name, soft, hard)| json!({ "Name": name, "Soft": soft, "Hard": hard }))
        .collect();
    json!({
        "Memory": limits.memory_bytes.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.disable_oom_killer.unwrap_or(false),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "ShmSize": options.shm_bytes(),
        "Ulimits": ulimits,
    })
}

/// What docker has and this has not, as docker shows it where nobody has asked for it.
fn nothing_here() -> Value {
    json!({
        "BlkioDeviceReadBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceWriteIOps": [],
        "BlkioWeightDevice": [],
        "Cgroup": "",
        "CgroupParent": "",
        "ConsoleSize": [0, 0],
        "ContainerIDFile": "",
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "Isolation": "",
        "Links": null,
        "Runtime": "roci",
        "UsernsMode": "",
        "VolumeDriver": "",
        "VolumesFrom": null,
    })
}

/// docker's word for whose namespace a container has.
fn mode_of(mode: &NamespaceMode, own: &str) -> String {
    match mode {
        NamespaceMode::Own => own.to_owned(),
        NamespaceMode::Host => "host".into(),
        NamespaceMode::Container(id) => format!("container:{id}"),
        NamespaceMode::Path(path) => path.display().to_string(),
    }
}
