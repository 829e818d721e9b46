//! What every [`Metadata`] promises, as one suite that takes any of them.

use super::*;
use crate::error::Error;

/// Runs the suite. `open` opens the store; opening it again, the first one dropped, is a restart.
pub(crate) async fn every_promise_is_kept<M: Metadata>(open: impl Fn() -> M) {
    blobs_are_linked_mounted_and_unlinked(&open()).await;
    a_manifest_needs_what_it_refers_to(&open()).await;
    tags_follow_their_manifests(&open()).await;
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

async fn a_manifest_needs_what_it_refers_to(store: &impl Metadata) {
    let (repo, image, index) = (repo("need"), entry("image"), entry("index"));
    let (blob, absent) = (Digest::of(b"need"), Digest::of(b"absent"));
    store.link_blob(&repo, &blob, 4).await.unwrap();
    let put = store.put_manifest(&repo, &image, Some(&tag("t")), &[blob.clone(), absent.clone()], &[]).await;
    assert!(matches!(put, Err(Error::ManifestBlobUnknown(missing)) if missing == [absent]));
    let put = store.put_manifest(&repo, &index, None, &[], std::slice::from_ref(&image.digest)).await;
    assert!(matches!(put, Err(Error::ManifestBlobUnknown(_))));
    assert_eq!(store.manifest(&repo, &by_tag("t")).await.unwrap(), None, "nothing of it was done");
    assert_eq!(store.manifest(&repo, &by_digest(&image)).await.unwrap(), None);
    store.put_manifest(&repo, &image, Some(&tag("t")), &[blob], &[]).await.unwrap();
    store.put_manifest(&repo, &index, None, &[], std::slice::from_ref(&image.digest)).await.unwrap();
    assert_eq!(store.manifest(&repo, &by_tag("t")).await.unwrap(), Some(image));
    assert_eq!(store.manifest(&repo, &by_digest(&index)).await.unwrap(), Some(index));
}

async fn tags_follow_their_manifests(store: &impl Metadata) {
    let (repo, one, two) = (repo("tags"), entry("one"), entry("two"));
    let put = async |entry, name: &str| store.put_manifest(&repo, entry, Some(&tag(name)), &[], &[]).await.unwrap();
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

async fn lists_come_in_pages(store: &impl Metadata) {
    let list = repo("list");
    assert_eq!(store.tags(&list, None, 10).await.unwrap(), None);
    let names = ["A", "_x", "a", "a.b", "a1", "b"];
    for name in names.iter().rev() {
        store.put_manifest(&list, &entry("x"), Some(&tag(name)), &[], &[]).await.unwrap();
    }
    // Neighbours in the order of keys.
    store.put_manifest(&repo("list-b"), &entry("x"), Some(&tag("z")), &[], &[]).await.unwrap();
    store.put_manifest(&repo("list/b"), &entry("x"), Some(&tag("z")), &[], &[]).await.unwrap();
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
        store.put_manifest(&repo, &image, Some(&tag(&format!("t{n:03}"))), &[blob], &[]).await.unwrap();
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
        store.put_manifest(&repo, &image, Some(&tag("kept")), &[], &[]).await.unwrap();
        store.put_manifest(&repo, &image, Some(&tag("gone")), &[], &[]).await.unwrap();
        assert!(store.delete_manifest(&repo, &by_tag("gone")).await.unwrap());
    }
    let store = open();
    assert_eq!(store.manifest(&repo, &by_tag("kept")).await.unwrap(), Some(image));
    assert_eq!(store.blob(&repo, &blob).await.unwrap(), Some(7));
    assert_eq!(store.tags(&repo, None, 10).await.unwrap().unwrap().entries, ["kept"]);
}
