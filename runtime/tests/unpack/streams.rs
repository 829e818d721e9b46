//! Compressions, broken streams, digests, and two threads that end together.

use std::io::{self, Read, Write as _};

use flate2::write::GzEncoder;
use longshore_runtime::Error;
use longshore_runtime::name::Digest;
use longshore_runtime::unpack::{Limits, Options};

use crate::support::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// More than all buffers of the pipe hold, not compressible to nothing.
fn large() -> Vec<u8> {
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect();
    Layer::new().raw(b'0', "large", "", 0o644, &content).file("after", "x").tar()
}

fn skippable() -> Vec<u8> {
    [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat()
}

#[test]
fn every_compression_gives_the_same_tree_and_diff_id_and_its_own_digest() {
    let tar = large();
    let (one, two) = tar.split_at(tar.len() / 3);
    let zstd = |bytes| zstd::encode_all(bytes, 1).unwrap();
    let streams = [
        tar.clone(),
        gzip(&tar),
        [gzip(one), gzip(two), gzip(b"")].concat(),
        zstd(&tar[..]),
        [skippable(), zstd(one), skippable(), zstd(two), skippable()].concat(),
    ];
    let mut trees = Vec::new();
    for stream in &streams {
        let ground = Ground::new();
        let unpacked = ground.unpack(stream, &options()).unwrap();
        assert_eq!(unpacked.blob, Digest::of(stream));
        assert_eq!(unpacked.diff_id, Digest::of(&tar));
        assert_eq!((unpacked.blob_bytes, unpacked.unpacked_bytes), (stream.len() as u64, tar.len() as u64));
        trees.push(snapshot(&ground.dest()));
    }
    assert!(trees.iter().all(|tree| *tree == trees[0]));
    assert_eq!(trees[0].len(), 3);
}

#[test]
fn bytes_after_the_archive_are_hashed_too() {
    let tar = [Layer::new().file("a", "x").tar(), vec![7; 1_000_000]].concat();
    let unpacked = Ground::new().unpack(&gzip(&tar), &options()).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&tar));
    assert_eq!(unpacked.entries, 1);
}

#[test]
fn an_empty_stream_and_an_archive_without_end_marks_are_read() {
    assert_eq!(Ground::new().unpack(b"", &options()).unwrap().entries, 0);
    assert_eq!(Ground::new().unpack(&Layer::new().file("a", "x").bytes, &options()).unwrap().entries, 1);
}

#[test]
fn corrupt_and_truncated_streams_are_clear_errors() {
    let tar = large();
    for stream in [gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()] {
        refuse_bytes(&stream[..stream.len() / 2], &options(), "truncated");
        refuse_bytes(&stream[..stream.len() - 3], &options(), "truncated");
        let mut flipped = stream.clone();
        let middle = flipped.len() / 2;
        flipped[middle..middle + 64].fill(0xff);
        // A zstd frame need not have a checksum: then it is the DiffID that tells.
        match Ground::new().unpack(&flipped, &options()) {
            Ok(unpacked) => assert_ne!(unpacked.diff_id, Digest::of(&tar)),
            Err(error) => assert!(matches!(error, Error::Invalid { .. }), "{error}"),
        }
        refuse_bytes(&[&stream[..], b"garbage"].concat(), &options(), "corrupt");
    }
    refuse_bytes(&tar[..tar.len() / 2], &options(), "truncated");
    refuse_bytes(&tar[..700], &options(), "truncated");
    refuse_bytes(&tar[..100], &options(), "truncated");
    refuse_bytes(&[0xfd, b'7', b'z', b'X', b'Z', 0], &options(), "xz compression");
    refuse_bytes(&[1; 4096], &options(), "header");
}

#[test]
fn a_gzip_bomb_ends_at_the_limit() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 1 << 20);
    let limits = Limits { unpacked_bytes: 1 << 20, ..Limits::default() };
    refuse_bytes(&bomb, &Options { limits, ..options() }, "unpacks to more than 1048576 bytes");
}

#[test]
fn a_zstd_window_over_the_cap_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&large()).unwrap();
    refuse_bytes(&encoder.finish().unwrap(), &options(), "zstd");
}

/// Gives some bytes and then fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::new(io::ErrorKind::ConnectionReset, "cable pulled")) } else { self.0.read(into) }
    }
}

#[test]
fn a_failing_source_is_reported_as_what_it_is() {
    use std::os::fd::AsFd as _;
    let stream = gzip(&large());
    let ground = Ground::new();
    let dest = std::fs::File::open(ground.dest()).unwrap();
    let sha256 = longshore_runtime::name::Algorithm::Sha256;
    let source = Failing(&stream[..stream.len() / 2]);
    match longshore_runtime::unpack::unpack_layer(source, sha256, sha256, dest.as_fd(), &options()) {
        Err(Error::Io { attempted, source }) => {
            assert!(attempted.contains("compressed bytes"), "{attempted}");
            assert_eq!(source.to_string(), "cable pulled");
        }
        other => panic!("{other:?}"),
    }
}

/// Never ends.
struct Endless;

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into.fill(1);
        Ok(into.len())
    }
}

/// Panics when read.
struct Panicking;

impl Read for Panicking {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("in the reader");
    }
}

#[test]
fn an_extractor_that_gives_up_ends_an_endless_source_and_a_panic_passes_through() {
    use std::os::fd::AsFd as _;
    let ground = Ground::new();
    let dest = std::fs::File::open(ground.dest()).unwrap();
    let sha256 = longshore_runtime::name::Algorithm::Sha256;
    let result = longshore_runtime::unpack::unpack_layer(Endless, sha256, sha256, dest.as_fd(), &options());
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    let panicked =
        std::panic::catch_unwind(|| longshore_runtime::unpack::unpack_layer(Panicking, sha256, sha256, dest.as_fd(), &options()));
    assert!(panicked.is_err());
}

#[test]
fn a_destination_with_something_in_it_is_refused() {
    use std::os::fd::AsFd as _;
    let ground = Ground::new();
    std::fs::write(ground.at("old"), "").unwrap();
    let (dest, file) = (std::fs::File::open(ground.dest()).unwrap(), tempfile::tempfile().unwrap());
    file.set_len(1).unwrap();
    let sha256 = longshore_runtime::name::Algorithm::Sha256;
    let tar = Layer::new().tar();
    let error = longshore_runtime::unpack::unpack_layer(&tar[..], sha256, sha256, dest.as_fd(), &options()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let error = longshore_runtime::unpack::unpack_image(&tar[..], sha256, sha256, file, &options()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
