//! What Docker's registry does beside the specification, and its clients may count on.

use reqwest::Method;

use super::context::{BYTES_TYPE, sha256};
use super::tags::next_of;
use super::{Context, Requirement, may};
use crate::http::{Exchange, Request};
use crate::limits::PAGE_LIMIT;
use crate::outcome::{Finding, Outcome};

const HEADERS: &str = "Legacy Docker support HTTP headers";
const API: &str = "Docker Registry HTTP API V2 (apdx-1)";
const CATALOG: &str = "Extensions: _catalog";

const IMAGE_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(super) const TABLE: &[Requirement] = &[
    may("docker-version", HEADERS, "Docker-Distribution-Api-Version is registry/2.0", version),
    may("docker-upload-uuid", API, "Docker-Upload-UUID names the upload, in each answer about it the same", upload_uuid),
    may("docker-content-digest", HEADERS, "a finished upload comes with Docker-Content-Digest", content_digest),
    may("docker-manifest", API, "an image manifest of schema 2 goes in and is served", manifest),
    may("docker-manifest-list", API, "a manifest list of schema 2 goes in and is served", manifest_list),
    may("docker-stream", API, "a blob goes in by one PATCH of unknown length", stream),
    may("docker-catalog", CATALOG, "the catalog lists a repository that has content", catalog),
    may("docker-catalog-pages", CATALOG, "pages of the catalog lead to every repository once", catalog_pages),
];

fn version(cx: &Context<'_>) -> Outcome {
    let answer = cx.send(Request::new(Method::GET, "/v2/"))?;
    match answer.header("Docker-Distribution-Api-Version") {
        None => Err(Finding::NotOffered("the header Docker-Distribution-Api-Version".into())),
        Some(version) => {
            answer.must(version.split_whitespace().any(|v| v == "registry/2.0"), "Docker-Distribution-Api-Version: registry/2.0")
        }
    }
}

fn upload_uuid(cx: &Context<'_>) -> Outcome {
    let (begun, url) = cx.begin_upload_in(&cx.repository)?;
    let Some(uuid) = begun.header("Docker-Upload-UUID") else {
        return Err(Finding::NotOffered("the header Docker-Upload-UUID".into()));
    };
    begun.must(!uuid.is_empty(), "Docker-Upload-UUID with a value")?;
    let chunk = cx.send(Request::new(Method::PATCH, url).body(BYTES_TYPE, cx.fresh_bytes()))?;
    chunk.must_be(&[202])?;
    chunk.must(chunk.header("Docker-Upload-UUID") == Some(uuid), format_args!("Docker-Upload-UUID: {uuid}"))
}

fn content_digest(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let digest = sha256(&bytes);
    let closed = cx.send(cx.close_request(&cx.begin_upload()?, &digest, &bytes))?;
    closed.must_be(&[201])?;
    match closed.header("Docker-Content-Digest") {
        None => Err(Finding::NotOffered("the header Docker-Content-Digest".into())),
        Some(said) => closed.must(said == digest, format_args!("Docker-Content-Digest: {digest}")),
    }
}

/// An image manifest of schema 2 over a blob that is there.
fn fresh_image(cx: &Context<'_>) -> Outcome<Vec<u8>> {
    let bytes = cx.fresh_bytes();
    let (digest, size) = (cx.push_blob(&bytes)?, bytes.len());
    let descriptor = |media_type| format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#);
    Ok(format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE_TYPE}","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.docker.container.image.v1+json"),
        descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip")
    )
    .into_bytes())
}

/// Pushes a document and fails unless it is served as what it is; not offered where its type is refused.
fn must_be_kept(cx: &Context<'_>, media_type: &str, document: &[u8]) -> Outcome {
    let digest = sha256(document);
    let put = cx.put_manifest_as(media_type, &digest, document)?;
    if matches!(put.status(), 400 | 415) {
        return Err(Finding::NotOffered(format!("{media_type}: it is answered with {}", put.status())));
    }
    put.must_be(&[201])?;
    let answer = cx.send(Request::new(Method::GET, cx.path(&format!("manifests/{digest}"))).header("Accept", media_type))?;
    answer.must_be(&[200])?;
    answer.must(answer.header("Content-Type") == Some(media_type), format_args!("Content-Type: {media_type}"))?;
    answer.must(answer.body() == document, "the manifest's bytes as pushed")
}

fn manifest(cx: &Context<'_>) -> Outcome {
    must_be_kept(cx, IMAGE_TYPE, &fresh_image(cx)?)
}

fn manifest_list(cx: &Context<'_>) -> Outcome {
    let image = fresh_image(cx)?;
    must_be_kept(cx, IMAGE_TYPE, &image)?;
    let (digest, size) = (sha256(&image), image.len());
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"{LIST_TYPE}","manifests":[{{"mediaType":"{IMAGE_TYPE}","digest":"{digest}","size":{size},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#
    );
    must_be_kept(cx, LIST_TYPE, list.as_bytes())
}

fn stream(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = cx.begin_upload()?;
    let Some(target) = upload.strip_prefix(cx.registry().url().as_str().trim_end_matches('/')) else {
        return Err(Finding::NotOffered("uploads on its own host".into()));
    };
    let chunked = [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes[..], b"\r\n0\r\n\r\n"].concat();
    let request = cx.raw_request("PATCH", target.as_bytes(), false)?;
    let request = request.header("Content-Type", BYTES_TYPE).header("Transfer-Encoding", "chunked").body(chunked);
    let answer = cx.send_raw(&request)?.exchange;
    if matches!(answer.status(), 411 | 416) {
        return Err(Finding::NotOffered(format!("uploads of unknown length: they are answered with {}", answer.status())));
    }
    answer.must_be(&[202])?;
    let upload = answer.resolve(answer.must_have("Location")?)?;
    cx.send(cx.close_request(upload.as_str(), &sha256(&bytes), &[]))?.must_be(&[201])?;
    let answer = cx.ask(Method::GET, &format!("blobs/{}", sha256(&bytes)))?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

/// A page of the catalog: the answer and the names on it.
fn page(cx: &Context<'_>, target: String) -> Outcome<(Exchange, Vec<String>)> {
    let answer = cx.send(Request::new(Method::GET, target))?;
    if matches!(answer.status(), 401 | 403 | 404 | 405 | 501) {
        return Err(Finding::NotOffered(format!("the catalog: it is answered with {}", answer.status())));
    }
    answer.must_be(&[200])?;
    let document = answer.must_be_json()?;
    let names = serde_json::from_value(document["repositories"].clone()).ok();
    let names = names.ok_or_else(|| answer.fail("a member \"repositories\", a list of strings"))?;
    Ok((answer, names))
}

fn catalog(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    let mut target = "/v2/_catalog".to_owned();
    for _ in 0..PAGE_LIMIT {
        let (answer, names) = page(cx, target)?;
        if names.contains(&cx.repository) {
            return Ok(());
        }
        match answer.header("Link").and_then(next_of) {
            Some(next) => target = answer.resolve(next)?.into(),
            None => return Err(answer.fail(format_args!("a list with {}", cx.repository))),
        }
    }
    Err(Finding::Differs(format!("{} is not on the first {PAGE_LIMIT} pages of the catalog", cx.repository)))
}

fn catalog_pages(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    // A second repository with content, so that there are two pages at least.
    let (_, upload) = cx.begin_upload_in(&cx.other_repository)?;
    let bytes = cx.fresh_bytes();
    cx.will_have_mounted(&sha256(&bytes));
    cx.send(cx.close_request(&upload, &sha256(&bytes), &bytes))?.must_be(&[201])?;
    let (mut target, mut seen) = ("/v2/_catalog?n=1".to_owned(), Vec::new());
    for _ in 0..PAGE_LIMIT {
        let (answer, names) = page(cx, target)?;
        answer.must(names.len() <= 1, "at most 1 repository")?;
        let again = names.iter().find(|name| seen.contains(*name));
        answer.must(again.is_none(), format_args!("no repository twice, not {again:?} again"))?;
        seen.extend(names);
        match answer.header("Link").and_then(next_of) {
            Some(next) => target = answer.resolve(next)?.into(),
            None => return answer.must(seen.contains(&cx.repository), format_args!("{} on one of the pages", cx.repository)),
        }
    }
    Ok(())
}
