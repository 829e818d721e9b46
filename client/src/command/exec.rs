//! `rbox exec`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::ExecCommand;

use super::Global;
use super::limits::read_assignments;
use crate::error::Result;

/// Run a command in a running container
///
/// The exit code is the command's own; 125 if it could not be run there, 126 if it cannot be executed, 127 if
/// there is no such command.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable, NAME=VALUE, or NAME for the value it has here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Environment variables from a file, NAME=VALUE a line
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Let the command read standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Its name or ID
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let containers = global.containers()?;
        let container = containers.get(&self.container)?;
        let value = |variable: String| match std::env::var(&variable) {
            _ if variable.contains('=') => Some(variable),
            Ok(value) => Some(format!("{variable}={value}")),
            Err(_) => None,
        };
        let mut env = Vec::new();
        for file in &self.env_files {
            env.extend(read_assignments(file, "variable")?);
        }
        // Of those with one name the last counts.
        env.extend(self.env);
        let command = ExecCommand {
            args: self.command,
            env: env.into_iter().filter_map(value).collect(),
            workdir: self.workdir,
            user: self.user,
            privileged: self.privileged,
            stdin: self.interactive,
            tty: self.tty && !self.detach,
            detach: self.detach,
        };
        let exit = containers.exec(&container, command)?;
        Ok(exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit.code())))
    }
}
