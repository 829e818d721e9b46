//! `rhub serve`

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use longshore_server::access::Access;
use longshore_server::blob::FsBlobStore;
use longshore_server::collect::Policy;
use longshore_server::config::{Config, Problems};
use longshore_server::data_dir::DataDir;
use longshore_server::limits::{BLOCKING_THREADS_LIMIT, SHUTDOWN_GRACE};
use longshore_server::maintain::control;
use longshore_server::meta::SledMetadata;
use longshore_server::operation::{Watch, routes};
use longshore_server::{Registry, api, serve};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Common, say};

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Listen on an address others can reach, although there is no TLS, or anyone may push and delete.
    #[arg(long)]
    insecure: bool,
    /// Serve HTTPS with this certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Users and their passwords' bcrypt hashes; see `rhub user`.
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<String>,
}

impl Flags {
    /// Flag, key and value of each flag that is given.
    pub(super) fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let given = [
            ("--listen", "listen", self.listen.clone()),
            ("--insecure", "insecure", self.insecure.then(|| "true".into())),
            ("--tls-certificate", "tls.certificate", self.tls_certificate.clone()),
            ("--tls-key", "tls.key", self.tls_key.clone()),
            ("--htpasswd", "access.htpasswd", self.htpasswd.clone()),
        ];
        given.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?))).collect()
    }
}

pub(super) fn run(common: &Common, flags: &Flags) -> anyhow::Result<()> {
    let config = common.load(flags.settings())?.config;
    if let Some(problem) = config.exposed() {
        bail!(Problems(vec![problem]));
    }
    raise_descriptor_limit(config.limits.connections);
    let data = DataDir::open(&config.data)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS_LIMIT).enable_all().build()?;
    let ended = runtime.block_on(serve_until_told(&config, &data))?;
    // What is still being written belongs to requests that were broken off.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    match ended {
        serve::Ended::Finished => Ok(()),
        serve::Ended::BrokenOff => {
            bail!("some requests took longer than {} s to finish and were broken off", SHUTDOWN_GRACE.as_secs())
        }
    }
}

/// Takes as many file descriptors as may be had: most systems give a process 1024 unless it asks.
fn raise_descriptor_limit(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("raise the limit of open files: {e}");
    }
    // A connection, and the file it reads or writes; and what the database needs.
    let needed = connections.saturating_mul(2).saturating_add(128) as u64;
    if getrlimit(Resource::Nofile).current.is_some_and(|most| most < needed) {
        tracing::warn!("limits.connections = {connections} may need {needed} open files, more than this process may have");
    }
}

async fn serve_until_told(config: &Config, data: &DataDir) -> anyhow::Result<serve::Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let limits = Arc::new(config.limits.clone());
    let tls = config.tls.as_ref().map(serve::Tls::open).transpose()?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    // The metadata first: it refuses what does not fit together before anything is created.
    let metadata = SledMetadata::open(data, &limits)?;
    let blobs = FsBlobStore::open(data.blobs(), &limits)?;
    let access = match &config.access {
        Some(settings) => Access::new(settings, &data.token_key())?,
        None => Access::open(),
    };
    let registry = Arc::new(Registry::new(blobs, metadata, Arc::clone(&limits)));
    let access = Arc::new(access);
    let watch = Arc::new(Watch::new(limits.requests)?);
    let app = api::router(Arc::clone(&registry), Arc::clone(&access));
    let app = routes(app, Arc::clone(&registry), access, Arc::clone(&watch), data.path().to_owned());
    let maintenance = control::serve(control::listen(data)?, Arc::clone(&registry), Policy::from(config));
    let collector = collect_now_and_then(registry, config.into(), Duration::from_secs(config.gc.interval_s));
    let renewal = renew(tls.clone());
    let scheme = if tls.is_some() { "https" } else { "http" };
    say(&format!("rhub listens on {scheme}://{}, data in {}", listener.local_addr()?, data.path().display()))?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    // What is done beside the serving ends with it.
    tokio::select! {
        ended = serve::run(listener, serve::Front { app, tls, watch }, &limits, shutdown) => Ok(ended),
        () = maintenance => bail!("the control socket is gone"),
        () = collector => bail!("the garbage collector is gone"),
        () = renewal => bail!("nobody looks at the certificate any more"),
    }
}

/// Takes renewed certificates into use, if there are any.
async fn renew(tls: Option<serve::Tls>) {
    match tls {
        Some(tls) => tls.keep_fresh().await,
        None => std::future::pending().await,
    }
}

/// Collects garbage at every `interval`.
async fn collect_now_and_then(registry: Arc<Registry<FsBlobStore, SledMetadata>>, policy: Policy, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match registry.collect(&policy).await {
            Ok(collected) => tracing::info!(?collected, "garbage collected"),
            Err(e) => tracing::error!("collect garbage: {e}"),
        }
    }
}
