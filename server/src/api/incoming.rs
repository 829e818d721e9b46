//! Request bodies: into an upload, or, where they are small by rule, into memory.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::blob::Upload;
use crate::error::{Error, Result};
use crate::limits::{Limits, SMALL_FRAME_BYTES, WRITE_BATCH_BYTES};

/// Takes a body into an upload. `expected` is its length where the request states one.
///
/// What arrived before a failure is kept: the client may go on from there.
pub(super) async fn receive<U: Upload>(upload: &mut U, mut body: Body, expected: Option<u64>, limits: &Limits) -> Result<()> {
    let mut batch = Batch::default();
    let mut received: u64 = 0;
    let outcome = loop {
        let frame = match next(&mut body, limits).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        };
        received += frame.len() as u64;
        if expected.is_some_and(|expected| received > expected) {
            break Err(Error::UploadInvalid("the body is longer than its Content-Range".into()));
        }
        batch.push(frame);
        if batch.bytes >= WRITE_BATCH_BYTES {
            upload.write(batch.take()).await?;
        }
    };
    if batch.bytes > 0 {
        upload.write(batch.take()).await?;
    }
    outcome?;
    match expected {
        Some(expected) if received < expected => {
            Err(Error::Body(format!("{received} bytes came, its Content-Range promised {expected}")))
        }
        _ => Ok(()),
    }
}

/// The most bytes a manifest's body will have.
pub(super) fn manifest_length(headers: &HeaderMap, limits: &Limits) -> Result<usize> {
    let limit_bytes = limits.manifest_bytes;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length = announced.unwrap_or(limit_bytes);
    if length > limit_bytes { Err(Error::ManifestTooLarge { limit_bytes }) } else { Ok(length) }
}

/// Takes a manifest's body into memory.
pub(super) async fn manifest(mut body: Body, limits: &Limits) -> Result<Bytes> {
    let limit_bytes = limits.manifest_bytes;
    let mut bytes = BytesMut::new();
    while let Some(frame) = next(&mut body, limits).await? {
        if bytes.len() + frame.len() > limit_bytes {
            return Err(Error::ManifestTooLarge { limit_bytes });
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes.freeze())
}

/// The next data of a body, waited for as long as anyone may stall.
async fn next(body: &mut Body, limits: &Limits) -> Result<Option<Bytes>> {
    loop {
        match timeout(limits.idle_timeout(), body.frame()).await {
            Err(_) => return Err(Error::Body("the client stalled".into())),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => return Err(Error::Body(e.to_string())),
            Ok(Some(Ok(frame))) => {
                // Trailers are of no use here.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Frames on their way to one write. Small ones are copied together, because each would keep the
/// whole buffer it was read into; large ones are passed on as they are.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        if frame.len() < SMALL_FRAME_BYTES {
            self.small.extend_from_slice(&frame);
        } else {
            self.close_small();
            self.pieces.push(frame);
        }
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.close_small();
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }
}
