//! `roci create`.

use std::path::PathBuf;

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::{CreateOptions, Runtime};

/// Create a container from a bundle; its process waits for `start`
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    options: Options,
}

/// What `create` and `run` have in common.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The bundle: a directory with config.json in it
    #[arg(short, long, default_value = ".", hide_default_value = true, value_name = "DIR")]
    bundle: PathBuf,
    /// A unix socket that receives the master side of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the container's process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Where the number of the container's process is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Enter the root filesystem by chroot: for hosts whose own root is an initramfs
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// How many file descriptors, from 3 up, the container inherits
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    preserve_fds: u32,
    /// The container's name, unique below the root
    id: String,
}

impl Options {
    /// The library's options.
    pub(crate) fn into_library(self) -> CreateOptions {
        CreateOptions {
            id: self.id,
            bundle: self.bundle,
            pid_file: self.pid_file,
            console_socket: self.console_socket,
            pidfd_socket: self.pidfd_socket,
            preserve_fds: self.preserve_fds,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
        }
    }
}

impl Create {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        runtime.create(&self.options.into_library()).map(|()| 0)
    }
}
