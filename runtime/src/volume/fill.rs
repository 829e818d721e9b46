//! What a volume is when it is mounted: a path of the host, and its first content, which is the image's.
//!
//! Content is copied by descriptor, inside the container's root: the image is untrusted. It is copied beside the
//! volume's data, renamed once it is complete, and then moved into the data entry by entry, because another
//! container may have that mounted. Whoever is killed on the way, the next one begins anew or goes on.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, FlockOperation, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::mount::{Propagation, Source, Volume};
use super::store::{Volumes, device};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::launch::{InRoot, file_type, remove_tree};
use crate::unpack::{Options, Packer, adopt_directory, hand_over, unpack_tree};
use crate::userns::Mapping;

/// Where a container's volumes are mounted from.
pub(crate) struct Mounting<'a> {
    /// The container's root filesystem, before anything is mounted in it.
    pub(crate) root: BorrowedFd<'a>,
    /// It starts for the first time: volumes that are empty get what the image has there.
    pub(crate) fill: bool,
    /// The user namespace this process is in, if it is not root's.
    pub(crate) rootless: Option<Mapping>,
}

impl Volumes {
    /// Makes paths of the host of all `volumes`, to be mounted.
    pub(crate) fn mount(&self, volumes: &mut [Volume], mounting: &Mounting<'_>) -> Result<()> {
        for volume in volumes {
            let path = match &volume.source {
                Source::Host(path) => {
                    check_propagation(path, volume.propagation)?;
                    continue;
                }
                Source::Volume { volume: name, .. } => self.directory(name),
            };
            if let Some(device) = self.device(volume)? {
                check_propagation(&device, volume.propagation)?;
                volume.source = Source::Host(device);
                continue;
            }
            fill(&path, volume, mounting).map_err(|error| named(volume, error))?;
            volume.source = Source::Host(path.join("_data"));
        }
        Ok(())
    }
}

impl Volumes {
    /// Where a volume's files are if they are not the store's: nothing of the image's is put there.
    fn device(&self, volume: &Volume) -> Result<Option<PathBuf>> {
        let name = volume.volume().unwrap_or_default();
        let device = device(&self.get(name).map_err(|error| named(volume, error))?.options)?;
        if let Some(path) = device.as_ref().filter(|path| !path.is_dir()) {
            let why = format!("it is {}, which is no directory of this machine", path.display());
            return Err(Error::invalid(format!("volume {name}"), why));
        }
        Ok(device)
    }
}

/// A volume that has gone is told by its name.
fn named(volume: &Volume, error: Error) -> Error {
    let name = volume.volume().unwrap_or_default();
    match error {
        Error::NotFound { .. } => gone(name),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => gone(name),
        other => other,
    }
}

fn gone(name: &str) -> Error {
    Error::NotFound {
        what: format!("volume {name:?}"),
        hint: format!("it was removed; `rbox volume create {name}` makes an empty one"),
    }
}

/// Completes the volume in `dir`, and fills it if it is empty and that is wanted.
fn fill(dir: &Path, volume: &Volume, mounting: &Mounting<'_>) -> Result<()> {
    let attempted = || format!("fill volume {} from the image", dir.display());
    let lock = File::open(dir).attempt(|| format!("open volume {}", dir.display()))?;
    files::try_lock(&lock, FlockOperation::LockExclusive)?;
    let (data, filling, filled) = (dir.join("_data"), dir.join("_filling"), dir.join("_filled"));
    settle(&filled, &data).attempt(attempted)?;
    if !mounting.fill || volume.no_copy || !is_empty(&data).attempt(attempted)? {
        return Ok(());
    }
    let place = InRoot::new(&volume.destination).ok_or(Errno::NAMETOOLONG).attempt(attempted)?;
    let source = match place.open(mounting.root) {
        // A link that leads nowhere, or through what is no directory: mounting will tell.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        other => other.attempt(attempted)?,
    };
    if file_type(&source).attempt(attempted)? != rustix::fs::FileType::Directory {
        return Ok(());
    }
    // A bare reference can be looked at, but not listed.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let source = rustix::fs::openat(&source, c".", flags, rustix::fs::Mode::empty()).attempt(attempted)?;
    remove_tree(&filling)?;
    std::fs::create_dir(&filling).attempt(attempted)?;
    let target = File::open(&filling).attempt(attempted)?;
    let options = Options::within(mounting.rootless);
    hand_over(
        |out| {
            let mut packer = Packer::new(out);
            packer.add_open(source, b"")?;
            packer.finish().map(drop)
        },
        |input| unpack_tree(input, target.as_fd(), &options),
    )?;
    std::fs::rename(&filling, &filled).attempt(attempted)?;
    settle(&filled, &data).attempt(attempted)
}

/// Moves what a volume was filled with to its data, and gives that the owner and mode of the image's directory.
/// What is there already stays.
fn settle(filled: &Path, data: &Path) -> std::io::Result<()> {
    let from = match File::open(filled) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let to = File::open(data)?;
    let modified = from.metadata()?.modified()?;
    for name in names(&from)? {
        match rustix::fs::renameat_with(&from, &*name, &to, &*name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // Moving has changed it.
    from.set_modified(modified)?;
    adopt_directory(&[from.as_fd()], Path::new(""), to.as_fd()).map_err(std::io::Error::other)?;
    remove_tree(filled).map_err(std::io::Error::other)
}

fn is_empty(directory: &Path) -> std::io::Result<bool> {
    Ok(names(&File::open(directory)?)?.is_empty())
}

fn names(directory: &File) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Mounts travel to a bind mount only from a mount that lets them: docker's rule, so that nobody waits in vain.
fn check_propagation(path: &PathBuf, propagation: Propagation) -> Result<()> {
    let needed: &[&str] = match propagation {
        Propagation::Private | Propagation::RPrivate => return Ok(()),
        Propagation::Slave | Propagation::RSlave => &["shared:", "master:"],
        Propagation::Shared | Propagation::RShared => &["shared:"],
    };
    let attempted = || format!("look at the mount of {}", path.display());
    let mount = rustix::fs::statx(CWD, path, rustix::fs::AtFlags::empty(), StatxFlags::MNT_ID).attempt(attempted)?.stx_mnt_id;
    let list = std::fs::read_to_string("/proc/self/mountinfo").attempt(attempted)?;
    let line = list.lines().find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount));
    let peers = line.and_then(|line| line.split_once(" - ")).map_or("", |(fields, _)| fields);
    if peers.split(' ').skip(6).any(|field| needed.iter().any(|word| field.starts_with(word))) {
        return Ok(());
    }
    let word = if needed.len() == 1 { "shared" } else { "shared or a slave" };
    Err(Error::invalid(
        format!("{} with {}", path.display(), propagation.as_str()),
        format!("the mount it is on is not {word}; `mount --make-shared` on its mount point makes it so"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::store::make_data;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    struct Bench {
        dir: tempfile::TempDir,
        image: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let bench = Self { dir: tempfile::tempdir().unwrap(), image: tempfile::tempdir().unwrap() };
            make_data(&bench.dir.path().join("volume")).unwrap();
            std::fs::create_dir(bench.image.path().join("data")).unwrap();
            std::fs::write(bench.image.path().join("data/file"), "image").unwrap();
            std::fs::set_permissions(bench.image.path().join("data"), PermissionsExt::from_mode(0o1750)).unwrap();
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("volume").join(name)
        }

        fn fill(&self, volume: &str) -> Result<()> {
            let root = File::open(self.image.path()).unwrap();
            let mounting = Mounting { root: root.as_fd(), fill: true, rootless: None };
            fill(&self.dir.path().join("volume"), &volume.parse().unwrap(), &mounting)
        }

        fn whole(&self) {
            assert_eq!(std::fs::read_to_string(self.path("_data/file")).unwrap(), "image");
            assert_eq!(self.path("_data").metadata().unwrap().mode() & 0o7777, 0o1750);
            assert!(!self.path("_filling").exists() && !self.path("_filled").exists());
        }
    }

    #[test]
    fn an_empty_volume_is_filled_once_and_stays_the_same_directory() {
        let bench = Bench::new();
        bench.fill("vol:/data:nocopy").unwrap();
        assert!(is_empty(&bench.path("_data")).unwrap());
        let before = bench.path("_data").metadata().unwrap().ino();
        bench.fill("vol:/data").unwrap();
        bench.whole();
        assert_eq!(bench.path("_data").metadata().unwrap().ino(), before, "another container may have it mounted");
        std::fs::rename(bench.path("_data/file"), bench.path("_data/mine")).unwrap();
        bench.fill("vol:/data").unwrap();
        assert!(!bench.path("_data/file").exists(), "it is not empty");
    }

    #[test]
    fn who_was_killed_while_filling_is_made_good() {
        let bench = Bench::new();
        // Half of it copied.
        std::fs::create_dir(bench.path("_filling")).unwrap();
        std::fs::write(bench.path("_filling/file"), "im").unwrap();
        bench.fill("vol:/data").unwrap();
        bench.whole();
        // All copied, some of it moved.
        std::fs::rename(bench.path("_data"), bench.path("_filled")).unwrap();
        std::fs::create_dir(bench.path("_data")).unwrap();
        std::fs::write(bench.path("_data/more"), "").unwrap();
        bench.fill("vol:/data:nocopy").unwrap();
        bench.whole();
        assert!(bench.path("_data/more").exists());
    }

    #[test]
    fn an_image_s_links_lead_nowhere_but_into_the_image() {
        let bench = Bench::new();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "").unwrap();
        symlink(outside.path(), bench.image.path().join("link")).unwrap();
        symlink("/../../data", bench.image.path().join("inside")).unwrap();
        bench.fill("vol:/link").unwrap();
        assert!(is_empty(&bench.path("_data")).unwrap());
        bench.fill("vol:/data/file").unwrap();
        assert!(is_empty(&bench.path("_data")).unwrap());
        bench.fill("vol:/inside").unwrap();
        bench.whole();
    }
}
