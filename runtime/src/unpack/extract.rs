//! The writing thread: what each entry of the archive means for a layer, whatever its form.

use std::io::BufRead;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Attempt, Error, Result};

use super::archive::{Archive, Entry, Kind};
use super::metadata::{Metadata, attempted};
use super::sparse::Run;
use super::target::{Found, Place, Target, check_path, components, split};
use super::{Options, invalid_entry};

/// The prefix of whiteouts (image-spec layer.md#whiteouts).
pub(super) const WHITEOUT: &[u8] = b".wh.";

/// The prefix of aufs' own files, of which only the opaque marker has a meaning.
pub(super) const WHITEOUT_META: &[u8] = b".wh..wh.";

/// The opaque marker.
pub(super) const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// What names like `.wh.x` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// An image's layer: they say what lower layers have and this one hides.
    Layer,
    /// Any archive: they are names.
    Plain,
}

/// Reads `input` to its end and writes what is in it to `target`. Gives how many entries there were.
pub(super) fn extract(input: impl BufRead, target: &mut impl Target, options: &Options, names: Names) -> Result<u64> {
    let mut extractor = Extractor { archive: Archive::new(input, &options.limits), target, options, names, file_bytes: 0 };
    let mut entries = 0;
    while let Some(entry) = extractor.archive.next()? {
        extractor.take(entry)?;
        entries += 1;
    }
    extractor.archive.finish()?;
    Ok(entries)
}

struct Extractor<'a, R, T> {
    archive: Archive<'a, R>,
    target: &'a mut T,
    options: &'a Options,
    names: Names,
    /// The sum of the files' sizes so far, holes included.
    file_bytes: u64,
}

impl<R: BufRead, T: Target> Extractor<'_, R, T> {
    fn take(&mut self, mut entry: Entry) -> Result<()> {
        let Some(path) = clean(&entry.path, self.options)? else {
            return match entry.kind {
                Kind::Directory => self.target.set_root(entry.into()),
                _ => Err(invalid_entry(&entry.path, "it would replace the layer's root")),
            };
        };
        let (above, name) = split(&path);
        if self.names == Names::Layer {
            // aufs kept hard links below such names; nothing but aufs ever reads them.
            if components(above).any(|part| part.starts_with(WHITEOUT_META)) {
                return Ok(());
            }
            if name.starts_with(WHITEOUT) {
                return self.whiteout(above, name, &path);
            }
        }
        let place = Place { parent: self.target.parent(above)?, name: name.to_vec(), path: path.clone() };
        match std::mem::replace(&mut entry.kind, Kind::Directory) {
            Kind::File { size, sparse } => self.file(&place, &entry.into(), size, sparse.as_deref()),
            Kind::HardLink(link) => self.hard_link(&place, &link),
            Kind::Symlink(link) => self.symlink(&place, &entry.into(), &link),
            Kind::CharDevice { major: 0, minor: 0 } => {
                Err(invalid_entry(&path, "it is a character device 0:0, which overlayfs takes for a whiteout"))
            }
            Kind::CharDevice { major, minor } => {
                self.target.device(&place, &entry.into(), FileType::CharacterDevice, (major, minor))
            }
            Kind::BlockDevice { major, minor } => {
                self.target.device(&place, &entry.into(), FileType::BlockDevice, (major, minor))
            }
            Kind::Fifo => self.target.device(&place, &entry.into(), FileType::Fifo, (0, 0)),
            Kind::Directory => self.target.make_directory(&place, entry.into()),
        }
    }

    /// A whiteout of `above`'s lower contents or of one name in it.
    fn whiteout(&mut self, above: &[u8], name: &[u8], path: &[u8]) -> Result<()> {
        if name == WHITEOUT_OPAQUE {
            let parent = self.target.parent(above)?;
            return self.target.set_opaque(&parent);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        match &name[WHITEOUT.len()..] {
            b"" | b"." | b".." => Err(invalid_entry(path, "it is a whiteout of no name")),
            hidden => {
                let parent = self.target.parent(above)?;
                self.target.whiteout(&parent, hidden)
            }
        }
    }

    fn file(&mut self, place: &Place<T::Directory>, metadata: &Metadata, size: u64, sparse: Option<&[Run]>) -> Result<()> {
        self.file_bytes = self.file_bytes.saturating_add(size);
        if self.file_bytes > self.options.limits.file_bytes {
            let limit = self.options.limits.file_bytes;
            return Err(invalid_entry(&place.path, format_args!("with it the layer's files exceed {limit} bytes")));
        }
        let file = self.target.create_file(place, metadata, size, sparse)?;
        for run in sparse.unwrap_or(&[Run { offset: 0, length: size }]) {
            self.copy(&file, run.offset, run.length, &place.path)?;
        }
        self.target.finish_file(file, place, metadata, sparse.map(|_| size))
    }

    /// Copies `length` bytes of the archive to `offset`, straight from the inflated buffers.
    fn copy(&mut self, file: &T::File, offset: u64, length: u64, path: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < length {
            let data = self.archive.data(length - done)?;
            let bytes = match self.target.write(file, data, offset + done) {
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
    fn hard_link(&mut self, place: &Place<T::Directory>, link: &[u8]) -> Result<()> {
        let missing = || {
            let link = String::from_utf8_lossy(link);
            invalid_entry(&place.path, format_args!("it is a hard link to {link:?}, which this layer does not have before it"))
        };
        let Some(link) = clean(link, self.options)? else {
            return Err(invalid_entry(&place.path, "it is a hard link to the layer's root"));
        };
        let (above, name) = split(&link);
        let from = self.target.existing_parent(above)?.ok_or_else(missing)?;
        match self.target.look(&from, name)? {
            Found::Nothing | Found::Whiteout => return Err(missing()),
            Found::Directory(_) => return Err(invalid_entry(&place.path, "it is a hard link to a directory")),
            Found::Symlink(_) | Found::Other => {}
        }
        if self.target.hard_link(place, &from, name)? { Ok(()) } else { Err(missing()) }
    }

    fn symlink(&mut self, place: &Place<T::Directory>, metadata: &Metadata, link: &[u8]) -> Result<()> {
        if link.is_empty() || link.len() > self.options.limits.path_bytes {
            return Err(invalid_entry(&place.path, "its target is empty or too long"));
        }
        self.target.symlink(place, metadata, link)
    }
}

/// A path relative to the layer's root, `.` and `..` resolved by name as `umoci` and `docker` do before
/// they look at the layer; `None` for the root itself.
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
