//! A tar stream as entries: extension headers applied, sizes settled, everything bounded. Where
//! archives are ambiguous it reads as Go's `archive/tar` or refuses.

use std::io::BufRead;

use rustix::fs::Timespec;

use crate::error::{Error, Result};

use super::header::{BLOCK_BYTES, Block, Header, text};
use super::pax::Pax;
use super::pipe::unwrap_error;
use super::sparse::{self, MapPlace, Run, Runs};
use super::{Limits, invalid_entry};

/// One entry, its numbers in range.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As in the archive, not cleaned.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission, set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An entry's type and what only that type has.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// The size in bytes with holes, and the data runs if it is sparse.
    File {
        size: u64,
        sparse: Option<Vec<Run>>,
    },
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Directory,
}

/// A tar stream.
pub(super) struct Archive<'a, R> {
    input: R,
    limits: &'a Limits,
    headers: u64,
    /// Bytes of the current entry's data not read yet.
    remaining: u64,
    /// Bytes after the data up to the next block.
    padding: u64,
}

/// Extension headers seen before the entry they describe.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<'a, R: BufRead> Archive<'a, R> {
    pub(super) fn new(input: R, limits: &'a Limits) -> Self {
        Self { input, limits, headers: 0, remaining: 0, padding: 0 }
    }

    /// The next entry, or `None` at the archive's end: two blocks of zeros, or the end of the stream
    /// where a header could stand.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(Error::invalid("layer", "an extension header has no entry after it"))
                };
            };
            let header =
                Header::parse(&block).map_err(|why| Error::invalid(format_args!("archive entry {}", self.headers), why))?;
            self.headers += 1;
            if self.headers > self.limits.entries {
                return Err(Error::invalid("layer", format_args!("it has more than {} entries", self.limits.entries)));
            }
            match header.kind {
                b'x' | b'L' | b'K' => self.extension(&header, &mut extensions)?,
                b'g' if extensions.is_empty() => {
                    // Global records speak of no entry in particular; like other engines, only check them.
                    let records = self.extension_data(&header)?;
                    Pax::parse(&records, self.limits).map_err(|why| invalid_entry(&header.path, why))?;
                }
                b'g' => return Err(invalid_entry(&header.path, "a global header stands between an entry and its own")),
                _ => return self.entry(header, &block, extensions).map(Some),
            }
        }
    }

    /// The next piece of the current file's stored data, at most `limit` bytes; empty at its end.
    pub(super) fn data(&mut self, limit: u64) -> Result<&[u8]> {
        let limit = self.remaining.min(limit);
        if limit == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf().map_err(unwrap_error)?;
        if buffer.is_empty() {
            return Err(truncated());
        }
        Ok(&buffer[..buffer.len().min(usize::try_from(limit).unwrap_or(usize::MAX))])
    }

    /// Marks `bytes` of what [`Archive::data`] gave as used.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.remaining -= bytes as u64;
    }

    /// Reads the stream to its end, past the archive's.
    pub(super) fn finish(mut self) -> Result<()> {
        loop {
            let bytes = self.input.fill_buf().map_err(unwrap_error)?.len();
            if bytes == 0 {
                return Ok(());
            }
            self.input.consume(bytes);
        }
    }

    fn skip_data(&mut self) -> Result<()> {
        while self.remaining > 0 {
            let bytes = self.data(u64::MAX)?.len();
            self.consume(bytes);
        }
        // A stream may end within the last padding.
        while self.padding > 0 {
            let bytes = (self.input.fill_buf().map_err(unwrap_error)?.len() as u64).min(self.padding);
            if bytes == 0 {
                break;
            }
            self.input.consume(bytes as usize);
            self.padding -= bytes;
        }
        self.padding = 0;
        Ok(())
    }

    /// The next block, `None` at the archive's end.
    fn header_block(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second.iter().any(|&byte| byte != 0) => {
                Err(Error::invalid("layer", "a block of zeros stands between its entries"))
            }
            _ => Ok(None),
        }
    }

    /// A whole block, `None` at the stream's end.
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let buffer = self.input.fill_buf().map_err(unwrap_error)?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(truncated()) };
            }
            let bytes = buffer.len().min(BLOCK_BYTES - filled);
            block[filled..filled + bytes].copy_from_slice(&buffer[..bytes]);
            self.input.consume(bytes);
            filled += bytes;
        }
        Ok(Some(block))
    }

    /// Reads an `x`, `L` or `K` header's data. Two of a kind before one entry could hide one from other
    /// readers: refused.
    fn extension(&mut self, header: &Header, extensions: &mut Extensions) -> Result<()> {
        let data = self.extension_data(header)?;
        let twice = match header.kind {
            b'x' => {
                let pax = Pax::parse(&data, self.limits).map_err(|why| invalid_entry(&header.path, why))?;
                extensions.pax.replace(pax).is_some()
            }
            b'L' => extensions.path.replace(text(&data).to_vec()).is_some(),
            _ => extensions.link.replace(text(&data).to_vec()).is_some(),
        };
        if twice { Err(invalid_entry(&header.path, "two extension headers of a kind describe one entry")) } else { Ok(()) }
    }

    fn extension_data(&mut self, header: &Header) -> Result<Vec<u8>> {
        let limit = self.limits.extension_bytes;
        let size = u64::try_from(header.size).ok().filter(|&size| size <= limit);
        let size = size.ok_or_else(|| invalid_entry(&header.path, format_args!("an extension header exceeds {limit} bytes")))?;
        self.begin_data(size);
        let mut data = Vec::new();
        while self.remaining > 0 {
            let piece = self.data(u64::MAX)?;
            data.extend_from_slice(piece);
            let bytes = piece.len();
            self.consume(bytes);
        }
        Ok(data)
    }

    fn begin_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES as u64;
    }

    /// Settles an entry from its header and the extension headers before it.
    fn entry(&mut self, mut header: Header, block: &Block, extensions: Extensions) -> Result<Entry> {
        let mut pax = extensions.pax.unwrap_or_default();
        pax.apply(&mut header);
        let long = |long: Option<Vec<u8>>| long.filter(|text| !text.is_empty());
        header.path = long(extensions.path).unwrap_or(header.path);
        header.link = long(extensions.link).unwrap_or(header.link);
        if header.kind == 0 {
            header.kind = if header.path.ends_with(b"/") { b'5' } else { b'0' };
        }
        let size = u64::try_from(header.size).map_err(|_| invalid_entry(&header.path, "its size is negative"))?;
        // Only files have data, whatever a size field says; Go's archive/tar reads it so.
        self.begin_data(if matches!(header.kind, b'0' | b'S') { size } else { 0 });
        let kind = self.kind(&mut header, block, &pax, size)?;
        let refuse = |what: &str| invalid_entry(&header.path, format_args!("its {what} is out of range"));
        let id = |id: i64, what| u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| refuse(what));
        let (seconds, nanoseconds) = pax.mtime.unwrap_or((header.mtime, 0));
        Ok(Entry {
            kind,
            mode: (header.mode & 0o7777) as u32,
            uid: id(header.uid, "owner")?,
            gid: id(header.gid, "group")?,
            mtime: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            xattrs: pax.xattrs,
            path: header.path,
        })
    }

    fn kind(&mut self, header: &mut Header, block: &Block, pax: &Pax, size: u64) -> Result<Kind> {
        let device = |(major, minor): (i64, i64)| {
            // What does not fit the kernel's 12 and 20 bits would become another device, 0:0 among them.
            let major = u32::try_from(major).ok().filter(|&major| major < 1 << 12);
            let minor = u32::try_from(minor).ok().filter(|&minor| minor < 1 << 20);
            major.zip(minor).ok_or_else(|| invalid_entry(&header.path, "its device number is out of range"))
        };
        Ok(match header.kind {
            b'0' | b'S' => self.file(header, block, pax, size)?,
            b'1' => Kind::HardLink(std::mem::take(&mut header.link)),
            b'2' => Kind::Symlink(std::mem::take(&mut header.link)),
            b'3' => device(header.device).map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device(header.device).map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let why = format_args!("its type {:?} is not supported", char::from(other));
                return Err(invalid_entry(&header.path, why));
            }
        })
    }

    /// A regular file, its sparse map read wherever it stands.
    fn file(&mut self, header: &mut Header, block: &Block, pax: &Pax, size: u64) -> Result<Kind> {
        let path = header.path.clone();
        let refuse = |why: String| invalid_entry(&path, why);
        let limits = self.limits;
        let (runs, real_size): (Runs, Option<i64>) = if header.kind == b'S' {
            let next = || self.block()?.ok_or_else(truncated);
            sparse::old_gnu(block, limits, next, refuse).map(|(runs, size)| (runs, Some(size)))?
        } else {
            let Some(place) = pax.sparse.place(limits).map_err(refuse)? else { return Ok(Kind::File { size, sparse: None }) };
            let real_size = pax.sparse.size().map_err(refuse)?;
            if !pax.sparse.name.is_empty() {
                header.path.clone_from(&pax.sparse.name);
            }
            match place {
                MapPlace::Records(runs) => (runs, real_size),
                MapPlace::Data => (sparse::in_data(limits, || self.data_block(), refuse)?, real_size),
            }
        };
        let size = real_size.map_or(Ok(size), |size| u64::try_from(size).map_err(|_| refuse("its size is negative".into())))?;
        let runs = runs.check(size, self.remaining).map_err(refuse)?;
        Ok(Kind::File { size, sparse: Some(runs) })
    }

    /// A block of the current entry's data.
    fn data_block(&mut self) -> Result<Block> {
        if self.remaining < BLOCK_BYTES as u64 {
            return Err(Error::invalid("layer", "a sparse map is longer than its entry"));
        }
        self.remaining -= BLOCK_BYTES as u64;
        self.block()?.ok_or_else(truncated)
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }
}

fn truncated() -> Error {
    Error::invalid("layer", "its archive ends in the middle of an entry: it is truncated")
}
