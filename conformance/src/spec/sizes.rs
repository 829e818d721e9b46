//! Limits: what has to fit, and how what does not is refused.

use reqwest::Method;

use super::context::{MANIFEST_TYPE, sha256};
use super::tags::{next_of, tags_of};
use super::{Context, Requirement, must, should};
use crate::http::Request;
use crate::limits::{
    CLIENT_NAME_LIMIT_BYTES, HUGE_MANIFEST_BYTES, LARGE_MANIFEST_BYTES, LAYERS, MANY_TAGS, PAGE_LIMIT, TAG_LIMIT_CHARS,
};
use crate::outcome::{Finding, Outcome};
use crate::raw;

const MANIFESTS: &str = "Pushing Manifests (end-7)";
const NAMES: &str = "Pulling manifests (<name>)";
const TAGS: &str = "Pulling manifests (<reference>)";
const LIST: &str = "Listing Tags (end-8a)";

pub(super) const TABLE: &[Requirement] = &[
    should("limits-manifest-large", MANIFESTS, "a manifest of 4 megabytes is taken", manifest_large),
    should("limits-manifest-huge", MANIFESTS, "a manifest over the limit is 413", manifest_huge),
    should("limits-layers", MANIFESTS, "a manifest with 127 layers is taken", layers),
    must("limits-tag-long", TAGS, "a tag of 128 characters is taken", tag_long),
    should("limits-name-long", NAMES, "a name as long as clients take is taken", name_long),
    must("limits-tags-many", LIST, "every one of 120 tags is listed", tags_many),
];

/// A manifest never pushed before of exactly so many bytes.
fn manifest_of(cx: &Context<'_>, size_bytes: usize) -> Outcome<Vec<u8>> {
    let bare = cx.fresh_manifest(r#","filler":"""#)?;
    let mut manifest = bare[..bare.len() - 2].to_vec();
    manifest.resize(size_bytes - 2, b'x');
    manifest.extend_from_slice(b"\"}");
    Ok(manifest)
}

fn manifest_large(cx: &Context<'_>) -> Outcome {
    let manifest = manifest_of(cx, LARGE_MANIFEST_BYTES)?;
    cx.put_manifest(&sha256(&manifest), &manifest)?.must_be(&[201])
}

fn manifest_huge(cx: &Context<'_>) -> Outcome {
    let manifest = manifest_of(cx, HUGE_MANIFEST_BYTES)?;
    let reference = sha256(&manifest);
    // Whoever refuses it before it is there whole closes the connection: that answer is read raw.
    let put = if cx.registry().url().scheme() == "http" {
        cx.will_have_manifest(&cx.repository, &reference, &manifest);
        let target = cx.path(&format!("manifests/{reference}"));
        let request = cx.raw_request("PUT", target.as_bytes(), false)?;
        let length = manifest.len().to_string();
        cx.send_raw(&request.header("Content-Type", MANIFEST_TYPE).header("Content-Length", &length).body(manifest))?.exchange
    } else {
        cx.put_manifest(&reference, &manifest)?
    };
    if put.status() == 201 {
        return Err(Finding::Differs(format!("a manifest of {HUGE_MANIFEST_BYTES} bytes is taken: a limit was not found")));
    }
    put.must_be(&[413])?;
    cx.must_still_serve()
}

fn layers(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let (digest, size) = (cx.push_blob(&bytes)?, bytes.len());
    let descriptor = |kind| format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#);
    let layers = vec![descriptor("layer.v1.tar"); LAYERS].join(",");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{},"layers":[{layers}]}}"#,
        descriptor("config.v1+json")
    );
    cx.put_manifest(&sha256(manifest.as_bytes()), manifest.as_bytes())?.must_be(&[201])
}

fn tag_long(cx: &Context<'_>) -> Outcome {
    let mut tag = cx.fresh_name();
    tag.extend(std::iter::repeat_n('t', TAG_LIMIT_CHARS - tag.len()));
    let manifest = &cx.image()?.manifest;
    cx.put_manifest(&tag, manifest)?.must_be(&[201])?;
    let answer = cx.ask(Method::GET, &format!("manifests/{tag}"))?;
    answer.must(answer.body() == manifest, "the manifest's bytes as pushed")
}

fn name_long(cx: &Context<'_>) -> Outcome {
    let room = CLIENT_NAME_LIMIT_BYTES - raw::host(cx.registry()).len() - 1;
    let mut name = format!("{}/long", cx.repository);
    if name.len() > room {
        return Err(Finding::NotOffered("a namespace short enough".into()));
    }
    name.extend(std::iter::repeat_n('x', room - name.len()));
    // Only begun: what is uploaded could not always be deleted, and so neither could the name.
    let answer = cx.send(Request::new(Method::POST, format!("/v2/{name}/blobs/uploads/")))?;
    cx.note_session(&answer);
    if matches!(answer.status(), 400..=499) {
        return Err(Finding::Differs(format!("a name of {} characters is refused with {}", name.len(), answer.status())));
    }
    answer.must_be(&[202])
}

fn tags_many(cx: &Context<'_>) -> Outcome {
    let manifest = &cx.image()?.manifest;
    let mut missing: Vec<_> = (0..MANY_TAGS).map(|n| format!("many-{}-{n}", cx.nonce)).collect();
    for tag in &missing {
        cx.put_manifest(tag, manifest)?.must_be(&[201])?;
    }
    let mut target = cx.path("tags/list");
    for _ in 0..PAGE_LIMIT {
        let answer = cx.send(Request::new(Method::GET, target))?;
        let listed = tags_of(&answer)?;
        missing.retain(|tag| !listed.contains(tag));
        match answer.header("Link").and_then(next_of).filter(|_| !missing.is_empty()) {
            Some(next) => target = answer.resolve(next)?.into(),
            None => return answer.must(missing.is_empty(), format_args!("{} tags more, or a Link to them", missing.len())),
        }
    }
    Err(Finding::Differs(format!("{} of {MANY_TAGS} tags are not on the first {PAGE_LIMIT} pages", missing.len())))
}
