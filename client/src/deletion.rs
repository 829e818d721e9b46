//! Deleting from a registry: a tag and never what another tag is, or a manifest by its digest.
//!
//! Registries differ: some delete a tag where its name is given, some refuse it and know digests alone, by which all tags
//! of a manifest go. So the name is tried first, and the digest only where no other tag has it, itself or in an index.

use longshore_runtime::image::{Document, media_type};
use longshore_runtime::name::{Digest, Reference, Tag};

use crate::error::{Error, Result};
use crate::registry::Repository;

/// Tags of a repository that are looked at to find out whether another has a digest: each costs a request.
const TAGS_LIMIT: usize = 10_000;

/// Tags that a message names.
const NAMED_LIMIT: usize = 8;

/// What was deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// A tag of a manifest of this digest, which is still there.
    Tag(Digest),
    /// A manifest by its digest, for the registry deletes no tag: no other had it.
    OnlyTag(Digest),
    /// A manifest by its digest, with all its tags.
    Manifest(Digest),
}

/// Deletes what a reference names, or finds out what would be.
///
/// Between the look at other tags and a deletion by digest another client may give the manifest a tag, which goes
/// with it: no registry offers more.
///
/// # Errors
///
/// [`longshore_runtime::Error::Busy`] for a tag that could only go with others.
pub fn delete(repository: &Repository, reference: &Reference, dry_run: bool) -> Result<Deleted> {
    if let (Some(digest), false) = (reference.digest(), dry_run) {
        repository.delete(digest.as_str())?;
        return Ok(Deleted::Manifest(digest.clone()));
    }
    // What is not there cannot be told from what the registry does not do, later on.
    let digest = repository.head(reference)?.digest;
    let (None, Some(tag)) = (reference.digest(), reference.tag()) else { return Ok(Deleted::Manifest(digest)) };
    if dry_run {
        return Ok(Deleted::Tag(digest));
    }
    match repository.delete(tag.as_str()) {
        Ok(()) => Ok(Deleted::Tag(digest)),
        Err(Error::Refused { answer, .. }) if matches!(answer.status, 400 | 404 | 405 | 501) => {
            if answer.status == 404 && is_gone(repository, reference)? {
                // It was deleted, and only the answer was lost.
                return Ok(Deleted::Tag(digest));
            }
            let others = others(repository, reference, tag, &digest)?;
            if !others.is_empty() {
                return Err(kept(reference, &others));
            }
            repository.delete(digest.as_str())?;
            Ok(Deleted::OnlyTag(digest))
        }
        Err(other) => Err(other),
    }
}

fn is_gone(repository: &Repository, reference: &Reference) -> Result<bool> {
    match repository.head(reference) {
        Err(Error::Refused { answer, .. }) if answer.status == 404 => Ok(true),
        other => other.map(|_| false),
    }
}

/// The other tags of a manifest: those that stand for it, or for an index that names it.
fn others(repository: &Repository, reference: &Reference, tag: &Tag, digest: &Digest) -> Result<Vec<Tag>> {
    let tags = repository.first_tags(TAGS_LIMIT + 1)?;
    if tags.len() > TAGS_LIMIT {
        let why =
            format!("the registry deletes no tags, and more than {TAGS_LIMIT} would have to be looked at; delete it by digest");
        return Err(longshore_runtime::Error::Busy { what: format!("tag {}", reference.familiar()), why }.into());
    }
    let mut others = Vec::new();
    for other in tags.into_iter().filter(|other| other != tag) {
        let name: Reference = format!("{}:{other}", reference.name()).parse()?;
        match repository.head(&name) {
            Ok(resolved) if resolved.digest == *digest => others.push(other),
            Ok(resolved) if [media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&&*resolved.media_type) => {
                let raw = repository.pinned_manifest(&name.with_digest(resolved.digest))?;
                if let Document::Index(index) = Document::parse(&raw.media_type, &raw.bytes)?
                    && index.manifests.iter().any(|entry| entry.digest == *digest)
                {
                    others.push(other);
                }
            }
            Ok(_) => {}
            // Gone meanwhile.
            Err(Error::Refused { answer, .. }) if answer.status == 404 => {}
            Err(e) => return Err(e),
        }
    }
    Ok(others)
}

fn kept(reference: &Reference, others: &[Tag]) -> Error {
    let mut names: Vec<&str> = others.iter().take(NAMED_LIMIT).map(Tag::as_str).collect();
    if others.len() > NAMED_LIMIT {
        names.push("...");
    }
    let why = format!(
        "the registry deletes no tag but with its manifest, which is also {}; delete these too, or all of them by digest",
        names.join(", ")
    );
    longshore_runtime::Error::Busy { what: format!("tag {}", reference.familiar()), why }.into()
}
