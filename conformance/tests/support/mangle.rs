//! Faults that are seen in a request or a response alone.

use serde_json::Value;

use super::handlers::error;
use super::http::{Flaw, Request, Response};
use super::{Fault, State, digest_of};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An answer given before anybody looks at what is there.
pub(super) fn before(state: &State, request: &Request) -> Option<Response> {
    let path = request.path.as_str();
    let is_manifest = path.contains("/manifests/");
    let secret = || Some(Response { body: b"root:x:0:0".to_vec(), ..Response::new(200) });
    let accept = request.header("accept");
    let odd = |value: &&String| value.parse::<u32>().is_err();
    match state.fault? {
        Fault::DeniesSupport if path == "/v2/" => Some(error(404, "UNSUPPORTED")),
        Fault::FollowsDots if path.contains("/..") => secret(),
        Fault::DecodesDots if path.contains("%2e%2e") => secret(),
        Fault::SlashesAreServerError if path.contains("//") => Some(error(500, "NAME_INVALID")),
        Fault::InjectsHeaders if path.contains("%0d%0a") => {
            Some(error(404, "MANIFEST_UNKNOWN").with("X-Path", path.replace("%0d%0a", "\r\n").replace("%20", " ")))
        }
        Fault::LongNameIsServerError if path.len() > 4000 => Some(error(500, "NAME_INVALID")),
        Fault::OddDigestIsServerError if path.contains("sha256:") && path.bytes().any(|b| (b'A'..=b'F').contains(&b)) => {
            Some(error(500, "DIGEST_INVALID"))
        }
        Fault::OddQueryIsServerError if request.query.get("n").is_some_and(|n| odd(&n)) => Some(error(500, "UNSUPPORTED")),
        Fault::ServesAnyMethod if request.method == "BREW" => Some(Response::new(200)),
        Fault::LongRepositoryIsServerError if path.len() > 200 && path.ends_with("/blobs/uploads/") => {
            Some(error(500, "NAME_INVALID"))
        }
        Fault::RefusesLongTags if is_manifest && path.rsplit('/').next().is_some_and(|t| t.len() == 128) => {
            Some(error(400, "MANIFEST_INVALID"))
        }
        Fault::HeadOfBlobsIsRefused if request.method == "HEAD" && path.contains("/blobs/") => Some(error(405, "UNSUPPORTED")),
        Fault::HeadOfManifestsIsRefused if request.method == "HEAD" && is_manifest => Some(error(405, "UNSUPPORTED")),
        Fault::WantsAcceptHeaders if is_manifest && request.is_read() && accept.is_none() => Some(error(404, "MANIFEST_UNKNOWN")),
        Fault::WantsExactTypes if is_manifest && request.is_read() && accept == Some("*/*") => {
            Some(error(404, "MANIFEST_UNKNOWN"))
        }
        Fault::ReadsOnlyTheFirstType
            if is_manifest
                && accept.is_some_and(|all| all.starts_with("application/vnd.docker.distribution.manifest.list.v2+json;")) =>
        {
            Some(error(404, "MANIFEST_UNKNOWN"))
        }
        Fault::RefusesStreams if request.headers.contains_key("transfer-encoding") => Some(error(500, "SIZE_INVALID")),
        Fault::ClosesWithoutDigest
            if request.method == "PUT" && path.contains("/blobs/uploads/") && !request.query.contains_key("digest") =>
        {
            Some(Response::new(201).with("Location", path.to_owned()))
        }
        _ => None,
    }
}

/// What is done to an answer before it is sent.
pub(super) fn after(state: &State, request: &Request, response: &mut Response) {
    let date = if state.has(Fault::WarnsWithDates) { " \"Tue, 15 Nov 1994 08:12:31 GMT\"" } else { "" };
    response.headers.push(("Warning", format!("299 - \"a test\"{date}")));
    let Some(fault) = state.fault else { return };
    pulling(fault, request, response);
    pushing(fault, request, response);
    errors(fault, request, response);
}

fn pulling(fault: Fault, request: &Request, response: &mut Response) {
    let is_manifest = request.path.contains("/manifests/") && request.is_read();
    let found = response.status == 200;
    let accept = request.header("accept").unwrap_or_default();
    match fault {
        Fault::OmitsDigestHeader if is_manifest => response.without("Docker-Content-Digest"),
        Fault::OmitsBlobDigestHeader if request.path.contains("/blobs/") => response.without("Docker-Content-Digest"),
        Fault::LiesAboutDigest if is_manifest && found => response.set("Docker-Content-Digest", digest_of(b"something else")),
        Fault::ServesManifestsAsJson if is_manifest && found => response.set("Content-Type", "application/json"),
        Fault::HeadIsOctetStream if is_manifest && request.method == "HEAD" => {
            response.set("Content-Type", "application/octet-stream");
        }
        Fault::AddsParameters if is_manifest && found => {
            let (_, value) = response.headers.iter_mut().find(|(name, _)| *name == "Content-Type").unwrap();
            value.push_str("; charset=utf-8");
        }
        Fault::RetypesSchema2 if is_manifest && found && accept.starts_with("application/vnd.docker.distribution.manifest") => {
            response.set("Content-Type", MANIFEST_TYPE);
        }
        Fault::ConvertsManifests if found && accept == "application/vnd.docker.distribution.manifest.v1+json" => {
            response.body = b"{\"schemaVersion\":1}".to_vec();
        }
        Fault::JsonIsText
            if response.has("Content-Type")
                && serde_json::from_slice::<Value>(&response.body).is_ok()
                && !found_content(request) =>
        {
            response.set("Content-Type", "text/plain");
        }
        Fault::SaysVersion1 if request.path == "/v2/" => response.set("Docker-Distribution-Api-Version", "registry/1.0"),
        _ => {}
    }
}

/// Whether a request is for content, which has a type of its own.
fn found_content(request: &Request) -> bool {
    request.path.contains("/blobs/") || request.path.contains("/referrers/")
}

fn pushing(fault: Fault, request: &Request, response: &mut Response) {
    let is_manifest = request.path.contains("/manifests/");
    let made = response.status == 201;
    match fault {
        Fault::OmitsBlobLocation if made && !is_manifest && !request.query.contains_key("mount") => response.without("Location"),
        Fault::OmitsManifestLocation if made && is_manifest => response.without("Location"),
        Fault::OmitsSubjectHeader => response.without("OCI-Subject"),
        Fault::LiesAboutPushedDigest if made && is_manifest => response.set("Docker-Content-Digest", digest_of(b"other")),
        Fault::LiesAboutBlobsPushed if made && !is_manifest => response.set("Docker-Content-Digest", digest_of(b"other")),
        Fault::CountsChunksFromOne if request.method == "PATCH" && response.has("Range") => {
            response.set("Range", format!("1-{}", request.body.len()));
        }
        Fault::StatusWithoutRange if request.method == "GET" && response.status == 204 => response.without("Range"),
        Fault::ChangesUploadUuids if request.method == "PATCH" => response.set("Docker-Upload-UUID", "another"),
        Fault::DeletesWithStatus200 if request.method == "DELETE" && response.status == 202 => response.status = 200,
        _ => {}
    }
}

fn errors(fault: Fault, request: &Request, response: &mut Response) {
    let path = &request.path;
    let is_manifest = path.contains("/manifests/") && request.is_read();
    let unknown = response.status == 404;
    let was_error = response.status >= 400;
    let rewritten = |from: &str, to: &str| String::from_utf8_lossy(&response.body).replace(from, to).into_bytes();
    match fault {
        Fault::UnknownManifestIsServerError if unknown && is_manifest && path.ends_with("beef") => response.status = 500,
        Fault::UnknownRepositoryIsServerError if unknown && is_manifest && path.ends_with("/latest") => response.status = 500,
        Fault::UnknownUploadIsServerError if unknown && path.contains("/blobs/uploads/") => response.status = 500,
        Fault::LargeHeaderIsServerError if request.flaw == Some(Flaw::HeadTooLarge) => response.status = 500,
        Fault::ErrorsWithoutCodes if was_error => response.body = b"{\"error\":\"no\"}".to_vec(),
        Fault::InventsErrorCodes if was_error => {
            response.body = br#"{"errors":[{"code":"OH_NO","message":"no"}]}"#.to_vec();
        }
        Fault::MessagesAreNumbers if was_error => response.body = rewritten("\"message\":\"no\"", "\"message\":7"),
        _ => {}
    }
}
