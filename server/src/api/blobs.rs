//! Blobs: end-2 and end-10.

use axum::body::Body;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use longshore_runtime::name::{Digest, RepoName};

use super::conditional;
use super::range::{Wanted, wanted};
use super::response::{CONTENT_DIGEST, empty, value};
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::meta::Metadata;
use crate::registry::Registry;

pub(super) async fn get<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    digest: &Digest,
    parts: &Parts,
) -> Result<Response<Body>> {
    let size = registry.blob_size(repo, digest).await?;
    if let Some(answer) = conditional::answer(parts, digest)? {
        return Ok(answer);
    }
    let header = parts.headers.get(RANGE).filter(|_| conditional::range_applies(&parts.headers, digest));
    let header = header.and_then(|header| header.to_str().ok());
    let (status, range) = match wanted(header, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => return Err(Error::RangeNotSatisfiable { size }),
    };
    let body = registry.read_blob(repo, digest, size, range.clone()).await?;
    // Where the connection can hand a file to the peer, it does that instead of polling the body.
    let span = body.span().cloned();
    let mut response = described(status, digest, range.end - range.start, Body::new(body));
    if let Some(span) = span {
        response.extensions_mut().insert(span);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let (first, last) = (range.start, range.end - 1);
        response.headers_mut().insert(CONTENT_RANGE, value(format_args!("bytes {first}-{last}/{size}")));
    }
    Ok(response)
}

pub(super) async fn head<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    digest: &Digest,
    parts: &Parts,
) -> Result<Response<Body>> {
    let size = registry.blob_size(repo, digest).await?;
    if let Some(answer) = conditional::answer(parts, digest)? {
        return Ok(answer);
    }
    Ok(described(StatusCode::OK, digest, size, Body::empty()))
}

pub(super) async fn delete<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    digest: &Digest,
) -> Result<Response<Body>> {
    registry.delete_blob(repo, digest).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

fn described(status: StatusCode, digest: &Digest, length: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, value(format_args!("\"{digest}\"")));
    headers.insert(CONTENT_DIGEST, value(digest));
    response
}
