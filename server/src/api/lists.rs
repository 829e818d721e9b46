//! Lists, page by page: tags (end-8), repositories (`_catalog`) and referrers (end-12).

use axum::body::Body;
use http::header::{CONTENT_TYPE, LINK};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use longshore_runtime::name::{Digest, RepoName};
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::{count, parameter, percent_encode};
use super::response::{FILTERS_APPLIED, json, value};
use crate::access::Caller;
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::limits::CATALOG_SCAN_PAGES;
use crate::meta::{Metadata, Page};
use crate::registry::Registry;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a str,
    tags: &'a [String],
}

/// An image index (image-spec image-index.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<&'a RawValue>,
}

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

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

/// The repositories the caller may pull from.
pub(super) async fn repositories<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    caller: &Caller<'_>,
    parts: &Parts,
) -> Result<Response<Body>> {
    let last = caller.list_start(parameter(&parts.uri, "last")?)?;
    let n = page_size(parts, registry.limits().catalog_entries)?;
    if caller.is_unrestricted() {
        let page = registry.repositories(last.as_deref(), n).await?;
        let response = json(StatusCode::OK, &Repositories { repositories: &page.entries });
        return Ok(linked(response, "/v2/_catalog", n, &page));
    }
    let (entries, next) = visible(registry, caller, last, n).await?;
    let mut response = json(StatusCode::OK, &Repositories { repositories: &entries });
    if let Some(next) = next {
        let marker = if entries.last() == Some(&next) { next } else { caller.list_marker(&next)? };
        response.headers_mut().insert(LINK, value(format_args!("</v2/_catalog?n={n}&last={marker}>; rel=\"next\"")));
    }
    Ok(response)
}

/// At most `n` repositories after `last` that the caller may see, and after which one to go on if there
/// are more. After a bounded number of those it may not see the page ends early.
async fn visible<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    caller: &Caller<'_>,
    mut last: Option<String>,
    n: usize,
) -> Result<(Vec<String>, Option<String>)> {
    if n == 0 {
        return Ok((Vec::new(), None));
    }
    let mut entries = Vec::new();
    for _ in 0..CATALOG_SCAN_PAGES {
        let mut page = registry.repositories(last.as_deref(), registry.limits().catalog_entries).await?;
        let end = page.entries.last().cloned();
        page.entries.retain(|repository| caller.sees(repository));
        for repository in page.entries {
            if entries.len() == n {
                let next = entries.last().cloned();
                return Ok((entries, next));
            }
            entries.push(repository);
        }
        if !page.more {
            return Ok((entries, None));
        }
        last = end;
    }
    Ok((entries, last))
}

/// Always a list: a subject need not exist, and neither need its repository.
pub(super) async fn referrers<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    subject: &Digest,
    parts: &Parts,
) -> Result<Response<Body>> {
    let (artifact_type, last) = (parameter(&parts.uri, "artifactType")?, parameter(&parts.uri, "last")?);
    let artifact_type = artifact_type.filter(|text| !text.is_empty());
    let n = page_size(parts, registry.limits().page_entries)?;
    let page = registry.referrers(repo, subject, artifact_type.as_deref(), last.as_deref(), n).await?;
    let damaged = |e| Error::damaged(format!("a referrer of {subject}"), format!("{e}; stop rhub and run `rhub rebuild`"));
    let manifests: Result<_, _> = page.descriptors.iter().map(|descriptor| serde_json::from_str(descriptor)).collect();
    let index = Index { schema_version: 2, media_type: INDEX_TYPE, manifests: manifests.map_err(damaged)? };
    let mut response = json(StatusCode::OK, &index);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(INDEX_TYPE));
    if artifact_type.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = page.next {
        let filter = artifact_type.map(|text| format!("&artifactType={}", percent_encode(&text))).unwrap_or_default();
        let link = format_args!("</v2/{repo}/referrers/{subject}?n={n}&last={last}{filter}>; rel=\"next\"");
        headers.insert(LINK, value(link));
    }
    Ok(response)
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
