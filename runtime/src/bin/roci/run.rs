//! `roci run`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

use super::create::Options;

/// Create a container from a bundle, start it and wait for it; its exit code becomes ours
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Keep its state when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted as runc has it: there is no subreaper
    #[arg(long, hide = true)]
    no_subreaper: bool,
    #[command(flatten)]
    options: Options,
}

impl Run {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        let exit = runtime.run(&self.options.into_library(), self.detach, self.keep)?;
        Ok(exit.map_or(0, longshore_runtime::launch::Exit::code))
    }
}
