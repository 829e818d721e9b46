//! A layer as a directory: entries become files, links, nodes and whiteouts of the file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Result};

use super::Options;
use super::metadata::{Metadata, Writer, attempted};
use super::sparse::Run;
use super::target::{Found, Place, Target, walk};
use super::tree::{Parent, Tree};

/// A layer directory being written.
pub(super) struct Directory<'a> {
    tree: Tree<'a>,
    writer: Writer<'a>,
    options: &'a Options,
    pub(super) dropped_devices: u64,
}

impl<'a> Directory<'a> {
    /// In an empty directory.
    pub(super) fn new(root: BorrowedFd<'a>, options: &'a Options) -> Result<Self> {
        Ok(Self { tree: Tree::new(root, options)?, writer: Writer::new(options), options, dropped_devices: 0 })
    }

    /// In a directory that has something in it, which stays where the archive has nothing.
    pub(super) fn existing(root: BorrowedFd<'a>, options: &'a Options) -> Self {
        Self { tree: Tree::existing(root, options), writer: Writer::new(options), options, dropped_devices: 0 }
    }

    /// Writes what comes last. Gives the implied directories, and how many attributes were left out.
    pub(super) fn finish(mut self) -> Result<(Vec<PathBuf>, u64)> {
        let implied = self.tree.finish(&mut self.writer)?;
        Ok((implied, self.writer.dropped_xattrs))
    }

    /// Creates something where nothing is, or else in the place of what is there.
    fn create(&mut self, place: &Place<Rc<Parent>>, mut create: impl FnMut() -> rustix::io::Result<()>) -> Result<()> {
        match create() {
            Err(Errno::EXIST) => {
                self.tree.remove(&place.parent, &place.name)?;
                create().attempt(|| attempted("replace", &place.path))
            }
            result => result.attempt(|| attempted("create", &place.path)),
        }
    }
}

impl Target for Directory<'_> {
    type Directory = Rc<Parent>;
    type File = OwnedFd;

    fn root(&self) -> Result<Rc<Parent>> {
        self.tree.open(Vec::new()).map(Rc::new)
    }

    fn above(&self, directory: Rc<Parent>) -> Result<Rc<Parent>> {
        self.tree.above(&directory).map(Rc::new)
    }

    fn look(&self, directory: &Rc<Parent>, name: &[u8]) -> Result<Found<Rc<Parent>>> {
        self.tree.look(directory, name)
    }

    fn make_implied(&mut self, directory: &Rc<Parent>, name: &[u8], over_whiteout: bool) -> Result<Rc<Parent>> {
        self.tree.make_implied(directory, name, over_whiteout).map(Rc::new)
    }

    fn parent(&mut self, path: &[u8]) -> Result<Rc<Parent>> {
        // Where nothing but real directories is on the way, one system call finds it.
        if let Some(parent) = self.tree.find(path) {
            return Ok(parent);
        }
        let parent = walk(self, path, true)?.ok_or_else(|| super::invalid_entry(path, "it is no directory"))?;
        self.tree.remember(path, &parent);
        Ok(parent)
    }

    fn existing_parent(&mut self, path: &[u8]) -> Result<Option<Rc<Parent>>> {
        match self.tree.find(path) {
            Some(parent) => Ok(Some(parent)),
            None => walk(self, path, false),
        }
    }

    fn set_root(&mut self, metadata: Metadata) -> Result<()> {
        self.tree.set_root(metadata)
    }

    fn set_opaque(&mut self, directory: &Rc<Parent>) -> Result<()> {
        self.tree.set_opaque(directory)
    }

    fn whiteout(&mut self, directory: &Rc<Parent>, name: &[u8]) -> Result<()> {
        self.tree.whiteout(directory, name)
    }

    fn make_directory(&mut self, place: &Place<Rc<Parent>>, metadata: Metadata) -> Result<()> {
        self.tree.make_directory(&place.parent, &place.name, metadata)
    }

    fn create_file(&mut self, place: &Place<Rc<Parent>>, metadata: &Metadata, _: u64, _: Option<&[Run]>) -> Result<OwnedFd> {
        let mode = Writer::creation_mode(metadata);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        self.create(place, || {
            file = Some(rustix::fs::openat(place.parent.fd(), &place.name[..], flags, mode)?);
            Ok(())
        })?;
        file.ok_or(Errno::BADF).attempt(|| attempted("create", &place.path))
    }

    fn write(&mut self, file: &OwnedFd, data: &[u8], offset: u64) -> rustix::io::Result<usize> {
        rustix::io::pwrite(file, data, offset)
    }

    fn finish_file(&mut self, file: OwnedFd, place: &Place<Rc<Parent>>, metadata: &Metadata, size: Option<u64>) -> Result<()> {
        if let Some(size) = size {
            rustix::fs::ftruncate(&file, size).attempt(|| attempted("set the size of", &place.path))?;
        }
        self.writer.write(file.as_fd(), metadata, Writer::creation_mode(metadata), &place.path)
    }

    fn hard_link(&mut self, place: &Place<Rc<Parent>>, from: &Rc<Parent>, name: &[u8]) -> Result<bool> {
        let mut gone = false;
        self.create(place, || {
            // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one.
            let result = rustix::fs::linkat(from.fd(), name, place.parent.fd(), &place.name[..], AtFlags::empty());
            gone = result == Err(Errno::NOENT);
            if gone { Ok(()) } else { result }
        })?;
        Ok(!gone)
    }

    fn symlink(&mut self, place: &Place<Rc<Parent>>, metadata: &Metadata, link: &[u8]) -> Result<()> {
        self.create(place, || rustix::fs::symlinkat(link, place.parent.fd(), &place.name[..]))?;
        self.writer.write_at(place.parent.fd(), &place.name, metadata, None, &place.path)
    }

    /// Rootless, a device node is left out: nobody could open it anyway.
    fn device(&mut self, place: &Place<Rc<Parent>>, metadata: &Metadata, kind: FileType, number: (u32, u32)) -> Result<()> {
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let mut refused = false;
        self.create(place, || {
            let number = rustix::fs::makedev(number.0, number.1);
            let result = rustix::fs::mknodat(place.parent.fd(), &place.name[..], kind, mode, number);
            refused = result == Err(Errno::PERM) && self.options.userxattr;
            if refused { Ok(()) } else { result }
        })?;
        if refused {
            self.dropped_devices += 1;
            return Ok(());
        }
        self.writer.write_at(place.parent.fd(), &place.name, metadata, Some(mode), &place.path)
    }
}
