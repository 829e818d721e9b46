//! A large file where somebody asked for it: an archive.

use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{directory_of, random_hex, unnamed_file};
use crate::error::{Attempt, Error, Result};

/// A file that is being written. A regular one appears under its name when it is whole, in the place of the one that symbolic
/// links lead to, and never if it is not. A pipe or a device stays what it is, and is written to.
#[derive(Debug)]
pub struct Replacing {
    file: File,
    path: PathBuf,
    way: Way,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after another.
    First,
    /// Anywhere in the file, which a pipe cannot take.
    Any,
}

/// What is to become of the file.
#[derive(Debug)]
enum Way {
    /// It has no name, and a process that is killed leaves nothing; this is its name to be.
    Linked(PathBuf),
    /// Where a file without a name cannot be or cannot get one: it has this name until it is whole.
    Renamed { scratch: PathBuf, to: PathBuf },
    /// It is the pipe or device.
    Direct,
    /// It goes into this pipe or device when it is whole.
    Copied(File),
}

impl Replacing {
    /// Begins to write what is to be at `path`. A pipe is waited for until somebody reads it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a directory, and whatever keeps it from being written.
    pub fn create(path: &Path, order: Order) -> Result<Self> {
        let attempted = || format!("write {}", path.display());
        let made = |file, way| Ok(Self { file, path: path.into(), way });
        let to = match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(Error::invalid(path.display(), "it is a directory: give the name of a file in it"));
            }
            Ok(found) if !found.is_file() => {
                let special = File::options().write(true).open(path).attempt(attempted)?;
                return match order {
                    Order::First => made(special, Way::Direct),
                    Order::Any => made(unnamed_file(&std::env::temp_dir())?, Way::Copied(special)),
                };
            }
            Ok(_) => path.canonicalize().attempt(attempted)?,
            Err(_) => path.into(),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::open(directory_of(&to), flags, mode) {
            Ok(file) if own_path(&file).exists() => made(file.into(), Way::Linked(to)),
            _ => {
                let scratch = scratch_for(&to)?;
                let file = File::options().read(true).write(true).create_new(true).open(&scratch).attempt(attempted)?;
                made(file, Way::Renamed { scratch, to })
            }
        }
    }

    /// What is written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it was asked for.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where large files may be that it is made of.
    pub fn directory(&self) -> PathBuf {
        match &self.way {
            Way::Linked(to) | Way::Renamed { to, .. } => directory_of(to).into(),
            Way::Direct | Way::Copied(_) => std::env::temp_dir(),
        }
    }

    /// What is attempted, for messages.
    pub fn attempted(&self) -> String {
        format!("write {}", self.path.display())
    }

    /// Gives it its name: it is whole.
    pub fn finish(&self) -> Result<()> {
        match &self.way {
            Way::Linked(to) => self.link(to),
            Way::Renamed { scratch, to } => {
                self.file.sync_data().and_then(|()| std::fs::rename(scratch, to)).attempt(|| self.attempted())
            }
            Way::Direct => Ok(()),
            Way::Copied(special) => {
                let (mut from, mut to) = (&self.file, special);
                from.rewind().and_then(|()| io::copy(&mut from, &mut to)).map(drop).attempt(|| self.attempted())
            }
        }
    }

    /// A link replaces nothing, so it takes another name first.
    fn link(&self, to: &Path) -> Result<()> {
        let scratch = scratch_for(to)?;
        self.file.sync_data().attempt(|| self.attempted())?;
        rustix::fs::linkat(CWD, own_path(&self.file), CWD, &scratch, AtFlags::SYMLINK_FOLLOW).attempt(|| self.attempted())?;
        let renamed = std::fs::rename(&scratch, to);
        if renamed.is_err() {
            let _ = std::fs::remove_file(&scratch);
        }
        renamed.attempt(|| self.attempted())
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        // Half an archive is of no use to anybody; a whole one has another name by now.
        if let Way::Renamed { scratch, .. } = &self.way {
            let _ = std::fs::remove_file(scratch);
        }
    }
}

/// A name beside another that nobody has.
fn scratch_for(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{}.tmp", random_hex(4)?)))
}

/// By which a file is found that has no name.
fn own_path(file: &impl std::os::fd::AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{FileExt, FileTypeExt, symlink};

    use super::*;

    fn write(path: &Path, order: Order, bytes: &[u8]) -> Result<()> {
        let replacing = Replacing::create(path, order)?;
        match order {
            Order::First => replacing.file().write_all(bytes).unwrap(),
            Order::Any => replacing.file().write_all_at(bytes, 0).unwrap(),
        }
        replacing.finish()
    }

    fn names(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_a_link_to_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "before").unwrap();
        symlink("file", &link).unwrap();
        for path in [&file, &link] {
            let replacing = Replacing::create(path, Order::Any).unwrap();
            replacing.file().write_all_at(b"half", 3).unwrap();
            assert_eq!(names(dir.path()), 2, "what is killed here leaves nothing");
            drop(replacing);
            assert_eq!(std::fs::read(&file).unwrap(), b"before");
        }
        for order in [Order::First, Order::Any] {
            write(&link, order, b"after").unwrap();
            assert_eq!((std::fs::read(&file).unwrap(), names(dir.path())), (b"after".to_vec(), 2));
            assert!(link.symlink_metadata().unwrap().is_symlink());
        }
        write(&dir.path().join("new"), Order::First, b"new").unwrap();
        assert_eq!(names(dir.path()), 3);
        let refused = Replacing::create(dir.path(), Order::First).unwrap_err().to_string();
        assert!(refused.contains("it is a directory"), "{refused}");
        assert!(Replacing::create(&dir.path().join("none/file"), Order::First).is_err());
    }

    #[test]
    fn a_pipe_and_a_device_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link, null) = (dir.path().join("pipe"), dir.path().join("link"), dir.path().join("null"));
        rustix::fs::mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
        symlink("pipe", &link).unwrap();
        symlink("/dev/null", &null).unwrap();
        let bytes = b"many".repeat(100_000);
        for (path, order) in [(&pipe, Order::First), (&pipe, Order::Any), (&link, Order::Any)] {
            std::thread::scope(|scope| {
                let read = scope.spawn(|| std::fs::read(&pipe).unwrap());
                write(path, order, &bytes).unwrap();
                assert!(read.join().unwrap() == bytes);
            });
            write(&null, order, &bytes).unwrap();
        }
        assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo() && null.symlink_metadata().unwrap().is_symlink());
        assert_eq!(names(dir.path()), 3);
    }
}
