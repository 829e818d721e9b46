//! The list of referrers.

use serde_json::{Value, json};

use super::handlers::{error, well_formed};
use super::http::{Request, Response};
use super::{Fault, State};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn list(state: &mut State, request: &Request, repository: &str, subject: &str) -> Response {
    if !well_formed(subject) {
        return error(if state.has(Fault::MalformedSubjectIsNotFound) { 404 } else { 400 }, "DIGEST_INVALID");
    }
    let key = (repository.to_owned(), subject.to_owned());
    let subject_is_there = state.manifests.contains_key(&key);
    let mut found: Vec<Value> = Vec::new();
    for ((r, digest), (media_type, bytes)) in &state.manifests {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let here = r == repository || state.has(Fault::ListsReferrersOfOthers);
        let seen = !(state.has(Fault::ForgetsTaggedReferrers) && state.pushed_by_tag.contains(digest));
        if here && seen && document["subject"]["digest"] == subject {
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
    let is_index = document.get("manifests").is_some();
    let config_type = &document["config"]["mediaType"];
    let said = document.get("artifactType").filter(|said| **said != "" || state.has(Fault::KeepsEmptyTypes));
    let said = said.filter(|_| !(is_index && state.has(Fault::ForgetsIndexTypes)));
    let fallback = if state.has(Fault::ForgetsArtifactTypes) { &Value::Null } else { config_type };
    let invented = json!(INDEX_TYPE);
    let fallback = if is_index && state.has(Fault::InventsIndexTypes) { &invented } else { fallback };
    let artifact_type = said.unwrap_or(fallback);
    if !artifact_type.is_null() {
        descriptor["artifactType"] = artifact_type.clone();
    }
    descriptor["annotations"] = document["annotations"].clone();
    descriptor
}
