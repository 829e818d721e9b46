//! The filesystems of a container, and the paths in them that are hidden or cannot be written.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{ETC_FILES, Network, RunOptions, build_error};
use crate::error::{Error, Result};
use crate::userns::Mapping;
use crate::volume::{Source, Tmpfs, Volume};

/// What tells about, or acts on, the host rather than the container: Docker's list.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel settings that can be read but not changed: Docker's list.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Masked paths, with those of each processor.
pub fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED.map(str::to_owned).into();
    let throttle = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    // Only some processors have it; then all of them.
    if Path::new(&throttle(0)).exists() {
        let cpus = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten().count();
        paths.extend((0..cpus).map(throttle).take_while(|path| Path::new(path).exists()));
    }
    paths
}

/// Read-only paths.
pub fn read_only_paths() -> Vec<String> {
    READ_ONLY.map(str::to_owned).into()
}

/// All mounts in the order they are made: the kernel's, the files of `/etc`, the user's volumes.
pub(super) fn mounts(options: &RunOptions) -> Result<Vec<Mount>> {
    let mut mounts = kernel_mounts(options)?;
    if let Some(directory) = &options.etc_directory {
        for name in ETC_FILES {
            mounts.push(bind(directory.join(name), Path::new("/etc").join(name), &["bind", "rprivate"])?);
        }
    }
    let mut own: Vec<Mount> = options.volumes.iter().map(volume).collect::<Result<_>>()?;
    own.extend(options.tmpfs.iter().map(tmpfs).collect::<Result<Vec<_>>>()?);
    // One over another's parent must not hide it: shortest destination first, as Docker sorts.
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(own);
    Ok(mounts)
}

fn volume(volume: &Volume) -> Result<Mount> {
    let Source::Host(source) = &volume.source else {
        return Err(Error::invalid(volume.describe(), "it has not been made"));
    };
    let mut mode = vec![if volume.non_recursive { "bind" } else { "rbind" }, volume.propagation.as_str()];
    match (volume.read_only, volume.writable_below || volume.non_recursive) {
        (false, _) => mode.push("rw"),
        (true, true) => mode.push("ro"),
        (true, false) => mode.extend(["ro", "rro"]),
    }
    bind(source.clone(), volume.destination.clone(), &mode)
}

/// With docker's options, unless others are given.
fn tmpfs(tmpfs: &Tmpfs) -> Result<Mount> {
    let defaults = ["nosuid", "nodev", "noexec"].map(str::to_owned);
    MountBuilder::default()
        .destination(tmpfs.destination.clone())
        .typ("tmpfs")
        .source("tmpfs")
        .options(defaults.into_iter().chain(tmpfs.options.iter().cloned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| build_error(&error))
}

fn bind(source: PathBuf, destination: PathBuf, options: &[&str]) -> Result<Mount> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .source(source)
        .options(options)
        .build()
        .map_err(|error| build_error(&error))
}

/// The runtime-spec's default filesystems (config-linux.md, "Default Filesystems") and Docker's.
fn kernel_mounts(options: &RunOptions) -> Result<Vec<Mount>> {
    // Group 5 is tty; a namespace with a single id does not have it.
    let devpts = match options.rootless {
        Some(Mapping::Single { .. }) => "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620",
        _ => "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
    };
    let shm = format!("nosuid,noexec,nodev,mode=1777,size={}", options.shm_bytes());
    let mut list = vec![
        ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "devpts", devpts),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "tmpfs", "shm", &shm),
    ];
    if options.rootless.is_some() && options.network == Network::Host {
        // sysfs shows a network namespace, and only its owner may mount it.
        list.push(("/sys", "bind", "/sys", "rbind,rprivate,nosuid,noexec,nodev,ro,rro"));
    } else {
        list.push(("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"));
        list.push(("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,ro"));
    }
    let build = |(destination, kind, source, options): (&str, &str, &str, &str)| {
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        let mount = MountBuilder::default().destination(destination).typ(kind).source(source).options(options);
        mount.build().map_err(|error| build_error(&error))
    };
    list.into_iter().map(build).collect()
}
