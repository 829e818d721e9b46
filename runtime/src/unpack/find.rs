//! One path in a layer that streams by: what the layer says of it. Nothing is unpacked, and what comes behind a file
//! that was found is not read.
//!
//! A path is compared by name. An entry that a layer writes through a symbolic link of its own is not found by the name
//! it has behind the link: no tool at hand makes such layers.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{BufRead, Read, Write};

use crate::error::{Attempt, Error, Result};
use crate::name::{Algorithm, Digest};
use crate::parallel::Cancel;

use super::archive::{Archive, Entry, Kind};
use super::extract::{WHITEOUT, WHITEOUT_META, WHITEOUT_OPAQUE};
use super::sparse::Run;
use super::target::components;
use super::{Options, read_some};

/// Remembered remembered of all the layers of an image; each takes about 20 bytes. Of further ones nothing is known.
const NAMES_LIMIT: usize = 1 << 20;

/// A hole of a sparse file is written in pieces of this.
const ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// A path inside an image, its components one by one, without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImagePath(Vec<Vec<u8>>);

impl ImagePath {
    /// Resolves `..` by name, and never beyond the root.
    pub(crate) fn new(path: &[u8]) -> Self {
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for part in components(path) {
            if part == b".." {
                parts.pop();
            } else {
                parts.push(part.to_vec());
            }
        }
        Self(parts)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// What the path is where its first `depth` components are a symbolic link to `target`.
    fn through(&self, depth: usize, target: &[u8]) -> Self {
        let above = if target.starts_with(b"/") { Vec::new() } else { self.first(depth - 1) };
        Self::new(&[&above, target, &self.0[depth..].join(&b'/')].map(<[u8]>::to_vec).join(&b'/'))
    }

    fn first(&self, depth: usize) -> Vec<u8> {
        self.0[..depth].join(&b'/')
    }

    /// How many components the two have in common from their beginning.
    fn common(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).take_while(|(one, other)| one == other).count()
    }
}

impl std::fmt::Display for ImagePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0.join(&b'/')))
    }
}

/// What a layer says of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is a file; its content has been written.
    Written,
    /// It is, or lies behind, a symbolic link: what to look for instead, from the top layer on.
    Elsewhere(ImagePath),
    /// It is a further name of what this layer has under another.
    Linked(ImagePath),
    /// It is there, and no file.
    Other(&'static str),
    /// It is not there. `hidden`: nor is what the layers below have there.
    Nothing { hidden: bool },
}

/// How a blob is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The blob, to compare with once it was read to its end.
    pub(crate) blob: &'a Digest,
    /// It is read to its end also where the path was found.
    pub(crate) whole: bool,
    /// Set when no more of it is wanted.
    pub(crate) cancel: &'a Cancel<'a>,
}

/// The search for one path, from the top layer down.
#[derive(Debug)]
pub(crate) struct Search {
    path: ImagePath,
    /// So many components of it are directories in the layers above: what is no directory there is hidden by them.
    directories: usize,
}

impl Search {
    pub(crate) fn new(path: ImagePath) -> Self {
        Self { path, directories: 0 }
    }

    pub(crate) fn path(&self) -> &ImagePath {
        &self.path
    }

    /// Looks through one layer, which may be compressed, and writes the file if it is there.
    pub(crate) fn layer(
        &mut self,
        compressed: impl Read + Send,
        reading: Reading<'_>,
        out: &mut dyn Write,
        names: Option<&mut Remembered>,
    ) -> Result<Found> {
        let options = Options::default();
        let (found, streams) = read_some(compressed, reading.blob.algorithm(), Algorithm::Sha256, &options, |input| {
            let found = self.archive(Archive::new(&mut *input, &options.limits), out, names)?;
            if reading.whole {
                std::io::copy(input, &mut std::io::sink()).map_err(super::pipe::unwrap_error)?;
            } else {
                // Who reads must not wait for what nobody wants.
                reading.cancel.set();
            }
            Ok(found)
        })?;
        match streams {
            Some(streams) if streams.blob != *reading.blob => {
                let what = format!("layer {}", reading.blob);
                Err(Error::Mismatch { what, expected: reading.blob.clone(), got: streams.blob })
            }
            _ => Ok(found),
        }
    }

    fn archive<R: BufRead>(
        &mut self,
        mut archive: Archive<'_, R>,
        out: &mut dyn Write,
        mut names: Option<&mut Remembered>,
    ) -> Result<Found> {
        let (mut hidden, mut directories) = (false, 0);
        while let Some(entry) = archive.next()? {
            let meaning = Meaning::of(&entry);
            if let Some(names) = names.as_deref_mut() {
                names.add(&meaning);
            }
            let (at, common) = (&meaning.path, self.path.common(&meaning.path));
            let (here, wanted) = (at.0.len(), self.path.0.len());
            match meaning.what {
                What::Nothing => {}
                // Whatever stands in it: it is one.
                _ if here > common && common == wanted => return Ok(Found::Other("a directory")),
                What::Opaque if here == wanted && common == wanted => return Ok(Found::Other("a directory")),
                What::Opaque => hidden |= here <= wanted && common == here,
                What::Whiteout => hidden |= here > 0 && common == here,
                What::Entry if here > common => {}
                What::Entry => match entry.kind {
                    Kind::Directory if here == wanted => return Ok(Found::Other("a directory")),
                    Kind::Directory => {}
                    // A directory of the same name above it hides it, and all below.
                    _ if here <= self.directories => hidden = true,
                    Kind::Symlink(target) => return Ok(Found::Elsewhere(self.path.through(here, &target))),
                    _ if here < wanted => return Ok(Found::Nothing { hidden: true }),
                    Kind::HardLink(target) => return Ok(Found::Linked(ImagePath::new(&target))),
                    Kind::File { size, sparse } => {
                        write(&mut archive, out, size, sparse)?;
                        return Ok(Found::Written);
                    }
                    Kind::CharDevice { .. } | Kind::BlockDevice { .. } => return Ok(Found::Other("a device")),
                    Kind::Fifo => return Ok(Found::Other("a FIFO")),
                },
            }
            let is_below = here > common || matches!(meaning.what, What::Entry | What::Opaque);
            directories = directories.max(if is_below { common.min(wanted - 1) } else { common.saturating_sub(1) });
        }
        archive.finish()?;
        if let Some(names) = names {
            names.ended = true;
        }
        self.directories = self.directories.max(directories);
        Ok(Found::Nothing { hidden })
    }

    /// The same without reading a layer, where its names tell that it has nothing to say; `None` if it has to be read.
    pub(crate) fn known(&mut self, names: &Remembered) -> Option<Found> {
        let wanted = self.path.0.len();
        if !names.ended || names.is_full() {
            return None;
        }
        let mut directories = 0;
        for depth in 0..=wanted {
            match names.kinds.get(&names.hash(&self.path.first(depth))) {
                None => {}
                Some(true) if depth < wanted => directories = depth,
                Some(_) => return None,
            }
        }
        self.directories = self.directories.max(directories);
        Some(Found::Nothing { hidden: false })
    }
}

/// The names of a layer that was read to its end, by their hashes: whether they are directories and nothing else.
#[derive(Debug)]
pub(crate) struct Remembered {
    hasher: RandomState,
    kinds: HashMap<u64, bool>,
    room: usize,
    /// The layer's last one is among them.
    ended: bool,
}

impl Remembered {
    /// None yet. `others`: how many are remembered of other layers.
    pub(crate) fn new(others: usize) -> Self {
        Self { hasher: RandomState::new(), kinds: HashMap::new(), room: NAMES_LIMIT.saturating_sub(others), ended: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    fn is_full(&self) -> bool {
        self.kinds.len() >= self.room
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }

    fn add(&mut self, meaning: &Meaning) {
        if self.is_full() {
            return;
        }
        for depth in 1..meaning.path.0.len() {
            let hash = self.hash(&meaning.path.first(depth));
            self.kinds.entry(hash).or_insert(true);
        }
        let plain = matches!(meaning.what, What::Entry) && meaning.is_directory;
        let hash = self.hash(&meaning.path.first(meaning.path.0.len()));
        let known = self.kinds.entry(hash).or_insert(plain);
        *known &= plain;
    }
}

/// What an entry means for the layers below.
struct Meaning {
    path: ImagePath,
    what: What,
    is_directory: bool,
}

#[derive(Clone, Copy)]
enum What {
    Entry,
    /// It hides what is at its path.
    Whiteout,
    /// It hides what is below its path.
    Opaque,
    /// One of aufs' own files.
    Nothing,
}

impl Meaning {
    fn of(entry: &Entry) -> Self {
        let mut path = ImagePath::new(&entry.path);
        let is_directory = matches!(entry.kind, Kind::Directory);
        let is_meta = |part: &Vec<u8>| part.starts_with(WHITEOUT_META);
        let what = match path.0.split_last() {
            Some((name, above)) if above.iter().any(is_meta) || (is_meta(name) && name != WHITEOUT_OPAQUE) => What::Nothing,
            Some((name, _)) if name == WHITEOUT_OPAQUE => What::Opaque,
            Some((name, _)) if name.starts_with(WHITEOUT) => What::Whiteout,
            _ => What::Entry,
        };
        match what {
            What::Opaque => drop(path.0.pop()),
            What::Whiteout => {
                if let Some(name) = path.0.last_mut() {
                    name.drain(..WHITEOUT.len());
                }
            }
            What::Entry | What::Nothing => {}
        }
        Self { path, what, is_directory }
    }
}

/// Writes the current entry's content, holes as zeros.
fn write<R: BufRead>(archive: &mut Archive<'_, R>, out: &mut dyn Write, size: u64, sparse: Option<Vec<Run>>) -> Result<()> {
    let mut at = 0;
    for run in sparse.unwrap_or_else(|| vec![Run { offset: 0, length: size }]) {
        zeros(out, run.offset - at)?;
        let mut left = run.length;
        while left > 0 {
            let data = archive.data(left)?;
            let bytes = data.len();
            out.write_all(data).attempt(|| "write a file of an image")?;
            archive.consume(bytes);
            left -= bytes as u64;
        }
        at = run.offset + run.length;
    }
    zeros(out, size - at)
}

fn zeros(out: &mut dyn Write, mut count: u64) -> Result<()> {
    while count > 0 {
        let bytes = count.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..bytes as usize]).attempt(|| "write a file of an image")?;
        count -= bytes;
    }
    Ok(())
}
