//! The blob store on a file system.
//!
//! Content is written to a temporary file, synced, and renamed to its place; the directory is
//! synced before anyone is told. So a file under `blobs/` is whole and verified, always.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longshore_runtime::name::{Algorithm, Digest, RepoName};

use super::fs_upload::{FsUpload, Progress, open_session};
use super::{BlobBody, BlobStore, UploadId};
use crate::blocking;
use crate::cache::Cache;
use crate::data_dir::{remove_if_there, sync_directory};
use crate::error::{Attempt, Error, Result};
use crate::file_span::FileSpan;
use crate::limits::{CONTENT_CACHE_BYTES, Limits, SMALL_BLOB_BYTES, UPLOAD_BUSY_TIMEOUT, UPLOAD_REPOSITORY_LIMIT_BYTES};

/// Content and uploads in a directory; a cheap handle.
#[derive(Debug, Clone)]
pub struct FsBlobStore {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    root: PathBuf,
    uploads_limit: usize,
    /// Recently read small blobs. Who may read one is for the metadata to say, every time.
    small: Cache<Digest, Bytes>,
    /// Every upload session there is. Locked for look-ups only, never across I/O.
    sessions: Mutex<HashMap<UploadId, Session>>,
}

#[derive(Debug, Clone)]
struct Session {
    repo: RepoName,
    started: Instant,
    /// Locked by the request that writes.
    progress: Arc<tokio::sync::Mutex<Progress>>,
}

impl Session {
    fn new(repo: RepoName, progress: Progress) -> Self {
        Self { repo, started: Instant::now(), progress: Arc::new(tokio::sync::Mutex::new(progress)) }
    }
}

impl FsBlobStore {
    /// Whether `root` holds a blob store.
    pub fn exists(root: &Path) -> bool {
        // The directory created last.
        root.join("blobs/sha512/ff").is_dir()
    }

    /// Opens the store in `root`, creating it when it is not there. All directories are created at
    /// once, so that no later write has to see to a directory's own durability.
    pub fn open(root: &Path, limits: &Limits) -> Result<Self> {
        if !Self::exists(root) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let parent = root.join("blobs").join(algorithm.as_str());
                for shard in 0..=u8::MAX {
                    create_directory(&parent.join(format!("{shard:02x}")))?;
                }
                sync_directory(&parent)?;
            }
            create_directory(&root.join("uploads"))?;
            sync_directory(&root.join("blobs"))?;
            sync_directory(root)?;
        }
        let sessions = Mutex::new(find_sessions(&root.join("uploads"), limits.upload_expiry())?);
        let small = Cache::new(CONTENT_CACHE_BYTES);
        Ok(Self { shared: Arc::new(Shared { root: root.to_owned(), uploads_limit: limits.uploads, small, sessions }) })
    }

    /// Every directory that blobs are in, in order.
    pub fn shards() -> impl Iterator<Item = Shard> {
        let of = |algorithm| (0..=u8::MAX).map(move |first_byte| Shard { algorithm, first_byte });
        [Algorithm::Sha256, Algorithm::Sha512].into_iter().flat_map(of)
    }

    /// The blobs of a directory with their sizes in bytes, in order, on the calling thread.
    pub fn shard_blocking(&self, shard: Shard) -> Result<Vec<(Digest, u64)>> {
        let directory = self.shared.shard_path(shard);
        let attempted = || format!("list {}", directory.display());
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&directory).attempt(attempted)? {
            let entry = entry.attempt(attempted)?;
            let digest = format!("{}:{}", shard.algorithm.as_str(), entry.file_name().to_string_lossy());
            let metadata = match entry.metadata() {
                // Deleted since.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.attempt(attempted)?,
            };
            blobs.extend(digest.parse().ok().map(|digest| (digest, metadata.len())));
        }
        blobs.sort_unstable();
        Ok(blobs)
    }

    /// Whether a blob is stored, on the calling thread.
    pub fn size_blocking(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.shared.blob_path(digest);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Ok(Err(e).attempt(|| format!("look up {}", path.display()))?),
        }
    }
}

impl FsBlobStore {
    /// The whole of a small blob: from memory, or read and verified.
    async fn read_small(&self, digest: &Digest, size: u64) -> Result<Bytes> {
        if let Some(bytes) = self.shared.small.get(digest).filter(|bytes| bytes.len() as u64 == size) {
            return Ok(bytes);
        }
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || shared.read_small(&digest, size)).await
    }
}

impl BlobStore for FsBlobStore {
    type Upload = FsUpload;

    async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let (store, digest) = (self.clone(), digest.clone());
        blocking(move || store.size_blocking(&digest)).await
    }

    async fn read(&self, digest: &Digest, size: u64, range: Range<u64>) -> Result<BlobBody> {
        if size <= SMALL_BLOB_BYTES {
            return self.read_small(digest, size).await.map(|bytes| BlobBody::whole(part(&bytes, range)));
        }
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || Ok(BlobBody::file(FileSpan::new(shared.open_blob(&digest, size)?, range)))).await
    }

    async fn read_stored(&self, digest: &Digest, size: u64) -> Result<BlobBody> {
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || Ok(BlobBody::file(FileSpan::new(shared.open_blob(&digest, size)?, 0..size)))).await
    }

    async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let (shared, digest) = (Arc::clone(&self.shared), digest.clone());
        blocking(move || shared.put(&digest, &bytes)).await
    }

    async fn list(&self, after: Option<&Digest>, limit: usize) -> Result<Vec<(Digest, u64)>> {
        let (store, after) = (self.clone(), after.cloned());
        blocking(move || {
            let mut found = Vec::new();
            let first = after.as_ref().map(Shard::of);
            for shard in Self::shards().filter(|shard| first.is_none_or(|first| first <= *shard)) {
                let blobs = store.shard_blocking(shard)?;
                found.extend(blobs.into_iter().filter(|(digest, _)| after.as_ref().is_none_or(|after| after < digest)));
                if found.len() >= limit {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn delete(&self, digest: &Digest) -> Result<bool> {
        let path = self.shared.blob_path(digest);
        let deleted = blocking(move || match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            // A removal that a crash undoes is found and repeated: nothing has to be synced.
            removed => Ok(removed.attempt(|| format!("remove {}", path.display())).map(|()| true)?),
        });
        let deleted = deleted.await;
        self.shared.small.invalidate(digest);
        deleted
    }

    async fn quarantine(&self, digest: &Digest) -> Result<bool> {
        let (path, directory) = (self.shared.blob_path(digest), self.shared.root.join("quarantine"));
        let aside = directory.join(format!("{}-{}", digest.algorithm().as_str(), digest.hex()));
        let moved = blocking(move || {
            create_directory(&directory)?;
            match fs::rename(&path, &aside) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                moved => moved.attempt(|| format!("rename {} to {}", path.display(), aside.display()))?,
            }
            sync_directory(&directory)?;
            sync_parent(&path).map(|()| true)
        });
        let moved = moved.await;
        self.shared.small.invalidate(digest);
        moved
    }

    async fn start_upload(&self, repo: &RepoName, algorithm: Algorithm) -> Result<UploadId> {
        if repo.as_str().len() > UPLOAD_REPOSITORY_LIMIT_BYTES {
            let why = "it is too long to be pushed to (220 bytes at most)";
            return Err(longshore_runtime::Error::Name { what: "repository name", input: repo.to_string(), why }.into());
        }
        let id = UploadId::random()?;
        self.shared.add(id, Session::new(repo.clone(), Progress::start(algorithm)))?;
        Ok(id)
    }

    async fn open_upload(&self, repo: &RepoName, id: UploadId) -> Result<FsUpload> {
        let session = self.shared.session(repo, id)?;
        let progress = tokio::time::timeout(UPLOAD_BUSY_TIMEOUT, session.progress.lock_owned());
        let progress = progress.await.map_err(|_| Error::UploadBusy)?;
        // Whoever had the session may have ended it.
        self.shared.session(repo, id)?;
        let (shared, path) = (Arc::clone(&self.shared), self.shared.upload_path(repo, id));
        FsUpload::open(shared, id, path, progress).await
    }

    async fn expire_uploads(&self, age: Duration) -> Result<u64> {
        let mut expired = 0;
        for (repo, id) in self.uploads() {
            let path = self.shared.upload_path(&repo, id);
            let Ok(Session { started, progress, .. }) = self.shared.session(&repo, id) else { continue };
            // One that a request has in hand is not stale.
            let (Ok(_progress), shared) = (progress.try_lock_owned(), Arc::clone(&self.shared)) else { continue };
            let expire = move || shared.expire(&path, id, age, started.elapsed());
            expired += u64::from(blocking(expire).await?);
        }
        Ok(expired)
    }

    fn uploads(&self) -> Vec<(RepoName, UploadId)> {
        let sessions = self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.iter().map(|(id, session)| (session.repo.clone(), *id)).collect()
    }
}

/// A directory that blobs are in: those of one algorithm whose digest begins with one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    algorithm: Algorithm,
    first_byte: u8,
}

impl Shard {
    fn of(digest: &Digest) -> Self {
        // A digest is hexadecimal.
        let first_byte = u8::from_str_radix(&digest.hex()[..2], 16).unwrap_or_default();
        Self { algorithm: digest.algorithm(), first_byte }
    }
}

impl Shared {
    fn shard_path(&self, Shard { algorithm, first_byte }: Shard) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str()).join(format!("{first_byte:02x}"))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shard_path(Shard::of(digest)).join(digest.hex())
    }

    fn open_blob(&self, digest: &Digest, size: u64) -> Result<File> {
        let (path, what) = (self.blob_path(digest), format_args!("blob {digest}"));
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::damaged(what, "the metadata knows it, but its file is gone; push it again"));
            }
            other => other.attempt(|| format!("open {}", path.display()))?,
        };
        let stored = file.metadata().attempt(|| format!("look up {}", path.display()))?.len();
        if stored != size {
            return Err(Error::damaged(what, format_args!("its file has {stored} bytes, not {size}; push it again")));
        }
        Ok(file)
    }

    fn read_small(&self, digest: &Digest, size: u64) -> Result<Bytes> {
        let epoch = self.small.epoch(digest);
        let bytes = FileSpan::new(self.open_blob(digest, size)?, 0..size).read();
        let bytes = bytes.attempt(|| format!("read {}", self.blob_path(digest).display()))?;
        verify(digest, &bytes).map_err(|e| Error::damaged(format_args!("blob {digest}"), e))?;
        self.small.insert(digest.clone(), bytes.clone(), digest.as_str().len() + bytes.len(), epoch);
        Ok(bytes)
    }

    /// The file of a session. `,` is in no repository name, so the name reads back.
    fn upload_path(&self, repo: &RepoName, id: UploadId) -> PathBuf {
        self.root.join("uploads").join(format!("{id}.{}", repo.as_str().replace('/', ",")))
    }

    fn add(&self, id: UploadId, session: Session) -> Result<()> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= self.uploads_limit {
            return Err(Error::TooMany("uploads in progress"));
        }
        sessions.insert(id, session);
        Ok(())
    }

    fn session(&self, repo: &RepoName, id: UploadId) -> Result<Session> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&id).filter(|session| session.repo == *repo).cloned().ok_or(Error::UploadUnknown)
    }

    /// Ends a session, `open_for` so long, nothing was written to for `age`; `false` when something was.
    fn expire(&self, path: &Path, id: UploadId, age: Duration, open_for: Duration) -> Result<bool> {
        let stale = idle(path)?.unwrap_or(open_for) > age;
        if stale {
            remove_if_there(path)?;
            self.forget(id);
        }
        Ok(stale)
    }

    /// Makes a file for each session that has none yet, so that it is there after a restart.
    fn keep_sessions(&mut self) {
        let sessions = std::mem::take(self.sessions.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (id, Session { repo, progress, .. }) in sessions {
            let path = self.upload_path(&repo, id);
            if progress.try_lock().is_ok_and(|progress| progress.is_fresh())
                && let Err(e) = open_session(&path, true)
            {
                tracing::warn!("create {}: {e}; whoever began that upload has to begin again", path.display());
            }
        }
    }

    pub(super) fn forget(&self, id: UploadId) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Moves a file, synced already, to its place among the blobs, and makes that durable.
    pub(super) fn publish(&self, from: &Path, digest: &Digest) -> Result<()> {
        let to = self.blob_path(digest);
        fs::rename(from, &to).attempt(|| format!("rename {} to {}", from.display(), to.display()))?;
        sync_parent(&to)
    }

    fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        verify(digest, bytes)?;
        let place = self.blob_path(digest);
        if fs::metadata(&place).is_ok_and(|metadata| metadata.len() == bytes.len() as u64) {
            // Whoever stored it may not have come to this yet.
            return sync_parent(&place);
        }
        let temporary = self.root.join("uploads").join(format!("{TEMPORARY}{}", UploadId::random()?));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_data()
        };
        let stored = write().attempt(|| format!("write {}", temporary.display())).map_err(Error::from);
        stored.and_then(|()| self.publish(&temporary, digest)).inspect_err(|_| {
            // The error that counts is on its way already; a leftover goes at the next start.
            let _ = fs::remove_file(&temporary);
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keep_sessions();
    }
}

/// The beginning of the names of files no session owns; leftovers are removed at the start.
const TEMPORARY: &str = "tmp-";

fn verify(digest: &Digest, bytes: &[u8]) -> Result<()> {
    let got = digest.algorithm().digest(bytes);
    if got == *digest {
        return Ok(());
    }
    let expected = digest.clone();
    Err(longshore_runtime::Error::Mismatch { what: "content".into(), expected, got }.into())
}

/// A range that lies within `bytes`.
fn part(bytes: &Bytes, range: Range<u64>) -> Bytes {
    // What is in memory has a length that is a `usize`.
    bytes.slice(range.start as usize..range.end as usize)
}

fn create_directory(path: &Path) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    Ok(created.attempt(|| format!("create {}", path.display()))?)
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

/// For how long nothing was written to a file, if it is there. A clock that went back makes nothing old.
fn idle(path: &Path) -> Result<Option<Duration>> {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        written => {
            let written = written.attempt(|| format!("look up {}", path.display()))?;
            Ok(Some(written.elapsed().unwrap_or_default()))
        }
    }
}

/// The sessions an earlier process left, with the repository each is bound to.
fn find_sessions(uploads: &Path, expiry: Duration) -> Result<HashMap<UploadId, Session>> {
    let attempted = || format!("list {}", uploads.display());
    let mut sessions = HashMap::new();
    for entry in fs::read_dir(uploads).attempt(attempted)? {
        let entry = entry.attempt(attempted)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(TEMPORARY) {
            remove_if_there(&entry.path())?;
        } else if let Some((id, repo)) = name.split_once('.')
            && let (Ok(id), Ok(repo)) = (id.parse(), repo.replace(',', "/").parse())
        {
            if idle(&entry.path())?.is_some_and(|idle| idle > expiry) {
                remove_if_there(&entry.path())?;
                continue;
            }
            sessions.insert(id, Session::new(repo, Progress::Unknown));
        }
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::contract::every_promise_is_kept;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_file_system_store_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        every_promise_is_kept(|| FsBlobStore::open(dir.path(), &Limits::default()).unwrap()).await;
    }

    #[tokio::test]
    async fn uploads_in_progress_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path(), &Limits::default()).unwrap();
        let repo: RepoName = "a".parse().unwrap();
        for _ in 0..Limits::default().uploads {
            store.start_upload(&repo, Algorithm::Sha256).await.unwrap();
        }
        assert!(matches!(store.start_upload(&repo, Algorithm::Sha256).await, Err(Error::TooMany(_))));
    }

    #[tokio::test]
    async fn leftovers_are_removed_and_strange_files_are_left_alone_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = dir.path().join("uploads");
        drop(FsBlobStore::open(dir.path(), &Limits::default()).unwrap());
        for name in ["tmp-x", "notes.txt", "0123456789abcdef0123456789abcdef.UPPER"] {
            fs::write(uploads.join(name), "x").unwrap();
        }
        let store = FsBlobStore::open(dir.path(), &Limits::default()).unwrap();
        assert!(!uploads.join("tmp-x").exists() && uploads.join("notes.txt").exists());
        assert!(store.uploads().is_empty());
    }

    #[tokio::test]
    async fn an_upload_nobody_goes_on_with_is_removed_at_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let repo: RepoName = "a".parse().unwrap();
        let store = FsBlobStore::open(dir.path(), &Limits::default()).unwrap();
        let (old, new) = (
            store.start_upload(&repo, Algorithm::Sha256).await.unwrap(),
            store.start_upload(&repo, Algorithm::Sha256).await.unwrap(),
        );
        let aged = std::time::SystemTime::now() - Limits::default().upload_expiry() - Duration::from_secs(60);
        let path = store.shared.upload_path(&repo, old);
        drop(store);
        OpenOptions::new().write(true).open(&path).unwrap().set_modified(aged).unwrap();
        assert_eq!(FsBlobStore::open(dir.path(), &Limits::default()).unwrap().uploads(), [(repo, new)]);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_longest_repository_a_session_can_carry_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let name = |len: usize| format!("a/{}", "b".repeat(len - 2)).parse::<RepoName>().unwrap();
        let store = FsBlobStore::open(dir.path(), &Limits::default()).unwrap();
        let longest = name(UPLOAD_REPOSITORY_LIMIT_BYTES);
        let id = store.start_upload(&longest, Algorithm::Sha256).await.unwrap();
        assert!(store.start_upload(&name(UPLOAD_REPOSITORY_LIMIT_BYTES + 1), Algorithm::Sha256).await.is_err());
        drop(store);
        assert_eq!(FsBlobStore::open(dir.path(), &Limits::default()).unwrap().uploads(), [(longest, id)]);
    }
}
