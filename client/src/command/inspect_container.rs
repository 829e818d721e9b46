//! A container as `rbox inspect` shows it.

use std::path::PathBuf;

use longshore_runtime::container::{Container, Containers, LogDriver, Phase};
use longshore_runtime::spec::command;
use longshore_runtime::volume::{Source, Volume};
use serde_json::{Value, json};

use super::ps::{ID_DIGITS, state};
use super::{inspect_host, inspect_network};

/// What docker shows for a time that has not come.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// docker's word for how the files of images and containers are put together.
pub(super) const DRIVER: &str = "overlay2";

/// docker's keys.
pub(super) fn describe(containers: &Containers, container: &Container) -> Value {
    let (config, status) = (&container.config, &container.status);
    let command = command(&config.image_config, &config.options).unwrap_or_default();
    let directory = containers.directory(&config.id);
    let log_path = match config.log.driver {
        LogDriver::JsonFile => directory.join(format!("{}-json.log", config.id)),
        LogDriver::Journald | LogDriver::None => PathBuf::new(),
    };
    let mounts: Vec<Value> = config.options.volumes.iter().map(|volume| mount(containers, volume)).collect();
    json!({
        "Id": config.id,
        "Created": config.created,
        "Path": command.first().map_or("", String::as_str),
        "Args": command.get(1..).unwrap_or_default(),
        "State": state_document(containers, container),
        "Image": config.image_id,
        "ResolvConfPath": directory.join("etc/resolv.conf"),
        "HostnamePath": directory.join("etc/hostname"),
        "HostsPath": directory.join("etc/hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", config.name),
        "RestartCount": status.restart_count,
        "Driver": DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": inspect_host::describe(config),
        "GraphDriver": graph_driver(containers, container),
        "SizeRw": null,
        "SizeRootFs": null,
        "Mounts": mounts,
        "NetworkSettings": inspect_network::settings(container),
        "Config": own_config(container),
    })
}

fn state_document(containers: &Containers, container: &Container) -> Value {
    let status = &container.status;
    let paused = containers.is_paused(container);
    let time = |text: &str| if text.is_empty() { NEVER.to_owned() } else { text.to_owned() };
    json!({
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
        "Health": containers.health(container),
    })
}

/// `Config`: what the image says, but for what was asked for.
fn own_config(container: &Container) -> Value {
    let config = &container.config;
    let (options, image) = (&config.options, &config.image_config);
    let arguments = if options.args.is_empty() && options.entrypoint.is_none() { &image.cmd } else { &options.args };
    let published = &options.networking.published;
    let ports = image.exposed_ports.keys().cloned().chain(published.iter().map(|one| format!("{}/{}", one.port, one.protocol)));
    let ports: serde_json::Map<String, Value> = ports.map(|port| (port, json!({}))).collect();
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let is_kept = |variable: &&String| !options.env.iter().any(|own| name(own) == name(variable));
    let env: Vec<&String> = options.env.iter().chain(image.env.iter().filter(is_kept)).collect();
    json!({
        "Hostname": options.hostname.as_deref().unwrap_or(&config.id[..ID_DIGITS]),
        "Domainname": options.domainname.as_deref().unwrap_or_default(),
        "User": options.user.as_deref().unwrap_or(&image.user),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "ExposedPorts": ports,
        "Tty": options.tty,
        "OpenStdin": config.interactive,
        "StdinOnce": config.stdin_once,
        "Env": env,
        "Cmd": arguments,
        "Healthcheck": config.health,
        "Image": config.image,
        "Volumes": (!image.volumes.is_empty()).then_some(&image.volumes),
        "WorkingDir": options.workdir.as_deref().unwrap_or(&image.working_dir),
        "Entrypoint": options.entrypoint.as_ref().unwrap_or(&image.entrypoint),
        "OnBuild": null,
        "Labels": config.labels(),
        "StopSignal": config.stop_signal.as_deref().unwrap_or(&image.stop_signal),
        "StopTimeout": config.stop_timeout_s,
    })
}

/// Where its files are. They are mounted nowhere that others see; through its first process they are seen as it does.
fn graph_driver(containers: &Containers, container: &Container) -> Value {
    let directory = containers.directory(&container.config.id);
    let lower: Vec<String> = containers.layer_paths(&container.config).iter().map(|path| path.display().to_string()).collect();
    let merged = match container.status.pid {
        0 => String::new(),
        pid => format!("/proc/{pid}/root"),
    };
    json!({
        "Name": DRIVER,
        "Data": {
            "LowerDir": lower.join(":"),
            "MergedDir": merged,
            "UpperDir": directory.join("upper"),
            "WorkDir": directory.join("work"),
        },
    })
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
