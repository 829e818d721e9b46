//! Small helpers around files: whole-or-nothing writes, bounded reads, locks, random names.

mod replacing;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, Mode, OFlags, fadvise, flock};
use rustix::io::Errno;

pub use self::replacing::{Order, Replacing};
use crate::error::{Attempt, Error, Result};

/// `bytes` random bytes as lowercase hexadecimal digits, from the kernel's generator.
pub fn random_hex(bytes: usize) -> Result<String> {
    let mut raw = vec![0_u8; bytes];
    rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty()).attempt(|| "read random bytes")?;
    Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Replaces `path` by a file holding `bytes`, on stable storage before it is visible; a crash leaves
/// the old file or the new one.
///
/// `scratch`, on the same file system, is where it is written first. Nobody else may use that name at
/// the time; a killed process leaves a file there, which the next write under that name replaces.
pub fn write_atomically(path: &Path, scratch: &Path, bytes: &[u8]) -> Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(scratch)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(scratch, path)?;
        File::open(directory_of(path))?.sync_all()
    })();
    if written.is_err() {
        // That it may be gone already is fine.
        let _ = std::fs::remove_file(scratch);
    }
    written.attempt(|| format!("write {}", path.display()))
}

/// Bytes of a file that the kernel is told to write down at a time.
const BEHIND_BYTES: u64 = 8 << 20;

/// Writes at an offset, and has the disk begin with what was written before: it works while more comes, and who waits for
/// the end of that waits for little.
pub(crate) fn write_behind(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    file.write_all_at(bytes, offset)?;
    let whole = |offset: u64| offset / BEHIND_BYTES * BEHIND_BYTES;
    let (from, to) = (whole(offset), whole(offset.saturating_add(bytes.len() as u64)));
    if to > from {
        begin_write_back(file, from, to - from);
    }
    Ok(())
}

/// Has the disk begin with bytes of a file, and does not wait for it. A hint: it is the sync at the end that counts, of which
/// little is left then, of a GiB 0.02 s instead of 0.5 s.
pub fn begin_write_back(file: &File, offset: u64, bytes: u64) {
    // Of pages that are not on the disk yet, this call writes back all and drops none.
    let _ = fadvise(file, offset, NonZeroU64::new(bytes), Advice::DontNeed);
}

/// Where a file is; a mere name is in the working directory.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is read at first: most files are shorter.
const READ_BYTES: usize = 4096;

/// Reads a whole file of at most `limit_bytes`.
pub fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    // Most are short: two reads then, and not a dozen.
    let mut bytes = Vec::with_capacity(limit_bytes.min(READ_BYTES as u64) as usize);
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes))
        .attempt(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::invalid(path.display(), format_args!("it is longer than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// The same of a file that is replaced as a whole and never written to: what one read gives less of than it could is all.
pub(crate) fn read_replaced(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    let mut file = File::open(path).attempt(|| format!("read {}", path.display()))?;
    match file.read(&mut bytes).attempt(|| format!("read {}", path.display()))? {
        READ_BYTES => read_bounded(path, limit_bytes),
        length => {
            bytes.truncate(length);
            Ok(bytes)
        }
    }
}

/// A file that goes when it is closed.
pub fn unnamed_file(dir: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)
        .attempt(|| format!("create a temporary file in {}", dir.display()))?
        .into())
}

/// Opens (and creates) a lock file; never what a link leads to.
pub fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .attempt(|| format!("open lock file {}", path.display()))
}

/// Takes the lock, waiting if `operation` is a waiting one. `false`: somebody else holds it.
pub fn try_lock(file: &File, operation: FlockOperation) -> Result<bool> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("lock the image store", e)),
        }
    }
}

/// Creates and locks the file at `path` for as long as the returned handle lives; `None` when
/// somebody else holds it and `operation` does not wait.
///
/// The file may be renamed or removed by a previous holder while we wait, so the lock only counts
/// when the path still leads to the file that was locked.
pub fn lock_path(path: &Path, operation: FlockOperation) -> Result<Option<File>> {
    loop {
        let file = open_lock(path)?;
        if !try_lock(&file, operation)? {
            return Ok(None);
        }
        if leads_to(path, &file)? {
            return Ok(Some(file));
        }
    }
}

/// Whether the file at `path` is still this one.
pub(crate) fn leads_to(path: &Path, file: &File) -> Result<bool> {
    let own = file.metadata().attempt(|| format!("inspect {}", path.display()))?;
    Ok(std::fs::metadata(path).is_ok_and(|named| named.ino() == own.ino() && named.dev() == own.dev()))
}

/// Creates a directory only its owner may enter; one that exists is fine.
pub fn make_private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).attempt(|| format!("create directory {}", path.display()))
}

/// Where this user keeps `name`, which goes with a reboot.
pub fn runtime_directory(name: &str) -> Option<PathBuf> {
    let own = rustix::process::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|runtime| {
        // After `su` it may be another user's, who could exchange what is in it at any moment.
        runtime.is_absolute() && runtime.metadata().is_ok_and(|metadata| metadata.uid() == own.as_raw())
    });
    match runtime {
        None if own.is_root() => Some(Path::new("/run/longshore").join(name)),
        runtime => Some(runtime?.join("longshore").join(name)),
    }
}

/// A directory of this user's alone, made if missing; `None` if anyone else could have written it.
pub fn open_private_directory(path: &Path) -> Option<File> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(File::from)
    };
    let directory = match open() {
        Err(Errno::NOENT) => {
            make_private_dir(path).ok()?;
            open().ok()?
        }
        other => other.ok()?,
    };
    let status = rustix::fs::fstat(&directory).ok()?;
    (status.st_uid == rustix::process::geteuid().as_raw() && status.st_mode & 0o077 == 0).then_some(directory)
}
