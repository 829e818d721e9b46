//! `roci exec`.

use std::path::PathBuf;

use clap::Args;
use longshore_runtime::error::{Error, Result};
use longshore_runtime::launch::Exit;
use longshore_runtime::lifecycle::{ExecOptions, Runtime};
use longshore_runtime::spec::parse_capability;

/// Run a further process in a container; its exit code becomes ours
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// A unix socket that receives the master side of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// A further group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A process document instead of a command and flags
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Where the number of the process is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Nothing can gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// Add a capability
    #[arg(short, long, value_name = "CAP")]
    cap: Vec<String>,
    /// How many file descriptors, from 3 up, the process inherits
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    preserve_fds: u32,
    /// A cgroup below the container's own
    #[arg(long, value_name = "PATH", hide = true)]
    cgroup: Vec<String>,
    /// Do it in a paused container too: the process starts when that is resumed
    #[arg(long)]
    ignore_paused: bool,
    /// The container's name
    id: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Exec {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        if !self.cgroup.is_empty() {
            return Err(Error::invalid("--cgroup", "not supported: the process joins the cgroup of the container's first one"));
        }
        let options = ExecOptions {
            user: self.user.as_deref().map(parse_user).transpose()?,
            capabilities: self.cap.iter().map(|name| parse_capability(name)).collect::<Result<_>>()?,
            id: self.id,
            process: self.process,
            args: self.args,
            env: self.env,
            cwd: self.cwd,
            additional_gids: self.additional_gids,
            tty: self.tty,
            no_new_privileges: self.no_new_privs,
            apparmor: self.apparmor,
            process_label: self.process_label,
            detach: self.detach,
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            pidfd_socket: self.pidfd_socket,
            preserve_fds: self.preserve_fds,
            ignore_paused: self.ignore_paused,
            timeout: None,
        };
        Ok(runtime.exec(&options)?.map_or(0, Exit::code))
    }
}

fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let number = |part: &str| {
        let bad = Error::Name { what: "user", input: text.to_owned(), why: "it must be UID or UID:GID, in numbers" };
        part.parse::<u32>().ok().filter(|number| *number != u32::MAX).ok_or(bad)
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}
