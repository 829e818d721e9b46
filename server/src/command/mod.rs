//! The verbs of `rhub`, one file each. A verb is its flags and `run`; it has a line in [`Command`] and
//! one in [`main`].

mod config;
mod import;
mod maintain;
mod rebuild;
mod serve;
mod user;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use longshore_server::config::{Loaded, Sources, load};
use longshore_server::maintain::Task;
use longshore_server::operation::log;

/// An OCI registry one hosts oneself.
///
/// Settings come from flags, else from environment variables (RHUB_LISTEN, RHUB_LIMITS_UPLOADS ...), else from the
/// configuration file, else they have their defaults. `rhub config check` says what counts.
#[derive(Debug, Parser)]
#[command(name = "rhub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the registry.
    Serve(serve::Flags),
    /// Make the metadata database anew from the journal and the blobs.
    Rebuild,
    /// Collect garbage: what nothing refers to, after its grace period.
    Gc(maintain::Gc),
    /// Say which tags, manifests and leases keep a digest.
    Why(maintain::Why),
    /// Hash every blob again and follow every link.
    Check(maintain::Check),
    /// Write everything the metadata knows to standard output.
    Export,
    /// Make the metadata database anew from an export and the blobs.
    Import(import::Flags),
    /// Add, change, remove and list who may log in.
    User(user::Flags),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(config::Verb),
}

/// Flags of every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Common {
    /// Configuration file [default: $RHUB_CONFIG, or /etc/rhub/config.toml if it is there].
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Set any key of the configuration: --set limits.uploads=100. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Where everything is kept [default: $XDG_DATA_HOME/rhub, or ~/.local/share/rhub].
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<String>,
    /// Log every request, and what helps to find a fault, to standard error.
    #[arg(long, short, global = true)]
    verbose: bool,
}

/// Runs what the command line says.
pub(crate) fn main() -> ExitCode {
    let Cli { command, common } = Cli::parse();
    let outcome = match command {
        Command::Serve(flags) => serve::run(&common, &flags),
        Command::Rebuild => rebuild::run(&common),
        Command::Gc(flags) => maintain::run(&common, &(&flags).into()),
        Command::Why(flags) => (&flags).try_into().and_then(|task| maintain::run(&common, &task)),
        Command::Check(flags) => maintain::run(&common, &(&flags).into()),
        Command::Export => maintain::run(&common, &Task::Export),
        Command::Import(flags) => import::run(&common, &flags),
        Command::User(flags) => user::run(&common, &flags),
        Command::Config(verb) => config::run(&common, &verb),
    };
    log::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rhub: {e:#}");
            ExitCode::FAILURE
        }
    }
}

impl Common {
    /// The configuration, with a verb's own flags on top: flag, key and value each. Logging begins.
    fn load(&self, own: Vec<(&str, &str, String)>) -> anyhow::Result<Loaded> {
        let loaded = load(&self.sources(own)?)?;
        log::start(&loaded.config.log);
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(loaded)
    }

    fn sources(&self, own: Vec<(&str, &str, String)>) -> anyhow::Result<Sources> {
        let mut flags: Vec<_> = own.into_iter().map(|(flag, key, value)| (flag.to_owned(), key.to_owned(), value)).collect();
        for assignment in &self.set {
            let (key, value) =
                assignment.split_once('=').with_context(|| format!("--set {assignment:?}: it must read KEY=VALUE"))?;
            flags.push(("--set".into(), key.to_owned(), value.to_owned()));
        }
        flags.extend(self.data.clone().map(|dir| ("--data".into(), "data".into(), dir)));
        flags.extend(self.verbose.then(|| ("--verbose".into(), "log.level".into(), "debug".into())));
        Ok(Sources { file: self.config.clone(), environment: std::env::vars_os().collect(), flags })
    }
}

/// Writes a line; nobody being there to read it is no failure.
fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("write to standard output"),
        _ => Ok(()),
    }
}
