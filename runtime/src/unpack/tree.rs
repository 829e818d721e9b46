//! The directories of a layer while it is written: finding and making an entry's parent by file
//! descriptor, and what each directory's metadata will be.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

use super::metadata::{Metadata, Writer, attempted};
use super::target::{Found, check_path, join, split};
use super::{Options, invalid_entry};

/// Descriptors of directories kept open: enough for the working set of an archive in any sane order.
const OPEN_DIRECTORIES: usize = 64;

/// The mode directories have while the layer is written: their owner can write in them, and what is
/// made in them inherits nothing.
const PROVISIONAL: Mode = Mode::from_raw_mode(0o755);

/// How directories are opened to work in them.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How far resolution may go: nowhere but down real directories.
const STRICT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// A directory to create entries in.
pub(super) struct Parent {
    fd: OwnedFd,
    /// Relative to the layer, free of symbolic links; empty for the layer's root.
    path: Vec<u8>,
}

impl Parent {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The path of an entry here.
    fn join(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }
}

/// What a directory will be given at the end.
#[derive(Default)]
struct Directory {
    /// `None`: implied.
    metadata: Option<Metadata>,
    opaque: bool,
}

/// The directories of a layer.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    options: &'a Options,
    /// What is there already stays: a directory is never replaced by something else, nor the other way round.
    merge: bool,
    /// By path as archives spell it, cleaned.
    open: HashMap<Vec<u8>, Rc<Parent>>,
    /// By path free of symbolic links: children sort after their parents.
    directories: BTreeMap<Vec<u8>, Directory>,
    /// Of `directories`, as [`super::Limits::metadata_bytes`] counts.
    held_bytes: usize,
}

impl<'a> Tree<'a> {
    /// A tree in an empty directory, which from now on hands nothing down to what is made in it.
    pub(super) fn new(root: BorrowedFd<'a>, options: &'a Options) -> Result<Self> {
        let mut entries = Dir::read_from(root).attempt(|| "read the directory to unpack into")?;
        let unexpected =
            entries.find(|entry| entry.as_ref().map_or(true, |entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")));
        if unexpected.is_some() {
            return Err(Error::io("unpack a layer", Errno::NOTEMPTY));
        }
        match rustix::fs::fremovexattr(root, "system.posix_acl_default") {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Error::io("remove the default access list of the directory to unpack into", error)),
        }
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        rustix::fs::fchown(root, Some(uid), Some(gid)).attempt(|| "take the directory to unpack into")?;
        rustix::fs::fchmod(root, PROVISIONAL).attempt(|| "change the mode of the directory to unpack into")?;
        let directories = BTreeMap::from([(Vec::new(), Directory::default())]);
        Ok(Self { root, options, merge: false, open: HashMap::new(), directories, held_bytes: 0 })
    }

    /// A tree in a directory that has something in it, mounts perhaps, and keeps its own metadata.
    pub(super) fn existing(root: BorrowedFd<'a>, options: &'a Options) -> Self {
        Self { root, options, merge: true, open: HashMap::new(), directories: BTreeMap::new(), held_bytes: 0 }
    }

    /// The directory `path` names (cleaned components joined by `/`), if nothing but directories is on the
    /// way to it: also any that was [remembered](Self::remember).
    pub(super) fn find(&mut self, path: &[u8]) -> Option<Rc<Parent>> {
        if let Some(parent) = self.open.get(path) {
            return Some(Rc::clone(parent));
        }
        let fd = self.open_strictly(path).ok()?;
        let parent = Rc::new(Parent { fd, path: path.to_vec() });
        self.remember(path, &parent);
        Some(parent)
    }

    /// Keeps a directory open under a path that leads to it.
    pub(super) fn remember(&mut self, path: &[u8], parent: &Rc<Parent>) {
        if self.open.len() == OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(parent));
    }

    /// A directory by a path free of symbolic links.
    pub(super) fn open(&self, path: Vec<u8>) -> Result<Parent> {
        let fd = self.open_strictly(&path).attempt(|| attempted("open", &path))?;
        Ok(Parent { fd, path })
    }

    fn open_strictly(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(self.root, path, DIRECTORY, Mode::empty(), self.resolve())
    }

    fn resolve(&self) -> ResolveFlags {
        if self.merge { STRICT.difference(ResolveFlags::NO_XDEV) } else { STRICT }
    }

    pub(super) fn above(&self, directory: &Parent) -> Result<Parent> {
        self.open(split(&directory.path).0.to_vec())
    }

    /// What `name` is; the kernel never follows it.
    pub(super) fn look(&self, directory: &Parent, name: &[u8]) -> Result<Found<Rc<Parent>>> {
        let path = || directory.join(name);
        match rustix::fs::openat(directory.fd(), name, DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Found::Directory(Rc::new(Parent { fd, path: path() }))),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = stat(directory, name).attempt(|| attempted("look at", &path()))?;
                if is_whiteout(&stat) {
                    return Ok(Found::Whiteout);
                }
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Ok(Found::Other);
                }
                let link = rustix::fs::readlinkat(directory.fd(), name, Vec::new());
                Ok(Found::Symlink(link.attempt(|| attempted("read link", &path()))?.into_bytes()))
            }
            Err(error) => Err(Error::io(attempted("open", &path()), error)),
        }
    }

    /// Makes an implied directory and opens it; over a whiteout it is opaque.
    pub(super) fn make_implied(&mut self, parent: &Parent, name: &[u8], over_whiteout: bool) -> Result<Parent> {
        let path = parent.join(name);
        if over_whiteout {
            unlink(parent, name, AtFlags::empty(), &path)?;
        }
        rustix::fs::mkdirat(parent.fd(), name, PROVISIONAL).attempt(|| attempted("create", &path))?;
        if !self.merge {
            self.record(path.clone(), None, over_whiteout)?;
        }
        let fd = rustix::fs::openat(parent.fd(), name, DIRECTORY, Mode::empty()).attempt(|| attempted("open", &path))?;
        Ok(Parent { fd, path })
    }

    /// Makes a directory the archive lists, or updates the one that is there. One that takes the place
    /// of something else is opaque: that already hid what lower layers have.
    pub(super) fn make_directory(&mut self, parent: &Parent, name: &[u8], metadata: Metadata) -> Result<()> {
        let path = parent.join(name);
        let opaque = match rustix::fs::mkdirat(parent.fd(), name, PROVISIONAL) {
            Err(Errno::EXIST) => !self.keep_directory(parent, name, &path)?,
            result => result.map(|()| false).attempt(|| attempted("create", &path))?,
        };
        self.record(path, Some(metadata), opaque)
    }

    /// Whether a directory is there; anything else is replaced by one.
    fn keep_directory(&mut self, parent: &Parent, name: &[u8], path: &[u8]) -> Result<bool> {
        let stat = stat(parent, name).attempt(|| attempted("look at", path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(true);
        }
        if self.merge {
            return Err(invalid_entry(path, "a directory cannot take the place of what is no directory"));
        }
        self.remove(parent, name)?;
        rustix::fs::mkdirat(parent.fd(), name, PROVISIONAL).attempt(|| attempted("create", path))?;
        Ok(false)
    }

    /// The metadata of the layer's root.
    pub(super) fn set_root(&mut self, metadata: Metadata) -> Result<()> {
        if self.merge { Ok(()) } else { self.record(Vec::new(), Some(metadata), false) }
    }

    /// Marks a directory as hiding everything below it.
    pub(super) fn set_opaque(&mut self, parent: &Parent) -> Result<()> {
        self.record(parent.path.clone(), None, true)
    }

    /// Makes a whiteout of `name`, unless this layer has an entry there: whiteouts speak of lower layers
    /// only, and a directory both whited out and present is an opaque one.
    pub(super) fn whiteout(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        let path = parent.join(name);
        match rustix::fs::mknodat(parent.fd(), name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {
                let stat = stat(parent, name).attempt(|| attempted("look at", &path))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { self.record(path, None, true) } else { Ok(()) }
            }
            result => result.attempt(|| attempted("create whiteout", &path)),
        }
    }

    /// Takes what a directory is to become; what is not said here stays.
    fn record(&mut self, path: Vec<u8>, metadata: Option<Metadata>, opaque: bool) -> Result<()> {
        check_path(&path, &self.options.limits)?;
        let bytes =
            metadata.as_ref().map_or(0, |metadata| metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum());
        self.held_bytes += path.len() + bytes + size_of::<Directory>();
        if self.held_bytes > self.options.limits.metadata_bytes {
            let limit = self.options.limits.metadata_bytes;
            return Err(Error::invalid("layer", format_args!("its metadata needs more than {limit} bytes of memory")));
        }
        let directory = self.directories.entry(path).or_default();
        directory.opaque |= opaque;
        if metadata.is_some() {
            directory.metadata = metadata;
        }
        Ok(())
    }

    /// Removes whatever `name` is, with everything in it.
    pub(super) fn remove(&mut self, parent: &Parent, name: &[u8]) -> Result<()> {
        let path = parent.join(name);
        let kind = FileType::from_raw_mode(stat(parent, name).attempt(|| attempted("look at", &path))?.st_mode);
        if self.merge && kind == FileType::Directory {
            return Err(invalid_entry(&path, "what is no directory cannot take the place of one"));
        }
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            self.open.clear(); // any of them may lead through it
        }
        if kind != FileType::Directory {
            return unlink(parent, name, AtFlags::empty(), &path);
        }
        let below = [&path[..], b"/"].concat();
        let after = [&path[..], b"0"].concat(); // '0' is the byte after '/'
        let gone: Vec<_> = self.directories.range(below..after).map(|(path, _)| path.clone()).collect();
        for path in gone.iter().chain([&path]) {
            self.directories.remove(path);
        }
        remove_directory(parent.fd(), name).attempt(|| attempted("remove", &path))
    }

    /// Gives every directory its metadata, children before parents. Lists the implied ones.
    pub(super) fn finish(mut self, writer: &mut Writer<'_>) -> Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStringExt as _;
        self.open.clear();
        let opaque = if self.options.userxattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        let mut implied = Vec::new();
        for (path, directory) in std::mem::take(&mut self.directories).into_iter().rev() {
            let name = if path.is_empty() { b"." } else { &path[..] };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(self.root, name, flags, Mode::empty(), self.resolve())
                .attempt(|| attempted("open", &path))?;
            if directory.opaque {
                rustix::fs::fsetxattr(&fd, opaque, b"y", XattrFlags::empty()).attempt(|| attempted("make opaque", &path))?;
            }
            let metadata = directory.metadata.as_ref();
            writer.write(fd.as_fd(), metadata.unwrap_or(&Metadata::implied()), PROVISIONAL, &path)?;
            if metadata.is_none() {
                implied.push(PathBuf::from(std::ffi::OsString::from_vec(path)));
            }
        }
        implied.reverse();
        Ok(implied)
    }
}

/// Removes a directory and what is in it; the depth is limited by [`super::Limits::path_depth`].
fn remove_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            child => match rustix::fs::unlinkat(&fd, child, AtFlags::empty()) {
                Err(Errno::ISDIR) => remove_directory(fd.as_fd(), child)?,
                result => result?,
            },
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// What `name` in `parent` is, not following it.
fn stat(parent: &Parent, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(parent.fd(), name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Whether this is overlayfs' whiteout.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn unlink(parent: &Parent, name: &[u8], flags: AtFlags, path: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(parent.fd(), name, flags).attempt(|| attempted("remove", path))
}
