//! What a process has used so far, from `/proc`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

/// A process of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pid: u32,
}

impl Process {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }

    pub(super) fn own() -> Self {
        Self::of(std::process::id())
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    fn read(self, name: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("read {}; is process {} running?", path.display(), self.pid))
    }

    /// User and system time of all its threads.
    pub(super) fn cpu_seconds(self) -> anyhow::Result<f64> {
        let stat = self.read("stat")?;
        // The name before may have blanks; fields 14 and 15 are utime and stime (proc_pid_stat(5)).
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2)).into_iter().flatten();
        let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        anyhow::ensure!(ticks.len() == 2, "/proc/{}/stat cannot be read", self.pid);
        // USER_HZ, which is 100 on every architecture there is a registry for.
        Ok((ticks[0] + ticks[1]) / 100.0)
    }

    /// The most memory it had resident, in bytes: since [`Self::forget_peak`] where that worked.
    pub(super) fn peak_bytes(self) -> anyhow::Result<u64> {
        let status = self.read("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak.map(|kib| kib * 1024).with_context(|| format!("/proc/{}/status has no VmHWM", self.pid))
    }

    /// Starts the peak anew; not allowed for another user's process, and then it stays.
    pub(super) fn forget_peak(self) {
        let _ = fs::write(self.file("clear_refs"), "5");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_show() {
        let own = Process::own();
        let before = own.cpu_seconds().unwrap();
        let mut state = 1_u64;
        while own.cpu_seconds().unwrap() < before + 0.05 {
            state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005));
        }
        own.forget_peak();
        let peak = own.peak_bytes().unwrap();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        let more = own.peak_bytes().unwrap();
        assert!(more >= peak + (60 << 20), "{peak} {more} {}", memory.len());
        assert!(Process::of(u32::MAX).cpu_seconds().is_err());
    }
}
