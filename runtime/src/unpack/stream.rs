//! The reading thread: compressed bytes in, hashed; inflated bytes out, which the next thread hashes.

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::mpsc::SyncSender;

use crate::error::{Error, Result};
use crate::name::{Algorithm, Digest, Hasher};

use super::Limits;
use super::pipe::Filler;

/// Compressed bytes asked for at once.
const READ_BYTES: usize = 128 << 10;

/// The longest sequence of first bytes that tells compressions apart.
const MAGIC_BYTES: usize = 6;

/// What was read.
pub(super) struct Compressed {
    pub(super) blob: Digest,
    pub(super) blob_bytes: u64,
    pub(super) unpacked_bytes: u64,
}

/// Pumps everything through; an error goes into the pipe, where the extractor meets it at the place
/// it belongs to. `None` when it ended early, by an error on either side.
///
/// Who hashes the plain bytes gets the hasher for it before the first of them; none if they are those that are hashed here.
pub(super) fn pump(
    compressed: impl Read,
    (algorithm, diff_algorithm): (Algorithm, Algorithm),
    limits: &Limits,
    filler: &Filler,
    for_plain: &SyncSender<Hasher>,
) -> Option<Compressed> {
    let mut source = Hashed { inner: compressed, hasher: algorithm.hasher(), bytes: 0 };
    let inflated = inflate(&mut source, limits, filler, |compression| {
        if compression != Compression::None || algorithm != diff_algorithm {
            // Who is gone needs none.
            let _ = for_plain.send(diff_algorithm.hasher());
        }
    });
    match inflated {
        Ok(unpacked_bytes) => unpacked_bytes.map(|unpacked_bytes| Compressed {
            blob: source.hasher.finish(),
            blob_bytes: source.bytes,
            unpacked_bytes,
        }),
        Err(error) => {
            filler.send(Err(error));
            None
        }
    }
}

/// The number of uncompressed bytes; `None` when nobody took them all.
fn inflate(
    source: &mut Hashed<impl Read>,
    limits: &Limits,
    filler: &Filler,
    tell: impl FnOnce(Compression),
) -> Result<Option<u64>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    source.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic).map_err(|error| failed("", error))?;
    let compression = Compression::of(&magic)?;
    tell(compression);
    let input = BufReader::with_capacity(READ_BYTES, Cursor::new(magic).chain(source));
    fill(&mut Inflated::new(compression, input, limits)?, compression, limits, filler)
}

/// Fills buffer after buffer from `plain`.
fn fill(plain: &mut impl Read, compression: Compression, limits: &Limits, filler: &Filler) -> Result<Option<u64>> {
    let mut total = 0_u64;
    loop {
        let Some(mut buffer) = filler.buffer() else { return Ok(None) };
        let mut filled = 0;
        // An error must not hide the bytes before it: the archive may have ended there.
        let mut outcome = Ok(());
        while filled < buffer.len() {
            match plain.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    outcome = Err(failed(compression.as_str(), error));
                    break;
                }
            }
        }
        let ended = filled < buffer.len();
        buffer.truncate(filled);
        total += filled as u64;
        if total > limits.unpacked_bytes {
            return Err(Error::invalid("layer", format_args!("it unpacks to more than {} bytes", limits.unpacked_bytes)));
        }
        if !buffer.is_empty() && !filler.send(Ok(buffer)) {
            return Ok(None);
        }
        outcome?;
        if ended {
            return Ok(Some(total));
        }
    }
}

/// How a layer is compressed, by its first bytes; the media type is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(magic: &[u8]) -> Result<Self> {
        let unsupported = |name| Err(Error::invalid("layer", format_args!("{name} compression is not supported")));
        match magic {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A'] => unsupported("bzip2"),
            _ => Ok(Self::None),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The decompressors as one reader.
enum Inflated<'a, R: Read> {
    None(Input<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'a, Input<R>>),
}

impl<R: Read> Inflated<'_, R> {
    fn new(compression: Compression, input: Input<R>, limits: &Limits) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(input).map_err(|error| Error::io("start zstd", error))?;
                decoder.window_log_max(limits.zstd_window_log).map_err(|error| Error::io("limit the zstd window", error))?;
                Self::Zstd(decoder)
            }
        })
    }
}

impl<R: Read> Read for Inflated<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(input) => input.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// Hashes what passes through, and marks the source's own errors so that they are told from a
/// decompressor's.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = loop {
            match self.inner.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io::Error::other(SourceFailed(error))),
                Ok(bytes) => break bytes,
            }
        };
        self.hasher.update(&into[..bytes]);
        self.bytes += bytes as u64;
        Ok(bytes)
    }
}

/// An error of the compressed bytes' reader.
#[derive(Debug)]
struct SourceFailed(io::Error);

impl fmt::Display for SourceFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SourceFailed {}

/// The source failed, or its bytes are no such stream.
fn failed(compression: &str, error: io::Error) -> Error {
    match error.downcast::<SourceFailed>() {
        Ok(SourceFailed(source)) => Error::io("read the compressed bytes of a layer", source),
        Err(error) => {
            Error::invalid("layer", format_args!("its {compression} stream is corrupt, truncated or over a limit: {error}"))
        }
    }
}
