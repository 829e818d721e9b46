//! Archives that are no layers: into an empty directory, or into one with content.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::directory::Directory;
use super::extract::{Names, extract};
use super::{Options, read};
use crate::error::{Attempt, Error, Result};
use crate::name::Algorithm;

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
