//! An image layout as one tar file (`oci-archive:`). What is in it is known before its bytes come, so each member has its
//! place, and several are written at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{MARKER, index};
use crate::download::{Fetching, hash};
use crate::error::{Attempt, Error, Result};
use crate::files::{Order, Replacing, write_behind};
use crate::image::Descriptor;
use crate::name::Digest;
use crate::progress::LayerEvent;
use crate::save::header;
use crate::source::RawManifest;

/// The unit of a tar file.
const BLOCK_BYTES: u64 = 512;

/// An image layout in an archive.
#[derive(Debug)]
pub struct LayoutArchive {
    to: Replacing,
    /// Where the bytes of each blob begin.
    places: BTreeMap<Digest, u64>,
}

impl LayoutArchive {
    /// An archive of these blobs and manifests, of which some are listed, under a name or without.
    pub fn create(
        path: &Path,
        blobs: &[Descriptor],
        manifests: &[RawManifest],
        listed: &[(&RawManifest, Option<&str>)],
    ) -> Result<Self> {
        let to = Replacing::create(path, Order::Any)?;
        let mut places = BTreeMap::new();
        let mut end = 0;
        let mut add = |name: &str, size: u64, bytes: &[u8]| -> Result<u64> {
            let mut header = header(size);
            let written = header.set_path(name).and_then(|()| {
                header.set_cksum();
                to.file().write_all_at(header.as_bytes(), end)?;
                to.file().write_all_at(bytes, end.saturating_add(BLOCK_BYTES))
            });
            written.attempt(|| to.attempted())?;
            let place = end.saturating_add(BLOCK_BYTES);
            // What a manifest says of a size nobody has checked.
            end = place.saturating_add(size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
            Ok(place)
        };
        add("oci-layout", MARKER.len() as u64, MARKER)?;
        let entries: Vec<_> = listed.iter().map(|(manifest, name)| index::entry(manifest, *name)).collect();
        let document = index::document(&entries);
        add("index.json", document.len() as u64, &document)?;
        let mut seen = BTreeSet::new();
        for manifest in manifests.iter().filter(|manifest| seen.insert(&manifest.digest)) {
            add(&member(&manifest.digest), manifest.bytes.len() as u64, &manifest.bytes)?;
        }
        for blob in blobs {
            let place = add(&member(&blob.digest), blob.size, b"")?;
            places.insert(blob.digest.clone(), place);
        }
        // The end is two blocks of nothing, which a hole is.
        to.file().set_len(end.saturating_add(2 * BLOCK_BYTES)).attempt(|| to.attempted())?;
        Ok(Self { to, places })
    }

    /// Brings a blob to its place.
    pub fn put_blob(&self, blob: &Descriptor, fetching: &Fetching<'_>) -> Result<()> {
        let place = self.places.get(&blob.digest).copied();
        let place = place.ok_or_else(|| Error::invalid(self.to.path().display(), "it has no place for that blob"))?;
        fetching.report(blob, LayerEvent::Started { total_bytes: blob.size, resumed_bytes: 0 });
        let mut at = place;
        let got = hash(&mut *fetching.open(blob)?, blob, |bytes| {
            write_behind(self.to.file(), bytes, at).attempt(|| self.to.attempted())?;
            fetching.report(blob, LayerEvent::Moved(bytes.len() as u64));
            at += bytes.len() as u64;
            Ok(())
        })?;
        if got == blob.digest {
            return Ok(());
        }
        Err(Error::Mismatch { what: format!("blob {}", blob.digest), expected: blob.digest.clone(), got })
    }

    /// Gives it its name: all its blobs are there.
    pub fn finish(&self) -> Result<()> {
        self.to.finish()
    }
}

fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::super::tests::fetched_from;
    use super::*;

    fn blob(bytes: &[u8]) -> Descriptor {
        Descriptor { media_type: String::new(), digest: Digest::of(bytes), size: bytes.len() as u64, platform: None }
    }

    #[test]
    fn members_lie_where_they_were_promised_whatever_their_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let contents: Vec<Vec<u8>> = [0, 1, 511, 512, 513, 300_000].map(|length| vec![7; length]).into();
        let blobs: Vec<Descriptor> = contents.iter().map(|bytes| blob(bytes)).collect();
        let archive = LayoutArchive::create(&path, &blobs, &[], &[]).unwrap();
        for (blob, bytes) in blobs.iter().zip(&contents).rev() {
            fetched_from(bytes, |fetching| archive.put_blob(blob, fetching)).0.unwrap();
        }
        assert!(!path.exists());
        archive.finish().unwrap();
        drop(archive);
        let mut read = tar::Archive::new(File::open(&path).unwrap());
        let mut lengths = Vec::new();
        for entry in read.entries().unwrap().skip(2) {
            let (mut entry, mut bytes) = (entry.unwrap(), Vec::new());
            entry.read_to_end(&mut bytes).unwrap();
            assert_eq!(entry.path().unwrap().file_name().unwrap().to_str().unwrap(), Digest::of(&bytes).hex());
            lengths.push(bytes.len());
        }
        assert_eq!(lengths, [0, 1, 511, 512, 513, 300_000]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for size in [u64::MAX, u64::MAX / 2, i64::MAX as u64] {
            let blobs = [Descriptor { size, ..blob(b"a") }, Descriptor { size, ..blob(b"b") }];
            assert!(LayoutArchive::create(&dir.path().join("a.tar"), &blobs, &[], &[]).is_err(), "{size}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
