//! The keys of the metadata database: a kind, then names, separated by NUL, which is in no name.

use longshore_runtime::name::{Digest, RepoName, Tag};

/// The version of this layout; present in every database that was not lost or damaged.
pub(super) const FORMAT: &[u8] = b"format";
/// The value under [`FORMAT`].
pub(super) const FORMAT_VERSION: &[u8] = b"1";
/// Bytes of the journal that are certainly in the database.
pub(super) const CHECKPOINT: &[u8] = b"checkpoint";

/// `r` repository: empty.
pub(super) fn repository(repo: &str) -> Vec<u8> {
    join(b'r', &[repo])
}

/// `b` repository digest: the blob's size.
pub(super) fn blob(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'b', &[repo.as_str(), digest.as_str()])
}

/// `m` repository digest: the manifest's size and media type.
pub(super) fn manifest(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'm', &[repo.as_str(), digest.as_str()])
}

/// `t` repository tag: the manifest's digest. With an empty tag, what all of them begin with.
pub(super) fn tag(repo: &RepoName, tag: &str) -> Vec<u8> {
    join(b't', &[repo.as_str(), tag])
}

/// `d` repository digest tag: empty, one for each tag on a manifest.
pub(super) fn tag_of(repo: &RepoName, digest: &Digest, tag: &Tag) -> Vec<u8> {
    join(b'd', &[repo.as_str(), digest.as_str(), tag.as_str()])
}

/// What all [`tag_of`] keys of a manifest begin with.
pub(super) fn tags_of(repo: &RepoName, digest: &Digest) -> Vec<u8> {
    join(b'd', &[repo.as_str(), digest.as_str(), ""])
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
