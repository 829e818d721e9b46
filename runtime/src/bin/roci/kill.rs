//! `roci kill`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::{Runtime, Signal};

/// Send a signal to a container's first process
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// To all of its processes
    #[arg(short, long)]
    all: bool,
    /// The container's name
    id: String,
    /// By number or name [default: TERM]
    signal: Option<String>,
}

impl Kill {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        let signal = self.signal.map_or(Ok(Signal::TERM), |signal| signal.parse())?;
        runtime.kill(&self.id, signal, self.all).map(|()| 0)
    }
}
