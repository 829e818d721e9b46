//! Responses, errors among them (distribution-spec, "Error Codes").

use axum::body::Body;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use longshore_runtime::name::Digest;
use serde::Serialize;

use crate::error::Error;

/// Names of headers that are not HTTP's own.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The manifest that one just stored refers to as its subject (distribution-spec end-7).
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// A tag that a manifest put by digest has now (distribution-spec end-7b).
pub(super) const TAG: HeaderName = HeaderName::from_static("oci-tag");
/// The filters a list of referrers was made with (distribution-spec end-12b).
pub(super) const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// What chunks of an upload should at least have, in bytes.
pub(super) const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// The upload session's identifier.
pub(super) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// A response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// A JSON document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response<Body> {
    // Serialising our own structs of strings into memory cannot fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(document).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The value of a header made of names that were parsed, or of numbers.
pub(super) fn value(text: impl std::fmt::Display) -> HeaderValue {
    // The grammars of names, digests and tags, and media types checked on arrival, leave only
    // visible ASCII.
    HeaderValue::try_from(text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[derive(Serialize)]
struct Errors<'a> {
    errors: Vec<OneError<'a>>,
}

#[derive(Serialize)]
struct OneError<'a> {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Detail<'a>>,
}

#[derive(Serialize)]
struct Detail<'a> {
    digest: &'a Digest,
}

/// The response to a request that failed. What failed inside is for the log, not for the client.
pub(crate) fn error_response(error: &Error) -> Response<Body> {
    let (status, code) = error.status();
    let message = error.public();
    if status.is_server_error() {
        tracing::error!("{error}");
    }
    let errors = match error {
        Error::ManifestBlobUnknown(missing) => {
            missing.iter().map(|digest| OneError { code, message: message.clone(), detail: Some(Detail { digest }) }).collect()
        }
        _ => vec![OneError { code, message, detail: None }],
    };
    let mut response = json(status, &Errors { errors });
    match error {
        Error::Method { allow, .. } => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        Error::Unauthorized { challenge, .. } => {
            response.headers_mut().insert(WWW_AUTHENTICATE, value(challenge));
        }
        Error::RangeNotSatisfiable { size } => {
            response.headers_mut().insert(CONTENT_RANGE, value(format_args!("bytes */{size}")));
        }
        Error::TooMany(_) => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}
