//! `roci`: the low-level runtime. Runs bundles of the runtime-spec, with runc's verbs and flags, so that
//! engines can use it in runc's place.
//!
//! Each verb is a file of its own: flags to one call of the library.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod log;
mod pause;
mod ps;
mod restore;
mod root;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;
use longshore_runtime::warning;

use log::{Format, Log};

/// `roci version 0.1.0`, and the specification's, as engines read it.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// Low-level container runtime
#[derive(Debug, Parser)]
#[command(name = "roci", version = VERSION, disable_version_flag = true, about)]
struct Arguments {
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Where the state of containers is kept [default: /run/roci, or $XDG_RUNTIME_DIR/roci for an ordinary user]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where errors and warnings are written, beside standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// What they look like there
    #[arg(long, value_enum, default_value = "text")]
    log_format: Format,
    /// Log what is called, too
    #[arg(long)]
    debug: bool,
    /// Have systemd make the cgroups of new containers; cgroupsPath is slice:prefix:name then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted as runc has it (true, false or auto); who runs roci decides
    #[arg(long, value_name = "WHEN", num_args = 0..=1, require_equals = true)]
    rootless: Option<Option<String>>,
    /// The program that checkpoints and restores containers [default: criu, in PATH]
    #[arg(long, value_name = "FILE")]
    criu: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(create::Create),
    Start(start::Start),
    Run(run::Run),
    State(state::State),
    Kill(kill::Kill),
    Delete(delete::Delete),
    Exec(exec::Exec),
    List(list::List),
    Ps(ps::Ps),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Update(update::Update),
    Events(events::Events),
    Features(features::Features),
    Spec(spec::WriteSpec),
    Checkpoint(checkpoint::Checkpoint),
    Restore(restore::Restore),
}

impl Verb {
    fn call(self, runtime: &Runtime, criu: Option<&Path>) -> Result<u8> {
        match self {
            Self::Create(verb) => verb.call(runtime),
            Self::Start(verb) => verb.call(runtime),
            Self::Run(verb) => verb.call(runtime),
            Self::State(verb) => verb.call(runtime),
            Self::Kill(verb) => verb.call(runtime),
            Self::Delete(verb) => verb.call(runtime),
            Self::Exec(verb) => verb.call(runtime),
            Self::List(verb) => verb.call(runtime),
            Self::Ps(verb) => verb.call(runtime),
            Self::Pause(verb) => verb.call(runtime),
            Self::Resume(verb) => verb.call(runtime),
            Self::Update(verb) => verb.call(runtime),
            Self::Events(verb) => verb.call(runtime),
            Self::Features(verb) => verb.call(),
            Self::Spec(verb) => verb.call(),
            Self::Checkpoint(verb) => verb.call(runtime, criu),
            Self::Restore(verb) => verb.call(runtime, criu),
        }
    }
}

/// Where this program's errors and warnings go.
static LOG: OnceLock<Log> = OnceLock::new();

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = LOG.get_or_init(|| Log::new(arguments.log, arguments.log_format));
    warning::send_to(|text| {
        if let Some(log) = LOG.get() {
            log.warning(text);
        }
    });
    if arguments.debug {
        log.debug(&format!("{:?}", arguments.verb));
    }
    let exit_code: fn(&longshore_runtime::Error) -> u8 = match &arguments.verb {
        Verb::Run(_) => longshore_runtime::Error::exit_code,
        // As runc has it: no code a command is likely to have.
        Verb::Exec(_) => |_| 255,
        _ => |_| 1,
    };
    let root = arguments.root.map_or_else(root::default, Ok);
    let done = root.and_then(|root| {
        let runtime = Runtime::new(root).with_systemd_cgroup(arguments.systemd_cgroup);
        arguments.verb.call(&runtime, arguments.criu.as_deref())
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error.to_string());
            ExitCode::from(exit_code(&error))
        }
    }
}
