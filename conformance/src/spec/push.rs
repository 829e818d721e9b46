//! Pushing blobs in one piece, and mounting them.

use reqwest::Method;

use super::context::{BYTES_TYPE, sha256, sha512};
use super::pull::UNKNOWN_DIGEST;
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::outcome::{Finding, Outcome};

const POST_PUT: &str = "POST then PUT (end-4a, end-6)";
const SINGLE_POST: &str = "Single POST (end-4b)";
const CANCELLING: &str = "Cancel a blob upload (end-14)";
const ALGORITHM: &str = "Pushing a blob in chunks (end-4c)";
const CLOSING: &str = "Pushing a blob in chunks (end-6)";
const NAMES: &str = "Pulling manifests (<name>)";
const MOUNTING: &str = "Mounting a blob from another repository (end-11)";

pub(super) const TABLE: &[Requirement] = &[
    must("push-upload", POST_PUT, "a blob goes in by POST and PUT: 202, 201 and a Location each", upload),
    must("push-upload-unique", POST_PUT, "each upload has a Location of its own, with a UUID in it", upload_unique),
    must("push-location", POST_PUT, "the Location of a finished upload serves the blob", location),
    must("push-digest-mismatch", "Error Codes (code-4)", "bytes that are not those of the digest are refused", digest_mismatch),
    must("push-digest-missing", CLOSING, "an upload closed without a digest is refused", digest_missing),
    should("push-empty", "Definitions: Blob", "a blob of no bytes goes in and is served", empty),
    should("push-again", "Use Cases: Layer Upload De-duplication", "a blob that is there can be pushed again", again),
    must("push-name-malformed", NAMES, "a repository's name that breaks the grammar is refused", name_malformed),
    must("push-single-post", SINGLE_POST, "a blob goes in by one POST, or the answer is 202", single_post),
    must(
        "push-single-post-mismatch",
        SINGLE_POST,
        "one POST with other bytes than the digest's is refused",
        single_post_mismatch,
    ),
    should("push-algorithm", ALGORITHM, "a blob goes in by sha512, announced with digest-algorithm", algorithm),
    should("push-cancel", CANCELLING, "an upload is cancelled: 204, and it is no more", cancel),
    must("push-mount", MOUNTING, "a blob of another repository is mounted: 201 and a Location", mount),
    should("push-mount-algorithm", MOUNTING, "a blob is mounted by its sha512 digest", mount_algorithm),
    must("push-mount-anywhere", MOUNTING, "mounting without a source is 201 and serves the blob, or 202", mount_anywhere),
    should("push-mount-unknown", MOUNTING, "mounting what is not there begins an upload: 202", mount_unknown),
];

/// Fails unless the answer's Location serves `bytes`.
fn must_serve(cx: &Context<'_>, created: &Exchange, bytes: &[u8]) -> Outcome {
    let location = created.resolve(created.must_have("Location")?)?;
    let answer = cx.send(Request::new(Method::GET, location))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

/// Fails unless the answer refuses content and the digest it was pushed under stays unknown.
fn must_refuse(cx: &Context<'_>, answer: &Exchange, digest: &str) -> Outcome {
    answer.must_be_refused()?;
    cx.ask(Method::GET, &format!("blobs/{digest}"))?.must_be(&[404])
}

fn upload(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = cx.begin_upload()?;
    let closed = cx.send(cx.close_request(&upload, &sha256(&bytes), &bytes))?;
    closed.must_be(&[201])?;
    closed.must_have("Location").map(drop)
}

fn upload_unique(cx: &Context<'_>) -> Outcome {
    let (_, first) = cx.begin_upload_in(&cx.repository)?;
    let (answer, second) = cx.begin_upload_in(&cx.repository)?;
    answer.must(first != second, "another Location than the upload before")?;
    if has_uuid(&second) { Ok(()) } else { Err(Finding::Differs("no UUID can be seen in the Location of an upload".into())) }
}

/// Whether there are 32 hexadecimal digits in a row, with hyphens or without (RFC 9562 section 4).
fn has_uuid(text: &str) -> bool {
    let mut digits = 0;
    text.bytes().any(|byte| {
        digits = if byte.is_ascii_hexdigit() {
            digits + 1
        } else if byte == b'-' {
            digits
        } else {
            0
        };
        digits >= 32
    })
}

fn digest_missing(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    cx.will_have_blob(&sha256(&bytes));
    let upload = cx.begin_upload()?;
    cx.send(Request::new(Method::PUT, upload).body(BYTES_TYPE, bytes))?.must_be_refused()
}

fn empty(cx: &Context<'_>) -> Outcome {
    let digest = cx.push_blob(b"")?;
    let answer = cx.ask(Method::GET, &format!("blobs/{digest}"))?;
    answer.must_be(&[200])?;
    answer.must(answer.body().is_empty(), "no bytes")
}

fn again(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let digest = cx.push_blob(&bytes)?;
    cx.push_blob(&bytes)?;
    let answer = cx.ask(Method::GET, &format!("blobs/{digest}"))?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

fn name_malformed(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    for part in ["UPPER", "-dash", "dash-", "two..dots", "three___underscores"] {
        let path = format!("/v2/{}/{part}/blobs/uploads/", cx.repository);
        let answer = cx.send(Request::new(Method::POST, path))?;
        cx.note_session(&answer);
        answer.must_be_refused()?;
    }
    Ok(())
}

fn location(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = cx.begin_upload()?;
    let closed = cx.send(cx.close_request(&upload, &sha256(&bytes), &bytes))?;
    must_serve(cx, &closed, &bytes)
}

fn digest_mismatch(cx: &Context<'_>) -> Outcome {
    let digest = sha256(&cx.fresh_bytes());
    let upload = cx.begin_upload()?;
    let closed = cx.send(cx.close_request(&upload, &digest, &cx.fresh_bytes()))?;
    must_refuse(cx, &closed, &digest)
}

fn post_whole(cx: &Context<'_>, digest: &str, bytes: &[u8]) -> Outcome<Exchange> {
    cx.will_have_blob(digest);
    let path = cx.path(&format!("blobs/uploads/?digest={digest}"));
    let answer = cx.send(Request::new(Method::POST, path).body(BYTES_TYPE, bytes))?;
    if answer.status() == 202 {
        let upload = answer.resolve(answer.must_have("Location")?)?.to_string();
        cx.will_have_session(upload.clone());
        // Then the client goes on with PUT.
        let closed = cx.send(cx.close_request(&upload, digest, bytes))?;
        if sha256(bytes) == digest {
            closed.must_be(&[201])?;
        } else {
            must_refuse(cx, &closed, digest)?;
        }
        return Err(Finding::NotOffered("uploads by a single POST: it is answered with 202".into()));
    }
    Ok(answer)
}

fn single_post(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let answer = post_whole(cx, &sha256(&bytes), &bytes)?;
    answer.must_be(&[201])?;
    must_serve(cx, &answer, &bytes)
}

fn single_post_mismatch(cx: &Context<'_>) -> Outcome {
    let digest = sha256(&cx.fresh_bytes());
    let answer = post_whole(cx, &digest, &cx.fresh_bytes())?;
    must_refuse(cx, &answer, &digest)
}

/// Pushes a blob by its sha512 digest: the digest and the answer. Not offered where such digests are refused.
fn push_sha512(cx: &Context<'_>, bytes: &[u8]) -> Outcome<(String, Exchange)> {
    let digest = sha512(bytes);
    let begun = cx.send(Request::new(Method::POST, cx.path("blobs/uploads/?digest-algorithm=sha512")))?;
    if begun.status() == 400 {
        return Err(Finding::NotOffered("sha512: it is answered with 400".into()));
    }
    begun.must_be(&[202])?;
    let upload = begun.resolve(begun.must_have("Location")?)?.to_string();
    cx.will_have_session(upload.clone());
    let chunk = cx.send(Request::new(Method::PATCH, upload).body(BYTES_TYPE, &bytes[..500]))?;
    chunk.must_be(&[202])?;
    let upload = chunk.resolve(chunk.must_have("Location")?)?.to_string();
    let closed = cx.send(cx.close_request(&upload, &digest, &bytes[500..]))?;
    if closed.status() == 400 {
        return Err(Finding::NotOffered("sha512: it is answered with 400".into()));
    }
    closed.must_be(&[201])?;
    Ok((digest, closed))
}

fn algorithm(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let (digest, closed) = push_sha512(cx, &bytes)?;
    must_serve(cx, &closed, &bytes)?;
    let answer = cx.ask(Method::GET, &format!("blobs/{digest}"))?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

fn mount_algorithm(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let (digest, _) = push_sha512(cx, &bytes)?;
    let answer = post_mount(cx, &digest)?;
    if answer.status() == 202 {
        return Err(Finding::NotOffered("mounting by sha512: it is answered with 202".into()));
    }
    answer.must_be(&[201])?;
    must_serve(cx, &answer, &bytes)
}

fn cancel(cx: &Context<'_>) -> Outcome {
    let upload = cx.begin_upload()?;
    cx.send(Request::new(Method::DELETE, &upload))?.must_be(&[204])?;
    cx.send(Request::new(Method::GET, &upload))?.must_be_refused()
}

fn mount_anywhere(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let digest = cx.push_blob(&bytes)?;
    cx.will_have_mounted(&digest);
    let path = format!("/v2/{}/blobs/uploads/?mount={digest}", cx.other_repository);
    let answer = cx.send(Request::new(Method::POST, path))?;
    if answer.status() == 202 {
        cx.will_have_session(answer.resolve(answer.must_have("Location")?)?.into());
        return Err(Finding::NotOffered("mounting without a source: it is answered with 202".into()));
    }
    answer.must_be(&[201])?;
    must_serve(cx, &answer, &bytes)
}

fn post_mount(cx: &Context<'_>, digest: &str) -> Outcome<Exchange> {
    cx.will_have_mounted(digest);
    let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}", cx.other_repository, cx.repository);
    let answer = cx.send(Request::new(Method::POST, path))?;
    if answer.status() == 202 {
        cx.will_have_session(answer.resolve(answer.must_have("Location")?)?.into());
    }
    Ok(answer)
}

fn mount(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let answer = post_mount(cx, &cx.push_blob(&bytes)?)?;
    if answer.status() == 202 {
        return Err(Finding::NotOffered("mounting: it is answered with 202".into()));
    }
    answer.must_be(&[201])?;
    must_serve(cx, &answer, &bytes)
}

fn mount_unknown(cx: &Context<'_>) -> Outcome {
    cx.image()?;
    post_mount(cx, UNKNOWN_DIGEST)?.must_be(&[202])
}
