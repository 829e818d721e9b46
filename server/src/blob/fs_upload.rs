//! An upload session on the file system: bytes are hashed as they are written, in one pass, while
//! the next ones arrive.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use longshore_runtime::files::begin_write_back;
use longshore_runtime::name::{Algorithm, Digest, Hasher};
use tokio::sync::OwnedMutexGuard;

use super::fs::Shared;
use super::stage::Stage;
use super::{Upload, UploadId};
use crate::blocking;
use crate::data_dir::remove_if_there;
use crate::error::{Attempt, Error, Result};
use crate::limits::{WRITE_BACK_BYTES, WRITE_BATCH_BYTES};

/// What is known of the bytes in a session's file.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "every session begins with the large one")]
pub(super) enum Progress {
    /// How many there are, and the hash of all of them.
    Known { length: u64, hasher: Hasher, algorithm: Algorithm },
    /// Nothing, after a restart or a failed write: the file is read once more before it is finished.
    Unknown,
}

impl Progress {
    pub(super) fn start(algorithm: Algorithm) -> Self {
        Self::Known { length: 0, hasher: algorithm.hasher(), algorithm }
    }

    /// Whether there need not be a file yet: it is made for the first byte, so that to start an upload
    /// takes no call that may block.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Known { length: 0, .. })
    }

    /// What is known once `pieces` were appended.
    fn follow(&mut self, pieces: &[Bytes]) -> Result<()> {
        if let Self::Known { length, hasher, .. } = self {
            for piece in pieces {
                hasher.update(piece);
                *length += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// A session in the hands of one request.
///
/// Calls that may block cost a change of threads each, so there are as few as can be: what has
/// arrived is gathered until it is a batch, and the last of it goes with the call that ends the
/// request. A small upload takes one.
#[derive(Debug)]
pub struct FsUpload {
    /// Bytes written and gathered.
    offset: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(SessionFile),
    /// One thread hashes, another writes, while the next batch is gathered: a large upload is as quick
    /// as the slowest of the three.
    Following {
        hash: Stage<Progress>,
        write: Stage<SessionFile>,
    },
    /// A write failed; the session has to be opened again.
    Failed,
}

#[derive(Debug)]
pub(super) struct SessionFile {
    shared: Arc<Shared>,
    id: UploadId,
    path: PathBuf,
    /// Opened when it is first needed, and made if it `may_be_missing`.
    file: Option<File>,
    may_be_missing: bool,
    /// Bytes written that the kernel was not told to write back yet.
    unsynced: u64,
    /// Held as long as this is: the session's next request waits for it.
    progress: OwnedMutexGuard<Progress>,
}

impl FsUpload {
    pub(super) async fn open(
        shared: Arc<Shared>,
        id: UploadId,
        path: PathBuf,
        progress: OwnedMutexGuard<Progress>,
    ) -> Result<Self> {
        let may_be_missing = progress.is_fresh();
        let mut file = SessionFile { shared, id, path, file: None, may_be_missing, unsynced: 0, progress };
        let offset = match *file.progress {
            Progress::Known { length, .. } => length,
            Progress::Unknown => {
                let measured = blocking(move || file.measure().map(|length| (file, length)));
                let (measured, length) = measured.await?;
                file = measured;
                length
            }
        };
        Ok(Self { offset, gathered: Vec::new(), gathered_bytes: 0, state: State::Idle(file) })
    }

    /// Hands on what is gathered. A request that is broken off meanwhile leaves it gathered.
    async fn follow(&mut self) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(mut file) => {
                let progress = std::mem::replace(&mut *file.progress, Progress::Unknown);
                let (hash, write) = (Stage::new(progress, Progress::follow), Stage::new(file, SessionFile::write));
                State::Following { hash, write }
            }
            other => other,
        };
        let State::Following { hash, write } = &self.state else { return Err(failed_before()) };
        let (to_hash, to_write) = tokio::try_join!(hash.room(), write.room())?;
        let batch = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        hash.put(batch.clone(), to_hash);
        write.put(batch, to_write);
        Ok(())
    }

    /// Waits for what was handed on; gives the file and what is gathered.
    async fn settle(&mut self) -> Result<(SessionFile, Vec<Bytes>)> {
        let file = match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(file) => file,
            State::Following { hash, write } => {
                let mut file = write.end().await?;
                *file.progress = hash.end().await?;
                file
            }
            State::Failed => return Err(failed_before()),
        };
        self.gathered_bytes = 0;
        Ok((file, std::mem::take(&mut self.gathered)))
    }

    async fn end(mut self) -> Result<()> {
        let (file, gathered) = self.settle().await?;
        if gathered.is_empty() { Ok(()) } else { blocking(move || file.append(&gathered).map(drop)).await }
    }
}

impl Upload for FsUpload {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn write(&mut self, pieces: Vec<Bytes>) -> Result<()> {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        self.gathered.extend(pieces);
        self.gathered_bytes += bytes;
        self.offset += bytes as u64;
        if self.gathered_bytes >= WRITE_BATCH_BYTES {
            self.follow().await?;
        }
        Ok(())
    }

    async fn suspend(self) -> Result<()> {
        self.end().await
    }

    async fn finish(mut self, digest: &Digest) -> Result<u64> {
        let ((file, gathered), digest, size) = (self.settle().await?, digest.clone(), self.offset);
        blocking(move || file.append(&gathered)?.finish(&digest)).await?;
        Ok(size)
    }

    async fn cancel(mut self) -> Result<()> {
        let (file, _) = self.settle().await?;
        blocking(move || file.discard()).await
    }
}

fn failed_before() -> Error {
    Error::UploadInvalid("an earlier write failed; ask for the upload's status".into())
}

impl Drop for FsUpload {
    /// What has arrived of a request that was broken off is kept.
    fn drop(&mut self) {
        if (!self.gathered.is_empty() || matches!(self.state, State::Following { .. }))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let state = std::mem::replace(&mut self.state, State::Failed);
            let gathered = std::mem::take(&mut self.gathered);
            let rest = Self { offset: self.offset, gathered, gathered_bytes: 0, state };
            // Whoever asks for the session's status sees what became of it.
            runtime.spawn(async { rest.end().await.ok() });
        }
    }
}

pub(super) fn open_session(path: &Path, may_be_missing: bool) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(may_be_missing).mode(0o600).open(path)
}

impl SessionFile {
    fn file(&mut self) -> Result<&mut File> {
        if self.file.is_none() {
            let file = match open_session(&self.path, self.may_be_missing) {
                // Moved to its place by a request that failed right after.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.shared.forget(self.id);
                    return Err(Error::UploadUnknown);
                }
                opened => opened.attempt(|| format!("open {}", self.path.display()))?,
            };
            self.file = Some(file);
        }
        self.file.as_mut().ok_or(Error::UploadUnknown)
    }

    /// The number of bytes there are.
    fn measure(&mut self) -> Result<u64> {
        let metadata = self.file()?.metadata();
        Ok(metadata.attempt(|| format!("look up {}", self.path.display()))?.len())
    }

    fn append(mut self, pieces: &[Bytes]) -> Result<Self> {
        // Taken out, so that a failure leaves it unknown.
        let mut progress = std::mem::replace(&mut *self.progress, Progress::Unknown);
        progress.follow(pieces)?;
        self.write(pieces)?;
        *self.progress = progress;
        Ok(self)
    }

    fn write(&mut self, pieces: &[Bytes]) -> Result<()> {
        for piece in pieces {
            self.file()?.write_all(piece).attempt(|| format!("write {}", self.path.display()))?;
        }
        self.write_back(pieces.iter().map(|piece| piece.len() as u64).sum())
    }

    /// Has the disk begin with what was `written` since it last did, so that little is left to wait for at the end.
    fn write_back(&mut self, written: u64) -> Result<()> {
        self.unsynced += written;
        if self.unsynced >= WRITE_BACK_BYTES {
            let (end, length) = (self.measure()?, std::mem::take(&mut self.unsynced));
            begin_write_back(self.file()?, end - length, length);
        }
        Ok(())
    }

    fn finish(mut self, digest: &Digest) -> Result<()> {
        let hasher = match std::mem::replace(&mut *self.progress, Progress::Unknown) {
            Progress::Known { hasher, algorithm, .. } if algorithm == digest.algorithm() => hasher,
            _ => self.rehash(digest.algorithm())?,
        };
        let got = hasher.finish();
        if got != *digest {
            let expected = digest.clone();
            self.discard()?;
            return Err(longshore_runtime::Error::Mismatch { what: "the upload".into(), expected, got }.into());
        }
        // A failure below leaves the session to be finished again, its hash read from the file.
        self.file()?.sync_data().attempt(|| format!("sync {}", self.path.display()))?;
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
        let file = self.file()?;
        let mut read_all = || {
            file.rewind()?;
            let mut buffer = vec![0; WRITE_BATCH_BYTES];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok::<_, io::Error>(()),
                    n => hasher.update(&buffer[..n]),
                }
            }
        };
        read_all().attempt(|| format!("read {}", self.path.display()))?;
        Ok(hasher)
    }
}
