//! Pulling: manifests, blobs, and whether they are there.

use reqwest::Method;

use super::context::{MANIFEST_TYPE, must_match};
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::outcome::{Finding, Outcome};

const MANIFESTS: &str = "Pulling manifests (end-3)";
const BLOBS: &str = "Pulling blobs (end-2)";
const HTTP: &str = "API; RFC 9110 section 13.1.2";
const CHECKING: &str = "Checking if content exists in the registry";

/// A digest that is well formed and of nothing anyone has.
pub(super) const UNKNOWN_DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000deadbeef";

pub(super) const TABLE: &[Requirement] = &[
    must("pull-support", "Determining Support (end-1)", "GET /v2/ answers 200", support),
    must("pull-manifest-by-tag", MANIFESTS, "a manifest comes by its tag as it was pushed", manifest_by_tag),
    must("pull-manifest-by-digest", MANIFESTS, "a manifest comes by its digest as it was pushed", manifest_by_digest),
    should("pull-manifest-digest-header", MANIFESTS, "a manifest comes with Docker-Content-Digest", manifest_digest_header),
    must("pull-manifest-digest-true", MANIFESTS, "a manifest's Docker-Content-Digest is its digest", manifest_digest_true),
    should("pull-manifest-type", MANIFESTS, "a manifest comes with the Content-Type it was pushed with", manifest_type),
    must("pull-manifest-unknown", MANIFESTS, "an unknown tag or manifest digest is 404", manifest_unknown),
    must("pull-repository-unknown", "Pushing Manifests", "a manifest in an unknown repository is 404", repository_unknown),
    must("pull-blob", BLOBS, "a blob comes by its digest as it was pushed", blob),
    should("pull-blob-digest-header", BLOBS, "a blob comes with Docker-Content-Digest", blob_digest_header),
    must("pull-blob-digest-true", BLOBS, "a blob's Docker-Content-Digest is its digest", blob_digest_true),
    must("pull-blob-unknown", BLOBS, "an unknown blob is 404", blob_unknown),
    should("pull-blob-range", BLOBS, "a range of a blob comes as 206 with just those bytes", blob_range),
    should("pull-blob-range-suffix", BLOBS, "the last bytes of a blob can be asked for", blob_range_suffix),
    should("pull-blob-range-beyond", BLOBS, "a range that goes on after the end is cut off there", blob_range_beyond),
    should("pull-blob-range-unsatisfiable", BLOBS, "a range beyond the end is 416", blob_range_unsatisfiable),
    should("pull-unmodified", HTTP, "what the client has by its ETag is not sent again: 304", unmodified),
    must("pull-head-manifest", CHECKING, "HEAD of a manifest is 200", head_manifest),
    must("pull-head-blob", CHECKING, "HEAD of a blob is 200", head_blob),
    should("pull-head-length", CHECKING, "HEAD tells the size in Content-Length", head_length),
    should("pull-head-digest", CHECKING, "HEAD tells the digest in Docker-Content-Digest", head_digest),
    must("pull-head-unknown", CHECKING, "HEAD of an unknown manifest or blob is 404", head_unknown),
];

fn support(cx: &Context<'_>) -> Outcome {
    cx.send(Request::new(Method::GET, "/v2/"))?.must_be(&[200])
}

fn get_manifest(cx: &Context<'_>) -> Outcome<Exchange> {
    cx.ask(Method::GET, &format!("manifests/{}", cx.image()?.tag))
}

fn get_blob(cx: &Context<'_>) -> Outcome<Exchange> {
    cx.ask(Method::GET, &format!("blobs/{}", cx.image()?.layer_digest))
}

fn manifest_by_tag(cx: &Context<'_>) -> Outcome {
    let answer = get_manifest(cx)?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == cx.image()?.manifest, "the manifest's bytes as pushed")
}

fn manifest_by_digest(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    let answer = cx.ask(Method::GET, &format!("manifests/{}", image.digest))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == image.manifest, "the manifest's bytes as pushed")
}

fn manifest_digest_header(cx: &Context<'_>) -> Outcome {
    get_manifest(cx)?.must_have("Docker-Content-Digest").map(drop)
}

fn manifest_digest_true(cx: &Context<'_>) -> Outcome {
    digest_true(&get_manifest(cx)?)
}

/// The header is optional, but when it is there it is true.
fn digest_true(answer: &Exchange) -> Outcome {
    match answer.header("Docker-Content-Digest") {
        Some(header) => must_match(answer, header, answer.body()),
        None => Err(Finding::NotOffered("the optional header Docker-Content-Digest".into())),
    }
}

fn manifest_type(cx: &Context<'_>) -> Outcome {
    let answer = get_manifest(cx)?;
    answer.must(answer.header("Content-Type") == Some(MANIFEST_TYPE), format_args!("Content-Type: {MANIFEST_TYPE}"))
}

fn manifest_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    cx.ask(Method::GET, &format!("manifests/{}", cx.fresh_name()))?.must_be(&[404])?;
    cx.ask(Method::GET, &format!("manifests/{UNKNOWN_DIGEST}"))?.must_be(&[404])
}

fn repository_unknown(cx: &Context<'_>) -> Outcome {
    let path = format!("/v2/{}/{}/manifests/latest", cx.repository, cx.fresh_name());
    cx.send(Request::new(Method::GET, path))?.must_be(&[404])
}

fn blob(cx: &Context<'_>) -> Outcome {
    let answer = get_blob(cx)?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == cx.image()?.layer, "the blob's bytes as pushed")
}

fn blob_digest_header(cx: &Context<'_>) -> Outcome {
    get_blob(cx)?.must_have("Docker-Content-Digest").map(drop)
}

fn blob_digest_true(cx: &Context<'_>) -> Outcome {
    digest_true(&get_blob(cx)?)
}

fn blob_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    cx.ask(Method::GET, &format!("blobs/{UNKNOWN_DIGEST}"))?.must_be(&[404])
}

/// Asks for a range of the image's layer.
fn get_range(cx: &Context<'_>, range: &str) -> Outcome<Exchange> {
    let path = cx.path(&format!("blobs/{}", cx.image()?.layer_digest));
    let answer = cx.send(Request::new(Method::GET, path).header("Range", range))?;
    // RFC 9110 section 14.2: a server may ignore the header.
    if answer.status() == 200 && answer.body() == cx.image()?.layer {
        return Err(Finding::NotOffered(format!("Range: {range} is answered with the whole blob")));
    }
    Ok(answer)
}

fn must_be_part(answer: &Exchange, layer: &[u8], first: usize, end: usize) -> Outcome {
    answer.must_be(&[206])?;
    let expected = format!("bytes {first}-{}/{}", end - 1, layer.len());
    answer.must(answer.must_have("Content-Range")? == expected, format_args!("Content-Range: {expected}"))?;
    answer.must(answer.body() == &layer[first..end], format_args!("bytes {first} to {} of the blob", end - 1))
}

fn blob_range(cx: &Context<'_>) -> Outcome {
    let layer = &cx.image()?.layer;
    must_be_part(&get_range(cx, "bytes=10-99")?, layer, 10, 100)?;
    must_be_part(&get_range(cx, "bytes=100-")?, layer, 100, layer.len())
}

fn blob_range_suffix(cx: &Context<'_>) -> Outcome {
    let layer = &cx.image()?.layer;
    must_be_part(&get_range(cx, "bytes=-7")?, layer, layer.len() - 7, layer.len())
}

fn blob_range_beyond(cx: &Context<'_>) -> Outcome {
    let layer = &cx.image()?.layer;
    must_be_part(&get_range(cx, &format!("bytes=1000-{}", layer.len() * 2))?, layer, 1000, layer.len())
}

fn blob_range_unsatisfiable(cx: &Context<'_>) -> Outcome {
    let size = cx.image()?.layer.len();
    get_range(cx, &format!("bytes={size}-"))?.must_be(&[416])
}

fn unmodified(cx: &Context<'_>) -> Outcome {
    let (manifest, blob) = (format!("manifests/{}", cx.image()?.tag), format!("blobs/{}", cx.image()?.layer_digest));
    for path in [manifest, blob] {
        let answer = cx.ask(Method::GET, &path)?;
        let Some(tag) = answer.header("ETag") else {
            return Err(Finding::NotOffered("entity tags: there is no ETag".into()));
        };
        let conditional = |tags: &str| {
            cx.send(Request::new(Method::GET, cx.path(&path)).header("Accept", MANIFEST_TYPE).header("If-None-Match", tags))
        };
        let same = conditional(&format!("\"of-nothing-here\", {tag}"))?;
        same.must_be(&[304])?;
        same.must(same.body().is_empty(), "no body")?;
        conditional("\"of-nothing-here\"")?.must_be(&[200])?;
    }
    Ok(())
}

fn head_both(cx: &Context<'_>) -> Outcome<[(Exchange, usize); 2]> {
    let image = cx.image()?;
    let manifest = cx.ask(Method::HEAD, &format!("manifests/{}", image.tag))?;
    let blob = cx.ask(Method::HEAD, &format!("blobs/{}", image.layer_digest))?;
    Ok([(manifest, image.manifest.len()), (blob, image.layer.len())])
}

fn head_manifest(cx: &Context<'_>) -> Outcome {
    let [(manifest, _), _] = head_both(cx)?;
    manifest.must_be(&[200])
}

fn head_blob(cx: &Context<'_>) -> Outcome {
    let [_, (blob, _)] = head_both(cx)?;
    blob.must_be(&[200])
}

fn head_length(cx: &Context<'_>) -> Outcome {
    for (answer, size) in head_both(cx)? {
        answer.must(answer.header("Content-Length") == Some(&size.to_string()), format_args!("Content-Length: {size}"))?;
    }
    Ok(())
}

fn head_digest(cx: &Context<'_>) -> Outcome {
    let image = cx.image()?;
    for ((answer, _), bytes) in head_both(cx)?.iter().zip([&image.manifest, &image.layer]) {
        must_match(answer, answer.must_have("Docker-Content-Digest")?, bytes)?;
    }
    Ok(())
}

fn head_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    cx.ask(Method::HEAD, &format!("manifests/{}", cx.fresh_name()))?.must_be(&[404])?;
    cx.ask(Method::HEAD, &format!("blobs/{UNKNOWN_DIGEST}"))?.must_be(&[404])
}
