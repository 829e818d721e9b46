//! `rbox attach`

use std::process::ExitCode;

use clap::{ArgAction, Args};
use longshore_runtime::container::{AttachEnd, AttachOptions, Attaching, Container, Containers, DetachKeys};

use super::Global;
use crate::error::Result;

/// Connect to a running container: its output here, and what is typed here its input
///
/// The exit code is the container's own; 0 if the detach keys are typed, which leave it running. They are looked for
/// where it has a terminal and this is one.
#[derive(Debug, Args)]
pub(super) struct Attach {
    #[command(flatten)]
    how: How,
    /// Pass on nothing that is typed
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to a container without a terminal
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Its name or ID
    container: String,
}

/// How somebody is attached; `start` takes the same.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Keys that leave the container running, ctrl-a,x for example; empty for none [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
}

impl How {
    /// Is attached until the container ends or the keys are typed.
    pub(super) fn attach(
        self,
        containers: &Containers,
        container: &Container,
        attaching: Attaching,
        (stdin, signals): (bool, bool),
    ) -> Result<ExitCode> {
        let options = AttachOptions { stdin, signals, detach_keys: self.detach_keys.unwrap_or_default() };
        Ok(match containers.attach(container, attaching, &options)? {
            AttachEnd::Exited(code) => ExitCode::from(code),
            AttachEnd::Detached => {
                eprintln!("read escape sequence");
                ExitCode::SUCCESS
            }
        })
    }
}

impl Attach {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let container = containers.get(&self.container)?;
        let attaching = containers.prepare_attach(&container.config.id)?;
        self.how.attach(&containers, &container, attaching, (!self.no_stdin, self.sig_proxy))
    }
}
