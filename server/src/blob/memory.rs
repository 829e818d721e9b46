//! Content in memory, for tests, on storage that can fail.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use longshore_runtime::name::{Algorithm, Digest, RepoName};
use tokio::sync::OwnedMutexGuard;

use super::{BlobBody, BlobStore, Upload, UploadId};
use crate::error::{Error, Result};
use crate::faults::Faults;

/// A blob store in memory; a cheap handle. What is in it is what a restart would find.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryBlobStore {
    blobs: Arc<Mutex<HashMap<Digest, Bytes>>>,
    sessions: Arc<Mutex<HashMap<UploadId, Session>>>,
    faults: Arc<Faults>,
}

type Content = Arc<tokio::sync::Mutex<Vec<u8>>>;

#[derive(Debug, Clone)]
struct Session {
    repo: RepoName,
    content: Content,
}

impl MemoryBlobStore {
    pub(crate) fn with(faults: &Arc<Faults>) -> Self {
        Self { faults: Arc::clone(faults), ..Self::default() }
    }

    fn session(&self, repo: &RepoName, id: UploadId) -> Result<Session> {
        let sessions = self.sessions.lock().unwrap();
        sessions.get(&id).filter(|session| session.repo == *repo).cloned().ok_or(Error::UploadUnknown)
    }

    fn store(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let (expected, got) = (digest.clone(), digest.algorithm().digest(&bytes));
        if got != expected {
            return Err(longshore_runtime::Error::Mismatch { what: "content".into(), expected, got }.into());
        }
        self.faults.next("store a blob").map_err(|(_, e)| e)?;
        self.blobs.lock().unwrap().insert(expected, bytes);
        Ok(())
    }
}

impl BlobStore for MemoryBlobStore {
    type Upload = MemoryUpload;

    async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.blobs.lock().unwrap().get(digest).map(|bytes| bytes.len() as u64))
    }

    async fn read(&self, digest: &Digest, size: u64, range: Range<u64>) -> Result<BlobBody> {
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(digest).filter(|bytes| bytes.len() as u64 == size);
        let bytes = bytes.ok_or_else(|| Error::damaged(format!("blob {digest}"), "it is not what it was"))?;
        let at = |offset| usize::try_from(offset).unwrap();
        Ok(BlobBody::Whole(Some(bytes.slice(at(range.start)..at(range.end)))))
    }

    async fn read_stored(&self, digest: &Digest, size: u64) -> Result<BlobBody> {
        self.read(digest, size, 0..size).await
    }

    async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        self.store(digest, bytes)?;
        let_others_go_first().await;
        Ok(())
    }

    async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>> {
        let blobs = self.blobs.lock().unwrap();
        let listed = blobs.iter().map(|(digest, bytes)| (digest.clone(), bytes.len() as u64));
        let mut listed: Vec<_> = listed.filter(|(digest, _)| after.is_none_or(|after| after < digest)).collect();
        listed.sort_unstable();
        listed.truncate(limit);
        Ok(listed)
    }

    async fn delete(&self, digest: &Digest) -> Result<bool> {
        self.faults.next("delete a blob").map_err(|(_, e)| e)?;
        Ok(self.blobs.lock().unwrap().remove(digest).is_some())
    }

    async fn quarantine(&self, digest: &Digest) -> Result<bool> {
        self.delete(digest).await
    }

    async fn start_upload(&self, repo: &RepoName, _algorithm: Algorithm) -> Result<UploadId> {
        let id = UploadId::random()?;
        self.sessions.lock().unwrap().insert(id, Session { repo: repo.clone(), content: Content::default() });
        Ok(id)
    }

    async fn open_upload(&self, repo: &RepoName, id: UploadId) -> Result<MemoryUpload> {
        let content = self.session(repo, id)?.content.lock_owned().await;
        self.session(repo, id)?;
        Ok(MemoryUpload { store: self.clone(), id, content })
    }

    async fn expire_uploads(&self, age: Duration) -> Result<u64> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sessions.len();
        sessions.retain(|_, session| !age.is_zero() || session.content.try_lock().is_err());
        Ok((before - sessions.len()) as u64)
    }

    fn uploads(&self) -> Vec<(RepoName, UploadId)> {
        self.sessions.lock().unwrap().iter().map(|(id, session)| (session.repo.clone(), *id)).collect()
    }
}

/// Between content being stored and its metadata, where others are the most trouble.
async fn let_others_go_first() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

/// A session in the hands of one request.
#[derive(Debug)]
pub(crate) struct MemoryUpload {
    store: MemoryBlobStore,
    id: UploadId,
    content: OwnedMutexGuard<Vec<u8>>,
}

impl Upload for MemoryUpload {
    fn offset(&self) -> u64 {
        self.content.len() as u64
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<()> {
        pieces.iter().for_each(|piece| self.content.extend_from_slice(piece));
        Ok(())
    }

    async fn suspend(self) -> Result<()> {
        Ok(())
    }

    async fn finish(mut self, digest: &Digest) -> Result<u64> {
        let bytes: Bytes = std::mem::take(&mut *self.content).into();
        let size = bytes.len() as u64;
        self.store.sessions.lock().unwrap().remove(&self.id);
        self.store.store(digest, bytes)?;
        let_others_go_first().await;
        Ok(size)
    }

    async fn cancel(self) -> Result<()> {
        self.store.sessions.lock().unwrap().remove(&self.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::contract::every_promise_is_kept;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        let store = MemoryBlobStore::default();
        every_promise_is_kept(|| store.clone()).await;
    }
}
