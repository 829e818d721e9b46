//! `/livez`, `/readyz` and `/metrics`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use longshore_runtime::name::{Algorithm, Digest, RepoName};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use super::metrics::Page;
use super::process;
use super::requests::{EndpointKind, Facts, Watch};
use crate::access::Access;
use crate::api::error_response;
use crate::blob::{BlobStore, Upload};
use crate::error::{Error, Result};
use crate::limits::{READY_LIFETIME, READY_TIMEOUT};
use crate::meta::Metadata;
use crate::registry::Registry;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the storage works, and when that was found out.
type Verdict = Option<(Instant, Result<(), String>)>;

struct Operation<B, M> {
    registry: Arc<Registry<B, M>>,
    access: Arc<Access>,
    watch: Arc<Watch>,
    data: PathBuf,
    /// Locked by whoever finds it out.
    verdict: Arc<Mutex<Verdict>>,
}

/// `app`, and beside it what tells how it is doing.
pub fn routes<B: BlobStore, M: Metadata>(
    app: Router,
    registry: Arc<Registry<B, M>>,
    access: Arc<Access>,
    watch: Arc<Watch>,
    data: PathBuf,
) -> Router {
    let operation = Arc::new(Operation { registry, access, watch, data, verdict: Arc::default() });
    let routes = Router::new()
        .route("/livez", get(async || answer(StatusCode::OK, TEXT, "alive\n".into())))
        .route("/readyz", get(ready::<B, M>))
        .route("/metrics", get(metrics::<B, M>))
        .with_state(operation);
    app.merge(routes)
}

async fn ready<B: BlobStore, M: Metadata>(State(operation): State<Arc<Operation<B, M>>>) -> Response<Body> {
    match operation.verdict().await {
        Ok(()) => answer(StatusCode::OK, TEXT, "ready\n".into()),
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
    }
}

async fn metrics<B: BlobStore, M: Metadata>(State(operation): State<Arc<Operation<B, M>>>, parts: Parts) -> Response<Body> {
    if let Err(refusal) = operation.access.caller(&parts).await.and_then(|caller| caller.require_metrics(&parts)) {
        return with_facts(error_response(&refusal));
    }
    let page = tokio::task::spawn_blocking(move || {
        let mut page = Page::default();
        operation.watch.metrics.write(&mut page);
        let uploads = operation.registry.uploads_open();
        page.number("rhub_uploads_open", "gauge", "Upload sessions that are open.", uploads);
        page.number("rhub_log_lines_lost_total", "counter", "Log lines nobody took in time.", super::log::lost());
        process::write_room(&mut page, &operation.data);
        process::write(&mut page);
        page.into_text()
    });
    match page.await {
        Ok(page) => answer(StatusCode::OK, EXPOSITION, page),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new()),
    }
}

fn answer(status: StatusCode, content_type: HeaderValue, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with_facts(response)
}

fn with_facts(mut response: Response<Body>) -> Response<Body> {
    response.extensions_mut().insert(Facts { endpoint: EndpointKind::Operation, user: None });
    response
}

impl<B: BlobStore, M: Metadata> Operation<B, M> {
    /// Whether the storage works; why not is worded for anyone to read. One check at a time, at most
    /// one a second, however many ask: it writes to the disk, and a disk that hangs must not take a
    /// thread for each time somebody asks.
    async fn verdict(&self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
        let late = |_| format!("the storage did not answer within {} s", READY_TIMEOUT.as_secs());
        let mut last = timeout_at(deadline, Arc::clone(&self.verdict).lock_owned()).await.map_err(late)?;
        if let Some((when, verdict)) = &*last
            && when.elapsed() < READY_LIFETIME
        {
            return verdict.clone();
        }
        let registry = Arc::clone(&self.registry);
        // A task of its own: it is finished, and nobody starts another, also when this one has given up.
        let check = tokio::spawn(async move {
            let verdict = check(&registry).await.map_err(|e| {
                tracing::error!("the storage does not work: {e}");
                e.public()
            });
            *last = Some((Instant::now(), verdict.clone()));
            verdict
        });
        timeout_at(deadline, check).await.map_err(late)?.unwrap_or_else(|_| Err("the check failed".into()))
    }
}

/// Writes, reads and removes what nobody will miss, through everything a request goes through.
async fn check<B: BlobStore, M: Metadata>(registry: &Registry<B, M>) -> Result<()> {
    let repo: RepoName = "rhub/ready".parse()?;
    let id = match registry.start_upload(&repo, Algorithm::Sha256).await {
        // As many sessions as there may be: busy, not broken.
        Err(Error::TooMany(_)) => None,
        started => Some(started?),
    };
    if let Some(id) = id {
        let mut upload = registry.open_upload(&repo, id).await?;
        let written = upload.write(vec![Bytes::from_static(&[0; 4096])]).await;
        let suspended = upload.suspend().await;
        // The session goes, whatever came of it.
        registry.open_upload(&repo, id).await?.cancel().await?;
        written.and(suspended)?;
    }
    // Nothing is there to be taken out; to find that out the change went where all changes go.
    match registry.delete_blob(&repo, &Digest::of(b"")).await {
        Err(e) if e.status().0.is_server_error() => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::MemoryBlobStore;
    use crate::faults::{Fault, Faults};
    use crate::limits::Limits;
    use crate::meta::MemoryLog;

    #[tokio::test]
    async fn metadata_that_takes_no_changes_is_not_ready_until_a_restart() {
        let faults = Arc::new(Faults::plan([(0, Fault::Freeze { kept: 3 })]));
        let (blobs, log) = (MemoryBlobStore::default(), MemoryLog::with(&faults));
        let registry = Registry::new(blobs, log.open(), Arc::new(Limits::default()));
        check(&registry).await.unwrap();
        assert_eq!(faults.calls(), 0, "the check changes nothing");
        let repo: RepoName = "a".parse().unwrap();
        let id = registry.start_upload(&repo, Algorithm::Sha256).await.unwrap();
        let upload = registry.open_upload(&repo, id).await.unwrap();
        registry.finish_upload(&repo, upload, &Digest::of(b"")).await.unwrap_err();
        let why = check(&registry).await.unwrap_err();
        assert!(why.public().contains("until it is restarted"), "{why}");
    }
}
