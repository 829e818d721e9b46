//! `rbox run`, `rrun`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use longshore_runtime::container::{AttachOptions, Containers, Create, LogDriver, LogOptions};
use longshore_runtime::lifecycle::Signal;
use longshore_runtime::network::Published;
use longshore_runtime::spec::RunOptions;
use longshore_runtime::store::{Image, Lease};
use longshore_runtime::{Error, Store, unpack};

use super::attach::{self, How};
use super::security::SecurityOption;
use super::{Global, Own, print};
use crate::config;
use crate::error::Result;
use crate::stderr::say;

/// Run a command in a new container
///
/// The image is looked for in the local store first, then in its registry. The container is kept until `rbox rm`, or with
/// --rm until it ends. With --detach its ID is printed once its command runs; else its output is shown here, and the exit
/// code is the command's own; 125 if no container could be made, 126 if the command cannot be executed, 127 if there is no
/// such command, 0 if the detach keys are typed, which leave it running.
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
    /// The container's NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Say something of the container to who reads its runtime configuration
    #[arg(long = "annotation", value_name = "NAME[=VALUE]", value_parser = super::label::parse)]
    annotations: Vec<(String, String)>,
    /// Where the container listens, beside what its image says: for --publish-all, and for people
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    expose: Vec<String>,
    /// Run in the background and print the container's ID
    #[arg(short, long)]
    detach: bool,
    /// What the container is called [default: a made-up name]
    #[arg(long)]
    name: Option<String>,
    /// Write the container's ID to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Remove the container when it ends; without a terminal its output is then the command's own, and not logged
    #[arg(long)]
    rm: bool,
    /// The signal `rbox stop` sends [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// How many seconds `rbox stop` waits before it kills [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Who takes the container's output, beside being shown: json-file, journald or none [default: json-file; with --rm and
    /// no terminal, none]
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<LogDriver>,
    /// json-file: max-size=SIZE, max-file=NUMBER, compress=true; it and journald: tag=TEMPLATE, labels=NAME,..., env=NAME,...
    #[arg(long = "log-opt", value_name = "NAME=VALUE")]
    log_options: Vec<String>,
    #[command(flatten)]
    network: super::network_flags::NetworkFlags,
    #[command(flatten)]
    mounts: super::mount_flags::MountFlags,
    /// What of the container to be attached to: stdin, stdout, stderr [default: its output, with --interactive all]
    #[arg(short, long, value_enum, value_name = "STREAM", ignore_case = true)]
    attach: Vec<Stream>,
    #[command(flatten)]
    how: How,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// Let the container read standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Make the container's root file system read-only
    #[arg(long)]
    read_only: bool,
    /// no-new-privileges: setuid programs and file capabilities have no effect; seccomp=unconfined: all system calls;
    /// seccomp=FILE: those of a profile
    #[arg(long, value_name = "OPTION", value_parser = SecurityOption::parse)]
    security_opt: Vec<SecurityOption>,
    #[command(flatten)]
    limits: super::limits::LimitFlags,
    #[command(flatten)]
    life: super::life::LifeFlags,
    #[command(flatten)]
    isolation: super::isolation::IsolationFlags,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdin,
    Stdout,
    Stderr,
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
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        if self.detach && !self.attach.is_empty() {
            return Err(Error::invalid("--attach", "with --detach nobody is attached: leave one of them out").into());
        }
        self.make(global, true)
    }

    /// `rbox create`: all but the start.
    pub(super) fn create(self, global: &Global) -> Result<ExitCode> {
        if self.detach {
            return Err(Error::invalid("--detach", "it is for `rbox run`: a container that is made does not run yet").into());
        }
        self.make(global, false)
    }

    fn make(mut self, global: &Global, start: bool) -> Result<ExitCode> {
        let args = self.image_and_command.split_off(1);
        let image_name = self.image_and_command.swap_remove(0);
        let exposed = exposed(&self.expose)?;
        let log = LogOptions::parse(self.log_driver.unwrap_or_default(), &self.log_options)?;
        let (attach, watched) = (self.attach_options(), self.is_watched());
        let mut cidfile = self.cidfile.as_ref().map(|path| CidFile::new(path)).transpose()?;
        let Own { store, unpack, rootless } = global.own_store()?;
        let lease = store.lease()?;
        let image = self.resolve(&store, unpack, &lease, &image_name)?;
        let mut options = RunOptions {
            args,
            entrypoint: self.entrypoint.map(|entrypoint| vec![entrypoint]),
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            domainname: self.domainname,
            annotations: self.annotations.into_iter().collect(),
            tty: self.tty,
            read_only: self.read_only,
            rootless,
            ..RunOptions::default()
        };
        self.security_opt.into_iter().for_each(|option| option.apply(&mut options));
        self.limits.apply(&mut options)?;
        self.mounts.apply(&store, &mut options)?;
        self.network.apply(&mut options, &store)?;
        options.isolation = self.isolation.isolation(|| Ok(Containers::open(&store)?), rootless)?;
        let mut create = Create {
            name: self.name,
            image: image_name,
            options,
            interactive: self.interactive,
            auto_remove: self.rm,
            stop_signal: self.stop_signal.map(|signal| signal.to_string()),
            stop_timeout_s: self.stop_timeout,
            log,
            exposed,
            // What a container in the background reads has no end, whoever is attached.
            stdin_once: attach.stdin && !self.detach,
            ..Create::default()
        };
        self.life.apply(&mut create)?;
        let is_asked = create.health.clone().over(image.config.config.healthcheck.as_ref()).is_some();
        let containers = Containers::open(&store)?;
        let mut made = |id: &str| cidfile.as_mut().map_or(Ok(()), |file| file.write(id));
        if start && !self.detach && self.rm && !watched && !is_asked {
            return Ok(ExitCode::from(containers.run_here(&lease, &image, create, rootless, &mut made)?.code()));
        }
        let config = containers.create(&lease, &image, create)?;
        // The container has claims of its own.
        drop(lease);
        made(&config.id)?;
        let attached = start && !self.detach;
        if !(attached && (attach.stdout || attach.stderr)) {
            print(|out| writeln!(out, "{}", config.id))?;
        }
        if attached {
            let attaching = containers.prepare_attach(&config, attach)?;
            containers.start(&config.id, rootless, true)?;
            let code = attach::attach(&containers, &config, attaching)?;
            if containers.look_up(&config.id)?.is_some_and(|container| container.status.oom_killed) {
                say("warning: out of memory: the kernel killed a process of the container");
            }
            return Ok(code);
        }
        if start {
            containers.start(&config.id, rootless, false)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What of the container is to be attached to.
    fn attach_options(&self) -> AttachOptions {
        let wants = |stream| self.attach.is_empty() || self.attach.contains(&stream);
        let how = self.how.options(self.interactive && wants(Stream::Stdin), self.sig_proxy);
        AttachOptions { stdout: wants(Stream::Stdout), stderr: wants(Stream::Stderr), starts: true, ..how }
    }

    /// Whether what is asked for needs a monitor beside the container.
    fn is_watched(&self) -> bool {
        let logged = self.log_driver.is_some_and(|driver| driver != LogDriver::None) || !self.log_options.is_empty();
        self.tty || logged || !self.attach.is_empty() || !self.sig_proxy
    }

    /// The image, leased: from the store, else from its registry.
    fn resolve(&self, store: &Store, unpack: unpack::Options, lease: &Lease, name: &str) -> Result<Image> {
        let runnable = |image: &Image| image.diff_ids().iter().all(|diff_id| store.has_layer(diff_id));
        let here = |name: &str| -> Result<Option<Image>> {
            let wanted = !matches!(self.pull, PullPolicy::Always);
            Ok(if wanted { store.find_leased(name, lease)?.filter(runnable) } else { None })
        };
        if let Some(image) = here(name)? {
            return Ok(image);
        }
        // It may be an alias: that is looked up only now.
        let reference = config::image_name(name)?;
        let name = &reference.to_string();
        if let Some(image) = here(name)? {
            return Ok(image);
        }
        if matches!(self.pull, PullPolicy::Never) {
            let hint = "`rpull` fetches it; --pull never keeps `rrun` from doing so".into();
            return Err(Error::NotFound { what: format!("image {}", reference.familiar()), hint }.into());
        }
        if !self.quiet && matches!(self.pull, PullPolicy::Missing) {
            say(format_args!("Unable to find image {:?} locally", reference.familiar()));
        }
        self.fetch.pull(store, unpack, &reference, self.quiet)?;
        let image = store.find_leased(name, lease)?;
        Ok(image.map_or_else(|| store.get(name), Ok)?)
    }
}

/// Each port that is named, as an image names it.
fn exposed(texts: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for text in texts {
        let (ports, protocol) = Published::parse_ports(text)?;
        all.extend(ports.map(|port| format!("{port}/{protocol}")));
    }
    Ok(all)
}

/// The file that gets the container's ID: made at once, so that two commands never share one, and gone if there
/// was no container.
struct CidFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl CidFile {
    fn new(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(|error| {
            Error::io(format!("create container ID file {}; remove it, or name another", path.display()), error)
        })?;
        Ok(Self { path: path.to_owned(), file, written: false })
    }

    fn write(&mut self, id: &str) -> std::result::Result<(), Error> {
        let written = self.file.write_all(id.as_bytes());
        self.written = written.is_ok();
        written.map_err(|error| Error::io(format!("write container ID file {}", self.path.display()), error))
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            // Empty it says nothing; that it cannot be removed changes nothing.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
