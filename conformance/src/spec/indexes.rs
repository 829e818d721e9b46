//! Pushing indexes: manifests that list manifests.

use reqwest::Method;

use super::context::{INDEX_TYPE, MANIFEST_TYPE, sha256};
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::outcome::{Finding, Outcome};

const INDEXES: &str = "Pushing Manifests (end-7); Definitions: Image Index";

pub(super) const TABLE: &[Requirement] = &[
    must("push-index", INDEXES, "an index goes in and is served as it was pushed", index),
    should("push-index-nested", INDEXES, "an index of an index goes in", nested),
    should("push-index-empty", INDEXES, "an index of nothing goes in", empty),
    must(
        "push-index-manifest-unknown",
        "Push",
        "an index refused for a missing manifest is MANIFEST_BLOB_UNKNOWN",
        manifest_unknown,
    ),
];

/// An index of one manifest, or of none.
pub(super) fn index_of(cx: &Context<'_>, child: Option<(&str, &str, usize)>) -> Vec<u8> {
    let descriptor = child.map_or_else(String::new, |(media_type, digest, size)| {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},"platform":{{"architecture":"amd64","os":"linux"}}}}"#
        )
    });
    let note = cx.fresh_name();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{descriptor}],"annotations":{{"note":"{note}"}}}}"#)
        .into_bytes()
}

fn get(cx: &Context<'_>, reference: &str) -> Outcome<Exchange> {
    let path = cx.path(&format!("manifests/{reference}"));
    cx.send(Request::new(Method::GET, path).header("Accept", INDEX_TYPE))
}

/// Pushes an index and fails unless it is served; its digest.
fn must_go_in(cx: &Context<'_>, index: &[u8]) -> Outcome<String> {
    let digest = sha256(index);
    cx.put_manifest_as(INDEX_TYPE, &digest, index)?.must_be(&[201])?;
    let answer = get(cx, &digest)?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == index, "the index's bytes as pushed")?;
    Ok(digest)
}

fn index(cx: &Context<'_>) -> Outcome {
    let (digest, manifest) = cx.push_fresh_manifest("")?;
    let index = index_of(cx, Some((MANIFEST_TYPE, &digest, manifest.len())));
    let tag = cx.fresh_name();
    cx.put_manifest_as(INDEX_TYPE, &tag, &index)?.must_be(&[201])?;
    let answer = get(cx, &tag)?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == index, "the index's bytes as pushed")
}

fn nested(cx: &Context<'_>) -> Outcome {
    let (digest, manifest) = cx.push_fresh_manifest("")?;
    let inner = index_of(cx, Some((MANIFEST_TYPE, &digest, manifest.len())));
    let digest = must_go_in(cx, &inner)?;
    must_go_in(cx, &index_of(cx, Some((INDEX_TYPE, &digest, inner.len())))).map(drop)
}

fn empty(cx: &Context<'_>) -> Outcome {
    must_go_in(cx, &index_of(cx, None)).map(drop)
}

fn manifest_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let index = index_of(cx, Some((MANIFEST_TYPE, UNKNOWN_DIGEST, 7)));
    let put = cx.put_manifest_as(INDEX_TYPE, &sha256(&index), &index)?;
    if put.status() == 201 {
        return Err(Finding::Differs("indexes are taken whose manifests are not there".into()));
    }
    put.must((400..500).contains(&put.status()), "status 201 or a 4xx status")?;
    let errors = put.must_be_json()?;
    let named = errors["errors"].as_array().is_some_and(|e| e.iter().any(|e| e["code"] == "MANIFEST_BLOB_UNKNOWN"));
    put.must(named, "an error with code MANIFEST_BLOB_UNKNOWN")
}
