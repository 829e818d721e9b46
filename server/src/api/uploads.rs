//! Uploads: end-4, end-5, end-6, end-11, end-13, and cancelling.

use std::ops::Range;

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{Response, StatusCode};
use longshore_runtime::Error::Name;
use longshore_runtime::name::{Algorithm, Digest, RepoName};

use super::incoming::receive;
use super::query::parameter;
use super::range;
use super::response::{CHUNK_MIN_LENGTH, CONTENT_DIGEST, UPLOAD_ID, empty, error_response, value};
use crate::access::{Action, Caller, SessionName};
use crate::blob::{BlobStore, Upload};
use crate::error::{Error, Result};
use crate::meta::Metadata;
use crate::registry::Registry;

/// POST: a session, or at once a blob (`?digest=`), or a blob from another repository (`?mount=`).
pub(super) async fn start<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    caller: &Caller<'_>,
    repo: &RepoName,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>> {
    if let Some(digest) = parameter(&parts.uri, "digest")? {
        return monolithic(registry, repo, &digest.parse()?, parts, body).await;
    }
    if let Some(digest) = parameter(&parts.uri, "mount")? {
        let digest: Digest = digest.parse()?;
        // What the caller may not see is answered like what is not there.
        let open = |repo: &RepoName| caller.may(Action::Pull, repo);
        let mounted = match parameter(&parts.uri, "from")? {
            Some(from) => {
                let from = from.parse()?;
                open(&from) && registry.mount_blob(&from, repo, &digest).await?
            }
            None => registry.mount_blob_from_any(repo, &digest, open).await?,
        };
        if mounted {
            return Ok(created(repo, &digest));
        }
        return started(registry, caller, repo, digest.algorithm()).await;
    }
    // Another one that it ends with costs a second reading (end-4c).
    let algorithm = parameter(&parts.uri, "digest-algorithm")?;
    started(registry, caller, repo, algorithm.map_or(Ok(Algorithm::Sha256), |name| name.parse())?).await
}

async fn started<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    caller: &Caller<'_>,
    repo: &RepoName,
    algorithm: Algorithm,
) -> Result<Response<Body>> {
    let id = registry.start_upload(repo, algorithm).await?;
    let mut response = session(StatusCode::ACCEPTED, repo, caller.session(id), 0);
    let chunk_min_bytes = registry.limits().chunk_min_bytes;
    if chunk_min_bytes > 0 {
        response.headers_mut().insert(CHUNK_MIN_LENGTH, chunk_min_bytes.into());
    }
    Ok(response)
}

/// POST with `?digest=`: nobody learns the session's name, so a failure ends it.
async fn monolithic<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    digest: &Digest,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>> {
    let expected = expected_length(parts, 0)?;
    let id = registry.start_upload(repo, digest.algorithm()).await?;
    let mut upload = registry.open_upload(repo, id).await?;
    let outcome = match receive(&mut upload, body, expected, registry.limits()).await {
        Ok(()) => registry.finish_upload(repo, upload, digest).await,
        Err(e) => {
            drop(upload);
            Err(e)
        }
    };
    if outcome.is_err()
        && let Ok(left) = registry.open_upload(repo, id).await
    {
        left.cancel().await?;
    }
    outcome?;
    Ok(created(repo, digest))
}

/// GET: how much has arrived.
pub(super) async fn status<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: SessionName,
) -> Result<Response<Body>> {
    let offset = registry.open_upload(repo, name.id()).await?.offset();
    Ok(session(StatusCode::NO_CONTENT, repo, name, offset))
}

/// PATCH: a chunk with its `Content-Range`, or a stream without.
pub(super) async fn append<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: SessionName,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>> {
    let mut upload = registry.open_upload(repo, name.id()).await?;
    let expected = match expected_length(parts, upload.offset()) {
        Err(e @ Error::UploadOutOfOrder { offset, .. }) => return Ok(out_of_order(&e, repo, name, offset)),
        other => other?,
    };
    receive(&mut upload, body, expected, registry.limits()).await?;
    let offset = upload.offset();
    upload.suspend().await?;
    Ok(session(StatusCode::ACCEPTED, repo, name, offset))
}

/// PUT with `?digest=`: the last chunk, if there is one more, and the end.
pub(super) async fn finish<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: SessionName,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>> {
    let digest: Digest = match parameter(&parts.uri, "digest")? {
        Some(digest) => digest.parse()?,
        None => return Err(Name { what: "digest", input: String::new(), why: "the query parameter is missing" }.into()),
    };
    let mut upload = registry.open_upload(repo, name.id()).await?;
    let expected = match expected_length(parts, upload.offset()) {
        Err(e @ Error::UploadOutOfOrder { offset, .. }) => return Ok(out_of_order(&e, repo, name, offset)),
        other => other?,
    };
    receive(&mut upload, body, expected, registry.limits()).await?;
    registry.finish_upload(repo, upload, &digest).await?;
    Ok(created(repo, &digest))
}

/// DELETE: the end of a session nobody wants any more.
pub(super) async fn cancel<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: SessionName,
) -> Result<Response<Body>> {
    registry.open_upload(repo, name.id()).await?.cancel().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The length a chunk's `Content-Range` promises, if it has one, checked against where the upload
/// stands and against `Content-Length`.
fn expected_length(parts: &Parts, offset: u64) -> Result<Option<u64>> {
    let Some(header) = parts.headers.get(CONTENT_RANGE) else { return Ok(None) };
    let range = header.to_str().ok().and_then(range::chunk);
    let Range { start, end } = range.ok_or_else(|| Error::UploadInvalid("Content-Range must read first-last".into()))?;
    if start != offset {
        return Err(Error::UploadOutOfOrder { start, offset });
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length != end - start) {
        return Err(Error::UploadInvalid("Content-Range and Content-Length disagree".into()));
    }
    Ok(Some(end - start))
}

fn out_of_order(error: &Error, repo: &RepoName, name: SessionName, offset: u64) -> Response<Body> {
    let mut response = error_response(error);
    describe(&mut response, repo, name, offset);
    response
}

fn session(status: StatusCode, repo: &RepoName, name: SessionName, offset: u64) -> Response<Body> {
    let mut response = empty(status);
    describe(&mut response, repo, name, offset);
    response
}

/// Where an upload is, and how far. An empty one reads `0-0`, as clients know it.
fn describe(response: &mut Response<Body>, repo: &RepoName, name: SessionName, offset: u64) {
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(format_args!("/v2/{repo}/blobs/uploads/{name}")));
    headers.insert(RANGE, value(format_args!("0-{}", offset.saturating_sub(1))));
    headers.insert(UPLOAD_ID, value(name));
}

fn created(repo: &RepoName, digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(format_args!("/v2/{repo}/blobs/{digest}")));
    headers.insert(CONTENT_DIGEST, value(digest));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;

    use super::*;
    use crate::access::Access;
    use crate::blob::MemoryBlobStore;
    use crate::limits::Limits;
    use crate::meta::MemoryLog;

    #[tokio::test]
    async fn who_configures_a_smallest_chunk_has_clients_told() {
        let limits = Arc::new(Limits { chunk_min_bytes: 5 << 20, ..Limits::default() });
        let registry = Registry::new(MemoryBlobStore::default(), MemoryLog::default().open(), limits);
        let parts = Request::post("/v2/a/blobs/uploads/").body(()).unwrap().into_parts().0;
        let access = Access::open();
        let caller = access.caller(&parts).await.unwrap();
        let response = start(&registry, &caller, &"a".parse().unwrap(), &parts, Body::empty()).await.unwrap();
        assert_eq!(response.headers()["oci-chunk-min-length"], "5242880");
    }
}
