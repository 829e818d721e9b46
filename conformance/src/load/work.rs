//! What one request of a load is, by its number.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use super::content::Content;
use super::target::Target;
use super::wire::Connection;
use super::{Kind, MANIFEST_TYPE};
use crate::digest::sha256;

/// The requests of a load. Each has a number, which says what it is: reads take turns, writes make
/// something new by it.
#[derive(Debug)]
pub(super) struct Work {
    parts: Vec<Part>,
    order: Order,
}

/// Requests of one kind.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) task: Task,
}

/// Which part a number belongs to.
#[derive(Debug)]
pub(super) enum Order {
    /// These parts in turn, again and again; the number is the part's own.
    Turns(Vec<usize>),
    /// For each number a part and a number of its own.
    Steps(Vec<(usize, u64)>),
}

/// What is done.
#[derive(Debug)]
pub(super) enum Task {
    /// Prepared requests in turn.
    Repeat(Vec<Request>),
    /// A POST and a PUT, a blob of its own each. Digests of large blobs are known before.
    Upload { target: Target, content: Content, digests: BTreeMap<u64, String> },
    /// A POST and a PUT of these blobs.
    Blobs(Vec<Blob>),
    /// One manifest, put under tag after tag.
    Tag { target: Target, prefix: String, manifest: Vec<u8> },
    /// Manifests that differ, each put under a tag of its own or under its digest.
    Manifest { target: Target, prefix: String, template: Vec<u8>, is_tagged: bool },
}

/// A request prepared as bytes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Vec<u8>,
    /// How much of them is content.
    pub(super) sent_bytes: u64,
    pub(super) expected: Expected,
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

/// One blob to be uploaded.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) target: Target,
    pub(super) content: Content,
    /// Which of them.
    pub(super) number: u64,
    pub(super) digest: String,
}

/// A number of fixed width, so that the order of bytes is that of the numbers.
pub(super) fn tag(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:09}")
}

/// A manifest with an annotation of its own.
pub(super) fn annotated(template: &[u8], note: &str) -> Vec<u8> {
    let body = template.strip_suffix(b"}").unwrap_or(template);
    [body, format!(r#","annotations":{{"note":"{note}"}}}}"#).as_bytes()].concat()
}

impl Expected {
    /// The answer to most.
    pub(super) const OK: Self = Self { statuses: &[200], is_head: false, body_bytes: None };
    /// To what makes something.
    pub(super) const CREATED: Self = Self { statuses: &[201], ..Self::OK };
    /// To what asks for something that is not there.
    pub(super) const ABSENT: Self = Self { statuses: &[404], ..Self::OK };
    /// To what removes something, which may be gone.
    pub(super) const REMOVED: Self = Self { statuses: &[200, 202, 204, 404], ..Self::OK };
}

impl Request {
    /// One without content.
    pub(super) fn new(bytes: Vec<u8>, expected: Expected) -> Self {
        Self { bytes, sent_bytes: 0, expected }
    }
}

impl Work {
    /// Work of several kinds.
    pub(super) fn new(parts: Vec<Part>, order: Order) -> Self {
        Self { parts, order }
    }

    /// Work of one kind.
    pub(super) fn only(kind: Kind, task: Task) -> Self {
        Self { parts: vec![Part { kind, task }], order: Order::Turns(vec![0]) }
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.parts.iter().map(|part| part.kind)
    }

    /// What a number stands for, and its number there.
    pub(super) fn part(&self, number: u64) -> anyhow::Result<(&Part, u64)> {
        let place = usize::try_from(number).context("a number of a request")?;
        let (part, own) = match &self.order {
            Order::Turns(turns) => (turns[place % turns.len()], number),
            Order::Steps(steps) => *steps.get(place).context("the trace is over")?,
        };
        Ok((&self.parts[part], own))
    }

    /// The path of what a number made and what does not go with something else.
    pub(super) fn made(&self, number: u64) -> Option<String> {
        let (part, number) = self.part(number).ok()?;
        match &part.task {
            // Tags go with their manifest; blobs of a list are known to who made the list.
            Task::Repeat(_) | Task::Blobs(_) | Task::Tag { .. } => None,
            Task::Upload { target, content, digests } => {
                let digest = digests.get(&number).cloned().unwrap_or_else(|| content.digest(number));
                Some(target.path(&format!("blobs/{digest}")))
            }
            Task::Manifest { target, prefix, template, .. } => {
                let digest = sha256(&annotated(template, &tag(prefix, number)));
                Some(target.path(&format!("manifests/{digest}")))
            }
        }
    }
}

impl Task {
    /// Does it once; the bytes of content that went over the wire. `scratch` is any buffer.
    pub(super) async fn perform(&self, connection: &mut Connection, number: u64, scratch: &mut Vec<u8>) -> anyhow::Result<u64> {
        match self {
            Self::Repeat(requests) => {
                let Request { bytes, sent_bytes, expected } = &requests[usize::try_from(number).unwrap_or(0) % requests.len()];
                let Expected { statuses, is_head, body_bytes } = expected;
                let answer = connection.exchange(bytes, *is_head, &mut |_| ()).await?;
                ensure!(statuses.contains(&answer.head.status), "answered with {}, not {statuses:?}", answer.head.status);
                let got = answer.body_bytes;
                ensure!(body_bytes.is_none_or(|length| length == got), "answered with {got} bytes, not {body_bytes:?}");
                Ok(if *sent_bytes > 0 { *sent_bytes } else { got })
            }
            Self::Upload { target, content, digests } => {
                let digest = digests.get(&number).cloned().unwrap_or_else(|| content.digest(number));
                upload(target, content, number, &digest, connection, scratch).await
            }
            Self::Blobs(blobs) => {
                let Blob { target, content, number, digest } = &blobs[usize::try_from(number).unwrap_or(0) % blobs.len()];
                upload(target, content, *number, digest, connection, scratch).await
            }
            Self::Tag { target, prefix, manifest } => {
                put_manifest(target, &tag(prefix, number), manifest, connection, scratch).await
            }
            Self::Manifest { target, prefix, template, is_tagged } => {
                let name = tag(prefix, number);
                let manifest = annotated(template, &name);
                let reference = if *is_tagged { name } else { sha256(&manifest) };
                put_manifest(target, &reference, &manifest, connection, scratch).await
            }
        }
    }
}

async fn put_manifest(
    target: &Target,
    reference: &str,
    manifest: &[u8],
    connection: &mut Connection,
    scratch: &mut Vec<u8>,
) -> anyhow::Result<u64> {
    let length = manifest.len() as u64;
    target.write_head(scratch, "PUT", &target.path(&format!("manifests/{reference}")), Some((MANIFEST_TYPE, length)));
    scratch.extend_from_slice(manifest);
    let answer = connection.exchange(scratch, false, &mut |_| ()).await?;
    ensure!(answer.head.status == 201, "a manifest was answered with {}, not 201", answer.head.status);
    Ok(length)
}

async fn upload(
    target: &Target,
    content: &Content,
    number: u64,
    digest: &str,
    connection: &mut Connection,
    scratch: &mut Vec<u8>,
) -> anyhow::Result<u64> {
    let first = content.first_piece(number);
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
