//! What every [`Metadata`] promises, as one suite that takes any of them.

use std::slice::from_ref as only;

use super::*;
use crate::error::Error;

const OVERWRITE: PutOptions = PutOptions { overwrite: true, sparse: false };
const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

/// Runs the suite. `open` opens the store; opening it again, the first one dropped, is a restart.
pub(crate) async fn every_promise_is_kept<M: Metadata>(open: impl Fn() -> M) {
    blobs_are_linked_mounted_and_unlinked(&open()).await;
    a_manifest_needs_what_it_refers_to(&open()).await;
    tags_follow_their_manifests(&open()).await;
    tags_are_made_but_not_moved_without_leave(&open()).await;
    referrers_are_listed_by_subject_and_type(&open()).await;
    what_nothing_refers_to_is_collected(&open()).await;
    what_somebody_was_told_of_is_not_collected(&open()).await;
    a_referrer_lives_as_long_as_its_subject(&open()).await;
    a_repository_is_known_while_it_holds_something(&open()).await;
    lists_come_in_pages(&open()).await;
    many_at_once_all_count(&open()).await;
    what_was_answered_survives_a_restart(&open).await;
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn entry(content: &str) -> ManifestEntry {
    ManifestEntry { digest: Digest::of(content.as_bytes()), media_type: "a/b+json".into(), size: content.len() as u64 }
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn by_tag(name: &str) -> ManifestName {
    ManifestName::Tag(tag(name))
}

fn by_digest(entry: &ManifestEntry) -> ManifestName {
    ManifestName::Digest(entry.digest.clone())
}

async fn blobs_are_linked_mounted_and_unlinked(store: &impl Metadata) {
    let (a, b, digest) = (repo("link/a"), repo("link/b"), Digest::of(b"blob"));
    assert_eq!(store.blob(&a, &digest).await.unwrap(), None);
    assert!(!store.mount_blob(&a, &b, &digest).await.unwrap());
    assert!(!store.unlink_blob(&a, &digest).await.unwrap());
    for _ in 0..2 {
        store.link_blob(&a, &digest, 4).await.unwrap();
        assert_eq!(store.blob(&a, &digest).await.unwrap(), Some(4));
    }
    assert_eq!(store.blob(&b, &digest).await.unwrap(), None, "a link is the repository's own");
    assert!(store.mount_blob(&a, &b, &digest).await.unwrap());
    assert!(store.unlink_blob(&a, &digest).await.unwrap());
    assert_eq!(store.blob(&a, &digest).await.unwrap(), None);
    assert_eq!(store.blob(&b, &digest).await.unwrap(), Some(4));
}

/// An image of these blobs, or an index of these manifests.
fn of(blobs: &[&Digest], manifests: &[&Digest]) -> References {
    let cloned = |digests: &[&Digest]| digests.iter().copied().cloned().collect();
    References { blobs: cloned(blobs), manifests: cloned(manifests), referrer: None }
}

/// A referrer of `subject`.
fn about(subject: &Digest, artifact_type: Option<&str>) -> References {
    let annotations = [("made-by".to_owned(), "a test \u{1f6a2}".to_owned())].into();
    let referrer = Referrer { subject: subject.clone(), artifact_type: artifact_type.map(String::from), annotations };
    References { referrer: Some(referrer), ..References::default() }
}

async fn a_manifest_needs_what_it_refers_to(store: &impl Metadata) {
    let (repo, image, index) = (repo("need"), entry("image"), entry("index"));
    let (blob, absent) = (Digest::of(b"need"), Digest::of(b"absent"));
    store.link_blob(&repo, &blob, 4).await.unwrap();
    let put = store.put_manifest(&repo, &image, &of(&[&blob, &absent], &[]), &[tag("t")], OVERWRITE).await;
    assert!(matches!(put, Err(Error::ManifestBlobUnknown(missing)) if missing == [absent]));
    let put = store.put_manifest(&repo, &index, &of(&[], &[&image.digest]), &[], OVERWRITE).await;
    assert!(matches!(put, Err(Error::ManifestBlobUnknown(_))));
    assert_eq!(store.manifest(&repo, &by_tag("t")).await.unwrap(), None, "nothing of it was done");
    assert_eq!(store.manifest(&repo, &by_digest(&image)).await.unwrap(), None);
    let sparse = PutOptions { sparse: true, ..OVERWRITE };
    store.put_manifest(&repo, &index, &of(&[], &[&image.digest]), &[], sparse).await.unwrap();
    store.put_manifest(&repo, &image, &of(&[&blob], &[]), &[tag("t")], OVERWRITE).await.unwrap();
    store.put_manifest(&repo, &index, &of(&[], &[&image.digest]), &[], OVERWRITE).await.unwrap();
    assert_eq!(store.manifest(&repo, &by_tag("t")).await.unwrap(), Some(image));
    assert_eq!(store.manifest(&repo, &by_digest(&index)).await.unwrap(), Some(index));
}

async fn tags_follow_their_manifests(store: &impl Metadata) {
    let (repo, one, two) = (repo("tags"), entry("one"), entry("two"));
    let put = async |entry, name: &str| {
        store.put_manifest(&repo, entry, &References::default(), &[tag(name)], OVERWRITE).await.unwrap();
    };
    put(&one, "a").await;
    put(&one, "b").await;
    put(&two, "b").await;
    put(&two, "c").await;
    assert_eq!(store.manifest(&repo, &by_tag("b")).await.unwrap(), Some(two.clone()), "a tag moves");
    assert!(store.delete_manifest(&repo, &by_tag("c")).await.unwrap());
    assert!(!store.delete_manifest(&repo, &by_tag("c")).await.unwrap());
    assert_eq!(store.manifest(&repo, &by_digest(&two)).await.unwrap(), Some(two.clone()), "untagged, it is still there");
    assert!(store.delete_manifest(&repo, &by_digest(&one)).await.unwrap());
    assert!(!store.delete_manifest(&repo, &by_digest(&one)).await.unwrap());
    assert_eq!(store.manifest(&repo, &by_tag("a")).await.unwrap(), None, "its tags went with it");
    assert_eq!(store.manifest(&repo, &by_tag("b")).await.unwrap(), Some(two), "the tag that had moved away did not");
    assert_eq!(store.tags(&repo, None, 10).await.unwrap().unwrap().entries, ["b"]);
}

async fn tags_are_made_but_not_moved_without_leave(store: &impl Metadata) {
    let (repo, one, two) = (repo("create"), entry("one"), entry("two"));
    let create = PutOptions { overwrite: false, sparse: false };
    let put = async |entry, tags: &[Tag], options| store.put_manifest(&repo, entry, &References::default(), tags, options).await;
    put(&one, &[tag("a"), tag("b")], create).await.unwrap();
    put(&one, &[tag("a")], create).await.unwrap();
    let refused = put(&two, &[tag("c"), tag("b")], create).await;
    assert!(matches!(refused, Err(Error::TagExists(name)) if name == "b"));
    assert_eq!(store.manifest(&repo, &by_tag("c")).await.unwrap(), None, "nothing of it was done");
    assert_eq!(store.manifest(&repo, &by_digest(&two)).await.unwrap(), None);
    put(&two, &[tag("c"), tag("b")], OVERWRITE).await.unwrap();
    assert_eq!(store.manifest(&repo, &by_tag("b")).await.unwrap(), Some(two));
    assert_eq!(store.tags(&repo, None, 10).await.unwrap().unwrap().entries, ["a", "b", "c"]);
}

async fn referrers_are_listed_by_subject_and_type(store: &impl Metadata) {
    let (repo, subject) = (repo("refer"), Digest::of(b"a subject that is not there"));
    let list = async |artifact_type: Option<&str>, after: Option<&str>, limit| {
        store.referrers(&repo, &subject, artifact_type, after, limit).await.unwrap()
    };
    assert_eq!(list(None, None, 10).await, Referrers { descriptors: vec![], next: None });
    for n in 0..7 {
        let kind = ["x/sbom", "x/signature"].get(n % 3).copied();
        let (entry, references) = (entry(&n.to_string()), about(&subject, kind));
        store.put_manifest(&repo, &entry, &references, &[], OVERWRITE).await.unwrap();
    }
    let unrelated = about(&Digest::of(b"other"), None);
    store.put_manifest(&repo, &entry("unrelated"), &unrelated, &[], OVERWRITE).await.unwrap();
    let mut all = list(None, None, 10).await.descriptors;
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = list(None, after.as_deref(), 2).await;
        paged.extend(page.descriptors);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 7);
    let mut sboms = list(Some("x/sbom"), None, 2).await;
    assert_eq!(sboms.descriptors.len(), 2);
    sboms.descriptors.extend(list(Some("x/sbom"), sboms.next.as_deref(), 2).await.descriptors);
    assert_eq!(sboms.descriptors.len(), 3);
    let parsed: serde_json::Value = serde_json::from_str(&sboms.descriptors[0]).unwrap();
    assert_eq!(parsed["artifactType"], "x/sbom");
    assert_eq!(parsed["mediaType"], "a/b+json");
    assert_eq!(parsed["annotations"]["made-by"], "a test \u{1f6a2}");
    assert_eq!(parsed["size"], 1);
    assert!(list(Some("x/none"), None, 2).await.descriptors.is_empty());
    assert!(store.delete_manifest(&repo, &by_digest(&entry("0"))).await.unwrap());
    assert_eq!(list(None, None, 10).await.descriptors.len(), 6);
    store.forget(&entry("0").digest).await.unwrap();
}

/// The digests that may be collected in a repository.
async fn unreferenced(store: &impl Metadata, repo: &RepoName, kind: Kind, grace: Duration) -> Vec<Digest> {
    let found = store.unreferenced(kind, grace, None, 10_000).await.unwrap();
    found.into_iter().filter(|candidate| candidate.repo == *repo).map(|candidate| candidate.digest).collect()
}

/// Collects what may be, and gives the number of things.
async fn collect(store: &impl Metadata, repo: &RepoName, kind: Kind, grace: Duration) -> usize {
    let mut count = 0;
    for candidate in store.unreferenced(kind, NOW, None, 10_000).await.unwrap() {
        if candidate.repo == *repo {
            count += usize::from(store.collect(&candidate, grace).await.unwrap());
        }
    }
    count
}

async fn what_nothing_refers_to_is_collected(store: &impl Metadata) {
    let (a, b, shared, alone) = (repo("gc/a"), repo("gc/b"), Digest::of(b"gc shared"), Digest::of(b"gc alone"));
    let (image, index) = (entry("gc image"), entry("gc index"));
    for digest in [&shared, &alone] {
        store.link_blob(&a, digest, 4).await.unwrap();
    }
    store.put_manifest(&a, &image, &of(&[&shared, &shared], &[]), &[tag("t")], OVERWRITE).await.unwrap();
    store.put_manifest(&a, &index, &of(&[], &[&image.digest]), &[], OVERWRITE).await.unwrap();
    assert!(store.mount_blob(&a, &b, &shared).await.unwrap());
    assert_eq!(unreferenced(store, &a, Kind::Blob, NOW).await, only(&alone));
    assert_eq!(unreferenced(store, &b, Kind::Blob, NOW).await, only(&shared));
    assert_eq!(unreferenced(store, &a, Kind::Manifest, NOW).await, only(&index.digest));
    assert_eq!(store.holders(&shared, None, 10).await.unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.holders(&shared, Some(&a), 10).await.unwrap(), only(&b));
    let keepers = store.keepers(&a, &image.digest, 10).await.unwrap();
    assert_eq!(keepers, [Keeper::Tag(tag("t")), Keeper::Manifest(index.digest.clone())]);
    assert!(matches!(store.keepers(&b, &shared, 10).await.unwrap()[..], [Keeper::Unreferenced { .. }]));

    assert!(unreferenced(store, &a, Kind::Blob, LONG).await.is_empty(), "not for so long");
    assert_eq!(collect(store, &a, Kind::Blob, LONG).await, 0, "the grace period is not over");
    assert_eq!(collect(store, &a, Kind::Blob, NOW).await, 1);
    assert_eq!(store.blob(&a, &alone).await.unwrap(), None);
    assert_eq!(store.blob(&a, &shared).await.unwrap(), Some(4));
    assert_eq!(store.unlinked(None, 10_000).await.unwrap(), only(&alone));
    store.forget(&alone).await.unwrap();
    assert!(store.unlinked(None, 10_000).await.unwrap().is_empty());

    // Untagged, the image is still the index's; both gone, its blob is nobody's.
    assert!(store.delete_manifest(&a, &by_tag("t")).await.unwrap());
    assert_eq!(unreferenced(store, &a, Kind::Manifest, NOW).await, only(&index.digest));
    assert_eq!(collect(store, &a, Kind::Manifest, NOW).await, 1);
    assert_eq!(unreferenced(store, &a, Kind::Manifest, NOW).await, only(&image.digest));
    assert!(unreferenced(store, &a, Kind::Blob, NOW).await.is_empty());
    let candidate = store.unreferenced(Kind::Manifest, NOW, None, 10_000).await.unwrap();
    let candidate = candidate.into_iter().find(|candidate| candidate.repo == a).unwrap();
    store.put_manifest(&a, &image, &of(&[&shared], &[]), &[tag("again")], OVERWRITE).await.unwrap();
    assert!(!store.collect(&candidate, NOW).await.unwrap(), "tagged again, it is needed");
    assert!(store.delete_manifest(&a, &by_digest(&image)).await.unwrap());
    assert_eq!(unreferenced(store, &a, Kind::Blob, NOW).await, only(&shared));
    assert_eq!(collect(store, &a, Kind::Blob, NOW).await, 1);
    let mut unlinked = store.unlinked(None, 10_000).await.unwrap();
    assert!(!unlinked.contains(&shared), "the other repository has it");
    unlinked.sort();
    let mut expected = vec![image.digest, index.digest];
    expected.sort();
    assert_eq!(unlinked, expected);
    assert_eq!(store.unlinked(Some(&unlinked[0]), 10).await.unwrap(), unlinked[1..]);
}

async fn what_somebody_was_told_of_is_not_collected(store: &impl Metadata) {
    let (here, blob, image) = (repo("lease"), Digest::of(b"lease"), entry("lease"));
    store.link_blob(&here, &blob, 4).await.unwrap();
    store.put_manifest(&here, &image, &References::default(), &[], OVERWRITE).await.unwrap();
    // A quarter of a second after both became unreferenced somebody is told of them.
    let quarter = Duration::from_millis(250);
    tokio::time::sleep(quarter).await;
    assert_eq!(store.blob(&here, &blob).await.unwrap(), Some(4));
    assert!(store.manifest(&here, &by_digest(&image)).await.unwrap().is_some());
    for kind in [Kind::Blob, Kind::Manifest] {
        assert!(unreferenced(store, &here, kind, quarter).await.is_empty());
        assert_eq!(collect(store, &here, kind, quarter).await, 0);
        tokio::time::sleep(quarter).await;
        assert_eq!(unreferenced(store, &here, kind, quarter).await.len(), 1);
        assert_eq!(collect(store, &here, kind, quarter).await, 1, "nobody came");
        if kind == Kind::Blob {
            assert!(store.manifest(&here, &by_digest(&image)).await.unwrap().is_some());
        }
    }
}

async fn a_referrer_lives_as_long_as_its_subject(store: &impl Metadata) {
    let (here, image, signature) = (repo("subject"), entry("subject"), entry("signature"));
    store.put_manifest(&here, &signature, &about(&image.digest, None), &[], OVERWRITE).await.unwrap();
    assert_eq!(unreferenced(store, &here, Kind::Manifest, NOW).await, only(&signature.digest));
    store.put_manifest(&here, &image, &References::default(), &[tag("t")], OVERWRITE).await.unwrap();
    assert!(unreferenced(store, &here, Kind::Manifest, NOW).await.is_empty());
    assert_eq!(store.keepers(&here, &signature.digest, 1).await.unwrap()[0], Keeper::Subject(image.digest.clone()));
    assert!(store.delete_manifest(&here, &by_digest(&image)).await.unwrap());
    assert_eq!(collect(store, &here, Kind::Manifest, NOW).await, 1);
}

async fn a_repository_is_known_while_it_holds_something(store: &impl Metadata) {
    let (here, blob, image) = (repo("known"), Digest::of(b"known"), entry("known"));
    assert_eq!(store.tags(&here, None, 1).await.unwrap(), None);
    store.link_blob(&here, &blob, 4).await.unwrap();
    store.put_manifest(&here, &image, &of(&[&blob], &[]), &[tag("t")], OVERWRITE).await.unwrap();
    assert!(store.delete_manifest(&here, &by_digest(&image)).await.unwrap());
    assert!(store.tags(&here, None, 1).await.unwrap().unwrap().entries.is_empty());
    assert!(store.unlink_blob(&here, &blob).await.unwrap());
    assert_eq!(store.tags(&here, None, 1).await.unwrap(), None);
    assert!(!store.repositories(None, 1000).await.unwrap().entries.contains(&"known".into()));
}

async fn lists_come_in_pages(store: &impl Metadata) {
    let list = repo("list");
    assert_eq!(store.tags(&list, None, 10).await.unwrap(), None);
    let names = ["A", "_x", "a", "a.b", "a1", "b"];
    for name in names.iter().rev() {
        store.put_manifest(&list, &entry("x"), &References::default(), &[tag(name)], OVERWRITE).await.unwrap();
    }
    // Neighbours in the order of keys.
    store.put_manifest(&repo("list-b"), &entry("x"), &References::default(), &[tag("z")], OVERWRITE).await.unwrap();
    store.put_manifest(&repo("list/b"), &entry("x"), &References::default(), &[tag("z")], OVERWRITE).await.unwrap();
    let page = async |after, limit| store.tags(&list, after, limit).await.unwrap().unwrap();
    assert_eq!(page(None, 10).await, Page { entries: names.map(String::from).to_vec(), more: false });
    assert!(!page(None, 6).await.more);
    assert_eq!(page(None, 2).await, Page { entries: vec!["A".into(), "_x".into()], more: true });
    assert_eq!(page(Some("a"), 2).await, Page { entries: vec!["a.b".into(), "a1".into()], more: true });
    assert_eq!(page(Some("a0"), 1).await.entries, ["a1"], "what it starts after need not exist");
    assert_eq!(page(Some("b"), 2).await, Page { entries: vec![], more: false });
    assert!(page(None, 0).await.entries.is_empty());
    let repositories = store.repositories(Some("lis"), 2).await.unwrap();
    assert_eq!(repositories, Page { entries: vec!["list".into(), "list-b".into()], more: true });
    let last = store.repositories(Some("list/b"), 100).await.unwrap();
    assert!(!last.entries.contains(&"list/b".into()) && !last.more);
}

async fn many_at_once_all_count(store: &impl Metadata) {
    let repo = repo("many");
    let put = async |n: usize| {
        let (blob, image) = (Digest::of(&n.to_be_bytes()), entry(&n.to_string()));
        store.link_blob(&repo, &blob, n as u64).await.unwrap();
        store.put_manifest(&repo, &image, &of(&[&blob], &[]), &[tag(&format!("t{n:03}"))], OVERWRITE).await.unwrap();
    };
    let mut puts: Vec<_> = (0..300).map(|n| Box::pin(put(n))).collect();
    std::future::poll_fn(|cx| {
        puts.retain_mut(|put| put.as_mut().poll(cx).is_pending());
        if puts.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!(store.tags(&repo, None, 1000).await.unwrap().unwrap().entries.len(), 300);
}

async fn what_was_answered_survives_a_restart<M: Metadata>(open: &impl Fn() -> M) {
    let (repo, image, blob) = (repo("restart"), entry("restart"), Digest::of(b"restart"));
    for round in 0..3 {
        let store = open();
        assert_eq!(store.manifest(&repo, &by_tag("gone")).await.unwrap(), None);
        assert_eq!(store.blob(&repo, &blob).await.unwrap().is_some(), round > 0);
        store.link_blob(&repo, &blob, 7).await.unwrap();
        store.put_manifest(&repo, &image, &References::default(), &[tag("kept")], OVERWRITE).await.unwrap();
        store.put_manifest(&repo, &image, &References::default(), &[tag("gone")], OVERWRITE).await.unwrap();
        assert!(store.delete_manifest(&repo, &by_tag("gone")).await.unwrap());
    }
    let store = open();
    assert_eq!(store.manifest(&repo, &by_tag("kept")).await.unwrap(), Some(image));
    assert_eq!(store.blob(&repo, &blob).await.unwrap(), Some(7));
    assert_eq!(store.tags(&repo, None, 10).await.unwrap().unwrap().entries, ["kept"]);
}
