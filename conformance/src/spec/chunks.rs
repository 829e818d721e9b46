//! Pushing a blob in chunks.

use reqwest::Method;

use super::context::{BYTES_TYPE, sha256};
use super::{Context, Requirement, must, should};
use crate::http::{Exchange, Request};
use crate::limits::CHUNK_MINIMUM_LIMIT_BYTES;
use crate::outcome::{Finding, Outcome};

const CHUNKS: &str = "Pushing a blob in chunks (end-5, end-6)";
const STATUS: &str = "Pushing a blob in chunks (end-13)";

/// Where the tests cut their blob, in bytes, unless chunks have to be larger.
const CUT: usize = 400;

/// The header that says how large a chunk has to be.
const MINIMUM: &str = "OCI-Chunk-Min-Length";

pub(super) const TABLE: &[Requirement] = &[
    must("push-chunks", CHUNKS, "a blob goes in by PATCH and PUT, and is served", chunks),
    must("push-chunks-last-in-put", CHUNKS, "the last chunk may come with the closing PUT", last_in_put),
    must("push-chunk-range", CHUNKS, "a chunk is answered with 202, Location and Range", chunk_range),
    should("push-chunk-minimum", CHUNKS, "a small chunk is taken, or OCI-Chunk-Min-Length says the least", minimum),
    must("push-chunk-first", CHUNKS, "a first chunk that does not begin at 0 is 416", first),
    must("push-chunk-disordered", CHUNKS, "a chunk out of order is 416", disordered),
    must("push-chunk-repeated", CHUNKS, "a chunk sent twice is 416", repeated),
    must("push-chunk-last-disordered", CHUNKS, "a last chunk out of order is 416 in the closing PUT too", last_disordered),
    must("push-chunk-resumed", CHUNKS, "after a 416 the upload goes on where GET says it is", resumed),
    must("push-chunks-mismatch", CHUNKS, "chunks that do not add up to the digest are refused", mismatch),
    must("push-status", STATUS, "GET of an upload tells how far it is: 204, Location and Range", status),
];

/// An upload that was begun, and a blob for it that is to be cut in two.
struct Upload {
    url: String,
    bytes: Vec<u8>,
    /// Bytes of the first chunk.
    cut: usize,
}

/// Begins an upload, and makes a blob whose first chunk is as large as the registry wants chunks.
fn begin(cx: &Context<'_>) -> Outcome<Upload> {
    let (answer, url) = cx.begin_upload_in(&cx.repository)?;
    let least = match answer.header(MINIMUM) {
        Some(least) => least.parse().map_err(|_| answer.fail(format_args!("{MINIMUM} with a number")))?,
        None => 0,
    };
    if least > CHUNK_MINIMUM_LIMIT_BYTES {
        return Err(Finding::NotOffered(format!("chunks under {least} bytes")));
    }
    let cut = CUT.max(least);
    Ok(Upload { url, bytes: cx.fresh_bytes_of(cut * 2 + 300), cut })
}

/// Sends `chunk` as the bytes from `offset` on.
fn patch(cx: &Context<'_>, upload: &str, offset: usize, chunk: &[u8]) -> Outcome<Exchange> {
    let range = format!("{offset}-{}", offset + chunk.len() - 1);
    cx.send(Request::new(Method::PATCH, upload).header("Content-Range", range).body(BYTES_TYPE, chunk))
}

/// The URL for what comes after an accepted chunk.
fn next(chunk: &Exchange) -> Outcome<String> {
    chunk.must_be(&[202])?;
    Ok(chunk.resolve(chunk.must_have("Location")?)?.into())
}

/// Begins an upload and sends the first chunk.
fn begun(cx: &Context<'_>) -> Outcome<Upload> {
    let mut upload = begin(cx)?;
    upload.url = next(&patch(cx, &upload.url, 0, &upload.bytes[..upload.cut])?)?;
    Ok(upload)
}

/// The closing PUT with the bytes from `offset` on as the last chunk.
fn close_with(cx: &Context<'_>, upload: &Upload, offset: usize) -> Outcome<Exchange> {
    let range = format!("{offset}-{}", upload.bytes.len() - 1);
    let request = cx.close_request(&upload.url, &sha256(&upload.bytes), &upload.bytes[offset..]);
    cx.send(request.header("Content-Range", range))
}

/// Fails unless `bytes` can be pulled.
fn must_be_there(cx: &Context<'_>, bytes: &[u8]) -> Outcome {
    let answer = cx.ask(Method::GET, &format!("blobs/{}", sha256(bytes)))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

fn chunks(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    let url = next(&patch(cx, &upload.url, upload.cut, &upload.bytes[upload.cut..])?)?;
    let closed = cx.send(cx.close_request(&url, &sha256(&upload.bytes), &[]))?;
    closed.must_be(&[201])?;
    closed.must_have("Location")?;
    must_be_there(cx, &upload.bytes)
}

fn last_in_put(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    close_with(cx, &upload, upload.cut)?.must_be(&[201])?;
    must_be_there(cx, &upload.bytes)
}

fn chunk_range(cx: &Context<'_>) -> Outcome {
    let upload = begin(cx)?;
    let answer = patch(cx, &upload.url, 0, &upload.bytes[..upload.cut])?;
    next(&answer)?;
    must_tell(&answer, upload.cut)
}

/// Fails unless Range says that so many bytes are there.
fn must_tell(answer: &Exchange, length: usize) -> Outcome {
    let expected = format!("0-{}", length - 1);
    answer.must(answer.must_have("Range")? == expected, format_args!("Range: {expected}"))
}

fn minimum(cx: &Context<'_>) -> Outcome {
    let (answer, url) = cx.begin_upload_in(&cx.repository)?;
    if let Some(least) = answer.header(MINIMUM) {
        return answer.must(least.parse::<u64>().is_ok(), format_args!("{MINIMUM} with a number"));
    }
    let chunk = patch(cx, &url, 0, b"x")?;
    chunk.must_be(&[202])
}

fn first(cx: &Context<'_>) -> Outcome {
    let upload = begin(cx)?;
    patch(cx, &upload.url, upload.cut, &upload.bytes[upload.cut..])?.must_be(&[416])
}

fn disordered(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    patch(cx, &upload.url, upload.cut + 1, &upload.bytes[upload.cut + 1..])?.must_be(&[416])
}

fn repeated(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    patch(cx, &upload.url, 0, &upload.bytes[..upload.cut])?.must_be(&[416])
}

fn last_disordered(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    close_with(cx, &upload, upload.cut + 1)?.must_be(&[416])
}

fn resumed(cx: &Context<'_>) -> Outcome {
    let mut upload = begun(cx)?;
    patch(cx, &upload.url, upload.cut + 1, &upload.bytes[upload.cut + 1..])?.must_be(&[416])?;
    let answer = cx.send(Request::new(Method::GET, &upload.url))?;
    answer.must_be(&[204])?;
    must_tell(&answer, upload.cut)?;
    upload.url = answer.resolve(answer.must_have("Location")?)?.into();
    close_with(cx, &upload, upload.cut)?.must_be(&[201])?;
    must_be_there(cx, &upload.bytes)
}

fn mismatch(cx: &Context<'_>) -> Outcome {
    let digest = sha256(&cx.fresh_bytes());
    let upload = begun(cx)?;
    let closed = cx.send(cx.close_request(&upload.url, &digest, &[]))?;
    closed.must_be_refused()?;
    cx.ask(Method::GET, &format!("blobs/{digest}"))?.must_be(&[404])
}

fn status(cx: &Context<'_>) -> Outcome {
    let upload = begun(cx)?;
    let answer = cx.send(Request::new(Method::GET, upload.url))?;
    answer.must_be(&[204])?;
    answer.must_have("Location")?;
    must_tell(&answer, upload.cut)
}
