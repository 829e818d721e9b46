//! `roci restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::{RestoreOptions, Runtime, Switch};

use super::checkpoint::Options;

/// Let a container go on from where it was checkpointed, and wait for it; its exit code becomes ours
#[derive(Debug, Args)]
// As for `checkpoint`.
#[command(args_override_self = true)]
pub(crate) struct Restore {
    #[command(flatten)]
    options: Options,
    /// The bundle: a directory with config.json in it
    #[arg(short, long, default_value = ".", hide_default_value = true, value_name = "DIR")]
    bundle: PathBuf,
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Where the number of the container's process is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// A unix socket that receives the master side of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Close TCP connections
    #[arg(long)]
    tcp_close: bool,
    /// The profile its processes get
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// The context its mounts get
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Accepted as runc has it: criu enters the root filesystem
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// Accepted as runc has it: criu restores no keyrings
    #[arg(long, hide = true)]
    no_new_keyring: bool,
    /// Accepted as runc has it: there is no subreaper
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// The container's name
    id: String,
}

impl Restore {
    pub(crate) fn call(self, runtime: &Runtime, criu: Option<&Path>) -> Result<u8> {
        let options = RestoreOptions {
            criu: self.options.into_library(criu, &[(self.tcp_close, Switch::TcpClose)])?,
            id: self.id,
            bundle: self.bundle,
            detach: self.detach,
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            lsm_profile: self.lsm_profile,
            lsm_mount_context: self.lsm_mount_context,
        };
        Ok(runtime.restore(&options)?.map_or(0, longshore_runtime::launch::Exit::code))
    }
}
