//! `rbox attach`

use std::process::ExitCode;

use clap::{ArgAction, Args};
use longshore_runtime::container::{AttachEnd, AttachOptions, Attaching, Config, Containers, DetachKeys};

use super::Global;
use super::attach_artifact::AttachArtifact;
use crate::error::Result;
use crate::stderr::say;

/// The exit code where nobody reads the output any more: that of a command that SIGPIPE has ended.
const UNREAD: u8 = 128 + 13;

/// Connect to a running container: its output here, and what is typed here its input
///
/// The exit code is the container's own; 0 if the detach keys are typed, which leave it running. They are looked for
/// where it has a terminal and this is one.
///
/// With --artifact-type files are attached to an image at its registry: a signature, an SBOM, a report.
#[derive(Debug, Args)]
pub(super) struct Attach {
    #[command(flatten)]
    how: How,
    /// Pass on nothing that is typed
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Its name or ID; of an image NAME[:TAG|@DIGEST]
    container: String,
    #[command(flatten)]
    artifact: AttachArtifact,
}

/// How somebody is attached; `start` takes the same.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Keys that leave the container running, ctrl-a,x for example; empty for none [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
}

impl How {
    /// All of what is said and typed, and whether signals are passed on.
    pub(super) fn options(&self, stdin: bool, signals: bool) -> AttachOptions {
        let detach_keys = self.detach_keys.clone().unwrap_or_default();
        AttachOptions { stdin, stdout: true, stderr: true, signals, detach_keys, starts: false }
    }
}

/// Is attached until the container ends, or is left.
pub(super) fn attach(containers: &Containers, config: &Config, attaching: Attaching) -> Result<ExitCode> {
    Ok(match containers.attach(config, attaching)? {
        AttachEnd::Exited(code) => ExitCode::from(code),
        AttachEnd::Detached => {
            say("read escape sequence");
            ExitCode::SUCCESS
        }
        AttachEnd::Unread => ExitCode::from(UNREAD),
    })
}

impl Attach {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        if let Some(code) = self.artifact.execute(&self.container)? {
            return Ok(code);
        }
        let containers = global.containers()?;
        let container = containers.get(&self.container)?;
        let attaching = containers.prepare_attach(&container.config, self.how.options(!self.no_stdin, self.sig_proxy))?;
        attach(&containers, &container.config, attaching)
    }
}
