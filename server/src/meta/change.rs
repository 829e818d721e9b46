//! Changes as asked for, and what each comes to in view of what is there.

use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName, Tag};

use super::lease::{Key, Leases};
use super::record::{Record, decode_number, references};
use super::table::{Table, View};
use super::{Kind, ManifestEntry, ManifestName, PutOptions, References, Unreferenced, keys};
use crate::error::{Error, Result};

/// Missing digests an error lists at most.
const MISSING_LISTED_LIMIT: usize = 16;

/// A change as asked for; it may turn out to be impossible, or nothing.
#[derive(Debug)]
pub(super) enum Change {
    LinkBlob { repo: RepoName, digest: Digest, size: u64 },
    MountBlob { from: RepoName, to: RepoName, digest: Digest },
    UnlinkBlob { repo: RepoName, digest: Digest },
    PutManifest(Box<Put>),
    Delete { repo: RepoName, name: ManifestName },
    Collect { candidate: Unreferenced, grace: Duration },
    Forget(Digest),
}

/// A manifest on its way in.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) repo: RepoName,
    pub(super) entry: ManifestEntry,
    pub(super) references: References,
    pub(super) tags: Vec<Tag>,
    pub(super) options: PutOptions,
}

/// What a change comes to.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Whether there was what was to be changed.
    pub(super) found: bool,
    pub(super) records: Vec<Record>,
    /// To be buried when the change is made, or has failed.
    pub(super) condemned: Option<Key>,
}

impl Resolved {
    const NOT_FOUND: Self = Self { found: false, records: Vec::new(), condemned: None };

    fn found(records: impl IntoIterator<Item = Record>) -> Self {
        Self { found: true, records: records.into_iter().collect(), condemned: None }
    }
}

impl Change {
    /// # Errors
    /// [`Error::ManifestBlobUnknown`], [`Error::TagExists`].
    pub(super) fn resolve<T: Table>(self, view: &View<'_, T>, leases: &Leases) -> Result<Resolved> {
        match self {
            Self::LinkBlob { repo, digest, size } => link(view, leases, repo, digest, size),
            Self::MountBlob { from, to, digest } => match view.get(&keys::blob(&from, &digest))? {
                Some(size) => link(view, leases, to, digest, decode_number(&size)),
                None => Ok(Resolved::NOT_FOUND),
            },
            Self::UnlinkBlob { repo, digest } => {
                let found = view.has(&keys::blob(&repo, &digest))?;
                Ok(if found { Resolved::found([Record::UnlinkBlob { repo, digest }]) } else { Resolved::NOT_FOUND })
            }
            Self::PutManifest(put) => put.resolve(view, leases),
            Self::Delete { repo, name } => {
                let (key, record) = match name {
                    ManifestName::Tag(tag) => (keys::tag(&repo, tag.as_str()), Record::DeleteTag { repo, tag }),
                    ManifestName::Digest(digest) => (keys::manifest(&repo, &digest), Record::DeleteManifest { repo, digest }),
                };
                Ok(if view.has(&key)? { Resolved::found([record]) } else { Resolved::NOT_FOUND })
            }
            Self::Collect { candidate, grace } => collect(view, leases, candidate, grace),
            Self::Forget(digest) => {
                let found = view.has(&keys::unlinked(&digest))?;
                Ok(if found { Resolved::found([Record::Forget { digest }]) } else { Resolved::NOT_FOUND })
            }
        }
    }
}

fn link<T: Table>(view: &View<'_, T>, leases: &Leases, repo: RepoName, digest: Digest, size: u64) -> Result<Resolved> {
    if view.get(&keys::blob(&repo, &digest))?.is_some_and(|value| decode_number(&value) == size) {
        // Not condemned: this thread is the one that condemns, and buries before it goes on.
        leases.renew((repo, digest, Kind::Blob));
        return Ok(Resolved::found([]));
    }
    Ok(Resolved::found([Record::LinkBlob { repo, digest, size }]))
}

impl Put {
    fn resolve<T: Table>(self, view: &View<'_, T>, leases: &Leases) -> Result<Resolved> {
        let Self { repo, entry: ManifestEntry { digest, media_type, size }, references, tags, options } = self;
        if !options.sparse {
            let missing = missing(view, &repo, &references)?;
            if !missing.is_empty() {
                return Err(Error::ManifestBlobUnknown(missing));
            }
        }
        let stored = view.get(&keys::manifest(&repo, &digest))?;
        let is_new = stored.is_none_or(|value| value.get(8..) != Some(media_type.as_bytes()));
        let mut moved = Vec::new();
        for tag in tags {
            match view.get(&keys::tag(&repo, tag.as_str()))? {
                Some(value) if value == digest.as_str().as_bytes() => {}
                Some(_) if !options.overwrite => return Err(Error::TagExists(tag.to_string())),
                _ => moved.push(Record::SetTag { repo: repo.clone(), tag, digest: digest.clone() }),
            }
        }
        let record = if is_new {
            Some(Record::PutManifest { repo, digest, size, media_type, references })
        } else {
            leases.renew((repo, digest, Kind::Manifest));
            None
        };
        Ok(Resolved::found(record.into_iter().chain(moved)))
    }
}

/// What a manifest refers to and the repository lacks; the first few.
fn missing<T: Table>(view: &View<'_, T>, repo: &RepoName, references: &References) -> Result<Vec<Digest>> {
    let blobs = references.blobs.iter().map(|digest| (keys::blob(repo, digest), digest));
    let manifests = references.manifests.iter().map(|digest| (keys::manifest(repo, digest), digest));
    let mut missing = Vec::new();
    for (key, digest) in blobs.chain(manifests) {
        if !missing.contains(digest) && !view.has(&key)? {
            missing.push(digest.clone());
            if missing.len() == MISSING_LISTED_LIMIT {
                break;
            }
        }
    }
    Ok(missing)
}

fn collect<T: Table>(view: &View<'_, T>, leases: &Leases, candidate: Unreferenced, grace: Duration) -> Result<Resolved> {
    let Unreferenced { repo, digest, kind, since_ms } = candidate;
    let marked = keys::unreferenced(kind, &repo, &digest);
    let unchanged = view.get(&marked)?.is_some_and(|value| decode_number(&value) == since_ms);
    if !unchanged || kind == Kind::Manifest && has_subject(view, &repo, &digest)? {
        return Ok(Resolved::NOT_FOUND);
    }
    let key = (repo.clone(), digest.clone(), kind);
    if !leases.condemn(&key, grace) {
        return Ok(Resolved::NOT_FOUND);
    }
    let record = match kind {
        Kind::Blob => Record::UnlinkBlob { repo, digest },
        Kind::Manifest => Record::DeleteManifest { repo, digest },
    };
    Ok(Resolved { found: true, records: vec![record], condemned: Some(key) })
}

/// Whether a manifest refers to a subject that is there: it lives as long as that one.
pub(super) fn has_subject<T: Table>(view: &View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<bool> {
    match references(view, repo, digest)?.referrer {
        Some(referrer) => view.has(&keys::manifest(repo, &referrer.subject)),
        None => Ok(false),
    }
}
