//! Manifests and tags: end-3, end-7, end-7b, end-9.

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, WARNING};
use http::request::Parts;
use http::{Response, StatusCode};
use longshore_runtime::name::{RepoName, Tag};

use super::query::parameters;
use super::response::{CONTENT_DIGEST, SUBJECT, TAG, empty, value};
use super::{conditional, incoming};
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::limits::TAG_PARAMETERS_LIMIT;
use crate::meta::{ManifestEntry, ManifestName, Metadata, PutOptions};
use crate::registry::{NewManifest, Registry};

pub(super) async fn get<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: &ManifestName,
    parts: &Parts,
) -> Result<Response<Body>> {
    let entry = registry.manifest(repo, name).await?;
    if let Some(answer) = conditional::answer(parts, &entry.digest)? {
        return Ok(answer);
    }
    let body = registry.read_manifest(repo, &entry).await?;
    Ok(described(&entry, Body::new(body)))
}

pub(super) async fn head<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: &ManifestName,
    parts: &Parts,
) -> Result<Response<Body>> {
    let entry = registry.manifest(repo, name).await?;
    if let Some(answer) = conditional::answer(parts, &entry.digest)? {
        return Ok(answer);
    }
    Ok(described(&entry, Body::empty()))
}

/// PUT. `overwrite`: whether a tag that is there may be moved.
pub(super) async fn put<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: &ManifestName,
    parts: &Parts,
    body: Body,
    overwrite: bool,
) -> Result<Response<Body>> {
    let content_type = match parts.headers.get(CONTENT_TYPE) {
        None => None,
        Some(header) => {
            let text = header.to_str().map_err(|_| Error::ManifestInvalid("its Content-Type is not readable".into()))?;
            Some(text.split(';').next().unwrap_or_default().trim())
        }
    };
    let tags = parameters(&parts.uri, "tag")?;
    if tags.len() > TAG_PARAMETERS_LIMIT {
        return Err(Error::TooManyTags { limit: TAG_PARAMETERS_LIMIT });
    }
    let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Tag>, _>>()?;
    let options = PutOptions { overwrite, sparse: registry.limits().sparse_manifests };
    let _room = registry.manifest_room(incoming::manifest_length(&parts.headers, registry.limits())?).await;
    let bytes = incoming::manifest(body, registry.limits()).await?;
    let stored = registry.put_manifest(repo, name, NewManifest { bytes, content_type, tags }, options).await?;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(format_args!("/v2/{repo}/manifests/{}", stored.digest)));
    headers.insert(CONTENT_DIGEST, value(&stored.digest));
    if let Some(subject) = stored.subject {
        headers.insert(SUBJECT, value(subject));
    }
    for tag in stored.tags {
        headers.append(TAG, value(tag));
    }
    if stored.missing > 0 {
        // In the one form clients show to people (distribution-spec, "Warnings").
        let missing = stored.missing;
        let text = format_args!("299 - \"{repo} lacks {missing} of what this manifest refers to: pulls of it may fail\"");
        headers.insert(WARNING, value(text));
    }
    Ok(response)
}

pub(super) async fn delete<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    repo: &RepoName,
    name: &ManifestName,
) -> Result<Response<Body>> {
    registry.delete_manifest(repo, name).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

fn described(entry: &ManifestEntry, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, entry.size.into());
    headers.insert(CONTENT_TYPE, value(&entry.media_type));
    headers.insert(ETAG, value(format_args!("\"{}\"", entry.digest)));
    headers.insert(CONTENT_DIGEST, value(&entry.digest));
    response
}
