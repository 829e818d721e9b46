//! What is asked of the metadata without changing it.

use std::time::Duration;

use longshore_runtime::name::{Digest, RepoName};

use super::change::has_subject;
use super::lease::{Key, Leases};
use super::record::{decode_digest, decode_manifest, decode_number, decode_references};
use super::table::{Lookup, Table, View};
use super::{Keeper, Kind, ManifestEntry, ManifestName, Page, Referrers, Unreferenced, keys};
use crate::error::Result;
use crate::limits::REFERRERS_PAGE_BYTES;

pub(super) fn blob<T: Lookup>(table: &T, leases: &Leases, repo: &RepoName, digest: &Digest) -> Result<Option<u64>> {
    let get = || Ok(table.get(&keys::blob(repo, digest))?.map(|value| decode_number(&value)));
    leased(table, leases, (repo, digest, Kind::Blob), get)
}

pub(super) fn manifest<T: Lookup>(
    table: &T,
    leases: &Leases,
    repo: &RepoName,
    name: &ManifestName,
) -> Result<Option<ManifestEntry>> {
    let entry = |digest: &Digest| {
        let value = table.get(&keys::manifest(repo, digest))?;
        Ok(value.map(|value| {
            let (size, media_type) = decode_manifest(&value);
            ManifestEntry { digest: digest.clone(), media_type, size }
        }))
    };
    match name {
        // Tagged, it is not unreferenced.
        ManifestName::Tag(tag) => match table.get(&keys::tag(repo, tag.as_str()))? {
            Some(value) => entry(&decode_digest(&value)?),
            None => Ok(None),
        },
        ManifestName::Digest(digest) => leased(table, leases, (repo, digest, Kind::Manifest), || entry(digest)),
    }
}

/// What `get` finds, its lease renewed when it is unreferenced.
fn leased<T: Lookup, V>(
    table: &T,
    leases: &Leases,
    (repo, digest, kind): (&RepoName, &Digest, Kind),
    get: impl Fn() -> Result<Option<V>>,
) -> Result<Option<V>> {
    let found = get()?;
    if found.is_none() || !table.has(&keys::unreferenced(kind, repo, digest))? {
        return Ok(found);
    }
    // It may have been collected before the lease was renewed: only a second look is certain.
    if leases.renew((repo.clone(), digest.clone(), kind)) { get() } else { Ok(None) }
}

/// At most `limit` names under `prefix`, after the name `after`.
pub(super) fn page<T: Table>(table: &T, prefix: &[u8], after: Option<&str>, limit: usize) -> Result<Page> {
    let after = after.map(|after| [prefix, after.as_bytes()].concat());
    let mut page = Page { entries: Vec::new(), more: false };
    for entry in table.scan(prefix, after.as_deref()) {
        let (key, _) = entry?;
        if page.entries.len() == limit {
            page.more = true;
            break;
        }
        page.entries.push(String::from_utf8_lossy(&key[prefix.len()..]).into_owned());
    }
    Ok(page)
}

pub(super) fn referrers<T: Table>(table: &T, prefix: &[u8], after: Option<&str>, limit: usize) -> Result<Referrers> {
    // A cursor is the rest of a key, in which nothing but its NUL is no part of a URL.
    let after = after.map(|cursor| [prefix, cursor.replace('.', "\0").as_bytes()].concat());
    let mut page = Referrers { descriptors: Vec::new(), next: None };
    let (mut bytes, mut last) = (0, Vec::new());
    for entry in table.scan(prefix, after.as_deref()) {
        let (key, value) = entry?;
        // At least one, however large.
        bytes += value.len();
        if page.descriptors.len() == limit || bytes > REFERRERS_PAGE_BYTES && !page.descriptors.is_empty() {
            page.next = Some(String::from_utf8_lossy(&last).replace('\0', "."));
            break;
        }
        page.descriptors.push(String::from_utf8_lossy(&value).into_owned());
        last = key[prefix.len()..].to_vec();
    }
    Ok(page)
}

pub(super) fn holders<T: Table>(table: &T, digest: &Digest, after: Option<&RepoName>, limit: usize) -> Result<Vec<RepoName>> {
    let page = page(table, &keys::holder(digest, ""), after.map(RepoName::as_str), limit)?;
    Ok(page.entries.iter().filter_map(|name| name.parse().ok()).collect())
}

pub(super) fn keepers<T: Table>(table: &T, repo: &RepoName, digest: &Digest, limit: usize) -> Result<Vec<Keeper>> {
    let mut keepers = Vec::new();
    for name in page(table, &keys::tags_of(repo, digest), None, limit)?.entries {
        keepers.extend(name.parse().ok().map(Keeper::Tag));
    }
    let manifests = keys::all(b'x', Some(repo));
    for entry in table.scan(&manifests, None) {
        if keepers.len() >= limit {
            break;
        }
        let (key, value) = entry?;
        if decode_references(&value)?.targets().any(|target| target == digest)
            && let Some((_, manifest)) = keys::names::<RepoName, _>(&key)
        {
            keepers.push(Keeper::Manifest(manifest));
        }
    }
    let view = View::new(table, 0);
    if has_subject(&view, repo, digest)?
        && let Some(referrer) = super::record::references(&view, repo, digest)?.referrer
    {
        keepers.push(Keeper::Subject(referrer.subject));
    }
    for kind in [Kind::Blob, Kind::Manifest] {
        if let Some(value) = table.get(&keys::unreferenced(kind, repo, digest))? {
            keepers.push(Keeper::Unreferenced { since_ms: decode_number(&value) });
        }
    }
    Ok(keepers)
}

pub(super) fn unreferenced<T: Table>(
    table: &T,
    leases: &Leases,
    kind: Kind,
    grace: Duration,
    after: Option<&Unreferenced>,
    limit: usize,
) -> Result<Vec<Unreferenced>> {
    let newest_ms = leases.clock().now_ms().saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let (view, after) = (View::new(table, 0), after.map(|after| keys::unreferenced(kind, &after.repo, &after.digest)));
    let mut found = Vec::new();
    for entry in table.scan(keys::all_unreferenced(kind), after.as_deref()) {
        if found.len() == limit {
            break;
        }
        let (key, value) = entry?;
        let (Some((repo, digest)), since_ms) = (keys::names(&key), decode_number(&value)) else { continue };
        let lease: Key = (repo, digest, kind);
        if since_ms > newest_ms || leases.is_held(&lease, grace) {
            continue;
        }
        let (repo, digest, _) = lease;
        if kind == Kind::Blob || !has_subject(&view, &repo, &digest)? {
            found.push(Unreferenced { repo, digest, kind, since_ms });
        }
    }
    Ok(found)
}

pub(super) fn unlinked<T: Table>(table: &T, after: Option<&Digest>, limit: usize) -> Result<Vec<Digest>> {
    let page = page(table, &keys::all(b'u', None), after.map(Digest::as_str), limit)?;
    Ok(page.entries.iter().filter_map(|digest| digest.parse().ok()).collect())
}
