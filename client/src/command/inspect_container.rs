//! A container as `rbox inspect` shows it.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_runtime::container::{Container, Containers, LogDriver, Phase};
use longshore_runtime::spec::{NamespaceMode, command};
use longshore_runtime::volume::{Source, Volume};
use serde_json::{Value, json};

use super::inspect_network;
use super::ps::state;

/// What docker shows for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// docker's keys.
pub(super) fn describe(containers: &Containers, container: &Container) -> Value {
    let (config, status) = (&container.config, &container.status);
    let paused = containers.is_paused(container);
    let time = |text: &str| if text.is_empty() { NEVER.to_owned() } else { text.to_owned() };
    let command = command(&config.image_config, &config.options).unwrap_or_default();
    let directory = containers.directory(&config.id);
    let options = &config.options;
    let limits = &options.limits;
    // Those without a name are not what somebody asked for by one.
    let binds: Vec<String> = options.volumes.iter().filter(|volume| !volume.is_anonymous()).map(Volume::describe).collect();
    let mounts: Vec<Value> = options.volumes.iter().map(|volume| mount(containers, volume)).collect();
    let tmpfs: BTreeMap<&Path, String> = options.tmpfs.iter().map(|one| (one.destination(), one.options())).collect();
    let mut log_config = serde_json::Map::new();
    if let Some(bytes) = config.log.max_bytes {
        log_config.insert("max-size".into(), bytes.to_string().into());
        log_config.insert("max-file".into(), config.log.max_files.to_string().into());
    }
    let (log_type, log_path) = match config.log.driver {
        LogDriver::JsonFile => ("json-file", directory.join(format!("{}-json.log", config.id)).display().to_string()),
        LogDriver::None => ("none", String::new()),
    };
    let devices: Vec<Value> = options
        .isolation
        .devices
        .iter()
        .map(|one| json!({ "PathOnHost": one.host, "PathInContainer": one.container, "CgroupPermissions": one.access }))
        .collect();
    let entrypoint = options.entrypoint.as_ref().unwrap_or(&config.image_config.entrypoint);
    let arguments =
        if options.args.is_empty() && options.entrypoint.is_none() { &config.image_config.cmd } else { &options.args };
    let env = [&config.image_config.env[..], &options.env[..]].concat();
    let mut host_config = json!({
        "Binds": binds,
        "LogConfig": { "Type": log_type, "Config": log_config },
        "AutoRemove": config.auto_remove,
        "RestartPolicy": { "Name": config.restart.name(), "MaximumRetryCount": config.restart.max_retries() },
        "ReadonlyRootfs": options.read_only,
        "Privileged": options.isolation.privileged,
        "Init": options.isolation.init,
        "PidMode": mode_of(&options.isolation.pid, ""),
        "IpcMode": mode_of(&options.isolation.ipc, "private"),
        "UTSMode": mode_of(&options.isolation.uts, ""),
        "Devices": devices,
        "Memory": limits.memory_bytes.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "PidsLimit": limits.pids,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "OomScoreAdj": options.oom_score_adj.unwrap_or(0),
        "Tmpfs": tmpfs,
        "ShmSize": options.shm_bytes(),
        "CapAdd": options.added_capabilities,
        "CapDrop": options.dropped_capabilities,
        "GroupAdd": options.added_groups,
        "SecurityOpt": if options.no_new_privileges { vec!["no-new-privileges"] } else { Vec::new() },
    });
    if let Some(host_config) = host_config.as_object_mut() {
        host_config.extend(inspect_network::host_config(options));
    }
    let mut described = json!({
        "Id": config.id,
        "Created": config.created,
        "Path": command.first().map_or("", String::as_str),
        "Args": command.get(1..).unwrap_or_default(),
        "State": {
            "Status": state(container, paused),
            "Running": status.is_up(),
            "Paused": paused,
            "Restarting": status.phase == Phase::Restarting,
            "OOMKilled": status.oom_killed,
            "Dead": false,
            "Pid": status.pid,
            "ExitCode": status.exit_code,
            "Error": status.error,
            "StartedAt": time(&status.started),
            "FinishedAt": time(&status.finished),
        },
        "Image": config.image_id,
        "ResolvConfPath": directory.join("etc/resolv.conf"),
        "HostnamePath": directory.join("etc/hostname"),
        "HostsPath": directory.join("etc/hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", config.name),
        "RestartCount": status.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "HostConfig": host_config,
        "Mounts": mounts,
        "NetworkSettings": inspect_network::settings(container),
        "Config": {
            "Hostname": options.hostname.as_deref().unwrap_or(&config.id[..12]),
            "Domainname": options.domainname.as_deref().unwrap_or_default(),
            "ExposedPorts": (!config.image_config.exposed_ports.is_empty()).then_some(&config.image_config.exposed_ports),
            "User": options.user.as_deref().unwrap_or(&config.image_config.user),
            "Tty": options.tty,
            "OpenStdin": config.interactive,
            "Env": env,
            "Cmd": arguments,
            "Image": config.image,
            "WorkingDir": options.workdir.as_deref().unwrap_or(&config.image_config.working_dir),
            "Entrypoint": entrypoint,
            "Volumes": (!config.image_config.volumes.is_empty()).then_some(&config.image_config.volumes),
            "StopSignal": config.stop_signal.as_deref().unwrap_or(&config.image_config.stop_signal),
            "StopTimeout": config.stop_timeout_s,
            "StdinOnce": config.stdin_once,
            "Labels": config.labels(),
            "Healthcheck": config.health,
        },
    });
    if let Some(health) = containers.health(container) {
        described["State"]["Health"] = json!(health);
    }
    described
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

/// A mount as docker shows it.
fn mount(containers: &Containers, volume: &Volume) -> Value {
    let (destination, mode, rw) = (&volume.destination, volume.mode(), !volume.read_only);
    match &volume.source {
        Source::Host(source) => json!({
            "Type": "bind",
            "Source": source,
            "Destination": destination,
            "Mode": mode,
            "RW": rw,
            "Propagation": volume.propagation.as_str(),
        }),
        Source::Volume { volume: name, .. } => json!({
            "Type": "volume",
            "Name": name,
            "Source": containers.volumes().data_path(name),
            "Destination": destination,
            "Driver": "local",
            "Mode": mode,
            "RW": rw,
            "Propagation": "",
        }),
    }
}
