//! `rbox start`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::{AttachOptions, Containers};

use super::attach::{How, attach};
use super::{Global, Own, for_each};
use crate::error::Result;

/// Start stopped containers
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Show its output and pass signals on; the exit code is then its own
    #[arg(short, long)]
    attach: bool,
    /// Pass on what is typed, too
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    how: How,
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Start {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        if self.attach || self.interactive {
            return self.attached(global);
        }
        let containers = global.containers()?;
        let found: Vec<Result<_>> = self.containers.iter().map(|name| Ok(containers.get(name)?.config.id)).collect();
        start(global, self.containers.into_iter().zip(found))
    }

    fn attached(self, global: &Global) -> Result<ExitCode> {
        let [name] = &self.containers[..] else {
            return Err(Error::invalid("--attach", "only one container can be attached to: start the others without it").into());
        };
        let Own { store, rootless, .. } = global.own_store()?;
        let containers = Containers::open(&store)?;
        let container = containers.get(name)?;
        let options = AttachOptions { starts: !container.status.is_live(), ..self.how.options(self.interactive, true) };
        let attaching = containers.prepare_attach(&container.config, options)?;
        containers.start(&container.config.id, rootless, true)?;
        attach(&containers, &container.config, attaching)
    }
}

/// Starts containers given by what the user calls them and their IDs, as far as they were found.
pub(super) fn start(global: &Global, list: impl IntoIterator<Item = (String, Result<String>)>) -> Result<ExitCode> {
    let Own { store, rootless, .. } = global.own_store()?;
    let containers = Containers::open(&store)?;
    for_each(list, |(name, id)| {
        containers.start(&id?, rootless, false)?;
        Ok(name)
    })
}
