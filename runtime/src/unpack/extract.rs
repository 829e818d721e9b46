//! The writing thread: entries of the archive become files, links, nodes and whiteouts.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

use super::archive::{Archive, Entry, Kind};
use super::metadata::{Metadata, Writer, attempted};
use super::sparse::Run;
use super::tree::{Parent, Tree, check_path, components, is_whiteout, stat};
use super::{Options, invalid_entry};

/// The prefix of whiteouts (image-spec layer.md#whiteouts).
const WHITEOUT: &[u8] = b".wh.";

/// The prefix of aufs' own files, of which only the opaque marker has a meaning.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// The opaque marker.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// What became of the archive.
pub(super) struct Extracted {
    pub(super) entries: u64,
    pub(super) implied: Vec<PathBuf>,
    pub(super) dropped_xattrs: u64,
    pub(super) dropped_devices: u64,
}

/// Reads `input` to its end and writes what is in it into `dest`.
pub(super) fn extract(input: impl BufRead, dest: BorrowedFd<'_>, options: &Options) -> Result<Extracted> {
    let mut extractor = Extractor {
        archive: Archive::new(input, &options.limits),
        tree: Tree::new(dest, options)?,
        writer: Writer::new(options),
        options,
        file_bytes: 0,
        dropped_devices: 0,
    };
    let mut entries = 0;
    while let Some(entry) = extractor.archive.next()? {
        extractor.take(entry)?;
        entries += 1;
    }
    extractor.archive.finish()?;
    let implied = extractor.tree.finish(&mut extractor.writer)?;
    let dropped_xattrs = extractor.writer.dropped_xattrs;
    Ok(Extracted { entries, implied, dropped_xattrs, dropped_devices: extractor.dropped_devices })
}

struct Extractor<'a, R> {
    archive: Archive<'a, R>,
    tree: Tree<'a>,
    writer: Writer<'a>,
    options: &'a Options,
    /// The sum of the files' sizes so far, holes included.
    file_bytes: u64,
    dropped_devices: u64,
}

/// Where an entry goes.
struct Place {
    parent: Rc<Parent>,
    name: Vec<u8>,
    /// The cleaned path, for messages.
    path: Vec<u8>,
}

impl<R: BufRead> Extractor<'_, R> {
    fn take(&mut self, mut entry: Entry) -> Result<()> {
        let Some(path) = clean(&entry.path, self.options)? else {
            return match entry.kind {
                Kind::Directory => self.tree.set_root(entry.into()),
                _ => Err(invalid_entry(&entry.path, "it would replace the layer's root")),
            };
        };
        let (above, name) = split(&path);
        // aufs kept hard links below such names; nothing but aufs ever reads them.
        if components(above).any(|part| part.starts_with(WHITEOUT_META)) {
            return Ok(());
        }
        if name.starts_with(WHITEOUT) {
            return self.whiteout(above, name, &path);
        }
        let place = Place { parent: self.tree.parent(above)?, name: name.to_vec(), path: path.clone() };
        match std::mem::replace(&mut entry.kind, Kind::Directory) {
            Kind::File { size, sparse } => self.file(&place, &entry.into(), size, sparse.as_deref()),
            Kind::HardLink(target) => self.hard_link(&place, &target),
            Kind::Symlink(target) => self.symlink(&place, &entry.into(), &target),
            Kind::CharDevice { major: 0, minor: 0 } => {
                Err(invalid_entry(&path, "it is a character device 0:0, which overlayfs takes for a whiteout"))
            }
            Kind::CharDevice { major, minor } => self.device(&place, &entry.into(), FileType::CharacterDevice, (major, minor)),
            Kind::BlockDevice { major, minor } => self.device(&place, &entry.into(), FileType::BlockDevice, (major, minor)),
            Kind::Fifo => self.device(&place, &entry.into(), FileType::Fifo, (0, 0)),
            Kind::Directory => self.tree.make_directory(&place.parent, &place.name, entry.into()),
        }
    }

    /// A whiteout of `above`'s lower contents or of one name in it.
    fn whiteout(&mut self, above: &[u8], name: &[u8], path: &[u8]) -> Result<()> {
        if name == WHITEOUT_OPAQUE {
            let parent = self.tree.parent(above)?;
            return self.tree.set_opaque(&parent);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        match &name[WHITEOUT.len()..] {
            b"" | b"." | b".." => Err(invalid_entry(path, "it is a whiteout of no name")),
            hidden => {
                let parent = self.tree.parent(above)?;
                self.tree.whiteout(&parent, hidden)
            }
        }
    }

    fn file(&mut self, place: &Place, metadata: &Metadata, size: u64, sparse: Option<&[Run]>) -> Result<()> {
        self.file_bytes = self.file_bytes.saturating_add(size);
        if self.file_bytes > self.options.limits.file_bytes {
            let limit = self.options.limits.file_bytes;
            return Err(invalid_entry(&place.path, format_args!("with it the layer's files exceed {limit} bytes")));
        }
        let mode = Writer::creation_mode(metadata);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = None;
        self.create(place, || {
            file = Some(rustix::fs::openat(place.parent.fd(), &place.name[..], flags, mode)?);
            Ok(())
        })?;
        let Some(file) = file else { return Ok(()) };
        match sparse {
            None => self.copy(&file, 0, size, &place.path)?,
            Some(runs) => {
                for run in runs {
                    self.copy(&file, run.offset, run.length, &place.path)?;
                }
                rustix::fs::ftruncate(&file, size).attempt(|| attempted("set the size of", &place.path))?;
            }
        }
        self.writer.write(file.as_fd(), metadata, mode, &place.path)
    }

    /// Copies `length` bytes of the archive to `offset`, straight from the inflated buffers.
    fn copy(&mut self, file: &OwnedFd, offset: u64, length: u64, path: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < length {
            let data = self.archive.data(length - done)?;
            let bytes = match rustix::io::pwrite(file, data, offset + done) {
                Err(Errno::INTR) => 0,
                Ok(0) => return Err(Error::io(attempted("write", path), Errno::IO)),
                result => result.attempt(|| attempted("write", path))?,
            };
            self.archive.consume(bytes);
            done += bytes as u64;
        }
        Ok(())
    }

    /// A further name for an entry of this layer; its own metadata is not looked at, as everywhere.
    fn hard_link(&mut self, place: &Place, target: &[u8]) -> Result<()> {
        let missing = || {
            let target = String::from_utf8_lossy(target);
            invalid_entry(&place.path, format_args!("it is a hard link to {target:?}, which this layer does not have before it"))
        };
        let Some(target) = clean(target, self.options)? else {
            return Err(invalid_entry(&place.path, "it is a hard link to the layer's root"));
        };
        let (above, name) = split(&target);
        let from = self.tree.existing_parent(above)?.ok_or_else(missing)?;
        match stat(&from, name) {
            Ok(found) if is_whiteout(&found) => return Err(missing()),
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                return Err(invalid_entry(&place.path, "it is a hard link to a directory"));
            }
            Err(Errno::NOENT) => return Err(missing()),
            result => result.attempt(|| attempted("look at the target of", &place.path))?,
        };
        let mut gone = false;
        self.create(place, || {
            // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one.
            let result = rustix::fs::linkat(from.fd(), name, place.parent.fd(), &place.name[..], AtFlags::empty());
            // It was where the link now stands.
            gone = result == Err(Errno::NOENT);
            if gone { Ok(()) } else { result }
        })?;
        if gone { Err(missing()) } else { Ok(()) }
    }

    fn symlink(&mut self, place: &Place, metadata: &Metadata, target: &[u8]) -> Result<()> {
        if target.is_empty() || target.len() > self.options.limits.path_bytes {
            return Err(invalid_entry(&place.path, "its target is empty or too long"));
        }
        self.create(place, || rustix::fs::symlinkat(target, place.parent.fd(), &place.name[..]))?;
        self.writer.write_at(place.parent.fd(), &place.name, metadata, None, &place.path)
    }

    /// A device node or FIFO. Rootless, a device node is left out: nobody could open it anyway.
    fn device(&mut self, place: &Place, metadata: &Metadata, kind: FileType, (major, minor): (u32, u32)) -> Result<()> {
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let mut refused = false;
        self.create(place, || {
            let number = rustix::fs::makedev(major, minor);
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

    /// Creates something where nothing is, or else in the place of what is there.
    fn create(&mut self, place: &Place, mut create: impl FnMut() -> rustix::io::Result<()>) -> Result<()> {
        match create() {
            Err(Errno::EXIST) => {
                self.tree.remove(&place.parent, &place.name)?;
                create().attempt(|| attempted("replace", &place.path))
            }
            result => result.attempt(|| attempted("create", &place.path)),
        }
    }
}

/// A path relative to the layer's root, `.` and `..` resolved by name as `umoci` and `docker` do before
/// they look at the file system; `None` for the root itself.
fn clean(path: &[u8], options: &Options) -> Result<Option<Vec<u8>>> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for part in components(path) {
        if part == b".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    let path = clean.join(&b'/');
    check_path(&path, &options.limits)?;
    Ok((!path.is_empty()).then_some(path))
}

/// A cleaned path's parent and last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
