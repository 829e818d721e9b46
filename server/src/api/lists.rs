//! Lists, page by page: tags (end-8) and repositories (`_catalog`).

use axum::body::Body;
use http::header::LINK;
use http::request::Parts;
use http::{Response, StatusCode};
use longshore_runtime::name::RepoName;
use serde::Serialize;

use super::query::{count, parameter};
use super::response::{json, value};
use crate::blob::BlobStore;
use crate::error::Result;
use crate::meta::{Metadata, Page};
use crate::registry::Registry;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: &'a [String],
}

#[derive(Serialize)]
struct Repositories<'a> {
    repositories: &'a [String],
}

pub(super) async fn tags<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    parts: &Parts,
) -> Result<Response<Body>> {
    let last = parameter(&parts.uri, "last")?;
    let n = page_size(parts, registry.limits().page_entries)?;
    let page = registry.tags(repo, last.as_deref(), n).await?;
    let response = json(StatusCode::OK, &Tags { name: repo.as_str(), tags: &page.entries });
    Ok(linked(response, &format!("/v2/{repo}/tags/list"), n, &page))
}

pub(super) async fn repositories<B: BlobStore, M: Metadata>(registry: &Registry<B, M>, parts: &Parts) -> Result<Response<Body>> {
    let last = parameter(&parts.uri, "last")?;
    let n = page_size(parts, registry.limits().catalog_entries)?;
    let page = registry.repositories(last.as_deref(), n).await?;
    let response = json(StatusCode::OK, &Repositories { repositories: &page.entries });
    Ok(linked(response, "/v2/_catalog", n, &page))
}

/// As many entries as `n` asks for, and never more than `limit`.
fn page_size(parts: &Parts, limit: usize) -> Result<usize> {
    Ok(count(&parts.uri, "n")?.unwrap_or(limit).min(limit))
}

/// Adds where the next page is, if there is one (RFC 8288). Names need no escaping, but for the
/// slashes, which a query may have.
fn linked(mut response: Response<Body>, path: &str, n: usize, page: &Page) -> Response<Body> {
    if let Some(last) = page.entries.last().filter(|_| page.more) {
        response.headers_mut().insert(LINK, value(format_args!("<{path}?n={n}&last={last}>; rel=\"next\"")));
    }
    response
}
