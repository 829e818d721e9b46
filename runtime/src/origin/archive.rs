//! Random access to the members of an uncompressed tar file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Attempt, Error, Result};

/// Members an archive may have: 500 layers in several spellings, many images.
const MEMBERS_LIMIT: usize = 100_000;

/// The longest name or extended header of a member.
const EXTENSION_LIMIT_BYTES: u64 = 1 << 20;

/// Links followed from one member to another.
const LINKS_LIMIT: usize = 4;

/// As many of a stream's first bytes as tell whether it is compressed.
pub(super) const MAGIC_BYTES: usize = 4;

#[derive(Debug, Clone)]
enum Member {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` stores a repeated layer as a link to the first.
    Link(String),
}

/// A tar file and where its members lie in it.
#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    name: String,
    members: HashMap<String, Member>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).attempt(|| format!("open {name}"))?;
        Self::of_file(file, name)
    }

    /// An archive from the file's beginning, wherever it was read last.
    pub(super) fn of_file(mut file: File, name: String) -> Result<Self> {
        file.rewind().attempt(|| format!("read {name}"))?;
        let mut magic = [0; MAGIC_BYTES];
        let got = file.read_at(&mut magic, 0).attempt(|| format!("read {name}"))?;
        if is_compressed(&magic[..got]) {
            return Err(Error::invalid(name, "it is compressed as a whole; inflate it first, or give it to `rbox load`"));
        }
        let members = scan(&file).map_err(|e| Error::invalid(&name, format_args!("it is not a tar archive: {e}")))?;
        Ok(Self { file: Arc::new(file), name, members })
    }

    /// A member's bytes and their number.
    pub(super) fn member(&self, path: &str) -> Result<(Box<dyn Read + Send>, u64)> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_LIMIT {
            match self.members.get(&path) {
                Some(Member::Bytes { offset, size }) => {
                    let section = Section { file: Arc::clone(&self.file), offset: *offset, end: offset + size };
                    return Ok((Box::new(section), *size));
                }
                Some(Member::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(Error::NotFound { what: format!("{path} in {}", self.name), hint: "the archive is incomplete; write it anew".into() })
    }

    /// Whether there is such a member.
    pub(super) fn has(&self, path: &str) -> bool {
        self.members.contains_key(path)
    }

    /// A small member, whole.
    pub(super) fn read(&self, path: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let (reader, size) = self.member(path)?;
        read_whole(reader, size, limit_bytes, path)
    }
}

/// Whether these are the first bytes of a gzip or zstd stream.
pub(super) fn is_compressed(magic: &[u8]) -> bool {
    magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// All of a reader that says how long it is.
pub(super) fn read_whole(mut reader: impl Read, size: u64, limit_bytes: u64, name: &str) -> Result<Vec<u8>> {
    if size > limit_bytes {
        return Err(Error::invalid(name, format_args!("it is longer than {limit_bytes} bytes")));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    reader.read_to_end(&mut bytes).attempt(|| format!("read {name}"))?;
    Ok(bytes)
}

fn scan(file: &File) -> io::Result<HashMap<String, Member>> {
    let mut members = HashMap::new();
    // What says more of a member is read whole: first a look at how long that is.
    for entry in tar::Archive::new(BufReader::new(file)).entries_with_seek()?.raw(true) {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let is_more =
            kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        if is_more && entry.size() > EXTENSION_LIMIT_BYTES {
            return Err(io::Error::other("it has a name or an extended header that is longer than 1 MiB"));
        }
    }
    (&*file).rewind()?;
    let mut archive = tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if members.len() >= MEMBERS_LIMIT {
            return Err(io::Error::other("it has more than 100000 members"));
        }
        let path = clean("", &entry.path_bytes());
        let kind = entry.header().entry_type();
        if kind.is_file() {
            members.insert(path, Member::Bytes { offset: entry.raw_file_position(), size: entry.size() });
        } else if let Some(target) = entry.link_name_bytes().filter(|_| kind.is_symlink() || kind.is_hard_link()) {
            let base = if kind.is_symlink() { path.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            let target = clean(base, &target);
            members.insert(path, Member::Link(target));
        }
    }
    Ok(members)
}

/// A member's name in one spelling: no leading `./`, `..` resolved within the archive.
fn clean(base: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A stretch of a file, read by position so that several can be read at once.
struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let end = buffer.len().min(left);
        let n = self.file.read_at(&mut buffer[..end], self.offset)?;
        self.offset += n as u64;
        if n == 0 && end > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut short"));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_name_that_would_fill_the_memory_is_refused_before_it_is_read() {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(EXTENSION_LIMIT_BYTES + 1);
        header.set_cksum();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(2 * EXTENSION_LIMIT_BYTES).unwrap();
        file.rewind().unwrap();
        assert!(scan(&file).unwrap_err().to_string().contains("1 MiB"));
    }
}
