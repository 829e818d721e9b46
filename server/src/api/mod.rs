//! The HTTP API (distribution-spec, "Endpoints"): a request becomes an endpoint and a method, a
//! handler makes one call of the registry, and its answer or error becomes the response.

mod blobs;
mod conditional;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod incoming;
mod lists;
mod manifests;
mod query;
mod range;
mod response;
mod route;
mod token;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use tower_http::set_header::SetResponseHeaderLayer;

use self::response::empty;
pub(crate) use self::response::error_response;
use self::route::Endpoint;
use crate::access::{Access, Action, Caller, Identity};
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::meta::Metadata;
use crate::operation::Facts;
use crate::registry::Registry;

/// What older docker clients look for before they speak to a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What every request is answered with.
#[derive(Debug)]
struct Api<B, M> {
    registry: Arc<Registry<B, M>>,
    access: Arc<Access>,
}

/// The application: every path goes to one fallback, because a repository's name has slashes and
/// may itself read like an endpoint.
pub fn router<B: BlobStore, M: Metadata>(registry: Arc<Registry<B, M>>, access: Arc<Access>) -> Router {
    let version = SetResponseHeaderLayer::overriding(API_VERSION, HeaderValue::from_static("registry/2.0"));
    Router::new().fallback(answer::<B, M>).with_state(Arc::new(Api { registry, access })).layer(version)
}

async fn answer<B: BlobStore, M: Metadata>(State(api): State<Arc<Api<B, M>>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut facts = Facts::default();
    let result = match for_one_host(&parts).and_then(|()| Endpoint::parse(&parts.method, &parts.uri)) {
        // Boxed: the largest handler's state need not be part of every connection's.
        Ok(endpoint) => {
            facts.endpoint = endpoint.kind();
            Box::pin(dispatch(&api, endpoint, &parts, body, &mut facts)).await
        }
        Err(e) => Err(e),
    };
    let mut response = result.unwrap_or_else(|e| error_response(&e));
    response.extensions_mut().insert(facts);
    response
}

/// A request by HTTP/1.1 says once whom it is for (RFC 9112 section 3.2).
fn for_one_host(parts: &Parts) -> Result<()> {
    if parts.version == Version::HTTP_11 && parts.headers.get_all(HOST).iter().count() != 1 {
        return Err(Error::Parameter("a request has one Host header".into()));
    }
    Ok(())
}

async fn dispatch<B: BlobStore, M: Metadata>(
    api: &Api<B, M>,
    endpoint: Endpoint,
    parts: &Parts,
    body: Body,
    facts: &mut Facts,
) -> Result<Response<Body>> {
    let (method, registry) = (&parts.method, &*api.registry);
    if endpoint == Endpoint::Token {
        return token::answer(&api.access, parts, body, registry.limits()).await;
    }
    let caller = &api.access.caller(parts).await?;
    if let Identity::User(name) = caller.identity() {
        facts.user = Some(Arc::clone(name));
    }
    authorize(caller, &endpoint, parts)?;
    match (endpoint, method) {
        (Endpoint::Base, &Method::GET | &Method::HEAD) => Ok(empty(http::StatusCode::OK)),
        (Endpoint::Catalog, &Method::GET) => lists::repositories(registry, caller, parts).await,
        (Endpoint::Tags(repo), &Method::GET) => lists::tags(registry, &repo, parts).await,
        (Endpoint::Referrers(repo, subject), &Method::GET) => lists::referrers(registry, &repo, &subject, parts).await,

        (Endpoint::Blob(repo, digest), &Method::GET) => blobs::get(registry, &repo, &digest, parts).await,
        (Endpoint::Blob(repo, digest), &Method::HEAD) => blobs::head(registry, &repo, &digest, parts).await,
        (Endpoint::Blob(repo, digest), &Method::DELETE) => blobs::delete(registry, &repo, &digest).await,

        (Endpoint::Uploads(repo), &Method::POST) => uploads::start(registry, caller, &repo, parts, body).await,
        (Endpoint::Upload(repo, name), &Method::GET) => uploads::status(registry, &repo, name).await,
        (Endpoint::Upload(repo, name), &Method::PATCH) => uploads::append(registry, &repo, name, parts, body).await,
        (Endpoint::Upload(repo, name), &Method::PUT) => uploads::finish(registry, &repo, name, parts, body).await,
        (Endpoint::Upload(repo, name), &Method::DELETE) => uploads::cancel(registry, &repo, name).await,

        (Endpoint::Manifest(repo, name), &Method::GET) => manifests::get(registry, &repo, &name, parts).await,
        (Endpoint::Manifest(repo, name), &Method::HEAD) => manifests::head(registry, &repo, &name, parts).await,
        (Endpoint::Manifest(repo, name), &Method::PUT) => {
            let overwrite = caller.may(Action::Overwrite, &repo);
            manifests::put(registry, &repo, &name, parts, body, overwrite).await
        }
        (Endpoint::Manifest(repo, name), &Method::DELETE) => manifests::delete(registry, &repo, &name).await,

        (endpoint, method) => Err(Error::Method { method: method.to_string(), allow: endpoint.methods() }),
    }
}

/// What the caller must be allowed before anything is looked up. Every endpoint stands here by name,
/// so that none is added without saying what it takes.
fn authorize(caller: &Caller<'_>, endpoint: &Endpoint, parts: &Parts) -> Result<()> {
    let (repo, action) = match (endpoint, &parts.method) {
        // Whoever asks for a token is who it says or nobody; see there.
        (Endpoint::Token, _) => return Ok(()),
        (Endpoint::Base, _) => return caller.require_introduction(parts),
        (Endpoint::Catalog, _) => return caller.require_catalog(parts),
        (Endpoint::Blob(repo, _) | Endpoint::Manifest(repo, _), &Method::DELETE) => (repo, Action::Delete),
        (Endpoint::Manifest(repo, _), &Method::PUT) | (Endpoint::Uploads(repo), _) => (repo, Action::Create),
        (Endpoint::Upload(repo, name), _) => {
            caller.require(Action::Create, repo, parts)?;
            return caller.require_owner(name);
        }
        (Endpoint::Tags(repo) | Endpoint::Referrers(repo, _) | Endpoint::Blob(repo, _) | Endpoint::Manifest(repo, _), _) => {
            (repo, Action::Pull)
        }
    };
    caller.require(action, repo, parts)
}
