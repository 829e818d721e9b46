//! What one request of a load is, by its number.

use anyhow::{Context as _, ensure};

use super::MANIFEST_TYPE;
use super::content::Content;
use super::target::Target;
use super::wire::Connection;

/// The requests of a load. Each has a number; reads take turns, writes make something new by it.
#[derive(Debug)]
pub(super) enum Work {
    /// Prepared requests in turn, each answered alike.
    Repeat { requests: Vec<Vec<u8>>, expected: Expected },
    /// A POST and a PUT, a blob of its own each. Digests of large blobs are known before.
    Upload { target: Target, content: Content, digests: Vec<String> },
    /// One manifest, put under tag after tag.
    Tag { target: Target, prefix: String, manifest: Vec<u8> },
    /// Manifests that differ, each put under a tag of its own.
    Manifest { target: Target, prefix: String, template: Vec<u8> },
}

/// What a prepared request is answered with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// One of these.
    pub(super) statuses: &'static [u16],
    /// Whether there is only the head of an answer.
    pub(super) is_head: bool,
    /// The length of the body, if it is known.
    pub(super) body_bytes: Option<u64>,
}

/// A number of fixed width, so that the order of bytes is that of the numbers.
pub(super) fn tag(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:09}")
}

impl Work {
    /// Does it once; the bytes of content that went over the wire. `scratch` is any buffer.
    pub(super) async fn perform(&self, connection: &mut Connection, number: u64, scratch: &mut Vec<u8>) -> anyhow::Result<u64> {
        match self {
            Self::Repeat { requests, expected: Expected { statuses, is_head, body_bytes } } => {
                let request = usize::try_from(number).unwrap_or(0) % requests.len();
                let answer = connection.exchange(&requests[request], *is_head, &mut |_| ()).await?;
                ensure!(statuses.contains(&answer.head.status), "answered with {}, not {statuses:?}", answer.head.status);
                let got = answer.body_bytes;
                ensure!(body_bytes.is_none_or(|length| length == got), "answered with {got} bytes, not {body_bytes:?}");
                Ok(got)
            }
            Self::Upload { target, content, digests } => {
                upload(target, content, number, digests.get(usize::try_from(number)?).cloned(), connection, scratch).await
            }
            Self::Tag { target, prefix, manifest } => {
                put_manifest(target, &tag(prefix, number), manifest, connection, scratch).await
            }
            Self::Manifest { target, prefix, template } => {
                let name = tag(prefix, number);
                let manifest = annotated(template, &name);
                put_manifest(target, &name, &manifest, connection, scratch).await
            }
        }
    }
}

/// A manifest with an annotation of its own.
pub(super) fn annotated(template: &[u8], note: &str) -> Vec<u8> {
    let body = template.strip_suffix(b"}").unwrap_or(template);
    [body, format!(r#","annotations":{{"note":"{note}"}}}}"#).as_bytes()].concat()
}

async fn put_manifest(
    target: &Target,
    tag: &str,
    manifest: &[u8],
    connection: &mut Connection,
    scratch: &mut Vec<u8>,
) -> anyhow::Result<u64> {
    let length = manifest.len() as u64;
    target.write_head(scratch, "PUT", &target.path(&format!("manifests/{tag}")), Some((MANIFEST_TYPE, length)));
    scratch.extend_from_slice(manifest);
    let answer = connection.exchange(scratch, false, &mut |_| ()).await?;
    ensure!(answer.head.status == 201, "a manifest was answered with {}, not 201", answer.head.status);
    Ok(length)
}

async fn upload(
    target: &Target,
    content: &Content,
    number: u64,
    digest: Option<String>,
    connection: &mut Connection,
    scratch: &mut Vec<u8>,
) -> anyhow::Result<u64> {
    let first = content.first_piece(number);
    let digest = digest.unwrap_or_else(|| content.digest(number));
    target.write_head(scratch, "POST", &target.path("blobs/uploads/"), None);
    let begun = connection.exchange(scratch, false, &mut |_| ()).await?.head;
    ensure!(begun.status == 202, "the beginning of an upload was answered with {}, not 202", begun.status);
    let location = begun.location.context("the beginning of an upload was answered without Location")?;
    let separator = if location.contains('?') { '&' } else { '?' };
    let path = format!("{}{separator}digest={digest}", target.path_of(&location)?);
    target.write_head(scratch, "PUT", &path, Some(("application/octet-stream", content.size)));
    scratch.extend_from_slice(&first);
    let mut sent = connection.send(scratch).await;
    for piece in content.further_pieces() {
        if sent.is_ok() {
            sent = connection.send(piece).await;
        }
    }
    let answer = match sent {
        Ok(()) => connection.exchange(&[], false, &mut |_| ()).await,
        // Who refuses an upload may close before it is all there; what it says tells more than the pipe.
        Err(e) => connection.receive(false, &mut |_| ()).await.map_err(|_| e),
    };
    let status = answer?.head.status;
    ensure!(status == 201, "an upload was answered with {status}, not 201");
    Ok(content.size)
}
