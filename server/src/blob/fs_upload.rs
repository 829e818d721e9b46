//! An upload session on the file system: bytes are hashed as they are written, in one pass, while
//! the next ones arrive.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use longshore_runtime::name::{Algorithm, Digest, Hasher};
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};

use super::fs::Shared;
use super::{Upload, UploadId};
use crate::blocking;
use crate::data_dir::remove_if_there;
use crate::error::{Attempt, Error, Result};
use crate::limits::WRITE_BATCH_BYTES;

/// What is known of the bytes in a session's file: the hash of all of them, or nothing, after a
/// restart or a failed write. Then the file is read once more before it is finished.
#[derive(Debug)]
pub(super) struct Progress(Option<(Hasher, Algorithm)>);

impl Progress {
    pub(super) fn start(algorithm: Algorithm) -> Self {
        Self(Some((algorithm.hasher(), algorithm)))
    }

    pub(super) fn unknown() -> Self {
        Self(None)
    }
}

/// A session in the hands of one request.
#[derive(Debug)]
pub struct FsUpload {
    offset: u64,
    state: State,
}

/// One write is under way while the next batch is gathered.
#[derive(Debug)]
enum State {
    Idle(OpenFile),
    Writing(JoinHandle<Result<OpenFile>>),
    /// A write failed; the session has to be opened again.
    Failed,
}

#[derive(Debug)]
struct OpenFile {
    shared: Arc<Shared>,
    id: UploadId,
    path: PathBuf,
    file: File,
    /// Held as long as this is: the session's next request waits for it.
    progress: OwnedMutexGuard<Progress>,
}

impl FsUpload {
    pub(super) fn open(shared: Arc<Shared>, id: UploadId, path: PathBuf, progress: OwnedMutexGuard<Progress>) -> Result<Self> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            // Moved to its place by a request that failed right after.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                shared.forget(id);
                return Err(Error::UploadUnknown);
            }
            opened => opened.attempt(|| format!("open {}", path.display()))?,
        };
        let offset = file.seek(SeekFrom::End(0)).attempt(|| format!("seek in {}", path.display()))?;
        Ok(Self { offset, state: State::Idle(OpenFile { shared, id, path, file, progress }) })
    }

    /// Waits for the write under way.
    async fn settle(&mut self) -> Result<OpenFile> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(file) => Ok(file),
            State::Writing(task) => match task.await {
                Ok(result) => result,
                Err(e) => Err(longshore_runtime::Error::io("write an upload", io::Error::other(e)).into()),
            },
            State::Failed => Err(Error::UploadInvalid("an earlier write failed; ask for the upload's status".into())),
        }
    }
}

impl Upload for FsUpload {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<()> {
        let file = self.settle().await?;
        self.offset += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.state = State::Writing(spawn_blocking(move || file.append(&pieces)));
        Ok(())
    }

    async fn suspend(mut self) -> Result<()> {
        self.settle().await.map(drop)
    }

    async fn finish(mut self, digest: &Digest) -> Result<u64> {
        let (file, digest, size) = (self.settle().await?, digest.clone(), self.offset);
        blocking(move || file.finish(&digest)).await?;
        Ok(size)
    }

    async fn cancel(mut self) -> Result<()> {
        let file = self.settle().await?;
        blocking(move || file.discard()).await
    }
}

impl OpenFile {
    fn append(mut self, pieces: &[Bytes]) -> Result<Self> {
        // Taken out, so that a failure leaves it unknown.
        let mut hash = self.progress.0.take();
        if let Some((hasher, _)) = &mut hash {
            pieces.iter().for_each(|piece| hasher.update(piece));
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        write_all_vectored(&mut self.file, &mut slices).attempt(|| format!("write {}", self.path.display()))?;
        self.progress.0 = hash;
        Ok(self)
    }

    fn finish(mut self, digest: &Digest) -> Result<()> {
        let hasher = match self.progress.0.take() {
            Some((hasher, algorithm)) if algorithm == digest.algorithm() => hasher,
            _ => self.rehash(digest.algorithm())?,
        };
        let got = hasher.finish();
        if got != *digest {
            let expected = digest.clone();
            self.discard()?;
            return Err(longshore_runtime::Error::Mismatch { what: "the upload".into(), expected, got }.into());
        }
        // A failure below leaves the session to be finished again, its hash read from the file.
        self.file.sync_data().attempt(|| format!("sync {}", self.path.display()))?;
        self.shared.publish(&self.path, digest)?;
        self.shared.forget(self.id);
        Ok(())
    }

    fn discard(self) -> Result<()> {
        remove_if_there(&self.path)?;
        self.shared.forget(self.id);
        Ok(())
    }

    fn rehash(&mut self, algorithm: Algorithm) -> Result<Hasher> {
        let mut hasher = algorithm.hasher();
        let mut read_all = || {
            self.file.rewind()?;
            let mut buffer = vec![0; WRITE_BATCH_BYTES];
            loop {
                match self.file.read(&mut buffer)? {
                    0 => return Ok::<_, io::Error>(()),
                    n => hasher.update(&buffer[..n]),
                }
            }
        };
        read_all().attempt(|| format!("read {}", self.path.display()))?;
        Ok(hasher)
    }
}

fn write_all_vectored(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
