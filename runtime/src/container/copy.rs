//! `cp`: files in and out of containers, by docker's rules.
//!
//! Both sides are found by descriptor. **Invariant: a path of the container's is resolved inside its root by the
//! kernel, in one step** (`RESOLVE_IN_ROOT`), whatever its processes do to it meanwhile (CVE-2018-15664), and what
//! is found is read and written through descriptors; no link in it is followed.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::files::Files;
use crate::error::{Attempt, Error, Result};
use crate::launch::{file_type, open_in};
use crate::unpack::{Options, Owners, Packer, hand_over, merge, merge_stream};

/// How many symbolic links are followed for one path, as by the kernel.
const LINKS_LIMIT: usize = 40;

/// One side of a copy.
pub enum Side<'a> {
    /// A path of this machine.
    Host(&'a str),
    /// A path in a container.
    Container(&'a Files, &'a str),
    /// A tar stream: standard input or output.
    Stream,
}

/// How is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Owners are kept; else what is made belongs to who makes it: in a container to its root. On this machine also
    /// set-id bits, capabilities and device nodes.
    pub archive: bool,
    /// A symbolic link as the source stands for what it leads to.
    pub follow_link: bool,
}

/// Copies from one side to the other; one of them is a container. Gives how many bytes the archive had in which it
/// went.
///
/// # Errors
///
/// [`Error::Invalid`] when the two do not fit: a directory over a file, a file into what is not there.
pub fn copy(from: &Side<'_>, to: &Side<'_>, options: CopyOptions) -> Result<u64> {
    let rootless = [from, to].iter().find_map(|side| match side {
        Side::Container(files, _) => Some(files.rootless),
        _ => None,
    });
    let mut unpack = Options::within(rootless.flatten());
    // What this process may not set on files is left out.
    unpack.userxattr |= matches!(to, Side::Host(_));
    let (from, to) = match (from.at(), to.at()) {
        (None, Some(to)) => {
            let target = to.directory()?;
            let mut input = Counted { inner: std::io::stdin(), bytes: 0 };
            merge_stream(&mut input, target.as_fd(), &unpack)?;
            return Ok(input.bytes);
        }
        (Some(from), None) => {
            let source = from.source(options.follow_link)?;
            let name = source.name.clone();
            return source.pack(&name.unwrap_or_default(), Packer::new(&mut std::io::stdout().lock()));
        }
        (Some(from), Some(to)) => (from, to),
        (None, None) => return Err(Error::invalid("copy", "one of the two must be CONTAINER:PATH")),
    };
    if !options.archive {
        unpack.owners = Owners::Squash;
    }
    let source = from.source(options.follow_link)?;
    let (target, name) = to.target(&source)?;
    // What an image brings is not to gain rights on this machine by being looked at.
    let harmless = to.root.is_none() && !options.archive;
    let mut bytes = 0;
    let count = &mut bytes;
    hand_over(
        move |out| {
            let packer = Packer::new(out);
            *count = source.pack(&name, if harmless { packer.harmless() } else { packer })?;
            Ok(())
        },
        |input| merge(input, target.as_fd(), &unpack),
    )?;
    Ok(bytes)
}

/// A path on one of the sides.
struct At<'a> {
    /// A container's root; `None` for this machine's.
    root: Option<BorrowedFd<'a>>,
    text: &'a str,
}

/// What is to be copied.
struct Found {
    what: What,
    /// What it is called in a directory it is copied into; `None` if only what is in it is meant.
    name: Option<Vec<u8>>,
    is_directory: bool,
}

enum What {
    /// A file or directory, open for reading.
    Open(OwnedFd),
    /// Anything, by the directory it is in and its name there.
    In(OwnedFd, CString),
}

impl Found {
    fn pack<W: Write>(self, name: &[u8], mut packer: Packer<W>) -> Result<u64> {
        match self.what {
            What::Open(fd) => packer.add_open(fd, name)?,
            What::In(parent, own) => packer.add(parent.as_fd(), &own, name)?,
        }
        packer.finish()
    }
}

impl<'a> Side<'a> {
    /// `None` for a stream.
    fn at(&'a self) -> Option<At<'a>> {
        match self {
            Self::Host(text) => Some(At { root: None, text }),
            Self::Container(files, text) => Some(At { root: Some(files.root()), text }),
            Self::Stream => None,
        }
    }
}

impl At<'_> {
    /// Finds the source: `DIR/.` is what is in a directory, `DIR/` and `LINK/` the directory itself.
    fn source(&self, follow_link: bool) -> Result<Found> {
        let attempted = || format!("copy {}", self.shown());
        let (parent, name) = split(self.text);
        let contents = self.text.ends_with("/.") || matches!(name, "" | "." | "..");
        let base = (!contents).then(|| name.as_bytes().to_vec());
        if contents || self.text.ends_with('/') {
            let directory = self.open(self.text, OFlags::RDONLY | OFlags::DIRECTORY).attempt(attempted)?;
            return Ok(Found { what: What::Open(directory), name: base, is_directory: true });
        }
        let whole = self.open(self.text, OFlags::PATH | if follow_link { OFlags::empty() } else { OFlags::NOFOLLOW });
        let whole = whole.attempt(attempted)?;
        let kind = file_type(&whole).attempt(attempted)?;
        let what = match kind {
            FileType::Directory | FileType::RegularFile => {
                // The very one that was looked at: opening anything else might wait, or do something.
                let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
                let path = format!("/proc/self/fd/{}", whole.as_raw_fd());
                What::Open(rustix::fs::open(path, flags, Mode::empty()).attempt(attempted)?)
            }
            _ => {
                let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY).attempt(attempted)?;
                What::In(parent, c_string(name.as_bytes()).attempt(attempted)?)
            }
        };
        Ok(Found { what, name: base, is_directory: kind == FileType::Directory })
    }

    /// Where a stream is extracted.
    fn directory(&self) -> Result<OwnedFd> {
        match self.open(self.text, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOTDIR) => Err(Error::invalid(self.shown(), "a tar stream can be copied to a directory only")),
            other => other.attempt(|| format!("copy to {}", self.shown())),
        }
    }

    /// The directory that `source` goes into, and what it is called there; empty for what is in the source.
    fn target(&self, source: &Found) -> Result<(OwnedFd, Vec<u8>)> {
        let attempted = || format!("copy to {}", self.shown());
        let slash = self.text.ends_with('/') || self.text.ends_with("/.");
        match self.open(self.text, OFlags::PATH) {
            Ok(fd) if file_type(&fd).attempt(attempted)? == FileType::Directory => {
                Ok((fd, source.name.clone().unwrap_or_default()))
            }
            Ok(_) if source.is_directory => {
                Err(Error::invalid(self.shown(), "a directory cannot be copied over what is no directory"))
            }
            Ok(_) => self.behind_links().attempt(attempted),
            Err(Errno::NOTDIR) if slash => Err(Error::invalid(self.shown(), "it is no directory")),
            Err(Errno::NOENT) if slash && !source.is_directory => {
                Err(Error::invalid(self.shown(), "there is no such directory; make it first"))
            }
            Err(Errno::NOENT) => {
                let (parent, name) = split(self.text);
                if matches!(name, "" | "." | "..") {
                    return Err(Errno::NOENT).attempt(attempted);
                }
                let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY).attempt(attempted)?;
                Ok((parent, name.as_bytes().to_vec()))
            }
            Err(errno) => Err(errno).attempt(attempted),
        }
    }

    /// A file that is there: the directory it is in and its name, at the end of the links that lead to it.
    fn behind_links(&self) -> rustix::io::Result<(OwnedFd, Vec<u8>)> {
        let mut path = self.text.to_owned();
        for _ in 0..LINKS_LIMIT {
            let (above, name) = split(&path);
            let parent = self.open(above, OFlags::PATH | OFlags::DIRECTORY)?;
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok((parent, name.as_bytes().to_vec()));
            }
            let link = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            let link = link.to_str().map_err(|_| Errno::ILSEQ)?;
            path = if link.starts_with('/') { link.to_owned() } else { format!("{above}/{link}") };
        }
        Err(Errno::LOOP)
    }

    /// Opens a path; a container's in its root, and no magic link of procfs leads out.
    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        match self.root {
            None => rustix::fs::openat(CWD, if path.is_empty() { "." } else { path }, flags, Mode::empty()),
            Some(root) => {
                // A path in a container begins at its root.
                let path = c_string(format!("/{path}").as_bytes())?;
                open_in(root, &path, flags, ResolveFlags::IN_ROOT)
            }
        }
    }

    fn shown(&self) -> String {
        format!("{}{:?}", if self.root.is_some() { "container path " } else { "" }, self.text)
    }
}

/// The directory and the last component of a path, without what slashes and `/.` are behind it.
fn split(path: &str) -> (&str, &str) {
    let mut bare = path;
    while let Some(shorter) = bare.strip_suffix("/.").or_else(|| bare.strip_suffix('/')) {
        bare = shorter;
    }
    match bare.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => (if path.starts_with('/') { "/" } else { "" }, bare),
    }
}

fn c_string(bytes: &[u8]) -> rustix::io::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// A reader that counts.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_is_split_where_its_last_name_begins() {
        for (path, parts) in [
            ("a/b", ("a", "b")),
            ("/a", ("/", "a")),
            ("a/b/", ("a", "b")),
            ("a/b/./", ("a", "b")),
            ("a", ("", "a")),
            ("/", ("/", "")),
            ("/.", ("/", "")),
            (".", ("", ".")),
            ("./", ("", ".")),
            ("", ("", "")),
            ("a/..", ("a", "..")),
        ] {
            assert_eq!(split(path), parts, "{path}");
        }
    }

    /// What docker's documentation of `cp` says, case by case: source, target, and where `x` is then.
    #[test]
    fn what_is_copied_where_is_docker_s_rule() {
        let cases: [(&str, &str, Result<&str, &str>); 17] = [
            ("file", "new", Ok("new")),
            ("file", "new/", Err("no such directory")),
            ("file", "no/new", Err("No such file")),
            ("file", "there", Ok("there")),
            ("file", "there/", Err("no directory")),
            ("file", "to", Ok("to/file")),
            ("file", "link-to-there", Ok("there")),
            ("file", "link-to-to", Ok("to/file")),
            ("dir", "new", Ok("new/x")),
            ("dir", "new/", Ok("new/x")),
            ("dir", "to", Ok("to/dir/x")),
            ("dir/", "to", Ok("to/dir/x")),
            ("dir/.", "to", Ok("to/x")),
            ("dir/.", "new", Ok("new/x")),
            ("dir", "there", Err("over what is no directory")),
            ("file", "full", Err("cannot take the place")),
            ("gone", "to", Err("No such file")),
        ];
        for inside in [false, true] {
            for (source, target, expected) in cases {
                let directory = tempfile::tempdir().unwrap();
                let base = directory.path();
                for name in ["dir", "to", "full", "full/file"] {
                    std::fs::create_dir(base.join(name)).unwrap();
                }
                for name in ["file", "dir/x", "there"] {
                    std::fs::write(base.join(name), name).unwrap();
                }
                symlink(if inside { "/there" } else { "there" }, base.join("link-to-there")).unwrap();
                symlink("./to", base.join("link-to-to")).unwrap();
                let root = std::fs::File::open(base).unwrap();
                let (from, to) = (base.join(source), base.join(target));
                let (from, to) = match inside {
                    true => (source, target),
                    false => (from.to_str().unwrap(), to.to_str().unwrap()),
                };
                // Joining would take the end of a path away.
                let keep = |text: &str, given: &str| {
                    if given.ends_with("/.") && !text.ends_with("/.") { format!("{text}/.") } else { text.to_owned() }
                };
                let (from, to) = (keep(from, source), keep(to, target));
                let at = |text| At { root: inside.then(|| root.as_fd()), text };
                let copied = at(&from).source(false).and_then(|found| {
                    let (directory, name) = at(&to).target(&found)?;
                    let mut bytes = Vec::new();
                    found.pack(&name, Packer::new(&mut bytes))?;
                    merge(&bytes[..], directory.as_fd(), &Options::default())
                });
                match (copied, expected) {
                    (Ok(()), Ok(path)) => {
                        let text = if source == "file" { "file" } else { "dir/x" };
                        assert_eq!(std::fs::read_to_string(base.join(path)).unwrap(), text, "{source} {target}");
                    }
                    (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{source} {target}: {error}"),
                    (copied, _) => panic!("{source} {target}: {copied:?}"),
                }
            }
        }
    }

    #[test]
    fn cve_2018_15664_a_link_is_a_link_unless_it_is_to_be_followed_and_leads_nowhere_out() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::write(inside.path().join("own"), "own").unwrap();
        symlink(outside.path().join("secret"), inside.path().join("out")).unwrap();
        symlink("../../../own", inside.path().join("in")).unwrap();
        symlink("loop", inside.path().join("loop")).unwrap();
        let root = std::fs::File::open(inside.path()).unwrap();
        let at = |text| At { root: Some(root.as_fd()), text };
        assert!(matches!(at("in").source(false).unwrap().what, What::In(..)));
        assert!(matches!(at("in").source(true).unwrap().what, What::Open(_)));
        assert!(at("out").source(true).is_err());
        assert!(at("loop").source(true).is_err());
        // One that leads nowhere inside is replaced, and nothing is made at its end.
        let (_, name) = at("out").target(&at("own").source(false).unwrap()).unwrap();
        assert_eq!(name, b"out");
        assert!(at("loop").target(&at("own").source(false).unwrap()).is_err());
    }
}
