//! What every [`BlobStore`] promises, as one suite that takes any of them.

use std::time::Duration;

use http_body_util::BodyExt;
use longshore_runtime::Error as Common;

use super::*;

/// Runs the suite. `open` opens the store; opening it again is a restart.
pub(crate) async fn every_promise_is_kept<S: BlobStore>(open: impl Fn() -> S) {
    small_content_is_stored_once_verified(&open()).await;
    any_range_is_read(&open()).await;
    an_upload_becomes_a_blob(&open()).await;
    wrong_content_ends_the_upload(&open()).await;
    an_upload_belongs_to_its_repository(&open()).await;
    an_upload_is_cancelled(&open()).await;
    what_is_stored_is_listed_and_removed(&open()).await;
    stale_uploads_expire(&open()).await;
    a_large_upload_that_is_broken_off_goes_on(&open()).await;
    one_request_at_a_time_has_an_upload(&open()).await;
    an_upload_survives_a_restart(&open).await;
}

fn repo() -> RepoName {
    "team/app".parse().unwrap()
}

fn bytes(len: usize, seed: u8) -> Bytes {
    let mut state = u64::from(seed);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}

fn sha512(content: &[u8]) -> Digest {
    Algorithm::Sha512.digest(content)
}

async fn read<S: BlobStore>(store: &S, digest: &Digest, size: u64, range: Range<u64>) -> Bytes {
    store.read(digest, size, range).await.unwrap().collect().await.unwrap().to_bytes()
}

async fn small_content_is_stored_once_verified<S: BlobStore>(store: &S) {
    let content = bytes(1000, 1);
    for digest in [Digest::of(&content), sha512(&content)] {
        assert_eq!(store.size(&digest).await.unwrap(), None);
        assert!(matches!(store.read(&digest, 1000, 0..1000).await, Err(Error::Damaged { .. })));
        let wrong = store.put(&digest, Bytes::from_static(b"other")).await;
        assert!(matches!(wrong, Err(Error::Common(Common::Mismatch { .. }))));
        assert_eq!(store.size(&digest).await.unwrap(), None);
        for _ in 0..2 {
            store.put(&digest, content.clone()).await.unwrap();
            assert_eq!(store.size(&digest).await.unwrap(), Some(1000));
            assert_eq!(read(store, &digest, 1000, 0..1000).await, content);
        }
    }
    let wrong_size = store.read(&Digest::of(&content), 999, 0..999).await;
    assert!(matches!(wrong_size, Err(Error::Damaged { .. })));
}

async fn any_range_is_read<S: BlobStore>(store: &S) {
    let size = 3_000_001;
    let content = bytes(size, 2);
    let digest = Digest::of(&content);
    store.put(&digest, content.clone()).await.unwrap();
    for range in [0..size, 0..1, size - 1..size, 524_287..524_289, 1..2_999_999, 5..5] {
        let got = read(store, &digest, size as u64, range.start as u64..range.end as u64).await;
        assert!(got == content[range.clone()], "{range:?}");
    }
}

async fn an_upload_becomes_a_blob<S: BlobStore>(store: &S) {
    let content = bytes(100_000, 3);
    // The algorithm the session was started with need not be the one it ends with.
    for digest in [Digest::of(&content), sha512(&content), Digest::of(&content)] {
        let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
        assert!(store.uploads().contains(&(repo(), id)));
        let mut upload = store.open_upload(&repo(), id).await.unwrap();
        assert_eq!(upload.offset(), 0);
        upload.write(vec![content.slice(0..1), content.slice(1..10)]).await.unwrap();
        upload.write(vec![content.slice(10..500)]).await.unwrap();
        assert_eq!(upload.offset(), 500);
        upload.suspend().await.unwrap();
        let mut upload = store.open_upload(&repo(), id).await.unwrap();
        assert_eq!(upload.offset(), 500);
        upload.write(vec![content.slice(500..)]).await.unwrap();
        assert_eq!(upload.finish(&digest).await.unwrap(), 100_000);
        assert_eq!(read(store, &digest, 100_000, 0..100_000).await, content);
        assert!(matches!(store.open_upload(&repo(), id).await, Err(Error::UploadUnknown)));
        assert!(!store.uploads().contains(&(repo(), id)));
    }
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let empty = Digest::of(b"");
    assert_eq!(store.open_upload(&repo(), id).await.unwrap().finish(&empty).await.unwrap(), 0);
    assert_eq!(read(store, &empty, 0, 0..0).await, Bytes::new());
}

async fn wrong_content_ends_the_upload<S: BlobStore>(store: &S) {
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let mut upload = store.open_upload(&repo(), id).await.unwrap();
    upload.write(vec![Bytes::from_static(b"what came")]).await.unwrap();
    let promised = Digest::of(b"what was promised");
    let error = upload.finish(&promised).await.unwrap_err();
    assert!(matches!(error, Error::Common(Common::Mismatch { .. })), "{error}");
    assert_eq!(store.size(&promised).await.unwrap(), None);
    assert_eq!(store.size(&Digest::of(b"what came")).await.unwrap(), None);
    assert!(matches!(store.open_upload(&repo(), id).await, Err(Error::UploadUnknown)));
}

async fn an_upload_belongs_to_its_repository<S: BlobStore>(store: &S) {
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let other = "team/other".parse().unwrap();
    assert!(matches!(store.open_upload(&other, id).await, Err(Error::UploadUnknown)));
    assert!(store.open_upload(&repo(), id).await.is_ok());
}

async fn an_upload_is_cancelled<S: BlobStore>(store: &S) {
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    store.open_upload(&repo(), id).await.unwrap().cancel().await.unwrap();
    assert!(matches!(store.open_upload(&repo(), id).await, Err(Error::UploadUnknown)));
}

async fn what_is_stored_is_listed_and_removed<S: BlobStore>(store: &S) {
    let contents: Vec<_> = (0..20).map(|seed| bytes(50 + usize::from(seed), seed)).collect();
    let mut digests = Vec::new();
    for content in &contents {
        let digest = if content.len() % 2 == 0 { Digest::of(content) } else { sha512(content) };
        store.put(&digest, content.clone()).await.unwrap();
        digests.push((digest, content.len() as u64));
    }
    digests.sort_unstable();
    let mut listed: Vec<(Digest, u64)> = Vec::new();
    loop {
        let page = store.list(listed.last().map(|(digest, _)| digest), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert!(listed.is_sorted());
    listed.retain(|blob| digests.contains(blob));
    assert_eq!(listed, digests);
    let (first, second) = (&digests[0].0, &digests[1].0);
    assert!(store.delete(first).await.unwrap() && !store.delete(first).await.unwrap());
    assert!(store.quarantine(second).await.unwrap() && !store.quarantine(second).await.unwrap());
    for gone in [first, second] {
        assert_eq!(store.size(gone).await.unwrap(), None);
    }
}

async fn stale_uploads_expire<S: BlobStore>(store: &S) {
    let (held, left) = (
        store.start_upload(&repo(), Algorithm::Sha256).await.unwrap(),
        store.start_upload(&repo(), Algorithm::Sha256).await.unwrap(),
    );
    assert_eq!(store.expire_uploads(Duration::from_secs(3600)).await.unwrap(), 0);
    let upload = store.open_upload(&repo(), held).await.unwrap();
    assert!(store.expire_uploads(Duration::ZERO).await.unwrap() >= 1);
    assert!(matches!(store.open_upload(&repo(), left).await, Err(Error::UploadUnknown)));
    upload.suspend().await.unwrap();
    assert!(store.open_upload(&repo(), held).await.is_ok(), "a request had it in hand");
}

async fn one_request_at_a_time_has_an_upload<S: BlobStore>(store: &S) {
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let mut first = store.open_upload(&repo(), id).await.unwrap();
    let repo = repo();
    let second = store.open_upload(&repo, id);
    tokio::pin!(second);
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending())).await);
    first.write(vec![Bytes::from_static(b"abc")]).await.unwrap();
    drop(first);
    assert_eq!(second.await.unwrap().offset(), 3, "dropped while writing, the session stands with what came");
}

async fn a_large_upload_that_is_broken_off_goes_on<S: BlobStore>(store: &S) {
    let content = bytes(9_000_001, 5);
    let digest = Digest::of(&content);
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let mut at = 0;
    while at < content.len() {
        let mut upload = store.open_upload(&repo(), id).await.unwrap();
        assert_eq!(upload.offset(), at as u64, "nothing of what came is lost");
        // The last of them ends between two batches, or in the middle of one.
        for _ in 0..7 {
            let end = content.len().min(at + 300_000);
            upload.write(vec![content.slice(at..end)]).await.unwrap();
            at = end;
        }
    }
    let upload = store.open_upload(&repo(), id).await.unwrap();
    assert_eq!(upload.finish(&digest).await.unwrap(), 9_000_001);
    assert!(read(store, &digest, 9_000_001, 0..9_000_001).await == content);
}

async fn an_upload_survives_a_restart<S: BlobStore>(open: &impl Fn() -> S) {
    let content = bytes(70_000, 4);
    let store = open();
    let id = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    let mut upload = store.open_upload(&repo(), id).await.unwrap();
    upload.write(vec![content.slice(0..60_000)]).await.unwrap();
    upload.suspend().await.unwrap();
    let empty = store.start_upload(&repo(), Algorithm::Sha256).await.unwrap();
    drop(store);
    let store = open();
    assert!(store.uploads().contains(&(repo(), id)));
    assert_eq!(store.open_upload(&repo(), empty).await.unwrap().finish(&Digest::of(b"")).await.unwrap(), 0);
    let mut upload = store.open_upload(&repo(), id).await.unwrap();
    assert_eq!(upload.offset(), 60_000);
    upload.write(vec![content.slice(60_000..)]).await.unwrap();
    assert_eq!(upload.finish(&Digest::of(&content)).await.unwrap(), 70_000);
    drop(store);
    assert_eq!(read(&open(), &Digest::of(&content), 70_000, 0..70_000).await, content);
}
