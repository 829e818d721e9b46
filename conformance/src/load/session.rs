//! A load on one registry: made ready once, measured once or several times, removed in the end.

use std::time::Duration;

use anyhow::Context as _;

use super::phase::Until;
use super::prepare::{Prepared, prepare};
use super::process::Process;
use super::summary::{Measured, Summary, Used};
use super::target::Target;
use super::{Kind, Plan, replay};

/// A registry that is ready for a load.
#[derive(Debug)]
pub(super) struct Session<'a> {
    plan: &'a Plan,
    prepared: Prepared,
    until: Until,
    warm_up: Duration,
    next: u64,
}

impl<'a> Session<'a> {
    /// Makes a registry ready to be measured so many times. `nonce` tells this run's content from any other's.
    pub(super) fn open(plan: &'a Plan, nonce: u64, rounds: u64) -> anyhow::Result<Self> {
        let repository = plan.repository.clone().unwrap_or_else(|| format!("rconform/load-{nonce:016x}"));
        let target = Target::new(&plan.url, repository, plan.authorization.clone())?;
        let not_ready = || format!("make the repository on {} ready", plan.url);
        if let Some(replay) = &plan.replay {
            let until = Until::Requests(replay.trace.requests.len() as u64);
            let prepared = replay::prepare(plan, replay, target, nonce, rounds).with_context(not_ready)?;
            return Ok(Self { plan, prepared, until, warm_up: Duration::ZERO, next: 0 });
        }
        let count = if let Until::Requests(count) = plan.until { Some(count.saturating_mul(rounds)) } else { None };
        let prepared = prepare(plan, target, nonce, count).with_context(not_ready)?;
        // Large uploads are made before, so many as are measured.
        let counts_uploads = count.is_some() && !plan.has_small_content() && plan.mix().kinds().any(|kind| kind == Kind::Upload);
        let warm_up = if counts_uploads { Duration::ZERO } else { plan.warm_up };
        Ok(Self { plan, prepared, until: plan.until, warm_up, next: 0 })
    }

    /// Warms up and measures.
    pub(super) fn measure(&mut self) -> anyhow::Result<Summary> {
        if !self.warm_up.is_zero() {
            self.next = self.prepared.phase(self.plan, self.next, Until::Elapsed(self.warm_up)).run()?.next;
        }
        let server = self.plan.pid.map(Process::of);
        server.inspect(|server| server.forget_peak());
        let cpu = |process: Option<Process>| process.map(Process::cpu_seconds).transpose();
        let (server_before, own_before) = (cpu(server)?, Process::own().cpu_seconds()?);
        let tally = self.prepared.phase(self.plan, self.next, self.until).run()?;
        self.next = tally.next;
        let generator_cpu_s = Process::own().cpu_seconds()? - own_before;
        let server = match (server, server_before) {
            (Some(server), Some(before)) => {
                Some(Used { cpu_s: server.cpu_seconds()? - before, peak_bytes: server.peak_bytes()? })
            }
            _ => None,
        };
        let repository = self.prepared.target.repository.clone();
        Summary::new(self.plan, &self.prepared.schedule, Measured { repository, tally, server, generator_cpu_s })
    }

    /// Removes what was made, unless it is to be kept. The number of things the registry refuses to delete.
    pub(super) fn close(self) -> anyhow::Result<u64> {
        if self.plan.keep { Ok(0) } else { self.prepared.remove(self.next).context("remove what was made") }
    }
}
