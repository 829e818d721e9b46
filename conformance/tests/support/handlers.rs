//! What the small registry answers.

use super::{Fault, Request, Response, State, digest_like, digest_of, referrers};

/// One request, one response.
pub(super) fn handle(state: &mut State, request: &Request) -> Response {
    let Some(path) = request.path.strip_prefix("/v2/") else { return error(404, "NAME_UNKNOWN") };
    if path.is_empty() {
        return Response::new(200);
    }
    let Some((rest, last)) = path.rsplit_once('/') else { return error(404, "NAME_UNKNOWN") };
    let response = if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
        upload(state, request, repository, last)
    } else if let Some(repository) = rest.strip_suffix("/blobs") {
        blob(state, request, repository, last)
    } else if let Some(repository) = rest.strip_suffix("/manifests") {
        manifest(state, request, repository, last)
    } else if let Some(repository) = rest.strip_suffix("/referrers") {
        referrers::list(state, request, repository, last)
    } else if let Some(repository) = rest.strip_suffix("/tags") {
        tags(state, request, repository)
    } else {
        error(404, "NAME_UNKNOWN")
    };
    if state.has(Fault::InventsErrorCodes) && response.status >= 400 { error(response.status, "OH_NO") } else { response }
}

pub(super) fn error(status: u16, code: &str) -> Response {
    let mut response = Response::new(status).with("Content-Type", "application/json");
    response.body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#).into_bytes();
    response
}

pub(super) fn well_formed(digest: &str) -> bool {
    let hex = |prefix, length| {
        digest.strip_prefix(prefix).is_some_and(|hex: &str| hex.len() == length && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    hex("sha256:", 64) || hex("sha512:", 128)
}

/// Whether the client has what is there, by its entity tag.
fn is_unmodified(state: &State, request: &Request, digest: &str) -> bool {
    let tags = request.headers.get("if-none-match").filter(|_| !state.has(Fault::AnswersUnmodifiedWithAll));
    tags.is_some_and(|tags| tags.contains(&format!("\"{digest}\"")))
}

fn upload(state: &mut State, request: &Request, repository: &str, id: &str) -> Response {
    let digest = request.query.get("digest");
    if request.method == "POST" {
        if let Some(digest) = digest {
            return store_blob(state, repository, digest, request.body.clone());
        }
        if let Some(mount) = request.query.get("mount")
            && let from = request.query.get("from")
            && let Some(bytes) =
                state.blobs.iter().find(|((r, d), _)| from.is_none_or(|from| from == r) && d == mount).map(|(_, b)| b.clone())
        {
            if !state.has(Fault::MountsNothing) {
                state.blobs.insert((repository.to_owned(), mount.clone()), bytes);
            }
            return Response::new(201).with("Location", format!("/v2/{repository}/blobs/{mount}"));
        }
        state.upload_count += 1;
        let id = format!("session-{}", state.upload_count);
        state.uploads.insert(id.clone(), Vec::new());
        return progress(202, repository, &id, 0);
    }
    let accepts_any_order = state.has(Fault::AcceptsDisorderedChunks);
    let Some(bytes) = state.uploads.get_mut(id) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
    let start = request.headers.get("content-range").and_then(|r| r.split('-').next()?.parse::<usize>().ok());
    if start.is_some_and(|start| start != bytes.len()) && !accepts_any_order {
        return error(416, "BLOB_UPLOAD_INVALID");
    }
    bytes.extend_from_slice(&request.body);
    let length = bytes.len();
    match (request.method.as_str(), digest) {
        ("GET", _) => progress(204, repository, id, length),
        ("PATCH", _) => progress(202, repository, id, length),
        ("PUT", Some(digest)) => {
            let bytes = state.uploads.remove(id).unwrap_or_default();
            store_blob(state, repository, digest, bytes)
        }
        ("DELETE", _) => {
            if !state.has(Fault::KeepsCancelledUploads) {
                state.uploads.remove(id);
            }
            Response::new(204)
        }
        _ => error(405, "UNSUPPORTED"),
    }
}

fn progress(status: u16, repository: &str, id: &str, length: usize) -> Response {
    let response = Response::new(status).with("Location", format!("/v2/{repository}/blobs/uploads/{id}"));
    if length == 0 { response } else { response.with("Range", format!("0-{}", length - 1)) }
}

fn store_blob(state: &mut State, repository: &str, digest: &str, bytes: Vec<u8>) -> Response {
    if !well_formed(digest) || (digest_like(digest, &bytes) != digest && !state.has(Fault::AcceptsWrongDigest)) {
        return error(400, "DIGEST_INVALID");
    }
    state.blobs.insert((repository.to_owned(), digest.to_owned()), bytes);
    let response = Response::new(201);
    if state.has(Fault::OmitsBlobLocation) {
        response
    } else {
        response.with("Location", format!("/v2/{repository}/blobs/{digest}"))
    }
}

fn malformed_digest(state: &State) -> Response {
    if state.has(Fault::MalformedDigestIsServerError) { error(500, "DIGEST_INVALID") } else { error(400, "DIGEST_INVALID") }
}

fn blob(state: &mut State, request: &Request, repository: &str, digest: &str) -> Response {
    if !well_formed(digest) {
        return malformed_digest(state);
    }
    let key = (repository.to_owned(), digest.to_owned());
    if request.method == "DELETE" {
        return if state.blobs.remove(&key).is_some() { Response::new(202) } else { error(404, "BLOB_UNKNOWN") };
    }
    let mut bytes = match state.blobs.get(&key) {
        Some(bytes) => bytes.clone(),
        None if state.has(Fault::UnknownBlobIsEmpty) => Vec::new(),
        None => return error(404, "BLOB_UNKNOWN"),
    };
    if is_unmodified(state, request, digest) {
        return Response::new(304);
    }
    if state.has(Fault::CorruptsBlobs) && request.method == "GET" {
        bytes[0] ^= 1;
    }
    let response = Response::new(200)
        .with("Docker-Content-Digest", digest)
        .with("ETag", format!("\"{digest}\""))
        .with("Content-Type", "application/octet-stream");
    match request.headers.get("range").and_then(|r| r.strip_prefix("bytes=")) {
        Some(range) => part(state, response, &bytes, range),
        None => Response { body: bytes, ..response },
    }
}

fn part(state: &State, mut response: Response, bytes: &[u8], range: &str) -> Response {
    let (first, last) = range.split_once('-').unwrap_or_default();
    let (first, last): (Option<usize>, Option<usize>) = (first.parse().ok(), last.parse().ok());
    let (start, end) = match (first, last) {
        (Some(first), last) => (first, last.map_or(bytes.len(), |last| bytes.len().min(last + 1))),
        (None, last) => (bytes.len() - last.unwrap_or(0), bytes.len()),
    };
    if start >= end {
        response.broken = state.has(Fault::BreaksConnectionOnUnsatisfiableRange);
        return Response { status: 416, body: b"no such range".to_vec(), ..response };
    }
    let response = response.with("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len()));
    let shift = usize::from(state.has(Fault::OffByOneRange));
    Response { status: 206, body: bytes[start - shift..end - shift].to_vec(), ..response }
}

fn manifest(state: &mut State, request: &Request, repository: &str, reference: &str) -> Response {
    if reference.contains(':') && !well_formed(reference) {
        return malformed_digest(state);
    }
    let key = (repository.to_owned(), reference.to_owned());
    let digest = if reference.contains(':') { Some(reference.to_owned()) } else { state.tags.get(&key).cloned() };
    match request.method.as_str() {
        "PUT" => put_manifest(state, request, repository, reference, digest),
        "DELETE" => {
            let there =
                if reference.contains(':') { state.manifests.remove(&key).is_some() } else { state.tags.remove(&key).is_some() };
            state.tags.retain(|(r, _), digest| r != repository || digest != reference);
            if !state.has(Fault::ListsDeletedReferrers) {
                state.once_listed.clear();
            }
            if there { Response::new(202) } else { error(404, "MANIFEST_UNKNOWN") }
        }
        _ => {
            let found = digest.and_then(|digest| Some((state.manifests.get(&(repository.to_owned(), digest.clone()))?, digest)));
            let Some(((media_type, bytes), digest)) = found else { return error(404, "MANIFEST_UNKNOWN") };
            if is_unmodified(state, request, &digest) {
                return Response::new(304);
            }
            let response = Response::new(200).with("Content-Type", media_type).with("ETag", format!("\"{digest}\""));
            let response = Response { body: bytes.clone(), ..response };
            if state.has(Fault::OmitsDigestHeader) {
                response
            } else if state.has(Fault::LiesAboutDigest) {
                response.with("Docker-Content-Digest", digest_of(b"something else"))
            } else {
                response.with("Docker-Content-Digest", digest)
            }
        }
    }
}

/// `old` is what the reference stands for now.
fn put_manifest(state: &mut State, request: &Request, repository: &str, reference: &str, old: Option<String>) -> Response {
    if reference.len() > 128 {
        return error(400, "MANIFEST_INVALID");
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(&request.body) else { return error(400, "MANIFEST_INVALID") };
    let config = document["config"]["digest"].as_str().unwrap_or_default();
    if document.get("manifests").is_none() && !state.blobs.contains_key(&(repository.to_owned(), config.to_owned())) {
        return error(404, "MANIFEST_BLOB_UNKNOWN");
    }
    let mut digest = digest_of(&request.body);
    if reference.contains(':') && reference != digest {
        if !state.has(Fault::AcceptsManifestUnderWrongDigest) {
            return error(400, "DIGEST_INVALID");
        }
        reference.clone_into(&mut digest);
    }
    let bytes = if state.has(Fault::RewritesManifests) { serde_json::to_vec(&document).unwrap() } else { request.body.clone() };
    let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
    state.manifests.insert((repository.to_owned(), digest.clone()), (media_type, bytes));
    let stays = reference.contains(':') || (state.has(Fault::StaleTag) && old.is_some());
    if !stays {
        state.tags.insert((repository.to_owned(), reference.to_owned()), digest.clone());
        if let Some(old) = old.filter(|old| *old != digest && state.has(Fault::ForgetsReplacedManifests)) {
            state.manifests.remove(&(repository.to_owned(), old));
        }
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
    match document["subject"]["digest"].as_str().filter(|_| !state.has(Fault::OmitsSubjectHeader)) {
        Some(subject) => response.with("OCI-Subject", subject),
        None => response,
    }
}

fn tags(state: &State, request: &Request, repository: &str) -> Response {
    let mut tags: Vec<_> = state.tags.keys().filter(|(r, _)| r == repository).map(|(_, tag)| tag.as_str()).collect();
    if tags.is_empty() {
        return error(404, "NAME_UNKNOWN");
    }
    if let Some(last) = request.query.get("last") {
        let inclusive = state.has(Fault::RepeatsTagsAcrossPages);
        tags.retain(|tag| *tag > last.as_str() || (inclusive && tag == last));
    }
    let n = request.query.get("n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
    let mut response = Response::new(200).with("Content-Type", "application/json");
    if n < tags.len() && !state.has(Fault::IgnoresTagLimit) {
        tags.truncate(n);
        if let Some(last) = tags.last() {
            response = response.with("Link", format!("</v2/{repository}/tags/list?n={n}&last={last}>; rel=\"next\""));
        }
    }
    if state.has(Fault::EndlessTagPages) && n < usize::MAX {
        response = Response::new(200).with("Link", format!("</v2/{repository}/tags/list?n={n}>; rel=\"next\""));
    }
    if state.has(Fault::UnsortedTags) {
        tags.reverse();
    }
    response.body = serde_json::json!({"name": repository, "tags": tags}).to_string().into_bytes();
    response
}
