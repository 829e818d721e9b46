//! Full files of a log compressed, by a copy of the monitor that ends when that is done.
//!
//! The copy writes what nobody reads yet; the monitor gives it its name, because it alone knows how old the file has
//! become meanwhile. **Invariant: at every moment a full file is there plain, or compressed to its end, or both.**

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use rustix::event::{PollFd, PollFlags};

use super::log_rotated::{compressed, older, unfinished};
use super::monitor::wait_for;
use crate::error::{Attempt, Result};
use crate::launch::reap;
use crate::sys;

/// A file that is being compressed.
#[derive(Debug)]
pub(super) struct Compression {
    path: PathBuf,
    /// How old the file is by now.
    age: u32,
    /// The process that does it.
    pidfd: OwnedFd,
}

impl Compression {
    /// Begins with the oldest of `kept` files of a log that is plain; `None` if none is, or it cannot be done.
    pub(super) fn begin(path: &Path, kept: u32) -> Option<Self> {
        for age in (1..kept).rev().filter(|age| older(path, *age).exists()) {
            if !compressed(path, age).exists() {
                return Self::of(path, age).ok();
            }
            // Somebody was killed when all but this was done.
            let _ = std::fs::remove_file(older(path, age));
        }
        None
    }

    fn of(path: &Path, age: u32) -> Result<Self> {
        let (from, to) = (older(path, age), unfinished(path));
        let attempted = || format!("compress {}", from.display());
        let source = File::open(&from).attempt(attempted)?;
        // A new file, whoever may still write into one of that name.
        let _ = std::fs::remove_file(&to);
        let target = File::options().write(true).create_new(true).mode(0o600).open(&to).attempt(attempted)?;
        let (_, pidfd) = sys::spawn(0, None, &mut || u8::from(compress(&source, &target).is_err())).attempt(attempted)?;
        Ok(Self { path: path.to_owned(), age, pidfd })
    }

    /// All files have become one older. `None` if this one has gone by that.
    pub(super) fn shifted(mut self, kept: u32) -> Option<Self> {
        self.age += 1;
        (self.age < kept).then_some(self)
    }

    /// What is to be waited for.
    pub(super) fn fd(&self) -> PollFd<'_> {
        PollFd::new(&self.pidfd, PollFlags::IN)
    }

    pub(super) fn has_ended(&self) -> bool {
        wait_for(&mut [self.fd()], Some(Duration::ZERO)).is_ok_and(|count| count > 0)
    }

    /// Puts the compressed file in the place of the plain one. False if there is none: then that stays.
    pub(super) fn finish(self) -> bool {
        let done = reap(&self.pidfd).is_ok_and(|exit| exit.code() == 0)
            && std::fs::rename(unfinished(&self.path), compressed(&self.path, self.age)).is_ok();
        if done {
            let _ = std::fs::remove_file(older(&self.path, self.age));
        }
        done
    }
}

/// Nobody wants it any more, or it is done.
impl Drop for Compression {
    fn drop(&mut self) {
        let _ = sys::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(&self.pidfd);
        let _ = std::fs::remove_file(unfinished(&self.path));
    }
}

/// The work, in a copy of the monitor, which has nothing of that but the two files.
fn compress(source: &File, target: &File) -> io::Result<()> {
    sys::die_with_parent()?;
    for (file, number) in [(source, 0), (target, 1)] {
        sys::place_fd(file.as_fd(), number, false)?;
    }
    // Above all the lock: the monitor's alone.
    sys::close_from(3)?;
    let mut source = BufReader::new(File::from(rustix::io::dup(rustix::stdio::stdin())?));
    let target = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    let mut encoder = GzEncoder::new(target, Level::default());
    io::copy(&mut source, &mut encoder)?;
    // On stable storage before the plain file goes.
    encoder.finish()?.sync_data()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::container::log_rotated::{path, shift};

    fn ended(compression: Compression) -> Compression {
        wait_for(&mut [compression.fd()], None).unwrap();
        compression
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_oldest_plain_file_becomes_compressed_under_the_name_it_has_when_that_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        std::fs::write(older(&path, 1), "new").unwrap();
        std::fs::write(older(&path, 2), "old").unwrap();
        let compression = Compression::begin(&path, 4).unwrap();
        assert!(older(&path, 2).exists() && !compressed(&path, 2).exists(), "the plain one counts until it is done");
        shift(&path, 4);
        let compression = ended(compression.shifted(4).unwrap());
        assert!(compression.has_ended() && compression.finish());
        assert_eq!(unpacked(&compressed(&path, 3)), "old");
        assert!(!older(&path, 3).exists() && older(&path, 2).exists());
        assert!(ended(Compression::begin(&path, 4).unwrap()).finish());
        assert_eq!(unpacked(&compressed(&path, 2)), "new");
        shift(&path, 4);
        assert_eq!(unpacked(&compressed(&path, 3)), "new", "a compressed file becomes older as a plain one does");
        assert!(Compression::begin(&path, 4).is_none());
        assert!(!unfinished(&path).exists());
    }

    #[test]
    fn of_a_file_that_is_gone_nothing_is_left_and_a_failure_leaves_the_plain_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        std::fs::write(older(&path, 1), "a".repeat(1 << 20)).unwrap();
        let compression = Compression::begin(&path, 2).unwrap();
        shift(&path, 2);
        assert!(compression.shifted(2).is_none());
        assert!(!unfinished(&path).exists() && !older(&path, 1).exists());
        // Nowhere to put it, as on a full disk.
        std::fs::write(older(&path, 1), "whole").unwrap();
        let compression = Compression::begin(&path, 2).unwrap();
        std::fs::remove_file(unfinished(&path)).unwrap();
        assert!(!ended(compression).finish());
        assert_eq!(std::fs::read_to_string(older(&path, 1)).unwrap(), "whole");
    }

    #[test]
    fn what_a_killed_monitor_left_half_done_is_completed() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "x");
        std::fs::write(older(&path, 1), "both").unwrap();
        File::create(compressed(&path, 1)).unwrap().write_all(b"complete").unwrap();
        std::fs::write(unfinished(&path), "half").unwrap();
        std::fs::write(older(&path, 2), "plain").unwrap();
        assert!(ended(Compression::begin(&path, 3).unwrap()).finish());
        assert!(Compression::begin(&path, 3).is_none());
        assert_eq!((older(&path, 1).exists(), std::fs::read(compressed(&path, 1)).unwrap()), (false, b"complete".to_vec()));
        assert_eq!(unpacked(&compressed(&path, 2)), "plain");
    }
}
