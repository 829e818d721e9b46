//! Images mounted once: who has one mounted for a container lets others take the mount.
//!
//! A mount is a descriptor of a process. One that keeps it as long as its container lives says so in a directory of
//! this user's, below the image's name; who needs the image takes the descriptor from such a process
//! (`pidfd_getfd(2)`). So containers of one image share its file system and the pages read from it, in no mount
//! table, and the kernel unmounts it with the last of them, whatever becomes of anybody. Where nothing can be
//! taken the image is mounted once more: nothing here fails a launch.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::mount::open_layer;
use crate::error::Result;
use crate::files;
use crate::lifecycle::process_start_ticks;

/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: i64 = 0xe0f5_e1e2;

/// Out of the way of descriptors that need a certain number.
const FIRST_FD: i32 = 64;

/// The images that this process has mounted for a container.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Who has which image mounted: `IMAGE/PID-BEGAN-FD`, empty files. `None` where others could write it.
    directory: Option<PathBuf>,
    mounts: Vec<(Image, OwnedFd)>,
    /// What this process has entered there.
    entries: Vec<PathBuf>,
}

/// An image by its name and its file: one that was put in its place since is another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Image(String);

impl Image {
    /// `None` for a directory.
    fn of(path: &Path) -> Option<Self> {
        let status = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self(format!("{}-{}-{}", path.file_name()?.to_str()?, status.dev(), status.ino())))
    }
}

impl Shared {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::below(files::runtime_directory("layers"))
    }

    fn below(directory: Option<PathBuf>) -> Self {
        let directory = directory.filter(|directory| files::open_private_directory(directory).is_some());
        Self { directory, mounts: Vec::new(), entries: Vec::new() }
    }

    /// The root directory of a layer, as [`open_layer`] gives it; of an image that somebody has mounted the same
    /// mount.
    ///
    /// # Errors
    ///
    /// Those of [`open_layer`].
    pub(crate) fn open(&mut self, path: &Path) -> Result<OwnedFd> {
        let Some(image) = Image::of(path) else { return open_layer(path) };
        if let Some((_, own)) = self.mounts.iter().find(|(other, _)| *other == image)
            && let Ok(own) = own.try_clone()
        {
            return Ok(own);
        }
        let root = match self.take(&image) {
            Some(taken) => taken,
            None => open_layer(path)?,
        };
        // Without one the image is mounted again by whoever needs it.
        if let Ok(kept) = rustix::io::fcntl_dupfd_cloexec(&root, FIRST_FD) {
            self.mounts.push((image, kept));
        }
        Ok(root)
    }

    /// The mount of somebody who has it. Entries of those who have gone are removed on the way.
    fn take(&self, image: &Image) -> Option<OwnedFd> {
        let directory = self.directory.as_ref()?.join(&image.0);
        for entry in std::fs::read_dir(directory).ok()?.flatten() {
            match entry.file_name().to_str().and_then(Holder::parse).map_or(Taken::Nothing, |holder| holder.mount()) {
                Taken::Mount(taken) => return Some(taken),
                // Others may.
                Taken::Refused => {}
                Taken::Nothing => drop(std::fs::remove_file(entry.path())),
            }
        }
        None
    }

    /// Lets others take what this process has mounted, until this is dropped.
    pub(crate) fn enter(&mut self) {
        self.entries = self.mounts.iter().filter_map(|(image, root)| self.entry(image, root.as_raw_fd())).collect();
    }

    /// Makes an entry for a descriptor of this process's.
    fn entry(&self, image: &Image, fd: i32) -> Option<PathBuf> {
        let pid = std::process::id();
        let began = process_start_ticks(pid.cast_signed())?;
        let directory = self.directory.as_ref()?.join(&image.0);
        let entry = directory.join(format!("{pid}-{began}-{fd}"));
        let make = || File::create_new(&entry);
        // The directory may go with the last entry of another at any moment.
        let made =
            make().or_else(|_| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).and_then(|()| make()));
        made.is_ok().then_some(entry)
    }

    /// Lets others take the mounts from the program that this process executes next, which keeps them open until
    /// it ends.
    pub(crate) fn leave_to_program(mut self) {
        for (image, root) in std::mem::take(&mut self.mounts) {
            if rustix::io::fcntl_setfd(&root, rustix::io::FdFlags::empty()).is_ok() {
                let _ = self.entry(&image, root.as_raw_fd());
                std::mem::forget(root);
            }
        }
    }

    /// What a program that was left mounts does before it ends: these layers cannot be taken from it any more.
    pub(crate) fn withdraw(layers: impl Iterator<Item = PathBuf>) {
        let Some(directory) = files::runtime_directory("layers") else { return };
        let own = format!("{}-", std::process::id());
        for image in layers.filter_map(|path| Image::of(&path)) {
            let directory = directory.join(image.0);
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(&own)) {
                    remove(&entry.path());
                }
            }
        }
    }

    /// The image is about to go, and what processes that were killed have left about it.
    pub(crate) fn forget(path: &Path) {
        if let (Some(directory), Some(image)) = (files::runtime_directory("layers"), Image::of(path)) {
            let _ = std::fs::remove_dir_all(directory.join(image.0));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.entries.iter().for_each(|entry| remove(entry));
    }
}

/// Removes an entry, and the image's directory with its last one.
fn remove(entry: &Path) {
    let _ = std::fs::remove_file(entry);
    let _ = entry.parent().map(std::fs::remove_dir);
}

/// Who has an image mounted: a process, when it began in clock ticks, and the descriptor's number.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: i32,
    began: u64,
    fd: i32,
}

/// What could be taken from a holder.
enum Taken {
    Mount(OwnedFd),
    /// It is there, and not for this process to look into.
    Refused,
    /// The process has gone, or has no such mount.
    Nothing,
}

impl Holder {
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.split('-');
        let holder =
            Self { pid: numbers.next()?.parse().ok()?, began: numbers.next()?.parse().ok()?, fd: numbers.next()?.parse().ok()? };
        numbers.next().is_none().then_some(holder)
    }

    fn mount(&self) -> Taken {
        let pid = Pid::from_raw(self.pid);
        let Some(pidfd) = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return Taken::Nothing;
        };
        // Only now: the number cannot be given to another process while this one is looked at.
        if process_start_ticks(self.pid) != Some(self.began) {
            return Taken::Nothing;
        }
        match rustix::process::pidfd_getfd(&pidfd, self.fd, PidfdGetfdFlags::empty()) {
            Ok(taken) if is_image(taken.as_fd()) => Taken::Mount(taken),
            Err(rustix::io::Errno::PERM) => Taken::Refused,
            _ => Taken::Nothing,
        }
    }
}

fn is_image(root: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(root).is_ok_and(|status| status.f_type == MAGIC)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::Timespec;

    use super::super::tree::{Attributes, Builder};
    use super::super::xattr::Xattrs;
    use super::*;

    fn write_image(path: &Path) {
        let root =
            Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Timespec { tv_sec: 0, tv_nsec: 0 }, xattrs: Xattrs::default() };
        Builder::new(File::create(path).unwrap(), root, usize::MAX).finish([0; 16], b"").unwrap();
    }

    /// An image and a directory for entries; `None` where no image can be mounted.
    fn image() -> Option<(tempfile::TempDir, PathBuf)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        write_image(&path);
        let mountable = open_layer(&path);
        if let Err(error) = &mountable {
            eprintln!("SKIPPED: {error}");
        }
        mountable.is_ok().then_some((directory, path))
    }

    fn file_system(root: &OwnedFd) -> u64 {
        rustix::fs::fstat(root).unwrap().st_dev
    }

    fn shared(directory: &Path) -> Shared {
        Shared::below(Some(directory.join("layers")))
    }

    fn entries(directory: &Path) -> usize {
        let images = fs::read_dir(directory.join("layers")).unwrap().flatten();
        images.map(|image| fs::read_dir(image.path()).unwrap().count()).sum()
    }

    #[test]
    fn an_image_that_somebody_has_mounted_is_not_mounted_again() {
        let Some((directory, path)) = image() else { return };
        let (mut first, mut second) = (shared(directory.path()), shared(directory.path()));
        let root = first.open(&path).unwrap();
        assert_eq!(file_system(&first.open(&path).unwrap()), file_system(&root), "in one process");
        assert_ne!(file_system(&second.open(&path).unwrap()), file_system(&root), "not entered yet");
        first.enter();
        let mut third = shared(directory.path());
        let taken = third.open(&path).unwrap();
        assert_eq!(file_system(&taken), file_system(&root));
        third.enter();
        assert_eq!(entries(directory.path()), 2);
        // The mount lives as long as anybody has it, and can be taken from any of them.
        drop((first, root, taken));
        assert_eq!(entries(directory.path()), 1);
        let again = shared(directory.path()).open(&path).unwrap();
        assert_eq!(file_system(&again), file_system(&third.open(&path).unwrap()));
        drop(third);
        assert_eq!(fs::read_dir(directory.path().join("layers")).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn what_is_not_an_image_of_a_process_that_lives_is_not_taken() {
        let Some((directory, path)) = image() else { return };
        let below = directory.path().join("layers").join(Image::of(&path).unwrap().0);
        fs::create_dir_all(&below).unwrap();
        fs::set_permissions(directory.path().join("layers"), fs::Permissions::from_mode(0o700)).unwrap();
        let (pid, began) = (std::process::id(), process_start_ticks(std::process::id().cast_signed()).unwrap());
        let other = File::open(directory.path()).unwrap();
        for name in
            [format!("{pid}-{}-3", began + 1), format!("{pid}-{began}-{}", other.as_raw_fd()), "999999999-1-3".into(), "x".into()]
        {
            fs::write(below.join(name), "").unwrap();
        }
        let mut own = shared(directory.path());
        assert!(is_image(own.open(&path).unwrap().as_fd()));
        assert_eq!(fs::read_dir(&below).unwrap().count(), 0, "they are cleared away");
        // An image in another's place is another.
        own.enter();
        let first = own.open(&path).unwrap();
        write_image(&directory.path().join("next"));
        fs::rename(directory.path().join("next"), &path).unwrap();
        assert_ne!(file_system(&shared(directory.path()).open(&path).unwrap()), file_system(&first));
    }

    #[test]
    fn where_others_can_write_nobody_is_believed() {
        let Some((directory, path)) = image() else { return };
        let mut first = shared(directory.path());
        let root = first.open(&path).unwrap();
        first.enter();
        fs::set_permissions(directory.path().join("layers"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_ne!(file_system(&shared(directory.path()).open(&path).unwrap()), file_system(&root));
        // A directory is what it is.
        assert!(shared(directory.path()).open(directory.path()).is_ok());
    }
}
