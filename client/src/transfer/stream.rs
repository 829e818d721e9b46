//! A blob from its source to a connection, with no file in between: read and hashed on a thread of its own, verified before
//! its last bytes are handed on.
//!
//! **Invariant: the end of a blob that is not what its digest promises is never sent**, so that the registry cannot take it
//! for complete. What was handed on before can be asked for again from any offset: the hash is kept every few bytes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use longshore_runtime::name::Hasher;
use longshore_runtime::parallel::Cancel;
use longshore_runtime::progress::LayerEvent;

use super::Moving;
use super::queue::{Queue, Slices};
use crate::error::{Error, Result};

/// The hash is kept whenever so many bytes more have been taken in.
const KEPT_EVERY_BYTES: u64 = 8 << 20;

/// A blob that is read once or several times.
pub(super) struct Stream<'a> {
    moving: &'a Moving<'a>,
    /// The hash of what comes before an offset, in order.
    kept: Mutex<Vec<(u64, Hasher)>>,
    /// Why it cannot be read to its end: that is final.
    failure: Mutex<Option<Error>>,
    /// Where the bytes go that are read now.
    current: Mutex<Option<Arc<Queue>>>,
    /// Ends all reading.
    cancel: Cancel<'a>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(moving: &'a Moving<'a>) -> Self {
        let kept = Mutex::new(vec![(0, moving.blob.digest.algorithm().hasher())]);
        let cancel = Cancel::of(moving.fetching.cancel);
        Self { moving, kept, failure: Mutex::default(), current: Mutex::default(), cancel }
    }

    /// Why reading failed, if it did.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its bytes from an offset on. They are read on a thread of `scope`.
    pub(super) fn open<'scope>(&'scope self, offset: u64, scope: &'scope Scope<'scope, '_>) -> Result<Slices> {
        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Err(
                longshore_runtime::Error::invalid(format_args!("blob {}", self.moving.blob.digest), "it cannot be read").into()
            );
        }
        let queue = Arc::new(Queue::default());
        self.close(Some(Arc::clone(&queue)));
        let slices = Slices::of(Arc::clone(&queue));
        scope.spawn(move || {
            let read = self.read(offset, &queue);
            queue.end(read.map_err(|e| {
                let brief = io::Error::other(e.to_string());
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                brief
            }));
        });
        Ok(slices)
    }

    /// Who reads for an earlier attempt has no reader any more, whatever holds its other end.
    fn close(&self, next: Option<Arc<Queue>>) {
        let current = std::mem::replace(&mut *self.current.lock().unwrap_or_else(PoisonError::into_inner), next);
        current.inspect(|queue| queue.close());
    }

    /// Hands the bytes from `offset` on, until no more are wanted.
    fn read(&self, offset: u64, queue: &Queue) -> Result<()> {
        let blob = self.moving.blob;
        let attempted = || format!("read blob {}", blob.digest);
        let failed = |e| Error::Runtime(longshore_runtime::Error::io(attempted(), e));
        let (mut position, mut hasher) = self.kept_before(offset);
        let mut reader = self.moving.open(position, &self.cancel)?;
        while position < blob.size {
            let mut bytes = match reader.take_bytes() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(failed)?,
            };
            let left_bytes = blob.size - position;
            if bytes.is_empty() {
                let early = format!("it ended early, {left_bytes} bytes are missing");
                return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, early)));
            }
            bytes.truncate(usize::try_from(left_bytes).unwrap_or(usize::MAX));
            hasher.update(&bytes);
            let skipped = usize::try_from(offset.saturating_sub(position)).unwrap_or(usize::MAX);
            position += bytes.len() as u64;
            self.keep(position, &hasher);
            if position == blob.size {
                self.check(hasher.clone())?;
            }
            if skipped < bytes.len() && !queue.push(bytes.split_off(skipped)) {
                return Ok(());
            }
        }
        if blob.size == 0 { self.check(hasher) } else { Ok(()) }
    }

    fn check(&self, hasher: Hasher) -> Result<()> {
        let expected = &self.moving.blob.digest;
        let got = hasher.finish();
        if got == *expected {
            return Ok(());
        }
        let what = format!("blob {expected}");
        Err(longshore_runtime::Error::Mismatch { what, expected: expected.clone(), got }.into())
    }

    /// The last place at or before an offset whose hash is kept.
    fn kept_before(&self, offset: u64) -> (u64, Hasher) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.partition_point(|(place, _)| *place <= offset);
        kept.get(at.saturating_sub(1)).map_or_else(|| (0, self.moving.blob.digest.algorithm().hasher()), Clone::clone)
    }

    fn keep(&self, place: u64, hasher: &Hasher) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last().is_none_or(|(last, _)| place >= last + KEPT_EVERY_BYTES) {
            kept.push((place, hasher.clone()));
        }
    }
}

/// Sends a blob as a stream: `send` gets a way to open it at any offset.
pub(super) fn streamed<T>(moving: &Moving<'_>, send: impl FnOnce(&dyn Fn(u64) -> Result<Slices>) -> Result<T>) -> Result<T> {
    moving.report(LayerEvent::Started { total_bytes: moving.blob.size, resumed_bytes: 0 });
    let stream = Stream::new(moving);
    std::thread::scope(|scope| {
        let sent = send(&|offset| stream.open(offset, scope)).map_err(|e| stream.take_failure().unwrap_or(e));
        // Nobody waits for bytes that nobody wants.
        stream.cancel.set();
        stream.close(None);
        sent
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use longshore_runtime::download::Fetching;
    use longshore_runtime::image::Descriptor;
    use longshore_runtime::name::{Digest, Reference};
    use longshore_runtime::progress::Progress;
    use longshore_runtime::source::BlobReader;
    use longshore_runtime::{RawManifest, Source};
    use proptest::prelude::*;

    use super::super::{Destination, Manifest, Plan, Transfer};
    use super::*;
    use crate::progress::{COPY, reporter};
    use crate::registry::Sent;

    struct Bytes(Vec<u8>);

    impl Source for Bytes {
        fn manifest(&self, _: &Reference) -> longshore_runtime::Result<RawManifest> {
            unreachable!("blobs only")
        }

        fn blob<'a>(
            &'a self,
            _: &Reference,
            _: &Descriptor,
            offset: u64,
            _: &'a Cancel<'a>,
        ) -> longshore_runtime::Result<BlobReader<'a>> {
            Ok(Box::new(Cursor::new(&self.0[usize::try_from(offset).unwrap()..])))
        }
    }

    struct Nowhere;

    impl Destination for Nowhere {
        fn has_blob(&self, _: &Descriptor, _: &Cancel<'_>) -> Result<bool> {
            unreachable!("it is no place")
        }

        fn put_blob(&self, _: &Moving<'_>) -> Result<Sent> {
            unreachable!("it is no place")
        }

        fn has_manifest(&self, _: &Manifest) -> Result<bool> {
            unreachable!("it is no place")
        }

        fn put_manifest(&self, _: &Manifest) -> Result<()> {
            unreachable!("it is no place")
        }

        fn finish(&self, _: &Plan) -> Result<()> {
            unreachable!("it is no place")
        }
    }

    /// Reads what a source has as the blob of `promised`, opened at each of the offsets in turn and read to `ends` bytes.
    fn read(source: Vec<u8>, promised: &[u8], opened: &[(u64, u64)]) -> (Vec<Vec<u8>>, Result<()>) {
        let (source, progress): (_, Arc<dyn Progress>) = (Bytes(source), reporter(COPY, true));
        let reference = "localhost/a".parse().unwrap();
        let transfer =
            Transfer { source: &source, reference: &reference, destination: &Nowhere, jobs: None, progress: &progress };
        let size = promised.len() as u64;
        let blob = Descriptor { media_type: String::new(), digest: Digest::of(promised), size, platform: None };
        let cancel = Cancel::default();
        let fetching = Fetching::new(&source, &reference, &*progress, &cancel);
        let moving = Moving { transfer: &transfer, fetching: &fetching, blob: &blob };
        let mut all = Vec::new();
        let done = streamed(&moving, |open| {
            for (offset, bytes) in opened {
                let mut got = Vec::new();
                let read = open(*offset)?.take(*bytes).read_to_end(&mut got);
                all.push(got);
                read.map_err(|e| Error::Runtime(longshore_runtime::Error::io("read", e)))?;
            }
            Ok(())
        });
        (all, done)
    }

    fn noise(bytes: usize) -> Vec<u8> {
        (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    #[test]
    fn the_end_of_a_wrong_blob_is_never_handed_on() {
        let promised = noise(1_000_000);
        for wrong_at in [0, 500_000, 999_999] {
            let mut wrong = promised.clone();
            wrong[wrong_at] ^= 1;
            let (got, done) = read(wrong, &promised, &[(0, u64::MAX)]);
            assert!(got[0].len() < promised.len(), "{} of {} bytes", got[0].len(), promised.len());
            assert!(matches!(done, Err(Error::Runtime(longshore_runtime::Error::Mismatch { .. }))));
        }
        let (got, done) = read(promised[..999_999].to_vec(), &promised, &[(0, u64::MAX)]);
        assert!(got[0].len() < promised.len() && done.unwrap_err().to_string().contains("ended early"));
    }

    #[test]
    fn what_failed_once_is_not_opened_again() {
        let promised = noise(300_000);
        let mut wrong = promised.clone();
        wrong[7] ^= 1;
        let (source, progress): (_, Arc<dyn Progress>) = (Bytes(wrong), reporter(COPY, true));
        let reference = "localhost/a".parse().unwrap();
        let transfer =
            Transfer { source: &source, reference: &reference, destination: &Nowhere, jobs: None, progress: &progress };
        let blob = Descriptor { media_type: String::new(), digest: Digest::of(&promised), size: 300_000, platform: None };
        let cancel = Cancel::default();
        let fetching = Fetching::new(&source, &reference, &*progress, &cancel);
        let moving = Moving { transfer: &transfer, fetching: &fetching, blob: &blob };
        let done = streamed(&moving, |open| {
            let failed = open(0)?.read_to_end(&mut Vec::new());
            assert!(failed.is_err() && open(0).is_err());
            Ok(())
        });
        done.unwrap();
    }

    #[test]
    fn who_keeps_a_reader_and_does_not_read_holds_up_nobody() {
        let promised = noise(5_000_000);
        let mut kept = Vec::new();
        let (source, progress): (_, Arc<dyn Progress>) = (Bytes(promised.clone()), reporter(COPY, true));
        let reference = "localhost/a".parse().unwrap();
        let transfer =
            Transfer { source: &source, reference: &reference, destination: &Nowhere, jobs: None, progress: &progress };
        let blob = Descriptor { media_type: String::new(), digest: Digest::of(&promised), size: 5_000_000, platform: None };
        let cancel = Cancel::default();
        let fetching = Fetching::new(&source, &reference, &*progress, &cancel);
        let moving = Moving { transfer: &transfer, fetching: &fetching, blob: &blob };
        let sent = streamed(&moving, |open| {
            for _ in 0..3 {
                kept.push(open(0)?);
            }
            Ok(())
        });
        sent.unwrap();
        assert!(kept.iter_mut().all(|slices| slices.read_to_end(&mut Vec::new()).is_err()));
    }

    #[test]
    fn the_hash_is_kept_for_who_goes_on_far_behind() {
        let promised = noise(20 << 20);
        let (all, size) = (promised.len() as u64, promised.len());
        let opened = [(0, all - 1), (9 << 20, u64::MAX), (0, 5), (all, u64::MAX)];
        let (got, done) = read(promised.clone(), &promised, &opened);
        done.unwrap();
        assert_eq!(got[0], promised[..size - 1]);
        assert_eq!(got[1], promised[9 << 20..]);
        assert_eq!((got[2].len(), got[3].len()), (5, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn from_any_offset_comes_the_rest(size in 0_usize..600_000, offsets in prop::collection::vec(0.0..=1.0, 1..4)) {
            let promised = noise(size);
            let opened: Vec<(u64, u64)> = offsets.iter().map(|part: &f64| ((size as f64 * part) as u64, u64::MAX)).collect();
            let (got, done) = read(promised.clone(), &promised, &opened);
            prop_assert!(done.is_ok());
            for ((offset, _), got) in opened.iter().zip(got) {
                prop_assert_eq!(&got[..], &promised[*offset as usize..]);
            }
        }
    }
}
