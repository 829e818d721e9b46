//! Content management: deleting tags, manifests and blobs.

use std::time::Instant;

use reqwest::Method;

use super::context::sha256;
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::limits::{DELETION_PATIENCE, DELETION_POLL};
use crate::outcome::{Finding, Outcome};

const TAGS: &str = "Deleting tags (end-9)";
const MANIFESTS: &str = "Deleting Manifests (end-9)";
const BLOBS: &str = "Deleting Blobs (end-10)";

pub(super) const TABLE: &[Requirement] = &[
    must("manage-tag", TAGS, "a tag is deleted: 202, and then it is 404", tag),
    should("manage-tag-listed", TAGS, "a tag that was deleted is listed no more", tag_listed),
    should("manage-tag-alone", TAGS, "the manifest of a deleted tag stays, and its other tags", tag_alone),
    must("manage-manifest", MANIFESTS, "a manifest is deleted: 202, and then it is 404", manifest),
    must("manage-manifest-tags", MANIFESTS, "the tags of a deleted manifest are 404", manifest_tags),
    should("manage-manifest-unknown", "Endpoints (end-9)", "deleting a manifest nobody pushed is 404", manifest_unknown),
    must("manage-repository-unknown", MANIFESTS, "deleting in a repository nobody knows is 404", repository_unknown),
    must("manage-blob", BLOBS, "a blob is deleted: 202, and then it is 404", blob),
    must("manage-blob-unknown", BLOBS, "deleting a blob nobody pushed is 404", blob_unknown),
    should(
        "manage-blob-elsewhere",
        "Definitions: Repository",
        "a blob deleted in one repository stays in another",
        blob_elsewhere,
    ),
];

/// Deletes; the answer is 202 or 404. Not offered where the registry says so as it has to (400 or 405), or
/// does not let this user.
fn delete(cx: &Context<'_>, what: &str, path: String) -> Outcome<Exchange> {
    let answer = cx.send(Request::new(Method::DELETE, path))?;
    match answer.status() {
        202 | 404 => Ok(answer),
        status @ (400 | 401 | 403 | 405) => Err(Finding::NotOffered(format!("deleting {what}: it is answered with {status}"))),
        _ => Err(answer.fail("status 202, or 400 or 405 where deleting is disabled")),
    }
}

/// Fails unless `path` is 404 soon.
fn must_go(cx: &Context<'_>, path: &str) -> Outcome {
    let deadline = Instant::now() + DELETION_PATIENCE;
    loop {
        let answer = cx.ask(Method::GET, path)?;
        if answer.status() == 404 || Instant::now() > deadline {
            return answer.must_be(&[404]);
        }
        std::thread::sleep(DELETION_POLL);
    }
}

/// A manifest with two tags: the manifest and the tags.
fn twice_tagged(cx: &Context<'_>) -> Outcome<(Vec<u8>, [String; 2])> {
    let (manifest, tags) = (cx.fresh_manifest("")?, [cx.fresh_name(), cx.fresh_name()]);
    for tag in &tags {
        cx.put_manifest(tag, &manifest)?.must_be(&[201])?;
        // Read once, so that a cache has something to be wrong with.
        cx.ask(Method::GET, &format!("manifests/{tag}"))?.must_be(&[200])?;
    }
    Ok((manifest, tags))
}

/// Deletes the first of two tags of a manifest; the manifest and the tags.
fn tag_deleted(cx: &Context<'_>) -> Outcome<(Vec<u8>, [String; 2])> {
    let (manifest, tags) = twice_tagged(cx)?;
    delete(cx, "tags", cx.path(&format!("manifests/{}", tags[0])))?.must_be(&[202])?;
    must_go(cx, &format!("manifests/{}", tags[0]))?;
    Ok((manifest, tags))
}

fn tag(cx: &Context<'_>) -> Outcome {
    tag_deleted(cx).map(drop)
}

fn tag_listed(cx: &Context<'_>) -> Outcome {
    let (_, [gone, stays]) = tag_deleted(cx)?;
    let answer = cx.ask(Method::GET, "tags/list")?;
    let tags = super::tags::tags_of(&answer)?;
    answer.must(!tags.contains(&gone) && tags.contains(&stays), format_args!("a list with {stays} and without {gone}"))
}

fn tag_alone(cx: &Context<'_>) -> Outcome {
    let (manifest, [_, other]) = tag_deleted(cx)?;
    for reference in [sha256(&manifest), other] {
        let answer = cx.ask(Method::GET, &format!("manifests/{reference}"))?;
        answer.must_be(&[200])?;
        answer.must(answer.body() == manifest, "the manifest of the deleted tag")?;
    }
    Ok(())
}

fn manifest(cx: &Context<'_>) -> Outcome {
    let (digest, _) = cx.push_fresh_manifest("")?;
    let path = format!("manifests/{digest}");
    cx.ask(Method::GET, &path)?.must_be(&[200])?;
    delete(cx, "manifests", cx.path(&path))?.must_be(&[202])?;
    must_go(cx, &path)
}

fn manifest_tags(cx: &Context<'_>) -> Outcome {
    let (manifest, tags) = twice_tagged(cx)?;
    delete(cx, "manifests", cx.path(&format!("manifests/{}", sha256(&manifest))))?.must_be(&[202])?;
    tags.iter().try_for_each(|tag| must_go(cx, &format!("manifests/{tag}")))
}

fn manifest_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    delete(cx, "manifests", cx.path(&format!("manifests/{UNKNOWN_DIGEST}")))?.must_be(&[404])
}

fn repository_unknown(cx: &Context<'_>) -> Outcome {
    let path = format!("/v2/{}/{}/manifests/{UNKNOWN_DIGEST}", cx.repository, cx.fresh_name());
    delete(cx, "manifests", path)?.must_be(&[404])
}

fn blob(cx: &Context<'_>) -> Outcome {
    let digest = cx.push_blob(&cx.fresh_bytes())?;
    let path = format!("blobs/{digest}");
    cx.ask(Method::GET, &path)?.must_be(&[200])?;
    delete(cx, "blobs", cx.path(&path))?.must_be(&[202])?;
    must_go(cx, &path)
}

fn blob_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    delete(cx, "blobs", cx.path(&format!("blobs/{UNKNOWN_DIGEST}")))?.must_be(&[404])
}

fn blob_elsewhere(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let digest = cx.push_blob(&bytes)?;
    cx.will_have_mounted(&digest);
    let (_, upload) = cx.begin_upload_in(&cx.other_repository)?;
    cx.send(cx.close_request(&upload, &digest, &bytes))?.must_be(&[201])?;
    delete(cx, "blobs", cx.path(&format!("blobs/{digest}")))?.must_be(&[202])?;
    let answer = cx.send(Request::new(Method::GET, format!("/v2/{}/blobs/{digest}", cx.other_repository)))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}
