//! `rbox run`, `rrun`

use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use longshore_runtime::container;
use longshore_runtime::name::Reference;
use longshore_runtime::spec::{Network, RunOptions, Volume};
use longshore_runtime::store::{Image, Lease};
use longshore_runtime::{Error, Store, unpack};

use super::{Global, Own};
use crate::error::Result;

/// Run a command in a new container
///
/// The image is looked for in the local store first, then in its registry. The exit code is the
/// command's own; 125 if no container could be made, 126 if the command cannot be executed, 127 if there is
/// no such command.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Run {
    /// Set an environment variable, NAME=VALUE, or NAME for the value it has here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// Replace the image's entrypoint; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The container's host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Remove the container when it ends, which is what always happens
    #[arg(long)]
    rm: bool,
    /// The container's network
    #[arg(long, value_enum, default_value_t)]
    network: NetworkMode,
    /// Show a directory or file of this machine inside the container
    #[arg(short, long = "volume", value_name = "HOST:CONTAINER[:ro]")]
    volumes: Vec<Volume>,
    /// Let the container read standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Make the container's root file system read-only
    #[arg(long)]
    read_only: bool,
    /// no-new-privileges: setuid programs and file capabilities have no effect
    #[arg(long, value_enum, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pull: PullPolicy,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    fetch: super::pull::Fetch,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, and what to run in it instead of what it says itself
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum NetworkMode {
    /// Loopback alone
    #[default]
    None,
    /// This machine's own
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SecurityOption {
    #[value(alias = "no-new-privileges:true", alias = "no-new-privileges=true")]
    NoNewPrivileges,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum PullPolicy {
    /// If the image is not here
    #[default]
    Missing,
    /// Before every run
    Always,
    /// Never
    Never,
}

impl Run {
    pub(super) fn execute(mut self, global: &Global) -> Result<ExitCode> {
        let args = self.image_and_command.split_off(1);
        let name = self.image_and_command.swap_remove(0);
        let Own { store, unpack, rootless } = global.own_store()?;
        let lease = store.lease()?;
        let image = self.resolve(&store, unpack, &lease, &name)?;
        let options = RunOptions {
            args,
            entrypoint: self.entrypoint.map(|entrypoint| vec![entrypoint]),
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            network: match self.network {
                NetworkMode::None => Network::None,
                NetworkMode::Host => Network::Host,
            },
            volumes: self.volumes,
            tty: self.tty,
            no_new_privileges: self.security_opt.contains(&SecurityOption::NoNewPrivileges),
            read_only: self.read_only,
            rootless,
            ..RunOptions::default()
        };
        Ok(ExitCode::from(container::run(&store, &lease, &image, options, self.interactive)?.code()))
    }

    /// The image, leased: from the store, else from its registry.
    fn resolve(&self, store: &Store, unpack: unpack::Options, lease: &Lease, name: &str) -> Result<Image> {
        if !matches!(self.pull, PullPolicy::Always) {
            let runnable = |image: &Image| image.diff_ids().iter().all(|diff_id| store.has_layer(diff_id));
            if let Some(image) = store.find_leased(name, lease)?.filter(runnable) {
                return Ok(image);
            }
        }
        let reference: Reference = name.parse()?;
        if matches!(self.pull, PullPolicy::Never) {
            let hint = "`rpull` fetches it; --pull never keeps `rrun` from doing so".into();
            return Err(Error::NotFound { what: format!("image {}", reference.familiar()), hint }.into());
        }
        if !self.quiet && matches!(self.pull, PullPolicy::Missing) {
            eprintln!("Unable to find image {:?} locally", reference.familiar());
        }
        self.fetch.pull(store, unpack, &reference, self.quiet)?;
        let image = store.find_leased(name, lease)?;
        Ok(image.map_or_else(|| store.get(name), Ok)?)
    }
}
