//! `rhub`: the command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use longshore_server::blob::FsBlobStore;
use longshore_server::data_dir::DataDir;
use longshore_server::limits::{BLOCKING_THREADS_LIMIT, Limits, SHUTDOWN_GRACE};
use longshore_server::meta::{SledMetadata, rebuild};
use longshore_server::{Registry, api, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// An OCI registry one hosts oneself.
#[derive(Debug, Parser)]
#[command(name = "rhub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log every request to standard error.
    #[arg(long, short, global = true)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the registry.
    Serve(Serve),
    /// Make the metadata database anew from the journal and the blobs.
    Rebuild(Data),
}

#[derive(Debug, Args)]
struct Serve {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Listen on an address others can reach, although there is neither TLS nor a list of users.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Args)]
struct Data {
    /// Where everything is kept [default: $XDG_DATA_HOME/rhub, or ~/.local/share/rhub].
    #[arg(long = "data", value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Data {
    fn open(&self) -> anyhow::Result<DataDir> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let default = || {
            let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
            base.map(|base| base.join("rhub"))
        };
        let dir = self.dir.clone().or_else(default);
        Ok(DataDir::open(&dir.context("neither XDG_DATA_HOME nor HOME is set; say where with --data DIR")?)?)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = if cli.verbose { tracing::Level::DEBUG } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    let outcome = match cli.command {
        Command::Serve(arguments) => run_serve(&arguments),
        Command::Rebuild(data) => run_rebuild(&data),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rhub: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_serve(arguments: &Serve) -> anyhow::Result<()> {
    if !arguments.listen.ip().is_loopback() && !arguments.insecure {
        bail!(
            "{} can be reached by others, and there is neither TLS nor a list of users yet: anyone could push and delete; \
             listen on 127.0.0.1 or [::1], or say --insecure",
            arguments.listen
        );
    }
    let data = arguments.data.open()?;
    let limits = Arc::new(Limits::default());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS_LIMIT).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = TcpListener::bind(arguments.listen).await.with_context(|| format!("listen on {}", arguments.listen))?;
        // The metadata first: it refuses what does not fit together before anything is created.
        let metadata = SledMetadata::open(&data)?;
        let blobs = FsBlobStore::open(data.blobs(), &limits)?;
        let app = api::router(Arc::new(Registry::new(blobs, metadata, Arc::clone(&limits))));
        say(&format!("rhub listens on http://{}, data in {}", listener.local_addr()?, data.path().display()))?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        anyhow::Ok(serve::run(listener, app, &limits, shutdown).await)
    })?;
    // What is still being written belongs to requests that were broken off.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    match ended {
        serve::Ended::Finished => Ok(()),
        serve::Ended::BrokenOff => {
            bail!("some requests took longer than {} s to finish and were broken off", SHUTDOWN_GRACE.as_secs())
        }
    }
}

fn run_rebuild(data: &Data) -> anyhow::Result<()> {
    let data = data.open()?;
    let blobs = FsBlobStore::open(data.blobs(), &Limits::default())?;
    let rebuilt = rebuild(&data, &blobs)?;
    say(&format!("rebuilt: {} blobs, {} manifests, {} tags", rebuilt.blobs, rebuilt.manifests, rebuilt.tags))?;
    if rebuilt.lost > 0 {
        say(&format!("{} blobs and manifests are gone from the blob store and were left out; push them again", rebuilt.lost))?;
    }
    if rebuilt.damaged_lines > 0 {
        say(&format!("{} damaged lines of the journal were left out", rebuilt.damaged_lines))?;
    }
    Ok(())
}

/// Writes a line; nobody being there to read it is no failure.
fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).context("write to standard output"),
        _ => Ok(()),
    }
}
