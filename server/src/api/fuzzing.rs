//! What the fuzz targets ask of this module's private parsers. Compiled for fuzzing only.

use http::{Method, Uri};

use super::range::{Wanted, chunk, wanted};
use super::route::Endpoint;
use crate::meta::ManifestName;

/// An endpoint that a path leads to is found again by the path made of its parts, and no part of it
/// can lead out of where it belongs.
pub fn path(method: &Method, path: &str) {
    let Ok(uri) = path.parse::<Uri>() else { return };
    let Ok(endpoint) = Endpoint::parse(method, &uri) else { return };
    let (repo, rest) = match &endpoint {
        Endpoint::Base | Endpoint::Token | Endpoint::Catalog => return,
        Endpoint::Tags(repo) => (repo, "tags/list".into()),
        Endpoint::Blob(repo, digest) => (repo, format!("blobs/{digest}")),
        Endpoint::Uploads(repo) => (repo, "blobs/uploads/".into()),
        Endpoint::Upload(repo, name) => (repo, format!("blobs/uploads/{name}")),
        Endpoint::Referrers(repo, subject) => (repo, format!("referrers/{subject}")),
        Endpoint::Manifest(repo, ManifestName::Tag(tag)) => (repo, format!("manifests/{tag}")),
        Endpoint::Manifest(repo, ManifestName::Digest(digest)) => (repo, format!("manifests/{digest}")),
    };
    for part in repo.as_str().split('/').chain(rest.split('/').filter(|part| !part.is_empty())) {
        assert!(!part.is_empty() && part != "." && part != "..", "{endpoint:?}");
        assert!(part.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'%' | b'?' | b'#')), "{endpoint:?}");
    }
    let again: Uri = format!("/v2/{repo}/{rest}").parse().expect("a path of plain characters");
    assert_eq!(Endpoint::parse(method, &again).expect("an endpoint"), endpoint);
}

/// What a `Range` header selects is the bytes its ranges name, as far as there are any.
pub fn range(header: &str, size: u64) {
    if let Wanted::Part(part) = wanted(Some(header), size) {
        assert!(part.start < part.end && part.end <= size);
        let (_, set) = header.split_once('=').expect("a unit");
        let ends = set.split(',').filter_map(|spec| bounds(spec.trim(), size));
        let (first, last) = ends.fold((u64::MAX, 0), |(first, last), (from, to)| (first.min(from), last.max(to)));
        assert_eq!((part.start, part.end - 1), (first, last));
    }
}

/// The first and the last byte of one range, as RFC 9110 section 14.1.2 has it.
fn bounds(spec: &str, size: u64) -> Option<(u64, u64)> {
    let end = size.checked_sub(1)?;
    let (first, last) = match spec.split_once('-')? {
        ("", n) => (size.saturating_sub(n.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, end.min(last.parse().ok()?)),
    };
    (first <= last).then_some((first, last))
}

/// A chunk's place is what `first-last` says.
pub fn content_range(header: &str) {
    if let Some(range) = chunk(header) {
        assert!(range.start < range.end);
        assert_eq!(chunk(&format!("{}-{}", range.start, range.end - 1)), Some(range));
    }
}
