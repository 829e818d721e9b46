//! The keys of the metadata database: a kind, then names, separated by NUL, which is in no name.
//!
//! Facts, each made by a record of the journal:
//!
//! | key | value |
//! |---|---|
//! | `b` repository digest | a blob of the repository: its size |
//! | `m` repository digest | a manifest of the repository: its size and media type |
//! | `x` repository digest | what that manifest refers to ([`super::References`] as JSON) |
//! | `t` repository tag | the manifest's digest |
//!
//! What follows from them, kept in the same transactions:
//!
//! | key | value |
//! |---|---|
//! | `r` repository | empty; there while anything is in it |
//! | `d` repository digest tag | empty, one for each tag on a manifest |
//! | `c` repository digest | how many manifests of the repository refer to it, if any do |
//! | `f` repository subject type digest | the descriptor of a referrer; the type is hashed |
//! | `l` digest repository | empty; the repository has it as a blob or manifest |
//! | `z` repository digest | a blob no manifest of the repository refers to: since when |
//! | `y` repository digest | a manifest without tag that no other refers to: since when |
//! | `u` digest | content that is in no repository any more: since when |

use longshore_runtime::name::{Digest, RepoName, Tag};

use super::Kind;

/// The version of this layout; present in every database that was not lost or damaged.
pub(super) const FORMAT: &[u8] = b"format";
/// The value under [`FORMAT`].
pub(super) const FORMAT_VERSION: &[u8] = b"3";
/// Bytes of the journal that are certainly in the database.
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";

pub(super) fn repository(repo: &str) -> Vec<u8> {
    join(b'r', &[repo])
}

pub(super) fn blob(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'b', &[repo.as_str(), digest.as_str()])
}

pub(super) fn manifest(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'm', &[repo.as_str(), digest.as_str()])
}

pub(super) fn references(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'x', &[repo.as_str(), digest.as_str()])
}

/// With an empty tag, what all of them begin with.
pub(super) fn tag(repo: &RepoName, tag: &str) -> Vec<u8> {
    join(b't', &[repo.as_str(), tag])
}

pub(super) fn tag_of(repo: &RepoName, digest: &Digest, tag: &Tag) -> Vec<u8> {
    join(b'd', &[repo.as_str(), digest.as_str(), tag.as_str()])
}

/// What all [`tag_of`] keys of a manifest begin with.
pub(super) fn tags_of(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'd', &[repo.as_str(), digest.as_str(), ""])
}

pub(super) fn count(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'c', &[repo.as_str(), digest.as_str()])
}

pub(super) fn referrer(repo: &RepoName, subject: &Digest, artifact_type: &str, digest: &Digest) -> Vec<u8> {
    join(b'f', &[repo.as_str(), subject.as_str(), type_key(artifact_type).as_str(), digest.as_str()])
}

/// What all [`referrer`] keys of a subject begin with, or those of one type.
pub(super) fn referrers(repo: &RepoName, subject: &Digest, artifact_type: Option<&str>) -> Vec<u8> {
    match artifact_type {
        Some(artifact_type) => join(b'f', &[repo.as_str(), subject.as_str(), type_key(artifact_type).as_str(), ""]),
        None => join(b'f', &[repo.as_str(), subject.as_str(), ""]),
    }
}

/// An artifact type may be any text; its hash may be part of a key.
fn type_key(artifact_type: &str) -> String {
    Digest::of(artifact_type.as_bytes()).hex().to_owned()
}

pub(super) fn holder(digest: &Digest, repo: &str) -> Vec<u8> {
    join(b'l', &[digest.as_str(), repo])
}

pub(super) fn unreferenced(kind: Kind, repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(all_unreferenced(kind)[0], &[repo.as_str(), digest.as_str()])
}

/// What all [`unreferenced`] keys of a kind begin with.
pub(super) fn all_unreferenced(kind: Kind) -> &'static [u8; 2] {
    match kind {
        Kind::Blob => b"z\0",
        Kind::Manifest => b"y\0",
    }
}

pub(super) fn unlinked(digest: &Digest) -> Vec<u8> {
    join(b'u', &[digest.as_str()])
}

/// What the keys of a kind begin with, or those of one repository.
pub(super) fn all(kind: u8, repo: Option<&RepoName>) -> Vec<u8> {
    match repo {
        Some(repo) => join(kind, &[repo.as_str(), ""]),
        None => vec![kind, 0],
    }
}

/// The names of a key, parsed; `None` when they are not what such a key has.
pub(super) fn names<A: std::str::FromStr, B: std::str::FromStr>(key: &[u8]) -> Option<(A, B)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('\0').skip(1);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn join(kind: u8, names: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + names.iter().map(|name| 1 + name.len()).sum::<usize>());
    key.push(kind);
    for name in names {
        key.push(0);
        key.extend_from_slice(name.as_bytes());
    }
    key
}
