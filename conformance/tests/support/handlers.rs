//! What the small registry answers: repositories, blobs, uploads, tags and the catalog.

use std::collections::BTreeSet;

use super::http::{Request, Response};
use super::{Fault, State, access, digest_like, manifests, referrers};

/// The longest repository name.
const NAME_LIMIT_BYTES: usize = 255;

/// One request, one response.
pub(super) fn handle(state: &mut State, request: &Request) -> Response {
    let Some(path) = request.path.strip_prefix("/v2/") else { return error(404, "NAME_UNKNOWN") };
    if path.is_empty() && !request.is_read() {
        return error(405, "UNSUPPORTED");
    }
    if path.is_empty() {
        return Response::new(200).with("Docker-Distribution-Api-Version", "registry/2.0");
    }
    if path == "_catalog" {
        return catalog(state, request);
    }
    let Some((rest, last)) = path.rsplit_once('/') else { return error(404, "NAME_UNKNOWN") };
    let (repository, kind) = match rest.rsplit_once('/') {
        Some((repository, "uploads")) if repository.ends_with("/blobs") => (&repository[..repository.len() - 6], "uploads"),
        Some((repository, kind)) => (repository, kind),
        None => return error(404, "NAME_UNKNOWN"),
    };
    if !well_named(repository) && !state.has(Fault::AcceptsAnyName) {
        return error(400, "NAME_INVALID");
    }
    match (kind, request.method.as_str()) {
        ("uploads", "POST" | "PATCH" | "PUT" | "GET" | "DELETE") => upload(state, request, repository, last),
        ("blobs", "GET" | "HEAD" | "DELETE") => blob(state, request, repository, last),
        ("manifests", "GET" | "HEAD" | "PUT" | "DELETE") => manifests::handle(state, request, repository, last),
        ("referrers", "GET") => referrers::list(state, request, repository, last),
        ("tags", "GET") => tags(state, request, repository),
        ("uploads" | "blobs" | "manifests" | "referrers" | "tags", _) => error(405, "UNSUPPORTED"),
        _ => error(404, "NAME_UNKNOWN"),
    }
}

pub(super) fn error(status: u16, code: &str) -> Response {
    let mut response = Response::new(status).with("Content-Type", "application/json");
    response.body = format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#).into_bytes();
    response
}

pub(super) fn well_formed(digest: &str) -> bool {
    let hex = |prefix, length| {
        let is_lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        digest.strip_prefix(prefix).is_some_and(|hex: &str| hex.len() == length && hex.bytes().all(is_lower_hex))
    };
    hex("sha256:", 64) || hex("sha512:", 128)
}

/// Whether a name follows the grammar of repositories, and is not too long.
fn well_named(name: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
        let allowed = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
        ends(part.chars().next()) && ends(part.chars().last()) && separators.into_iter().all(allowed)
    };
    name.len() <= NAME_LIMIT_BYTES && name.split('/').all(part)
}

/// Whether the client has what is there, by its entity tag.
pub(super) fn is_unmodified(state: &State, request: &Request, digest: &str) -> bool {
    let tags = request.header("if-none-match").filter(|_| !state.has(Fault::AnswersUnmodifiedWithAll));
    tags.is_some_and(|tags| tags.contains(&format!("\"{digest}\"")))
}

fn upload(state: &mut State, request: &Request, repository: &str, id: &str) -> Response {
    if request.method == "POST" {
        return begin(state, request, repository);
    }
    let shared = state.has(Fault::SharesUploads);
    let (any_order, ignores_odd) = (state.has(Fault::AcceptsDisorderedChunks), state.has(Fault::IgnoresOddContentRanges));
    let small = state.has(Fault::RefusesSmallChunks) && request.method == "PATCH" && request.body.len() < 100;
    let known = state.uploads.get_mut(id).filter(|(owner, _)| owner == repository || shared);
    let Some((_, bytes)) = known else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
    if let Some(range) = request.header("content-range") {
        let fits = match first_of(range, request.body.len()) {
            Some(first) => first == bytes.len() || any_order,
            None => ignores_odd,
        };
        if !fits {
            if state.has(Fault::ForgetsUploadsAfterDisorder) {
                state.uploads.remove(id);
            }
            return error(416, "BLOB_UPLOAD_INVALID");
        }
    }
    if small {
        return error(416, "SIZE_INVALID");
    }
    bytes.extend_from_slice(&request.body);
    let length = bytes.len();
    match (request.method.as_str(), request.query.get("digest")) {
        ("GET", _) => progress(204, repository, id, length),
        ("PATCH", _) => progress(202, repository, id, length),
        ("PUT", Some(digest)) => {
            let (_, bytes) = state.uploads.remove(id).unwrap_or_default();
            store_blob(state, repository, digest, bytes)
        }
        ("DELETE", _) => {
            if !state.has(Fault::KeepsCancelledUploads) {
                state.uploads.remove(id);
            }
            Response::new(204)
        }
        _ => error(400, "DIGEST_INVALID"),
    }
}

fn begin(state: &mut State, request: &Request, repository: &str) -> Response {
    if let Some(digest) = request.query.get("digest") {
        return store_blob(state, repository, digest, request.body.clone());
    }
    if let Some(mount) = request.query.get("mount") {
        let from = request.query.get("from");
        let readable = |source: &str| access::may_mount(state, request, source);
        let mut sources = state.blobs.iter().filter(|((r, d), _)| from.is_none_or(|from| from == r) && d == mount);
        if let Some(bytes) = sources.find(|((r, _), _)| readable(r)).map(|(_, bytes)| bytes.clone()) {
            let in_vain = state.has(Fault::MountsNothingBySha512) && mount.starts_with("sha512:");
            if !state.has(Fault::MountsNothing) && !in_vain {
                state.blobs.insert((repository.to_owned(), mount.clone()), bytes);
            }
            return Response::new(201).with("Location", format!("/v2/{repository}/blobs/{mount}"));
        }
        if state.has(Fault::RefusesUnknownMounts) {
            return error(404, "BLOB_UNKNOWN");
        }
    }
    if !(state.has(Fault::ReusesUploads) && state.upload_count > 0) {
        state.upload_count += 1;
    }
    let id = format!("{:08x}-0000-4000-8000-000000000000", state.upload_count);
    state.uploads.insert(id.clone(), (repository.to_owned(), Vec::new()));
    progress(202, repository, &id, 0)
}

/// Where a chunk begins; `None` when its range makes no sense.
fn first_of(range: &str, length: usize) -> Option<usize> {
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten();
    let (first, last) = (number(first)?, number(last)?);
    (last.checked_sub(first)?.checked_add(1)? == length).then_some(first)
}

fn progress(status: u16, repository: &str, id: &str, length: usize) -> Response {
    let response = Response::new(status).with("Location", format!("/v2/{repository}/blobs/uploads/{id}"));
    let response = response.with("Docker-Upload-UUID", id);
    if length == 0 { response } else { response.with("Range", format!("0-{}", length - 1)) }
}

fn store_blob(state: &mut State, repository: &str, digest: &str, bytes: Vec<u8>) -> Response {
    if !well_formed(digest) && state.has(Fault::MalformedPushDigestIsServerError) {
        return error(500, "DIGEST_INVALID");
    }
    if !well_formed(digest) || (digest_like(digest, &bytes) != digest && !state.has(Fault::AcceptsWrongDigest)) {
        return error(400, "DIGEST_INVALID");
    }
    let key = (repository.to_owned(), digest.to_owned());
    if (bytes.is_empty() && state.has(Fault::RefusesEmptyBlobs))
        || (state.blobs.contains_key(&key) && state.has(Fault::RefusesKnownBlobs))
    {
        return error(400, "SIZE_INVALID");
    }
    state.blobs.insert(key, bytes);
    let location = format!("/v2/{repository}/blobs/{digest}");
    Response::new(201).with("Location", location).with("Docker-Content-Digest", digest)
}

pub(super) fn malformed_digest(state: &State) -> Response {
    if state.has(Fault::MalformedDigestIsServerError) { error(500, "DIGEST_INVALID") } else { error(400, "DIGEST_INVALID") }
}

fn blob(state: &mut State, request: &Request, repository: &str, digest: &str) -> Response {
    if !well_formed(digest) {
        return malformed_digest(state);
    }
    let key = (repository.to_owned(), digest.to_owned());
    if request.method == "DELETE" {
        let there = state.blobs.remove(&key).is_some();
        if state.has(Fault::DeletesBlobsEverywhere) {
            state.blobs.retain(|(_, other), _| other != digest);
        }
        return if there || state.has(Fault::DeletesUnknownBlobs) { Response::new(202) } else { error(404, "BLOB_UNKNOWN") };
    }
    let mut bytes = match state.blobs.get(&key) {
        Some(bytes) => bytes.clone(),
        None if state.has(Fault::UnknownBlobIsEmpty) => Vec::new(),
        None => return error(404, "BLOB_UNKNOWN"),
    };
    if is_unmodified(state, request, digest) {
        return Response::new(304);
    }
    if state.has(Fault::CorruptsBlobs) && request.method == "GET" && !bytes.is_empty() {
        bytes[0] ^= 1;
    }
    let response = Response::new(200)
        .with("Docker-Content-Digest", digest)
        .with("ETag", format!("\"{digest}\""))
        .with("Content-Type", "application/octet-stream");
    match request.header("range") {
        Some(range) => part(state, response, bytes, range),
        None => Response { body: bytes, ..response },
    }
}

/// One range; anything else is answered with everything.
fn part(state: &State, mut response: Response, bytes: Vec<u8>, range: &str) -> Response {
    if state.has(Fault::MultipliesRanges) && range.contains(',') {
        return Response { status: 206, body: bytes.repeat(range.matches(',').count()), ..response };
    }
    let number = |text: &str| (!text.is_empty()).then(|| text.parse::<usize>().ok());
    let span = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let (start, end) = match span.map(|(first, last)| (number(first), number(last))) {
        Some((Some(Some(first)), None)) => (first, bytes.len()),
        Some((Some(Some(first)), Some(Some(last)))) if first <= last => {
            if last >= bytes.len() && state.has(Fault::RefusesRangesBeyondTheEnd) {
                return Response { status: 416, ..response };
            }
            (first, bytes.len().min(last.saturating_add(1)))
        }
        Some((None, Some(Some(last)))) => (bytes.len().saturating_sub(last), bytes.len()),
        _ if state.has(Fault::OddRangeIsServerError) => return error(500, "UNSUPPORTED"),
        _ => return Response { body: bytes, ..response },
    };
    if start >= end {
        response.broken = state.has(Fault::BreaksConnectionOnUnsatisfiableRange);
        return Response { status: 416, body: b"no such range".to_vec(), ..response };
    }
    let response = response.with("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len()));
    let shift = usize::from(state.has(Fault::OffByOneRange) && start > 0);
    Response { status: 206, body: bytes[start - shift..end - shift].to_vec(), ..response }
}

fn tags(state: &State, request: &Request, repository: &str) -> Response {
    let listed = if state.has(Fault::ListsDeletedTags) {
        state.once_tagged.iter().collect()
    } else {
        state.tags.keys().collect::<Vec<_>>()
    };
    let mut tags: Vec<_> = listed.into_iter().filter(|(r, _)| r == repository).map(|(_, tag)| tag.as_str()).collect();
    if tags.is_empty() && !state.has(Fault::UnknownRepositoryHasNoTags) {
        return error(404, "NAME_UNKNOWN");
    }
    if let Some(last) = request.query.get("last") {
        let inclusive = state.has(Fault::RepeatsTagsAcrossPages);
        if state.has(Fault::ForgetsThePlaceOfDeletedTags) && !tags.contains(&last.as_str()) {
            tags.clear();
        }
        tags.retain(|tag| *tag > last.as_str() || (inclusive && tag == last));
    }
    let n = request.query.get("n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
    let mut response = Response::new(200).with("Content-Type", "application/json");
    if n < tags.len() && !state.has(Fault::IgnoresTagLimit) {
        tags.truncate(n);
        if let Some(last) = tags.last() {
            response = response.with("Link", format!("</v2/{repository}/tags/list?n={n}&last={last}>; rel=\"next\""));
        }
    } else if n < usize::MAX && !request.query.contains_key("last") && state.has(Fault::DropsTheLastOfAllTags) {
        tags.pop();
    }
    if state.has(Fault::EndlessTagPages) && n < usize::MAX {
        response = Response::new(200).with("Link", format!("</v2/{repository}/tags/list?n={n}>; rel=\"next\""));
    }
    if state.has(Fault::UnsortedTags) {
        tags.reverse();
    }
    if state.has(Fault::CapsTagList) {
        tags.truncate(100);
    }
    let document = serde_json::json!({"name": repository, "tags": tags});
    let nameless = serde_json::json!({"tags": tags});
    let document = if state.has(Fault::ListsTagsWithoutName) { nameless } else { document };
    response.body = document.to_string().into_bytes();
    response
}

fn catalog(state: &State, request: &Request) -> Response {
    let used = state.blobs.keys().chain(state.manifests.keys()).map(|(repository, _)| repository.as_str());
    let mut names: Vec<_> = used.collect::<BTreeSet<_>>().into_iter().collect();
    if state.has(Fault::HidesFromCatalog) {
        names.clear();
    }
    if let Some(last) = request.query.get("last").filter(|_| !state.has(Fault::RepeatsCatalogPages)) {
        names.retain(|name| *name > last.as_str());
    }
    let mut response = Response::new(200).with("Content-Type", "application/json");
    if let Some(n) = request.query.get("n").and_then(|n| n.parse::<usize>().ok()).filter(|n| *n < names.len()) {
        names.truncate(n);
        let last = names.last().copied().unwrap_or_default();
        response = response.with("Link", format!("</v2/_catalog?n={n}&last={last}>; rel=\"next\""));
    }
    response.body = serde_json::json!({"repositories": names}).to_string().into_bytes();
    response
}
