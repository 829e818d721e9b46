//! Unpacking: one compressed layer becomes a directory, or an EROFS image, in overlayfs' own terms, in
//! one pass.
//!
//! Three threads share the work of a layer: one reads, hashes and inflates ([`stream`]), one hashes what comes of that,
//! one parses the tar stream ([`archive`]) and says what each entry means for the layer ([`extract`]), in whichever form
//! ([`target`]) it is written: [`directory`] or [`image`]. A fixed set of recycled buffers joins them ([`pipe`]), so memory
//! is bounded however large a layer is.
//!
//! The tar parser is this crate's own, because no library at hand reads a stream with bounded memory
//! *and* agrees with Go's `archive/tar` (what every other engine reads layers with): the `tar` crate
//! holds extension headers in memory without a limit, applies no PAX sparse format, and its raw mode
//! does not know a PAX size. Where archives are ambiguous this parser reads as Go does or refuses.
//!
//! **Invariant: path safety is by file descriptor** ([`tree`]), and an image has no paths but its own. Nothing is created, changed, linked or
//! removed by a path of more than one component, and no symbolic link is ever followed by the kernel.
//! A symbolic link among an entry's parents is resolved here, component by component, inside the
//! layer, as `umoci` and `docker` do.
//!
//! Archives that are no layers, as volumes are filled with and `cp` takes them, are read by the same code
//! (`plain`), and written by `pack`.
//!
//! ## What a layer means without the layers below it
//!
//! Layers are unpacked independently of each other. Three things follow:
//!
//! - *Whiteouts* (image-spec layer.md#whiteouts) become character devices 0:0 and opaque marks, and speak
//!   of lower layers only: entries of the same layer survive them in whichever order they stand. A
//!   directory that is whited out *and* present, or that replaces an entry of another type, is
//!   opaque.
//! - *Implied directories*: parents an archive does not list get mode 0755, owner 0:0 and mtime 0, and
//!   hide the metadata of the same directory below. [`Unpacked::implied`] lists them;
//!   [`adopt_directory`] copies the metadata of the nearest lower layer that lists the directory. What
//!   is adopted depends on the layers below, so a layer shared by several images (same DiffID, other
//!   layers below) either takes it from whichever image came first, or the caller adopts into a
//!   small directory of the image's own on top. This is no corner: `umoci repack` lists no parent that did not
//!   change, and few builders list `/`.
//! - *A hard link to a file that only a lower layer has* cannot be expressed and is refused. Builders
//!   list the target in the same layer.

mod adopt;
mod archive;
mod directory;
mod extract;
mod find;
mod header;
mod image;
mod metadata;
mod pack;
mod pax;
mod pipe;
mod plain;
mod sparse;
mod stream;
mod target;
mod tree;

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::ScopedJoinHandle;

use crate::error::{Attempt, Error, Result};
use crate::name::{Algorithm, Digest, Hasher};
use crate::userns::Mapping;

pub use adopt::adopt_directory;
pub(crate) use find::{Found, ImagePath, Reading, Remembered, Search};
pub use image::PendingImage;
pub(crate) use pack::Packer;
pub(crate) use plain::{hand_over, inflate, merge, merge_stream, unpack_tree};

use directory::Directory;
use extract::Names;
use image::Image;
use pipe::{Drainer, Middle};
use stream::Compressed;

/// How a layer is written.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Rootless: opaque marks are `user.overlay.*` instead of `trusted.overlay.*`, and what a user
    /// namespace cannot do is left out and counted, as podman does: device nodes, and extended
    /// attributes the kernel refuses with EPERM (`trusted.*`).
    pub userxattr: bool,
    /// What becomes of owners.
    pub owners: Owners,
    /// What an archive may ask for.
    pub limits: Limits,
}

impl Options {
    /// How files are written in the user namespace this process is in, if it is not root's.
    #[must_use]
    pub fn within(rootless: Option<Mapping>) -> Self {
        let owners = if matches!(rootless, Some(Mapping::Single { .. })) { Owners::Squash } else { Owners::Keep };
        Self { userxattr: rootless.is_some(), owners, ..Self::default() }
    }
}

/// What becomes of the owners an archive names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Every entry gets the numeric owner the archive names.
    #[default]
    Keep,
    /// Everything belongs to the unpacking process: unprivileged, or in a user namespace of one id.
    Squash,
}

/// What one layer may ask for. The defaults are far beyond real images and far below what harms a
/// machine; a full disk is the other limit.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of the uncompressed stream, also those after the archive's end.
    pub unpacked_bytes: u64,
    /// The sum of the apparent sizes of all files, holes of sparse files included, in bytes.
    pub file_bytes: u64,
    /// Headers in the archive, extension headers included.
    pub entries: u64,
    /// Bytes of one path or link target.
    pub path_bytes: usize,
    /// Components of one path, after symbolic links among its parents are resolved.
    pub path_depth: usize,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of the names and values of one entry's extended attributes.
    pub xattr_bytes: usize,
    /// Bytes of one extension header (PAX records, GNU long name): Go's `archive/tar` reads 1 MiB.
    pub extension_bytes: u64,
    /// Data runs of one sparse file; each takes 16 bytes of memory.
    pub sparse_runs: usize,
    /// Bytes held in memory for what is written last: the metadata of directories, and of everything in an
    /// image.
    pub metadata_bytes: usize,
    /// Largest window a zstd frame may ask for, as a power of two in bytes.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_bytes: 256 << 30,
            file_bytes: 16 << 40,
            entries: 1 << 21,
            path_bytes: 4095,
            path_depth: 256,
            xattrs: 128,
            xattr_bytes: 256 << 10,
            extension_bytes: 1 << 20,
            sparse_runs: 1 << 18,
            metadata_bytes: 256 << 20,
            zstd_window_log: 27,
        }
    }
}

/// What was read and written.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The digest of the compressed bytes.
    pub blob: Digest,
    /// How many compressed bytes there were.
    pub blob_bytes: u64,
    /// The digest of the uncompressed bytes (image-spec config.md#layer-diffid).
    pub diff_id: Digest,
    /// How many uncompressed bytes there were.
    pub unpacked_bytes: u64,
    /// Entries of the archive, extension headers not counted.
    pub entries: u64,
    /// Directories the archive does not list but its entries need, relative to the layer, parents
    /// first; the empty path is the layer's root. See [`adopt_directory`].
    pub implied: Vec<PathBuf>,
    /// Extended attributes left out: those that would speak to overlayfs (`*.overlay.*`), host labels
    /// (`security.selinux`, `system.nfs4_acl`), those the file system does not support, rootless those
    /// the kernel refused, and access lists whose owners a squashing unpack cannot name.
    pub dropped_xattrs: u64,
    /// Device nodes left out (rootless only).
    pub dropped_devices: u64,
}

/// Reads `compressed` (gzip, zstd or plain, told apart by their first bytes) to its very end, hashes
/// the compressed bytes by `algorithm` and the uncompressed bytes by `diff_algorithm`, and extracts
/// into the existing empty directory `dest`, which nobody else may be able to change meanwhile.
///
/// Nothing is verified here: the caller compares [`Unpacked::blob`] and [`Unpacked::diff_id`] with
/// what was promised, and only then renames the directory into place. Nothing is synced either. After
/// an error `dest` holds a part of the layer and is to be removed.
///
/// # Errors
///
/// [`Error::Invalid`] when the content is malformed, hostile or over a limit; [`Error::Io`] when
/// reading `compressed` or writing failed. An error ends all threads; a reader that is blocked
/// is waited for.
pub fn unpack_layer(
    compressed: impl Read + Send,
    algorithm: Algorithm,
    diff_algorithm: Algorithm,
    dest: BorrowedFd<'_>,
    options: &Options,
) -> Result<Unpacked> {
    let (written, streams) = read(compressed, algorithm, diff_algorithm, options, |input| {
        let mut directory = Directory::new(dest, options)?;
        let entries = extract::extract(input, &mut directory, options, Names::Layer)?;
        let dropped_devices = directory.dropped_devices;
        let (implied, dropped_xattrs) = directory.finish()?;
        Ok(Written { entries, implied, dropped_xattrs, dropped_devices })
    })?;
    Ok(unpacked(streams, written))
}

/// The same as [`unpack_layer`], but the layer becomes an EROFS image in the empty file `image`. Its
/// metadata is written last, by [`PendingImage::finish`], after the digests were compared.
///
/// # Errors
///
/// As for [`unpack_layer`]; what it refuses is refused here.
pub fn unpack_image(
    compressed: impl Read + Send,
    algorithm: Algorithm,
    diff_algorithm: Algorithm,
    image: File,
    options: &Options,
) -> Result<(Unpacked, PendingImage)> {
    let ((written, pending), streams) = read(compressed, algorithm, diff_algorithm, options, |input| {
        let mut image = Image::new(image, options)?;
        let entries = extract::extract(input, &mut image, options, Names::Layer)?;
        let (pending, implied, dropped_xattrs) = image.finish();
        Ok((Written { entries, implied, dropped_xattrs, dropped_devices: 0 }, pending))
    })?;
    Ok((unpacked(streams, written), pending))
}

/// What became of an archive.
struct Written {
    entries: u64,
    implied: Vec<PathBuf>,
    dropped_xattrs: u64,
    dropped_devices: u64,
}

fn unpacked(streams: Streams, written: Written) -> Unpacked {
    Unpacked {
        blob: streams.blob,
        blob_bytes: streams.blob_bytes,
        diff_id: streams.diff_id,
        unpacked_bytes: streams.unpacked_bytes,
        entries: written.entries,
        implied: written.implied,
        dropped_xattrs: written.dropped_xattrs,
        dropped_devices: written.dropped_devices,
    }
}

/// What the two hashes and counts came to.
struct Streams {
    blob: Digest,
    blob_bytes: u64,
    diff_id: Digest,
    unpacked_bytes: u64,
}

/// Reads, hashes and inflates on a second thread, and hashes what comes of it on a third, while `write` takes the tar
/// stream on this one.
fn read<T>(
    compressed: impl Read + Send,
    algorithm: Algorithm,
    diff_algorithm: Algorithm,
    options: &Options,
    write: impl FnOnce(&mut Drainer) -> Result<T>,
) -> Result<(T, Streams)> {
    let (written, streams) = read_some(compressed, algorithm, diff_algorithm, options, write)?;
    Ok((written, streams.ok_or_else(|| Error::invalid("layer", "reading it ended early"))?))
}

/// The same where `write` need not take all of it; the digests are those of a stream read to its end.
fn read_some<T>(
    compressed: impl Read + Send,
    algorithm: Algorithm,
    diff_algorithm: Algorithm,
    options: &Options,
    write: impl FnOnce(&mut Drainer) -> Result<T>,
) -> Result<(T, Option<Streams>)> {
    let (filler, middle, mut drainer) = pipe::new();
    let (for_plain, given) = sync_channel(1);
    let algorithms = (algorithm, diff_algorithm);
    std::thread::scope(|scope| {
        let limits = &options.limits;
        let start = |name: &str| std::thread::Builder::new().name(name.into());
        let attempted = || "start a thread to read a layer";
        let reading = start("unpack-read")
            .spawn_scoped(scope, move || stream::pump(compressed, algorithms, limits, &filler, &for_plain))
            .attempt(attempted)?;
        let hashing = start("unpack-hash").spawn_scoped(scope, move || plain_digest(middle, &given)).attempt(attempted)?;
        let written = write(&mut drainer);
        drop(drainer); // a writer that gave up ends the other threads
        let (read, plain) = (joined(reading), joined(hashing));
        let streams = read.map(|Compressed { blob, blob_bytes, unpacked_bytes }| {
            let diff_id = plain.unwrap_or_else(|| blob.clone());
            Streams { blob, blob_bytes, diff_id, unpacked_bytes }
        });
        Ok((written?, streams))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The digest of what passes, if a hasher is given for it.
fn plain_digest(middle: Middle, given: &Receiver<Hasher>) -> Option<Digest> {
    let mut hasher = None;
    middle.pass(|bytes| {
        // It is there before the first bytes are.
        hasher = hasher.take().or_else(|| given.try_recv().ok());
        if let Some(hasher) = &mut hasher {
            hasher.update(bytes);
        }
    });
    hasher.or_else(|| given.try_recv().ok()).map(Hasher::finish)
}

/// An [`Error::Invalid`] about one entry; its name is shown escaped.
fn invalid_entry(path: &[u8], why: impl std::fmt::Display) -> Error {
    Error::invalid(format_args!("archive entry {:?}", String::from_utf8_lossy(path)), why)
}
