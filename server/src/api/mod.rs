//! The HTTP API (distribution-spec, "Endpoints"): a request becomes an endpoint and a method, a
//! handler makes one call of the registry, and its answer or error becomes the response.

mod blobs;
mod conditional;
mod incoming;
mod lists;
mod manifests;
mod query;
mod range;
mod response;
mod route;
mod uploads;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use tower_http::set_header::SetResponseHeaderLayer;

use self::response::{empty, error_response};
use self::route::Endpoint;
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::meta::Metadata;
use crate::registry::Registry;

/// What older docker clients look for before they speak to a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// The application: every path goes to one fallback, because a repository's name has slashes and
/// may itself read like an endpoint.
pub fn router<B: BlobStore, M: Metadata>(registry: Arc<Registry<B, M>>) -> Router {
    let version = SetResponseHeaderLayer::overriding(API_VERSION, HeaderValue::from_static("registry/2.0"));
    Router::new().fallback(answer::<B, M>).with_state(registry).layer(version)
}

async fn answer<B: BlobStore, M: Metadata>(
    State(registry): State<Arc<Registry<B, M>>>,
    request: Request<Body>,
) -> Response<Body> {
    let start = Instant::now();
    let (parts, body) = request.into_parts();
    let result = match Endpoint::parse(&parts.method, &parts.uri) {
        // Boxed: the largest handler's state need not be part of every connection's.
        Ok(endpoint) => Box::pin(dispatch(&registry, endpoint, &parts, body)).await,
        Err(e) => Err(e),
    };
    let response = result.unwrap_or_else(|e| error_response(&e));
    let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(method = %parts.method, uri = %parts.uri, status = response.status().as_u16(), elapsed_us);
    response
}

async fn dispatch<B: BlobStore, M: Metadata>(
    registry: &Registry<B, M>,
    endpoint: Endpoint,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>> {
    let method = &parts.method;
    match (endpoint, method) {
        (Endpoint::Base, &Method::GET | &Method::HEAD) => Ok(empty(http::StatusCode::OK)),
        (Endpoint::Catalog, &Method::GET) => lists::repositories(registry, parts).await,
        (Endpoint::Tags(repo), &Method::GET) => lists::tags(registry, &repo, parts).await,
        (Endpoint::Referrers(repo, subject), &Method::GET) => lists::referrers(registry, &repo, &subject, parts).await,

        (Endpoint::Blob(repo, digest), &Method::GET) => blobs::get(registry, &repo, &digest, parts).await,
        (Endpoint::Blob(repo, digest), &Method::HEAD) => blobs::head(registry, &repo, &digest, parts).await,
        (Endpoint::Blob(repo, digest), &Method::DELETE) => blobs::delete(registry, &repo, &digest).await,

        (Endpoint::Uploads(repo), &Method::POST) => uploads::start(registry, &repo, parts, body).await,
        (Endpoint::Upload(repo, id), &Method::GET) => uploads::status(registry, &repo, id).await,
        (Endpoint::Upload(repo, id), &Method::PATCH) => uploads::append(registry, &repo, id, parts, body).await,
        (Endpoint::Upload(repo, id), &Method::PUT) => uploads::finish(registry, &repo, id, parts, body).await,
        (Endpoint::Upload(repo, id), &Method::DELETE) => uploads::cancel(registry, &repo, id).await,

        (Endpoint::Manifest(repo, name), &Method::GET) => manifests::get(registry, &repo, &name, parts).await,
        (Endpoint::Manifest(repo, name), &Method::HEAD) => manifests::head(registry, &repo, &name, parts).await,
        (Endpoint::Manifest(repo, name), &Method::PUT) => manifests::put(registry, &repo, &name, parts, body).await,
        (Endpoint::Manifest(repo, name), &Method::DELETE) => manifests::delete(registry, &repo, &name).await,

        (endpoint, method) => Err(Error::Method { method: method.to_string(), allow: endpoint.methods() }),
    }
}
