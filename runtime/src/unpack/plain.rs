//! Archives that are no layers: into an empty directory, or into one with content.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::directory::Directory;
use super::extract::{Names, extract};
use super::{Options, Streams, read};
use crate::error::{Attempt, Error, Result};
use crate::name::{Algorithm, Digest};

/// How much of an archive is on its way from its maker to its taker.
const BUFFER_BYTES: usize = 64 << 10;

/// Extracts a plain tar stream into the empty directory `dest`, which gets the metadata of the archive's root.
pub(crate) fn unpack_tree(input: impl BufRead, dest: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let mut directory = Directory::new(dest, options)?;
    extract(input, &mut directory, options, Names::Plain)?;
    directory.finish().map(drop)
}

/// Extracts a plain tar stream into `dest`, where what the archive does not have stays.
///
/// # Errors
///
/// [`Error::Invalid`] also when a directory would take the place of something else, or something else that of a
/// directory.
pub(crate) fn merge(input: impl BufRead, dest: BorrowedFd<'_>, options: &Options) -> Result<()> {
    let mut directory = Directory::existing(dest, options);
    extract(input, &mut directory, options, Names::Plain)?;
    directory.finish().map(drop)
}

/// The same for a stream from elsewhere, which may be compressed.
pub(crate) fn merge_stream(input: impl Read + Send, dest: BorrowedFd<'_>, options: &Options) -> Result<()> {
    read(input, Algorithm::Sha256, Algorithm::Sha256, options, |input| merge(input, dest, options)).map(drop)
}

/// Inflates a stream, which may be plain, into `out`, and gives the digests of both sides.
pub(crate) fn inflate(
    input: impl Read + Send,
    (algorithm, diff_algorithm): (Algorithm, Algorithm),
    options: &Options,
    out: &mut impl Write,
) -> Result<Inflated> {
    let copy = |input: &mut super::pipe::Drainer| std::io::copy(input, out).attempt(|| "inflate a stream");
    let (_, Streams { blob, diff_id, .. }) = read(input, algorithm, diff_algorithm, options, copy)?;
    Ok(Inflated { blob, diff_id })
}

/// What a stream was.
pub(crate) struct Inflated {
    /// The digest of its bytes.
    pub(crate) blob: Digest,
    /// The digest of the plain ones.
    pub(crate) diff_id: Digest,
}

/// Connects who makes an archive, on a thread of its own, with who takes it.
pub(crate) fn hand_over<T>(
    make: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    take: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<T> {
    let (out, input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")?;
    std::thread::scope(|scope| {
        let making = std::thread::Builder::new()
            .name("pack".into())
            .spawn_scoped(scope, move || {
                let mut writer = BufWriter::with_capacity(BUFFER_BYTES, std::fs::File::from(input));
                make(&mut writer)?;
                writer.flush().attempt(|| "hand over an archive")
            })
            .attempt(|| "start a thread to read files")?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, std::fs::File::from(out));
        let taken = take(&mut reader);
        // Who gave up ends the other one.
        drop(reader);
        let made = making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (made, taken) {
            // Told by who gave up.
            (Err(Error::Io { source, .. }), taken @ Err(_)) if source.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => taken,
            (Err(error), _) => Err(error),
            (Ok(()), taken) => taken,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use tar::{Builder, EntryType, Header};

    #[test]
    fn no_link_of_an_archive_or_of_what_was_there_leads_out() {
        let (base, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), base.path().join("there")).unwrap();
        let mut archive = Builder::new(Vec::new());
        let mut add = |kind, path: &str, link: &str| {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(0o777);
            header.set_size(if kind == EntryType::Regular { 1 } else { 0 });
            let old = header.as_old_mut();
            old.name[..path.len()].copy_from_slice(path.as_bytes());
            old.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"x"[..usize::from(kind == EntryType::Regular)]).unwrap();
        };
        let far = outside.path().to_str().unwrap();
        add(EntryType::Symlink, "link", far);
        for path in ["link/new", "there/new", "../up", "/absolute", "there/secret"] {
            add(EntryType::Regular, path, "");
        }
        add(EntryType::Symlink, "climb", "../../../..");
        add(EntryType::Regular, "climb/climbed", "");
        let bytes = archive.into_inner().unwrap();
        let dest = std::fs::File::open(base.path()).unwrap();
        merge(&bytes[..], dest.as_fd(), &Options::default()).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        for path in ["up", "absolute", "climbed"] {
            assert!(base.path().join(path).is_file(), "{path}");
        }
    }

    #[test]
    fn whoever_fails_is_who_is_told_of() {
        let failed = |who: &str| Error::invalid(who, "it fails");
        let long = |out: &mut dyn Write| out.write_all(&vec![0; 1 << 20]).attempt(|| "write");
        let said = hand_over(long, |_| Err::<(), _>(failed("the taker"))).unwrap_err().to_string();
        assert!(said.contains("the taker"), "{said}");
        let said = hand_over(|_| Err(failed("the maker")), |_| Ok(())).unwrap_err().to_string();
        assert!(said.contains("the maker"), "{said}");
    }
}
