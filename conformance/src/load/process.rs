//! What a process has used so far, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// The most processes of one server that are looked at.
const PROCESSES_LIMIT: usize = 256;

/// A process of this machine, and those it started: a server may have workers.
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

    /// Itself and what it started, itself first.
    fn family(self) -> Vec<u32> {
        let mut family = vec![self.pid];
        let mut next = 0;
        while let Some(pid) = family.get(next).filter(|_| family.len() < PROCESSES_LIMIT) {
            // None where it is over, or the kernel does not tell. Any thread may have started some.
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for thread in threads {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
            next += 1;
        }
        family
    }

    /// The sum of what `measure` finds of each; a child may be over by now.
    fn sum<T: std::iter::Sum>(self, measure: impl Fn(u32) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let first = measure(self.pid)?;
        Ok(std::iter::once(first).chain(self.family()[1..].iter().filter_map(|pid| measure(*pid).ok())).sum())
    }

    /// User and system time of all threads, and of the children that are over and waited for: what a worker
    /// used stays counted when it ends.
    pub(super) fn cpu_seconds(self) -> anyhow::Result<f64> {
        self.sum(|pid| {
            let stat = read(pid, "stat")?;
            // The name before may have blanks; fields 14 to 17 are utime, stime, cutime and cstime (proc_pid_stat(5)).
            let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(4)).into_iter().flatten();
            let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
            anyhow::ensure!(ticks.len() == 4, "/proc/{pid}/stat cannot be read");
            // USER_HZ, which is 100 on every architecture there is a registry for.
            Ok(ticks.iter().sum::<f64>() / 100.0)
        })
    }

    /// How long the calling thread was ready to run and another one did; 0 where the kernel does not count it.
    pub(super) fn waited_by_this_thread() -> Duration {
        // The second of three fields, in nanoseconds (sched-stats.rst).
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Duration::from_nanos(stat.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
    }

    /// The most memory resident, in bytes: since [`Self::forget_peak`] where that worked.
    pub(super) fn peak_bytes(self) -> anyhow::Result<u64> {
        self.sum(|pid| {
            let status = read(pid, "status")?;
            let kib =
                status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("/proc/{pid}/status has no VmHWM"))
        })
    }

    /// Starts the peak anew; not allowed for another user's process, and then it stays.
    pub(super) fn forget_peak(self) {
        for pid in self.family() {
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }
}

fn read(pid: u32, name: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}; is process {pid} running?"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

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

    #[test]
    fn waiting_for_a_processor_shows() {
        // One thread more than there are processors, all of them busy until one has waited.
        let count = std::thread::available_parallelism().unwrap().get() + 1;
        let (seen, deadline) = (AtomicBool::new(false), Instant::now() + Duration::from_secs(30));
        let busy = || {
            let before = Process::waited_by_this_thread();
            while !seen.load(Ordering::Relaxed) && Instant::now() < deadline {
                let has_waited = Process::waited_by_this_thread() > before + Duration::from_millis(20);
                seen.fetch_or(has_waited, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(busy))));
        assert!(seen.into_inner());
    }

    /// What a shell and the worker it starts have used, once `script`, which runs it as `$busy`, has written a line.
    fn used_by(script: &str) -> f64 {
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &format!("exec 3<&0; busy='{busy}'; {script}")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut done = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut done).unwrap();
        let cpu = Process::of(shell.id()).cpu_seconds().unwrap();
        drop(shell.stdin.take());
        shell.wait().unwrap();
        cpu
    }

    #[test]
    fn the_workers_of_a_server_count() {
        let running = used_by("(eval \"$busy\"; echo; read end <&3) & wait");
        assert!(running >= 0.02, "{running}");
        let over = used_by("(eval \"$busy\"); echo; read end <&3");
        assert!(over >= 0.02, "{over}");
    }
}
