//! `rbox stop`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::{Containers, Stop as Stopping};
use longshore_runtime::lifecycle::Signal;

use super::{Global, for_each};
use crate::error::Result;

/// Stop running containers
///
/// Each gets its stop signal (its own, its image's, or TERM), all at once, and is killed if it has not ended
/// after its grace period.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    how: How,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// How containers are stopped; `restart` takes the same.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct How {
    /// The signal that asks it, in place of its own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<Signal>,
    /// Seconds to wait before it is killed, -1 for as long as it takes [default: the container's own, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

impl How {
    /// Asks all to stop; each waits for its end when it is asked for what came of it.
    pub(super) fn begin<'a>(self, containers: &'a Containers, names: &[String]) -> Vec<Result<Option<Stopping<'a>>>> {
        let begin = |name: &String| Ok(containers.begin_stop(&containers.get(name)?, self.signal, self.time)?);
        names.iter().map(begin).collect()
    }
}

impl Stop {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let stopping = self.how.begin(&containers, &self.containers);
        for_each(self.containers.into_iter().zip(stopping), |(name, stopping)| {
            if let Some(stopping) = stopping? {
                stopping.finish()?;
            }
            Ok(name)
        })
    }
}
