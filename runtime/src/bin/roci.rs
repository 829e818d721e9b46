//! `roci`: the low-level runtime. Runs a bundle (runtime-spec bundle.md) in the foreground.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longshore_runtime::error::{Attempt, Error, Result};
use longshore_runtime::image::ContainerConfig;
use longshore_runtime::launch::{self, Guard, Launch, Rootfs};
use longshore_runtime::spec::{RunOptions, default_spec, parse_spec};
use longshore_runtime::userns;
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
            // A closed standard error must not change the exit code.
            let _ = writeln!(std::io::stderr(), "roci: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(bundle: &Path, id: &str) -> Result<u8> {
    let bundle = std::fs::canonicalize(bundle).attempt(|| format!("find bundle {bundle:?}"))?;
    let mut spec = read_spec(&bundle)?;
    if !rustix::process::geteuid().is_root() {
        userns::enter_rootless_for(&mut spec)?;
    }
    let root = spec.root().as_ref().ok_or_else(|| Error::invalid("config.json", "it has no \"root\""))?;
    let guard = Guard::start(&[])?;
    let exit = Rootfs::Directory(bundle.join(root.path()))
        .mount()
        .and_then(|root| launch::run(Launch { id, spec: &spec, root, stdin: true, guard: Some(&guard), bundle: &bundle }));
    // Failed or not, the launcher has cleaned up.
    guard.dismiss();
    Ok(exit?.code())
}

fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let file = File::open(&path).attempt(|| format!("open {path:?}"))?;
    let mut text = Vec::new();
    file.take(CONFIG_LIMIT_BYTES).read_to_end(&mut text).attempt(|| format!("read {path:?}"))?;
    parse_spec(&text, bundle)
}

fn write_spec(bundle: &Path) -> Result<()> {
    let options = RunOptions { id: "roci".into(), args: vec!["sh".into()], tty: true, read_only: true, ..RunOptions::default() };
    let directory = File::open(bundle).attempt(|| format!("open {bundle:?}"))?;
    let spec = default_spec(&ContainerConfig::default(), directory.as_fd(), &options)?;
    let path = bundle.join("config.json");
    let mut text = serde_json::to_vec_pretty(&spec).map_err(|error| Error::invalid("config.json", error))?;
    text.push(b'\n');
    let mut file = File::create_new(&path).attempt(|| format!("create {path:?} (an old one is not overwritten)"))?;
    file.write_all(&text).attempt(|| format!("write {path:?}"))
}
