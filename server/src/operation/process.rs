//! What the kernel knows of this process, under the names Prometheus' own clients use.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::metrics::Page;

/// Writes what can be found out.
pub(super) fn write(page: &mut Page) {
    if let Some(stat) = Stat::read() {
        page.number("process_cpu_seconds_total", "counter", "Time spent on a processor, in seconds.", stat.cpu_s);
        page.number("process_resident_memory_bytes", "gauge", "Memory in use.", stat.resident_bytes);
        page.number("process_virtual_memory_bytes", "gauge", "Address space in use.", stat.virtual_bytes);
        page.number("process_threads", "gauge", "Threads.", stat.threads);
    }
    if let Some(start_s) = start_time_s() {
        page.number("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", start_s);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        page.number("process_open_fds", "gauge", "Open file descriptors.", open.count().saturating_sub(1));
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        page.number("process_max_fds", "gauge", "The most file descriptors that may be open.", limit);
    }
}

/// Writes how much room there is where the data is.
pub(super) fn write_room(page: &mut Page, data: &Path) {
    if let Ok(room) = rustix::fs::statvfs(data) {
        let help = "Size of the file system the data is on.";
        page.number("rhub_storage_size_bytes", "gauge", help, room.f_blocks.saturating_mul(room.f_frsize));
        let help = "Room left on the file system the data is on.";
        page.number("rhub_storage_free_bytes", "gauge", help, room.f_bavail.saturating_mul(room.f_frsize));
    }
}

struct Stat {
    cpu_s: f64,
    threads: u64,
    /// In clock ticks since the machine started.
    start_ticks: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    /// From `/proc/self/stat` (proc_pid_stat(5)); fields are numbered as there.
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_s: seconds(field(14)? + field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
        })
    }
}

fn start_time_s() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let booted_s: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(seconds(booted_s * ticks + Stat::read()?.start_ticks))
}

#[expect(clippy::cast_precision_loss, reason = "a measured time")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
