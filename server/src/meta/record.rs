//! The records of the journal, and what each does to the database. The live path and the replay of
//! the journal share [`Record::apply`].
//!
//! What follows from facts (counts, lists of holders, what is unreferenced) is kept by the few
//! functions that make a fact true or untrue, so it holds in every state the database can be in,
//! and replaying a stretch of the journal over a database that has it already changes nothing.

use std::fmt::Display;
use std::str::FromStr;

use longshore_runtime::name::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

use super::table::{Table, View};
use super::{Fact, Kind, ManifestEntry, References, keys};
use crate::error::{Attempt, Error, Result};

/// A change that happened. Each says what is, not what is different, so that replaying a stretch
/// of the journal twice ends where replaying it once ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Record {
    LinkBlob {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
        size: u64,
    },
    UnlinkBlob {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
    },
    PutManifest {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
        size: u64,
        media_type: String,
        references: References,
    },
    DeleteManifest {
        #[serde(with = "text")]
        repo: RepoName,
        digest: Digest,
    },
    SetTag {
        #[serde(with = "text")]
        repo: RepoName,
        #[serde(with = "text")]
        tag: Tag,
        digest: Digest,
    },
    DeleteTag {
        #[serde(with = "text")]
        repo: RepoName,
        #[serde(with = "text")]
        tag: Tag,
    },
    /// Content that was in no repository is gone from the blob store.
    Forget { digest: Digest },
    /// The first line of a journal that was written anew; see [`super::journal`]. Does nothing.
    Base { position: u64, bytes: u64 },
}

impl From<Fact> for Record {
    fn from(fact: Fact) -> Self {
        match fact {
            Fact::Blob { repo, digest, size } => Self::LinkBlob { repo, digest, size },
            Fact::Manifest { repo, entry: ManifestEntry { digest, media_type, size }, references } => {
                Self::PutManifest { repo, digest, size, media_type, references }
            }
            Fact::Tag { repo, tag, digest } => Self::SetTag { repo, tag, digest },
        }
    }
}

impl Record {
    /// Does it.
    pub(super) fn apply<T: Table>(&self, view: &mut View<'_, T>) -> Result<()> {
        match self {
            Self::LinkBlob { repo, digest, size } => link(view, repo, digest, *size),
            Self::UnlinkBlob { repo, digest } => unlink(view, repo, digest),
            Self::PutManifest { repo, digest, size, media_type, references } => {
                let entry = ManifestEntry { digest: digest.clone(), media_type: media_type.clone(), size: *size };
                put_manifest(view, repo, &entry, references)
            }
            Self::DeleteManifest { repo, digest } => delete_manifest(view, repo, digest),
            Self::SetTag { repo, tag, digest } => set_tag(view, repo, tag, digest),
            Self::DeleteTag { repo, tag } => {
                delete_tag(view, repo, tag)?;
                leave(view, repo)
            }
            Self::Forget { digest } => {
                view.remove(keys::unlinked(digest));
                Ok(())
            }
            Self::Base { .. } => Ok(()),
        }
    }
}

fn link<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest, size: u64) -> Result<()> {
    let key = keys::blob(repo, digest);
    let is_new = !view.has(&key)?;
    view.put(key, size.to_be_bytes());
    if is_new {
        hold(view, repo, digest);
        if !view.has(&keys::count(repo, digest))? {
            view.put(keys::unreferenced(Kind::Blob, repo, digest), view.now_ms.to_be_bytes());
        }
    }
    Ok(())
}

fn unlink<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<()> {
    let key = keys::blob(repo, digest);
    if view.has(&key)? {
        view.remove(key);
        view.remove(keys::unreferenced(Kind::Blob, repo, digest));
        release(view, repo, digest)?;
    }
    Ok(())
}

fn put_manifest<T: Table>(view: &mut View<'_, T>, repo: &RepoName, entry: &ManifestEntry, references: &References) -> Result<()> {
    let digest = &entry.digest;
    let key = keys::manifest(repo, digest);
    let is_new = !view.has(&key)?;
    view.put(key, [&entry.size.to_be_bytes(), entry.media_type.as_bytes()].concat());
    if !is_new {
        return Ok(());
    }
    hold(view, repo, digest);
    let json = serde_json::to_vec(references).attempt(|| "write what a manifest refers to")?;
    view.put(keys::references(repo, digest), json);
    for target in references.targets() {
        let count = count(view, repo, target)?;
        set_count(view, repo, target, count + 1)?;
    }
    if let Some(referrer) = &references.referrer {
        let artifact_type = referrer.artifact_type.as_deref().unwrap_or_default();
        let key = keys::referrer(repo, &referrer.subject, artifact_type, digest);
        view.put(key, descriptor(entry, referrer)?);
    }
    if count(view, repo, digest)? == 0 {
        view.put(keys::unreferenced(Kind::Manifest, repo, digest), view.now_ms.to_be_bytes());
    }
    Ok(())
}

fn delete_manifest<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<()> {
    let key = keys::manifest(repo, digest);
    // Its tags even if it is gone: replayed over a database that is further on, the record before this
    // one has put a tag on a manifest that this one has taken out already.
    let prefix = keys::tags_of(repo, digest);
    for key in view.keys(&prefix)? {
        view.remove(keys::tag(repo, &String::from_utf8_lossy(&key[prefix.len()..])));
        view.remove(key);
    }
    if !view.has(&key)? {
        return leave(view, repo);
    }
    let references = references(view, repo, digest)?;
    view.remove(keys::references(repo, digest));
    view.remove(key);
    view.remove(keys::unreferenced(Kind::Manifest, repo, digest));
    for target in references.targets() {
        let count = count(view, repo, target)?;
        set_count(view, repo, target, count.saturating_sub(1))?;
    }
    if let Some(referrer) = &references.referrer {
        let artifact_type = referrer.artifact_type.as_deref().unwrap_or_default();
        view.remove(keys::referrer(repo, &referrer.subject, artifact_type, digest));
    }
    release(view, repo, digest)
}

fn set_tag<T: Table>(view: &mut View<'_, T>, repo: &RepoName, tag: &Tag, digest: &Digest) -> Result<()> {
    delete_tag(view, repo, tag)?;
    view.put(keys::repository(repo.as_str()), []);
    view.put(keys::tag(repo, tag.as_str()), digest.as_str());
    view.put(keys::tag_of(repo, digest, tag), []);
    view.remove(keys::unreferenced(Kind::Manifest, repo, digest));
    Ok(())
}

fn delete_tag<T: Table>(view: &mut View<'_, T>, repo: &RepoName, tag: &Tag) -> Result<()> {
    let key = keys::tag(repo, tag.as_str());
    if let Some(value) = view.get(&key)? {
        let digest = decode_digest(&value)?;
        view.remove(key);
        view.remove(keys::tag_of(repo, &digest, tag));
        let is_tagged = view.has_any(&keys::tags_of(repo, &digest))?;
        if !is_tagged && view.has(&keys::manifest(repo, &digest))? && count(view, repo, &digest)? == 0 {
            view.put(keys::unreferenced(Kind::Manifest, repo, &digest), view.now_ms.to_be_bytes());
        }
    }
    Ok(())
}

fn count<T: Table>(view: &View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<u64> {
    Ok(view.get(&keys::count(repo, digest))?.map_or(0, |value| decode_number(&value)))
}

fn set_count<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest, count: u64) -> Result<()> {
    if count > 0 {
        view.put(keys::count(repo, digest), count.to_be_bytes());
        view.remove(keys::unreferenced(Kind::Blob, repo, digest));
        view.remove(keys::unreferenced(Kind::Manifest, repo, digest));
        return Ok(());
    }
    view.remove(keys::count(repo, digest));
    if view.has(&keys::blob(repo, digest))? {
        view.put(keys::unreferenced(Kind::Blob, repo, digest), view.now_ms.to_be_bytes());
    }
    if view.has(&keys::manifest(repo, digest))? && !view.has_any(&keys::tags_of(repo, digest))? {
        view.put(keys::unreferenced(Kind::Manifest, repo, digest), view.now_ms.to_be_bytes());
    }
    Ok(())
}

/// The repository has the digest, as a blob or a manifest.
fn hold<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest) {
    view.put(keys::repository(repo.as_str()), []);
    view.put(keys::holder(digest, repo.as_str()), []);
    view.remove(keys::unlinked(digest));
}

/// The repository no longer has the digest as one of the two.
fn release<T: Table>(view: &mut View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<()> {
    if !view.has(&keys::blob(repo, digest))? && !view.has(&keys::manifest(repo, digest))? {
        view.remove(keys::holder(digest, repo.as_str()));
        if !view.has_any(&keys::holder(digest, ""))? {
            view.put(keys::unlinked(digest), view.now_ms.to_be_bytes());
        }
    }
    leave(view, repo)
}

/// A repository that holds nothing is none.
fn leave<T: Table>(view: &mut View<'_, T>, repo: &RepoName) -> Result<()> {
    for kind in *b"bmt" {
        if view.has_any(&keys::all(kind, Some(repo)))? {
            return Ok(());
        }
    }
    view.remove(keys::repository(repo.as_str()));
    Ok(())
}

/// What a manifest of the repository refers to.
pub(super) fn references<T: Table>(view: &View<'_, T>, repo: &RepoName, digest: &Digest) -> Result<References> {
    view.get(&keys::references(repo, digest))?.map_or_else(|| Ok(References::default()), |json| decode_references(&json))
}

impl References {
    /// What is counted as referred to, each digest once.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Digest> {
        let mut seen = std::collections::HashSet::new();
        self.blobs.iter().chain(&self.manifests).filter(move |digest| seen.insert(*digest))
    }
}

/// What a list of referrers says of one (image-spec descriptor.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
}

fn descriptor(entry: &ManifestEntry, referrer: &super::Referrer) -> Result<Vec<u8>> {
    let descriptor = Descriptor {
        media_type: &entry.media_type,
        digest: &entry.digest,
        size: entry.size,
        artifact_type: referrer.artifact_type.as_deref(),
        annotations: &referrer.annotations,
    };
    Ok(serde_json::to_vec(&descriptor).attempt(|| "write a referrer's descriptor")?)
}

/// A number as stored; a value of another length can only be damage, and no blob has the size it
/// then gives.
pub(super) fn decode_number(value: &[u8]) -> u64 {
    value.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn decode_digest(value: &[u8]) -> Result<Digest> {
    let text = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| unreadable("a tag"))
}

pub(super) fn decode_references(json: &[u8]) -> Result<References> {
    serde_json::from_slice(json).map_err(|_| unreadable("what a manifest refers to"))
}

fn unreadable(what: &str) -> Error {
    Error::damaged(format!("{what} in the metadata"), "it is not readable; stop rhub and run `rhub rebuild`")
}

/// The size and media type of a manifest as stored.
pub(super) fn decode_manifest(value: &[u8]) -> (u64, String) {
    let media_type = value.get(8..).unwrap_or_default();
    (decode_number(value), String::from_utf8_lossy(media_type).into_owned())
}

/// Names as the text they are parsed from.
mod text {
    use super::{Deserialize, Display, FromStr};

    pub(super) fn serialize<T: Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Referrer;
    use super::super::memory::MemoryTable;
    use super::super::table::Lookup;
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    /// One of few records, so that they meet: digests 0 to 2 are blobs, 3 is an image of the first
    /// two, 4 an index of it, 5 a referrer of that.
    fn record((kind, repo, n, tag): (u8, bool, u8, bool)) -> Record {
        let repo: RepoName = if repo { "a" } else { "b/c" }.parse().unwrap();
        let tag: Tag = if tag { "v1" } else { "v2" }.parse().unwrap();
        let (blob, manifest) = (digest(n % 3), digest(3 + n % 3));
        let references = match n % 3 {
            0 => References { blobs: vec![digest(0), digest(1), digest(0)], ..References::default() },
            1 => References { manifests: vec![digest(3)], ..References::default() },
            _ => {
                let referrer = Referrer { subject: digest(4), artifact_type: Some("a/b".into()), annotations: [].into() };
                References { blobs: vec![digest(2)], referrer: Some(referrer), ..References::default() }
            }
        };
        match kind {
            0 => Record::LinkBlob { repo, digest: blob, size: 1 },
            1 => Record::UnlinkBlob { repo, digest: blob },
            2 => Record::PutManifest { repo, digest: manifest, size: 1, media_type: "m/t".into(), references },
            3 => Record::DeleteManifest { repo, digest: manifest },
            4 => Record::SetTag { repo, tag, digest: manifest },
            5 => Record::DeleteTag { repo, tag },
            _ => Record::Forget { digest: digest(n) },
        }
    }

    /// Whether the registry would write it down in this state.
    fn can_happen(record: &Record, table: &MemoryTable) -> bool {
        let has = |key: Vec<u8>| table.has(&key).unwrap();
        match record {
            Record::LinkBlob { .. } => true,
            Record::PutManifest { repo, references, .. } => {
                references.blobs.iter().all(|blob| has(keys::blob(repo, blob)))
                    && references.manifests.iter().all(|child| has(keys::manifest(repo, child)))
            }
            Record::UnlinkBlob { repo, digest } => has(keys::blob(repo, digest)),
            Record::DeleteManifest { repo, digest } | Record::SetTag { repo, digest, .. } => has(keys::manifest(repo, digest)),
            Record::DeleteTag { repo, tag } => has(keys::tag(repo, tag.as_str())),
            Record::Forget { digest } => has(keys::unlinked(digest)),
            Record::Base { .. } => false,
        }
    }

    fn apply(record: &Record, table: &MemoryTable) {
        let mut view = View::new(table, 0);
        record.apply(&mut view).unwrap();
        table.apply(&view.into_changes()).unwrap();
    }

    fn entries(table: &MemoryTable) -> Vec<(Vec<u8>, Vec<u8>)> {
        table.scan(b"", None).map(Result::unwrap).collect()
    }

    fn table(records: &[Record]) -> MemoryTable {
        let table = MemoryTable::default();
        records.iter().for_each(|record| apply(record, &table));
        table
    }

    /// Those of the wishes that can happen, and what they come to.
    fn history(wishes: Vec<(u8, bool, u8, bool)>) -> (Vec<Record>, MemoryTable) {
        let (state, mut records) = (MemoryTable::default(), Vec::new());
        for record in wishes.into_iter().map(record) {
            if can_happen(&record, &state) {
                apply(&record, &state);
                records.push(record);
            }
        }
        (records, state)
    }

    proptest! {
        /// A database that a crash left further on than its note of the journal says.
        #[test]
        fn replaying_what_the_database_has_already_changes_nothing(
            wishes in prop::collection::vec((0..7u8, any::<bool>(), 0..6u8, any::<bool>()), 1..40),
        ) {
            let (records, state) = history(wishes);
            for reached in 0..=records.len() {
                for noted in 0..reached {
                    let database = table(&records[..reached]);
                    records[noted..].iter().for_each(|record| apply(record, &database));
                    prop_assert_eq!(entries(&database), entries(&state), "noted {}, reached {}: {:?}", noted, reached, records);
                }
            }
        }

        /// A journal written anew: every fact as it was at some moment since, and all that was appended since.
        #[test]
        fn facts_of_different_moments_and_what_followed_come_to_the_same(
            wishes in prop::collection::vec((0..7u8, any::<bool>(), 0..6u8, any::<bool>()), 1..40),
            since in any::<prop::sample::Index>(),
            moments in prop::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let (records, state) = history(wishes);
            let since = since.index(records.len() + 1);
            let states: Vec<_> = (since..=records.len()).map(|moment| table(&records[..moment])).collect();
            let known: std::collections::BTreeSet<_> = states.iter().flat_map(entries).map(|(key, _)| key).collect();
            let mut seen_at = std::collections::BTreeMap::new();
            let seen = MemoryTable::default();
            for (key, moment) in known.into_iter().zip(moments.iter().cycle()) {
                // What a manifest refers to is read after the manifest.
                let manifest = [b"m", &key[1..]].concat();
                let not_before = if key[0] == b'x' { seen_at.get(&manifest).copied().unwrap_or_default() } else { 0 };
                let moment = moment.index(states.len()).max(not_before);
                let value = states[moment].get(&key).unwrap();
                seen_at.insert(key.clone(), moment);
                seen.apply(&[(key, value)].into()).unwrap();
            }
            let anew = MemoryTable::default();
            for fact in super::super::rebuild::facts(&seen, None) {
                apply(&fact.unwrap().1.into(), &anew);
            }
            records[since..].iter().for_each(|record| apply(record, &anew));
            // What is in no repository any more a rebuild finds among the blobs.
            let facts = |table| entries(table).into_iter().filter(|(key, _)| key[0] != b'u').collect::<Vec<_>>();
            prop_assert_eq!(facts(&anew), facts(&state), "since {}: {:?}", since, records);
        }
    }
}
