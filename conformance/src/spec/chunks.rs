//! Pushing a blob in chunks.

use reqwest::Method;

use super::context::{BYTES_TYPE, sha256};
use super::{Context, Requirement, must};
use crate::http::{Exchange, Request};
use crate::outcome::Outcome;

const CHUNKS: &str = "Pushing a blob in chunks (end-5, end-6)";
const STATUS: &str = "Pushing a blob in chunks (end-13)";

/// Where the tests cut their blob, in bytes.
const CUT: usize = 400;

pub(super) const TABLE: &[Requirement] = &[
    must("push-chunks", CHUNKS, "a blob goes in by PATCH and PUT, and is served", chunks),
    must("push-chunks-last-in-put", CHUNKS, "the last chunk may come with the closing PUT", last_in_put),
    must("push-chunk-range", CHUNKS, "a chunk is answered with 202, Location and Range", chunk_range),
    must("push-chunk-disordered", CHUNKS, "a chunk out of order is 416", disordered),
    must("push-chunk-repeated", CHUNKS, "a chunk sent twice is 416", repeated),
    must("push-chunks-mismatch", CHUNKS, "chunks that do not add up to the digest are refused", mismatch),
    must("push-status", STATUS, "GET of an upload tells how far it is: 204, Location and Range", status),
];

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

/// Fails unless `bytes` can be pulled.
fn must_be_there(cx: &Context<'_>, bytes: &[u8]) -> Outcome {
    let answer = cx.ask(Method::GET, &format!("blobs/{}", sha256(bytes)))?;
    answer.must_be(&[200])?;
    answer.must(answer.body() == bytes, "the blob's bytes as pushed")
}

fn chunks(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let (first, second) = bytes.split_at(CUT);
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, first)?)?;
    let upload = next(&patch(cx, &upload, CUT, second)?)?;
    let closed = cx.send(cx.close_request(&upload, &sha256(&bytes), &[]))?;
    closed.must_be(&[201])?;
    closed.must_have("Location")?;
    must_be_there(cx, &bytes)
}

fn last_in_put(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let (first, second) = bytes.split_at(CUT);
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, first)?)?;
    let close = cx.close_request(&upload, &sha256(&bytes), second).header("Content-Range", format!("{CUT}-{}", bytes.len() - 1));
    cx.send(close)?.must_be(&[201])?;
    must_be_there(cx, &bytes)
}

fn chunk_range(cx: &Context<'_>) -> Outcome {
    let answer = patch(cx, &cx.begin_upload()?, 0, &cx.fresh_bytes()[..CUT])?;
    next(&answer)?;
    let expected = format!("0-{}", CUT - 1);
    answer.must(answer.must_have("Range")? == expected, format_args!("Range: {expected}"))
}

fn disordered(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, &bytes[..CUT])?)?;
    patch(cx, &upload, CUT + 1, &bytes[CUT + 1..])?.must_be(&[416])
}

fn repeated(cx: &Context<'_>) -> Outcome {
    let bytes = cx.fresh_bytes();
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, &bytes[..CUT])?)?;
    patch(cx, &upload, 0, &bytes[..CUT])?.must_be(&[416])
}

fn mismatch(cx: &Context<'_>) -> Outcome {
    let digest = sha256(&cx.fresh_bytes());
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, &cx.fresh_bytes())?)?;
    let closed = cx.send(cx.close_request(&upload, &digest, &[]))?;
    closed.must((400..500).contains(&closed.status()), "a 4xx status")?;
    cx.ask(Method::GET, &format!("blobs/{digest}"))?.must_be(&[404])
}

fn status(cx: &Context<'_>) -> Outcome {
    let upload = next(&patch(cx, &cx.begin_upload()?, 0, &cx.fresh_bytes()[..CUT])?)?;
    let answer = cx.send(Request::new(Method::GET, upload))?;
    answer.must_be(&[204])?;
    answer.must_have("Location")?;
    let expected = format!("0-{}", CUT - 1);
    answer.must(answer.must_have("Range")? == expected, format_args!("Range: {expected}"))
}
