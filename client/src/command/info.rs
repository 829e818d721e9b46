//! `rbox info` and `rbox version`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::{LogDriver, Phase};
use longshore_runtime::name::Platform;
use serde_json::{Value, json};

use super::format::DocumentFormat;
use super::{Global, print};
use crate::error::Result;
use crate::text::{self, printable};

/// This program's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Show what there is on this machine
#[derive(Debug, Args)]
pub(super) struct Info {
    #[command(flatten)]
    format: DocumentFormat,
}

/// Show the version
#[derive(Debug, Args)]
pub(super) struct Version {
    #[command(flatten)]
    format: DocumentFormat,
}

impl Version {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let Platform { os, architecture, .. } = Platform::host();
        // docker's keys where there is no daemon.
        let document = json!({ "Client": { "Version": VERSION, "Os": os, "Arch": architecture }, "Server": null });
        let text = self.format.line(&document)?;
        let text = text.unwrap_or_else(|| format!("Client:\n Version:    {VERSION}\n OS/Arch:    {os}/{architecture}"));
        print(|out| writeln!(out, "{text}"))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Info {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let info = describe(global)?;
        let text = self.format.line(&info)?;
        print(|out| match text {
            Some(text) => writeln!(out, "{text}"),
            None => lines(&info).iter().try_for_each(|line| writeln!(out, "{}", printable(line))),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// docker's keys, as far as they mean something without a daemon.
fn describe(global: &Global) -> Result<Value> {
    let store = global.store()?;
    let containers = global.containers()?;
    let list: Vec<_> = containers.list()?.into_iter().flatten().collect();
    let paused = list.iter().filter(|one| containers.is_paused(one)).count();
    let running = list.iter().filter(|one| one.status.phase == Phase::Running).count() - paused;
    let system = rustix::system::uname();
    let memory = rustix::system::sysinfo();
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut security = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if !rustix::process::geteuid().is_root() {
        security.push("name=rootless");
    }
    Ok(json!({
        "Containers": list.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": list.len() - running - paused,
        "Images": store.images()?.len(),
        "Driver": "overlay2",
        "LoggingDriver": LogDriver::default().name(),
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if unified { "2" } else { "1" },
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Log": LogDriver::ALL.map(LogDriver::name),
        },
        "SecurityOptions": security,
        "KernelVersion": system.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSType": Platform::host().os,
        "Architecture": system.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(0, usize::from),
        "MemTotal": u64::from(memory.mem_unit).saturating_mul(memory.totalram as u64),
        "DockerRootDir": store.root(),
        "Name": system.nodename().to_string_lossy(),
        "ServerVersion": VERSION,
    }))
}

/// docker's lines.
fn lines(info: &Value) -> Vec<String> {
    let value = |key: &str| match &info[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let words = |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    let line = |heading: &str, key: &str| format!("{heading}: {}", value(key));
    let mut lines = vec![
        line("Containers", "Containers"),
        line(" Running", "ContainersRunning"),
        line(" Paused", "ContainersPaused"),
        line(" Stopped", "ContainersStopped"),
        line("Images", "Images"),
        line("Version", "ServerVersion"),
        line("Storage Driver", "Driver"),
        line("Logging Driver", "LoggingDriver"),
        line("Cgroup Driver", "CgroupDriver"),
        line("Cgroup Version", "CgroupVersion"),
        "Plugins:".into(),
    ];
    lines.extend(["Volume", "Network", "Log"].map(|kind| format!(" {kind}: {}", words(&info["Plugins"][kind]))));
    lines.extend([
        format!("Security Options: {}", words(&info["SecurityOptions"])),
        line("Kernel Version", "KernelVersion"),
        line("Operating System", "OperatingSystem"),
        line("OSType", "OSType"),
        line("Architecture", "Architecture"),
        line("CPUs", "NCPU"),
        format!("Total Memory: {}", text::binary_size(info["MemTotal"].as_u64().unwrap_or_default())),
        line("Name", "Name"),
        line("Root Dir", "DockerRootDir"),
    ]);
    lines
}

/// What the machine's system calls itself.
fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    name.trim_matches(['"', '\'']).to_owned()
}
