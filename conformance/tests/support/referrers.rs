//! The list of referrers.

use serde_json::{Value, json};

use super::handlers::{error, well_formed};
use super::{Fault, Request, Response, State};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn list(state: &mut State, request: &Request, repository: &str, subject: &str) -> Response {
    if !well_formed(subject) {
        return error(400, "DIGEST_INVALID");
    }
    let key = (repository.to_owned(), subject.to_owned());
    let subject_is_there = state.manifests.contains_key(&key);
    let mut found: Vec<Value> = Vec::new();
    for ((r, digest), (media_type, bytes)) in &state.manifests {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if r == repository && document["subject"]["digest"] == subject {
            found.push(descriptor(state, digest, media_type, bytes.len(), &document));
        }
    }
    if state.has(Fault::ForgetsEarlyReferrers) && !subject_is_there {
        found.clear();
    }
    if state.has(Fault::ListsDeletedReferrers) {
        let before = state.once_listed.entry(key).or_default();
        found.retain(|new| !before.contains(new));
        before.append(&mut found);
        found.clone_from(before);
    }
    let mut response = Response::new(200);
    if let Some(wanted) = request.query.get("artifactType") {
        if !state.has(Fault::FiltersNothing) {
            found.retain(|descriptor| descriptor["artifactType"] == *wanted);
        }
        response = response.with("OCI-Filters-Applied", "artifactType");
    }
    response.body = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": found}).to_string().into_bytes();
    response.with("Content-Type", if state.has(Fault::ListsReferrersAsJson) { "application/json" } else { INDEX_TYPE })
}

fn descriptor(state: &State, digest: &str, media_type: &str, size: usize, document: &Value) -> Value {
    let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
    let config_type = &document["config"]["mediaType"];
    let fallback = if state.has(Fault::ForgetsArtifactTypes) { &Value::Null } else { config_type };
    let artifact_type = document.get("artifactType").unwrap_or(fallback);
    if !artifact_type.is_null() {
        descriptor["artifactType"] = artifact_type.clone();
    }
    descriptor["annotations"] = document["annotations"].clone();
    descriptor
}
