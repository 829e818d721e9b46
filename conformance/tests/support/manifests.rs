//! What the small registry does with manifests.

use serde_json::Value;

use super::handlers::{error, is_unmodified, malformed_digest, well_formed};
use super::http::{Request, Response};
use super::{Fault, State, digest_like};

const LIMIT_BYTES: usize = 4 << 20;
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn handle(state: &mut State, request: &Request, repository: &str, reference: &str) -> Response {
    if reference.contains(':') && !well_formed(reference) {
        return malformed_digest(state);
    }
    match request.method.as_str() {
        "PUT" => put(state, request, repository, reference),
        "DELETE" => delete(state, repository, reference),
        _ => get(state, request, repository, reference),
    }
}

/// Whether a tag follows the grammar.
fn is_tag(reference: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    reference.len() <= 128
        && reference.bytes().next().is_some_and(word)
        && reference.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn get(state: &State, request: &Request, repository: &str, reference: &str) -> Response {
    let key = (repository.to_owned(), reference.to_owned());
    let digest =
        if reference.contains(':') { Some(&key.1).filter(|_| !state.hidden.contains(&key)) } else { state.tags.get(&key) };
    let found = digest.and_then(|digest| Some((state.manifests.get(&(repository.to_owned(), digest.clone()))?, digest)));
    let Some(((media_type, bytes), digest)) = found else { return error(404, "MANIFEST_UNKNOWN") };
    if is_unmodified(state, request, digest) {
        return Response::new(304);
    }
    let response = Response::new(200).with("Content-Type", media_type).with("ETag", format!("\"{digest}\""));
    Response { body: bytes.clone(), ..response }.with("Docker-Content-Digest", digest)
}

fn delete(state: &mut State, repository: &str, reference: &str) -> Response {
    let key = (repository.to_owned(), reference.to_owned());
    let there = if reference.contains(':') {
        let tagged = state.tags.iter().any(|((r, _), digest)| r == repository && digest == reference);
        if tagged && state.has(Fault::KeepsTagsOfDeletedManifests) {
            state.hidden.insert(key)
        } else {
            state.tags.retain(|(r, _), digest| r != repository || digest != reference);
            state.manifests.remove(&key).is_some()
        }
    } else {
        let digest = state.tags.remove(&key);
        if let Some(digest) = digest.clone().filter(|_| state.has(Fault::DeletesManifestsWithTags)) {
            state.manifests.remove(&(repository.to_owned(), digest));
        }
        digest.is_some()
    };
    if !state.has(Fault::ListsDeletedReferrers) {
        state.once_listed.clear();
    }
    if there || (reference.contains(':') && state.has(Fault::DeletesUnknownManifests)) {
        Response::new(202)
    } else {
        error(404, "MANIFEST_UNKNOWN")
    }
}

/// The status and code a document is refused with.
fn refused(
    state: &State,
    request: &Request,
    repository: &str,
    document: &Value,
    media_type: &str,
) -> Option<(u16, &'static str)> {
    let odd = if state.has(Fault::OddManifestIsServerError) { 500 } else { 400 };
    let digests = |member: &str| {
        let all = document[member].as_array()?.iter().map(|one| one["digest"].as_str().filter(|digest| well_formed(digest)));
        all.collect::<Option<Vec<_>>>()
    };
    let (blobs, children) = match (document["config"]["digest"].as_str(), document.get("manifests")) {
        (Some(config), None) if well_formed(config) => match digests("layers") {
            Some(layers) => ([vec![config], layers].concat(), Vec::new()),
            None => return Some((odd, "MANIFEST_INVALID")),
        },
        (None, Some(_)) if document.is_object() => match digests("manifests") {
            Some(children) => (Vec::new(), children),
            None => return Some((odd, "MANIFEST_INVALID")),
        },
        _ => return Some((odd, "MANIFEST_INVALID")),
    };
    if document["mediaType"].as_str().is_some_and(|said| said != media_type) {
        return Some((if state.has(Fault::ConflictIsServerError) { 500 } else { 400 }, "MANIFEST_INVALID"));
    }
    let there = |digest: &str| (repository.to_owned(), digest.to_owned());
    let foreign = document["layers"].to_string().contains(".nondistributable.");
    if foreign && state.has(Fault::ForeignLayersAreServerError) {
        return Some((500, "MANIFEST_INVALID"));
    }
    // What is to be had elsewhere comes after the configuration.
    let blobs = if foreign { &blobs[..1] } else { &blobs[..] };
    if blobs.iter().any(|digest| !state.blobs.contains_key(&there(digest)))
        || children.iter().any(|digest| !state.manifests.contains_key(&there(digest)))
    {
        return Some((404, "MANIFEST_BLOB_UNKNOWN"));
    }
    let is_index = document.get("manifests").is_some();
    let nested = document["manifests"].as_array().is_some_and(|all| all.iter().any(|one| one["mediaType"] == INDEX_TYPE));
    let subject = document["subject"]["digest"].as_str();
    let unwilling = (state.has(Fault::RefusesManifestsWithoutLayers) && !is_index && blobs.len() == 1)
        || (state.has(Fault::LimitsLayers) && blobs.len() > 100)
        || (state.has(Fault::RefusesEmptyIndexes) && is_index && children.is_empty())
        || (state.has(Fault::RefusesNestedIndexes) && nested)
        || (state.has(Fault::RefusesArtifacts) && document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json")
        || (state.has(Fault::RefusesParameters) && request.header("content-type").is_some_and(|t| t.contains(';')))
        || (state.has(Fault::RefusesUnknownSubjects) && subject.is_some_and(|s| !state.manifests.contains_key(&there(s))));
    unwilling.then_some((400, "MANIFEST_INVALID"))
}

fn put(state: &mut State, request: &Request, repository: &str, reference: &str) -> Response {
    let by_digest = reference.contains(':');
    if !by_digest && !is_tag(reference) && !state.has(Fault::AcceptsAnyTag) {
        return error(400, "MANIFEST_INVALID");
    }
    if request.body.len() > LIMIT_BYTES {
        return error(if state.has(Fault::HugeManifestIsServerError) { 500 } else { 413 }, "SIZE_INVALID");
    }
    if request.body.len() > 1 << 20 && state.has(Fault::RefusesLargeManifests) {
        return error(413, "SIZE_INVALID");
    }
    let document = match serde_json::from_slice::<Value>(&request.body) {
        Ok(document) => document,
        Err(e) => {
            let deep = e.to_string().contains("recursion limit") && state.has(Fault::DeepManifestIsServerError);
            let none = e.to_string().contains("key must be a string") && state.has(Fault::NoJsonIsServerError);
            return error(if deep || none { 500 } else { 400 }, "MANIFEST_INVALID");
        }
    };
    let media_type = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if let Some((status, code)) = refused(state, request, repository, &document, media_type) {
        return error(status, code);
    }
    let mut digest = digest_like(reference, &request.body);
    if by_digest && reference != digest {
        if !state.has(Fault::AcceptsManifestUnderWrongDigest) {
            return error(400, "DIGEST_INVALID");
        }
        reference.clone_into(&mut digest);
    }
    let bytes = if state.has(Fault::RewritesManifests) { serde_json::to_vec(&document).unwrap() } else { request.body.clone() };
    let forgotten = digest.starts_with("sha512:") && state.has(Fault::ForgetsSha512Manifests);
    if !forgotten {
        state.manifests.insert((repository.to_owned(), digest.clone()), (media_type.to_owned(), bytes));
    }
    if !by_digest {
        set_tag(state, repository, reference, &digest);
    }
    let location = format!("/v2/{repository}/manifests/{reference}");
    let mut response = Response::new(201).with("Location", location).with("Docker-Content-Digest", digest.clone());
    let made = if state.has(Fault::MakesOneTagOfMany) { 1 } else { request.tags.len() };
    for tag in request.tags.iter().take(made) {
        state.tags.insert((repository.to_owned(), tag.clone()), digest.clone());
    }
    if !request.tags.is_empty() {
        response = response.with("OCI-Tag", request.tags.join(", "));
    }
    match document["subject"]["digest"].as_str() {
        Some(subject) => response.with("OCI-Subject", subject),
        None => response,
    }
}

fn set_tag(state: &mut State, repository: &str, tag: &str, digest: &str) {
    let key = (repository.to_owned(), tag.to_owned());
    let old = state.tags.get(&key).cloned();
    if state.has(Fault::StaleTag) && old.is_some() {
        return;
    }
    state.once_tagged.insert(key.clone());
    state.pushed_by_tag.insert(digest.to_owned());
    state.tags.insert(key, digest.to_owned());
    if let Some(old) = old.filter(|old| old != digest && state.has(Fault::ForgetsReplacedManifests)) {
        state.manifests.remove(&(repository.to_owned(), old));
    }
}
