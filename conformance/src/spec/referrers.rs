//! Referrers: manifests that name another one as their subject, and the list of them.

use reqwest::Method;
use serde_json::Value;

use super::context::{INDEX_TYPE, MANIFEST_TYPE, sha256};
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::outcome::{Finding, Outcome};

const LISTING: &str = "Listing Referrers (end-12a)";
const FILTERING: &str = "Listing Referrers (end-12b)";
const SUBJECT: &str = "Pushing Manifests with Subject";

/// Artifact types of what is pushed here.
const TYPES: [&str; 2] = ["application/vnd.example.sbom.v1", "application/vnd.example.signature.v1"];

pub(super) const TABLE: &[Requirement] = &[
    must("referrers-none", LISTING, "no referrers are an empty index: 200, of a repository nobody knows too", none),
    must("referrers-subject-header", SUBJECT, "a manifest with a subject is answered with OCI-Subject", subject_header),
    must("referrers-list", LISTING, "a referrer is listed with its type, digest, size and annotations", list),
    must("referrers-config-type", LISTING, "without artifactType a referrer is listed with its config's type", config_type),
    must("referrers-index", LISTING, "an index with a subject is listed, without artifactType when it has none", index),
    must("referrers-empty-type", LISTING, "an empty artifactType counts as none", empty_type),
    must("referrers-index-type", LISTING, "an index with a subject is listed with its artifactType", index_type),
    must("referrers-tagged", SUBJECT, "a referrer pushed under a tag is listed", tagged),
    must("referrers-elsewhere", LISTING, "a referrer in another repository is not listed", elsewhere),
    must("referrers-before-subject", SUBJECT, "a referrer that came before its subject is listed", before_subject),
    should("referrers-filter", FILTERING, "artifactType filters, and OCI-Filters-Applied says so", filter),
    must("referrers-filter-none", FILTERING, "a filter nothing fits gives an empty index", filter_none),
    should("referrers-deleted", LISTING, "a referrer that was deleted is listed no more", deleted),
    must("referrers-digest-malformed", LISTING, "the referrers of a malformed digest are 400", digest_malformed),
];

/// The list of a digest's referrers; `query` begins with a question mark or is empty.
fn referrers(cx: &Context<'_>, digest: &str, query: &str) -> Outcome<Exchange> {
    let answer = cx.ask(Method::GET, &format!("referrers/{digest}{query}"))?;
    if answer.status() == 404 {
        return Err(Finding::NotOffered("the referrers API: it is answered with 404".into()));
    }
    Ok(answer)
}

/// The descriptors of a well-formed list.
fn descriptors(answer: &Exchange) -> Outcome<Vec<Value>> {
    answer.must_be(&[200])?;
    answer.must(answer.header("Content-Type") == Some(INDEX_TYPE), format_args!("Content-Type: {INDEX_TYPE}"))?;
    let document = answer.must_be_json()?;
    let is_index = document["schemaVersion"] == 2 && document["mediaType"] == INDEX_TYPE;
    answer.must(is_index, "an index with its schemaVersion and mediaType")?;
    document["manifests"].as_array().cloned().ok_or_else(|| answer.fail("an array of manifests"))
}

/// The descriptor of `digest` among a list's; fails when there is not exactly one.
fn listed(answer: &Exchange, digest: &str) -> Outcome<Value> {
    let mut all = descriptors(answer)?;
    all.retain(|descriptor| descriptor["digest"] == digest);
    answer.must(all.len() == 1, format_args!("one descriptor of {digest}"))?;
    Ok(all.remove(0))
}

/// `,"subject":...` of any digest, for a manifest.
fn subject(digest: &str) -> String {
    format!(r#","subject":{{"mediaType":"{MANIFEST_TYPE}","digest":"{digest}","size":7}}"#)
}

/// Pushes a manifest that says `extra` of `subject_digest`; its digest and bytes, and the answer.
fn push(cx: &Context<'_>, subject_digest: &str, extra: &str) -> Outcome<(String, Vec<u8>, Exchange)> {
    let manifest = cx.fresh_manifest(&format!("{extra}{}", subject(subject_digest)))?;
    let digest = sha256(&manifest);
    let put = cx.put_manifest(&digest, &manifest)?;
    put.must_be(&[201])?;
    Ok((digest, manifest, put))
}

/// Pushes a manifest to be referred to; its digest.
fn push_subject(cx: &Context<'_>) -> Outcome<String> {
    let manifest = cx.fresh_manifest("")?;
    let digest = sha256(&manifest);
    cx.put_manifest(&digest, &manifest)?.must_be(&[201])?;
    Ok(digest)
}

fn typed(artifact_type: &str) -> String {
    format!(r#","artifactType":"{artifact_type}""#)
}

fn none(cx: &Context<'_>) -> Outcome {
    let lonely = push_subject(cx)?;
    let answer = referrers(cx, &lonely, "")?;
    answer.must(descriptors(&answer)?.is_empty(), "an empty list")?;
    let path = format!("/v2/{}/{}/referrers/{lonely}", cx.repository, cx.fresh_name());
    let elsewhere = cx.send(Request::new(Method::GET, path))?;
    elsewhere.must(descriptors(&elsewhere)?.is_empty(), "an empty list")
}

fn subject_header(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    let (_, _, put) = push(cx, &subject, "")?;
    put.must(put.must_have("OCI-Subject")? == subject, format_args!("OCI-Subject: {subject}"))
}

fn list(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    let (digest, manifest, _) = push(cx, &subject, &typed(TYPES[0]))?;
    let answer = referrers(cx, &subject, "")?;
    let found = listed(&answer, &digest)?;
    let pushed: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let expected = [
        ("mediaType", MANIFEST_TYPE.into()),
        ("size", manifest.len().into()),
        ("artifactType", TYPES[0].into()),
        ("annotations", pushed["annotations"].clone()),
    ];
    for (member, value) in expected {
        answer.must(found[member] == value, format_args!("a descriptor with {member} {value}"))?;
    }
    Ok(())
}

fn config_type(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    let (digest, manifest, _) = push(cx, &subject, "")?;
    let answer = referrers(cx, &subject, "")?;
    let pushed: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let expected = &pushed["config"]["mediaType"];
    answer.must(listed(&answer, &digest)?["artifactType"] == *expected, format_args!("a descriptor with artifactType {expected}"))
}

/// Pushes an index of nothing that says `extra` of `subject_digest`; its digest.
fn push_index(cx: &Context<'_>, subject_digest: &str, extra: &str) -> Outcome<String> {
    let bytes = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[],"annotations":{{"note":"{}"}}{extra}{}}}"#,
        cx.fresh_name(),
        subject(subject_digest)
    );
    let digest = sha256(bytes.as_bytes());
    cx.put_manifest_as(INDEX_TYPE, &digest, bytes.as_bytes())?.must_be(&[201])?;
    Ok(digest)
}

fn index(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    let digest = push_index(cx, &subject, "")?;
    let answer = referrers(cx, &subject, "")?;
    let found = listed(&answer, &digest)?;
    answer.must(found["mediaType"] == INDEX_TYPE, format_args!("a descriptor with mediaType {INDEX_TYPE}"))?;
    answer.must(found.get("artifactType").is_none(), "a descriptor without artifactType")
}

fn index_type(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    let digest = push_index(cx, &subject, &typed(TYPES[0]))?;
    let answer = referrers(cx, &subject, "")?;
    let found = listed(&answer, &digest)?;
    answer.must(found["artifactType"] == TYPES[0], format_args!("a descriptor with artifactType {}", TYPES[0]))
}

fn empty_type(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    let (digest, manifest, _) = push(cx, &subject, &typed(""))?;
    let index = push_index(cx, &subject, &typed(""))?;
    let answer = referrers(cx, &subject, "")?;
    let pushed: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    let expected = &pushed["config"]["mediaType"];
    answer.must(
        listed(&answer, &digest)?["artifactType"] == *expected,
        format_args!("a descriptor with artifactType {expected}"),
    )?;
    answer.must(listed(&answer, &index)?.get("artifactType").is_none(), "a descriptor of the index without artifactType")
}

fn tagged(cx: &Context<'_>) -> Outcome {
    let subject_digest = push_subject(cx)?;
    referrers(cx, &subject_digest, "")?;
    let manifest = cx.fresh_manifest(&subject(&subject_digest))?;
    cx.put_manifest(&cx.fresh_name(), &manifest)?.must_be(&[201])?;
    listed(&referrers(cx, &subject_digest, "")?, &sha256(&manifest)).map(drop)
}

fn elsewhere(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    push(cx, &subject, "")?;
    let path = format!("/v2/{}/referrers/{subject}", cx.other_repository);
    let answer = cx.send(Request::new(Method::GET, path))?;
    answer.must(descriptors(&answer)?.is_empty(), "an empty list")
}

fn filter_none(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    referrers(cx, &subject, "")?;
    push(cx, &subject, &typed(TYPES[1]))?;
    let answer = referrers(cx, &subject, &format!("?artifactType={}", TYPES[0]))?;
    let all = descriptors(&answer)?;
    if answer.header("OCI-Filters-Applied").is_none() {
        return Err(Finding::NotOffered("filtering: there is no OCI-Filters-Applied".into()));
    }
    answer.must(all.is_empty(), "an empty list")
}

fn before_subject(cx: &Context<'_>) -> Outcome {
    let manifest = cx.fresh_manifest("")?;
    let subject = sha256(&manifest);
    let (digest, _, _) = push(cx, &subject, "")?;
    listed(&referrers(cx, &subject, "")?, &digest)?;
    cx.put_manifest(&subject, &manifest)?.must_be(&[201])?;
    listed(&referrers(cx, &subject, "")?, &digest).map(drop)
}

fn filter(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    let (wanted, _, _) = push(cx, &subject, &typed(TYPES[0]))?;
    push(cx, &subject, &typed(TYPES[1]))?;
    let answer = referrers(cx, &subject, &format!("?artifactType={}", TYPES[0]))?;
    let all = descriptors(&answer)?;
    match answer.header("OCI-Filters-Applied") {
        None if all.len() == 2 => Err(Finding::NotOffered("filtering: all referrers are listed".into())),
        None => Err(answer.fail("header OCI-Filters-Applied")),
        Some(applied) => {
            answer.must(applied.split(',').any(|name| name.trim() == "artifactType"), "OCI-Filters-Applied: artifactType")?;
            listed(&answer, &wanted)?;
            answer.must(all.len() == 1, "no referrer of another type")
        }
    }
}

fn deleted(cx: &Context<'_>) -> Outcome {
    let subject = push_subject(cx)?;
    let (digest, _, _) = push(cx, &subject, "")?;
    listed(&referrers(cx, &subject, "")?, &digest)?;
    let answer = cx.ask(Method::DELETE, &format!("manifests/{digest}"))?;
    if answer.status() != 202 {
        return Err(Finding::NotOffered(format!("deleting manifests: it is answered with {}", answer.status())));
    }
    let after = referrers(cx, &subject, "")?;
    after.must(descriptors(&after)?.is_empty(), "an empty list")
}

fn digest_malformed(cx: &Context<'_>) -> Outcome {
    referrers(cx, &push_subject(cx)?, "")?;
    cx.ask(Method::GET, "referrers/sha256:abc")?.must_be(&[400])
}
