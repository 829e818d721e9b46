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
use crate::limits::PAGE_LIMIT;
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
    let (last, n) = (parameter(&parts.uri, "last")?, count(&parts.uri, "n")?);
    let page = registry.tags(repo, last.as_deref(), n).await?;
    let response = json(StatusCode::OK, &Tags { name: repo.as_str(), tags: &page.entries });
    Ok(linked(response, &format!("/v2/{repo}/tags/list"), n, &page))
}

pub(super) async fn repositories<B: BlobStore, M: Metadata>(registry: &Registry<B, M>, parts: &Parts) -> Result<Response<Body>> {
    let (last, n) = (parameter(&parts.uri, "last")?, count(&parts.uri, "n")?);
    let page = registry.repositories(last.as_deref(), n).await?;
    let response = json(StatusCode::OK, &Repositories { repositories: &page.entries });
    Ok(linked(response, "/v2/_catalog", n, &page))
}

/// Adds where the next page is, if there is one (RFC 8288). Names need no escaping, but for the
/// slashes, which a query may have.
fn linked(mut response: Response<Body>, path: &str, n: Option<usize>, page: &Page) -> Response<Body> {
    if let Some(last) = page.entries.last().filter(|_| page.more) {
        let n = n.unwrap_or(PAGE_LIMIT).min(PAGE_LIMIT);
        response.headers_mut().insert(LINK, value(format_args!("<{path}?n={n}&last={last}>; rel=\"next\"")));
    }
    response
}
