//! `events`: what a container uses, once or again and again, in the form `runc events` has.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::state::Container;
use super::{Runtime, not_running};
use crate::cgroup::usage::Usage;
use crate::error::{Attempt, Error, Result};

/// What the caller of `events` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventsOptions {
    /// One account, and that is all.
    pub once: bool,
    /// The time between two accounts.
    pub interval: Duration,
}

impl Runtime {
    /// Gives accounts of what a container uses to `print`, a line of JSON each, until it has ended; and
    /// an event of type `oom` whenever the kernel has killed one of its processes for want of memory.
    pub fn events(&self, id: &str, options: EventsOptions, print: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        if options.interval.is_zero() {
            return Err(Error::invalid("--interval", "it must be greater than zero"));
        }
        let container = self.look_at(id)?;
        let process = container.process()?.ok_or_else(|| not_running(id))?;
        let mut killed = usage(&container)?.oom_kills;
        if options.once {
            return print(&stats(id, &usage(&container)?));
        }
        loop {
            if ended_within(&process.pidfd, options.interval)? {
                return Ok(());
            }
            // The container may end, and its cgroup go, between the wait and this.
            let Ok(usage) = usage(&container) else { return Ok(()) };
            if usage.oom_kills > killed {
                killed = usage.oom_kills;
                print(&format!(r#"{{"type":"oom","id":{}}}"#, json!(id)))?;
            }
            print(&stats(id, &usage))?;
        }
    }
}

fn usage(container: &Container) -> Result<Usage> {
    Usage::read(&container.record.cgroups)
}

fn stats(id: &str, usage: &Usage) -> String {
    let data: Value = json!({
        "cpu": {
            "usage": { "total": usage.cpu_ns, "percpu": usage.per_cpu_ns, "kernel": usage.cpu_kernel_ns, "user": usage.cpu_user_ns },
            "throttling": {
                "periods": usage.periods,
                "throttledPeriods": usage.throttled_periods,
                "throttledTime": usage.throttled_ns,
            },
        },
        "memory": {
            "cache": usage.memory_cache_bytes,
            "usage": {
                "limit": usage.memory_limit_bytes,
                "usage": usage.memory_bytes,
                "max": usage.memory_peak_bytes,
                "failcnt": usage.memory_failures,
            },
            "raw": usage.memory_raw,
        },
        "pids": { "current": usage.pids, "limit": usage.pids_limit },
        "blkio": { "ioServiceBytesRecursive": usage.io_bytes.iter().map(|(major, minor, operation, value)| {
            json!({ "major": major, "minor": minor, "op": operation, "value": value })
        }).collect::<Vec<_>>() },
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    });
    // In runc's order.
    format!(r#"{{"type":"stats","id":{},"data":{data}}}"#, json!(id))
}

fn ended_within(pidfd: &std::os::fd::OwnedFd, interval: Duration) -> Result<bool> {
    let timeout = Timespec::try_from(interval).ok();
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno).attempt(|| "wait for the container"),
    }
}
