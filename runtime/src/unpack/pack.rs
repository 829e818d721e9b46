//! A tar stream of files and directories, found by descriptor: no symbolic link is followed, whatever changes
//! meanwhile.
//!
//! Headers are POSIX ones (`ustar`, with `pax` records for what does not fit: long names, parts of seconds,
//! extended attributes), which every `tar` reads.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::adopt;
use super::header::BLOCK_BYTES;
use super::metadata::Metadata;
use super::target::join;
use crate::error::{Attempt, Error, Result};
use crate::warning::warn;

/// The deepest tree that is read: each level keeps a directory open.
const DEPTH_LIMIT: usize = 256;

/// Bytes of a file read at a time.
const READ_BYTES: usize = 64 << 10;

/// The longest name, and target of a link, in a header's own fields.
const FIELD_BYTES: usize = 100;

/// Extended attributes in `pax` records, as GNU tar, libarchive and Go name them.
const XATTR: &str = "SCHILY.xattr.";

/// The attribute that gives a program capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// The bits of a mode that give a program another user or group.
const SET_ID: u32 = 0o6000;

/// `f_type` of file systems that show the kernel's state and hold nothing: proc, sysfs, cgroup, cgroup2, mqueue,
/// devpts, tracefs, debugfs, securityfs.
const STATE: [i64; 9] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1980_0202, 0x1cd1, 0x7472_6163, 0x6462_6720, 0x7363_6673];

/// Writes one archive.
pub(crate) struct Packer<W> {
    out: W,
    /// Where a file with several names was written first, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    bytes: u64,
    harmless: bool,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, links: HashMap::new(), bytes: 0, harmless: false }
    }

    /// Leaves out what would give others rights where it is unpacked: set-id bits, capabilities, device nodes.
    pub(crate) fn harmless(self) -> Self {
        Self { harmless: true, ..self }
    }

    /// Adds what `name` in `parent` is as `path`, with all that is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it shows the kernel's state: `/proc` and the like.
    pub(crate) fn add(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).attempt(|| attempted("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::RegularFile => {
                let fd = open(parent, name).attempt(|| attempted("open", path))?;
                self.add_open(fd, path)
            }
            _ => self.entry(parent, name, path, 0),
        }
    }

    /// The same for a file or directory that is open for reading; of a directory with an empty path its content.
    pub(crate) fn add_open(&mut self, fd: OwnedFd, path: &[u8]) -> Result<()> {
        if shows_state(&fd).attempt(|| attempted("look at", path))? {
            let why = "it shows the kernel's state and is no file; `rbox exec CONTAINER cat` reads it";
            return Err(Error::invalid(shown(path), why));
        }
        let stat = rustix::fs::fstat(&fd).attempt(|| attempted("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(&fd, &stat, path, 0),
            FileType::RegularFile => self.file(fd, &stat, path),
            _ => Err(Error::invalid(shown(path), "it is neither a file nor a directory any more")),
        }
    }

    /// Ends the archive. Gives how many bytes it has.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.write(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush().attempt(|| "write an archive")?;
        Ok(self.bytes)
    }

    fn directory(&mut self, fd: &OwnedFd, stat: &Stat, path: &[u8], depth: usize) -> Result<()> {
        let metadata = adopt::read(fd.as_fd()).attempt(|| attempted("read the attributes of", path))?;
        let own = if path.is_empty() { b"./".to_vec() } else { [path, &b"/"[..]].concat() };
        self.header(EntryType::Directory, &own, &metadata, 0, b"", None)?;
        if depth == DEPTH_LIMIT {
            return Err(Error::invalid(shown(path), format!("it is more than {DEPTH_LIMIT} directories deep")));
        }
        for entry in Dir::read_from(fd).attempt(|| attempted("read", path))? {
            let entry = entry.attempt(|| attempted("read", path))?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                self.child(fd, stat, name, &join(path, name.to_bytes()), depth + 1)?;
            }
        }
        Ok(())
    }

    fn child(&mut self, parent: &OwnedFd, above: &Stat, name: &CStr, path: &[u8], depth: usize) -> Result<()> {
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // It went while the directory was read.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).attempt(|| attempted("look at", path)),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory | FileType::RegularFile => {}
                _ => return self.entry(parent.as_fd(), name, path, depth),
            },
        }
        let fd = match open(parent.as_fd(), name) {
            // It went, or became a link.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            other => other.attempt(|| attempted("open", path))?,
        };
        let stat = rustix::fs::fstat(&fd).attempt(|| attempted("look at", path))?;
        let foreign = stat.st_dev != above.st_dev && shows_state(&fd).attempt(|| attempted("look at", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if foreign => {
                let metadata = plain(&stat);
                self.header(EntryType::Directory, &[path, &b"/"[..]].concat(), &metadata, 0, b"", None)
            }
            FileType::Directory => self.directory(&fd, &stat, path, depth),
            FileType::RegularFile if !foreign => self.file(fd, &stat, path),
            _ => Ok(()),
        }
    }

    /// What is neither a file nor a directory. A socket is left out, and so are devices from what is to be harmless.
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8], depth: usize) -> Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            other => other.attempt(|| attempted("look at", path))?,
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice if !self.harmless => EntryType::Char,
            FileType::BlockDevice if !self.harmless => EntryType::Block,
            _ => {
                warn(&format!("{} is left out", shown(path)));
                return Ok(());
            }
        };
        let target = if kind == EntryType::Symlink {
            let target = rustix::fs::readlinkat(parent, name, Vec::new()).attempt(|| attempted("read link", path))?;
            target.into_bytes()
        } else {
            Vec::new()
        };
        let device = matches!(kind, EntryType::Char | EntryType::Block)
            .then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
        self.header(kind, path, &plain(&stat), 0, &target, device)
    }

    fn file(&mut self, fd: OwnedFd, stat: &Stat, path: &[u8]) -> Result<()> {
        let metadata = adopt::read(fd.as_fd()).attempt(|| attempted("read the attributes of", path))?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.header(EntryType::Link, path, &metadata, 0, &first, None);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        let size_bytes = u64::try_from(stat.st_size).unwrap_or_default();
        self.header(EntryType::Regular, path, &metadata, size_bytes, b"", None)?;
        let mut file = File::from(fd).take(size_bytes);
        let (mut buffer, mut left) = (vec![0; READ_BYTES], size_bytes);
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut buffer[..wanted]) {
                // It became shorter: what the header promises is made up with zeros, as GNU tar does.
                Ok(0) => {
                    buffer[..wanted].fill(0);
                    self.write(&buffer[..wanted])?;
                    left -= wanted as u64;
                }
                Ok(read) => {
                    self.write(&buffer[..read])?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(attempted("read", path), error)),
            }
        }
        let padding = size_bytes.wrapping_neg() % BLOCK_BYTES as u64;
        self.write(&[0; BLOCK_BYTES][..padding as usize])
    }

    fn header(
        &mut self,
        kind: EntryType,
        path: &[u8],
        metadata: &Metadata,
        size_bytes: u64,
        link: &[u8],
        device: Option<(u32, u32)>,
    ) -> Result<()> {
        let mut records = Vec::new();
        if path.len() > FIELD_BYTES {
            record(&mut records, "path", path);
        }
        if link.len() > FIELD_BYTES {
            record(&mut records, "linkpath", link);
        }
        if metadata.mtime.tv_nsec != 0 || metadata.mtime.tv_sec < 0 {
            record(&mut records, "mtime", decimal(&metadata.mtime).as_bytes());
        }
        for (name, value) in &metadata.xattrs {
            let grants = name == CAPABILITY;
            // Records are keyed by text.
            if let Ok(name) = str::from_utf8(name)
                && !(self.harmless && grants)
            {
                record(&mut records, &format!("{XATTR}{name}"), value);
            }
        }
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            fill(&mut header, EntryType::XHeader, b"pax", b"");
            header.set_size(records.len() as u64);
            self.block(&mut header)?;
            records.resize(records.len().next_multiple_of(BLOCK_BYTES), 0);
            self.write(&records)?;
        }
        let mut header = Header::new_ustar();
        fill(&mut header, kind, path, link);
        header.set_size(size_bytes);
        header.set_mode(if self.harmless { metadata.mode & !SET_ID } else { metadata.mode });
        header.set_uid(metadata.uid.into());
        header.set_gid(metadata.gid.into());
        header.set_mtime(u64::try_from(metadata.mtime.tv_sec).unwrap_or_default());
        if let Some((major, minor)) = device {
            let numbers = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
            numbers.attempt(|| attempted("describe", path))?;
        }
        self.block(&mut header)
    }

    fn block(&mut self, header: &mut Header) -> Result<()> {
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).attempt(|| "write an archive")
    }
}

/// A file or directory, for reading. Without NONBLOCK a fifo that has taken its place would wait for ever.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn shows_state(fd: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(STATE.contains(&rustix::fs::fstatfs(fd)?.f_type))
}

/// What is known without opening it: all but extended attributes.
fn plain(stat: &Stat) -> Metadata {
    let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: Vec::new() }
}

/// The fields of a header that are text; what does not fit stands in a record before it.
fn fill(header: &mut Header, kind: EntryType, path: &[u8], link: &[u8]) {
    header.set_entry_type(kind);
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, path), (&mut old.linkname, link)] {
        let length = text.len().min(FIELD_BYTES);
        field[..length].copy_from_slice(&text[..length]);
    }
}

/// A `pax` record: its own length in decimal, a blank, `key=value`, a line feed.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with nine decimals; before 1970 both parts count backwards.
fn decimal(time: &Timespec) -> String {
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let (sign, size) = (if nanoseconds < 0 { "-" } else { "" }, nanoseconds.unsigned_abs());
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

fn shown(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

fn attempted(verb: &str, path: &[u8]) -> String {
    format!("{verb} {}", shown(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::{Options, hand_over, merge, unpack_tree};

    fn directory(path: &std::path::Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn packed(fd: OwnedFd, path: &[u8], out: &mut dyn Write) -> Result<()> {
        let mut packer = Packer::new(out);
        packer.add_open(fd, path)?;
        packer.finish().map(drop)
    }

    #[test]
    fn a_tree_goes_through_an_archive_unchanged() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = from.path().join("long-".repeat(30)).join("name-".repeat(30));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join(".wh.file"), vec![7; 70_000]).unwrap();
        std::fs::hard_link(deep.join(".wh.file"), from.path().join("second")).unwrap();
        symlink("x//./".repeat(40), from.path().join("link")).unwrap();
        std::fs::set_permissions(from.path(), PermissionsExt::from_mode(0o1751)).unwrap();
        let attributes =
            rustix::fs::setxattr(from.path().join("second"), "user.note", b"a=b\n\0c", rustix::fs::XattrFlags::empty());
        let (source, target) = (directory(from.path()), directory(to.path()));
        let options = Options::default();
        hand_over(|out| packed(source, b"", out), |input| unpack_tree(input, target.as_fd(), &options)).unwrap();
        let same = |name: &str| {
            let (one, other) = (from.path().join(name), to.path().join(name));
            let (one, other) = (one.symlink_metadata().unwrap(), other.symlink_metadata().unwrap());
            assert_eq!(
                (one.mode(), one.uid(), one.len(), one.mtime(), one.mtime_nsec(), one.nlink()),
                (other.mode(), other.uid(), other.len(), other.mtime(), other.mtime_nsec(), other.nlink()),
                "{name}"
            );
        };
        same("link");
        same("second");
        assert_eq!(std::fs::read_link(to.path().join("link")).unwrap().to_str(), Some(&*"x//./".repeat(40)));
        let copy = to.path().join("long-".repeat(30)).join("name-".repeat(30)).join(".wh.file");
        assert_eq!(copy.metadata().unwrap().ino(), to.path().join("second").metadata().unwrap().ino());
        assert_eq!(std::fs::read(copy).unwrap(), vec![7; 70_000]);
        assert_eq!(to.path().metadata().unwrap().mode() & 0o7777, 0o1751);
        if attributes.is_ok() {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(to.path().join("second"), "user.note", &mut value).unwrap();
            assert_eq!(&value[..length], b"a=b\n\0c");
        }
    }

    #[test]
    fn merging_keeps_what_is_there_and_replaces_no_directory() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (base, text) in [(from.path(), "new"), (to.path(), "old")] {
            std::fs::create_dir(base.join("d")).unwrap();
            std::fs::write(base.join("d/both"), text).unwrap();
            std::fs::write(base.join(format!("d/{text}")), text).unwrap();
        }
        let mode = to.path().metadata().unwrap().mode();
        let options = Options::default();
        let copy = || {
            let (source, target) = (directory(from.path()), directory(to.path()));
            hand_over(|out| packed(source, b"", out), |input| merge(input, target.as_fd(), &options))
        };
        copy().unwrap();
        let read = |name: &str| std::fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!((read("d/both"), read("d/old"), read("d/new")), ("new".into(), "old".into(), "new".into()));
        assert_eq!(to.path().metadata().unwrap().mode(), mode);
        std::fs::create_dir(to.path().join("file")).unwrap();
        std::fs::write(from.path().join("file"), "").unwrap();
        assert!(copy().unwrap_err().to_string().contains("cannot take the place"));
        std::fs::remove_file(from.path().join("file")).unwrap();
        std::fs::remove_dir(to.path().join("file")).unwrap();
        // Nor is a link followed that is in the place of a directory.
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(from.path().join("e")).unwrap();
        std::fs::write(from.path().join("e/x"), "").unwrap();
        symlink(outside.path(), to.path().join("e")).unwrap();
        assert!(copy().unwrap_err().to_string().contains("cannot take the place"));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_kernel_s_state_is_no_file() {
        let proc = directory("/proc".as_ref());
        let error = packed(proc, b"proc", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("kernel's state"), "{error}");
    }

    #[test]
    fn records_say_their_own_length_and_times_before_1970_are_told() {
        for length in [0, 1, 85, 88, 89, 90, 91, 92, 93, 94, 980, 990, 1000] {
            let mut records = Vec::new();
            record(&mut records, "path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), text.len());
        }
        assert_eq!(decimal(&Timespec { tv_sec: -1, tv_nsec: 750_000_000 }), "-0.250000000");
        assert_eq!(decimal(&Timespec { tv_sec: 2, tv_nsec: 5 }), "2.000000005");
    }
}
