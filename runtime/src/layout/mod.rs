//! Writing image layouts (image-spec image-layout.md): a directory, into which several commands may write at once.
//!
//! A blob appears by being renamed, whole and verified; `index.json` is replaced, after everything that it names. What
//! broke off is a file `.partial-ALGORITHM-HEX` beside it, with which the next command goes on.

mod archive;
mod docker;
mod index;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

pub use self::archive::LayoutArchive;
pub use self::docker::DockerArchive;
pub use self::index::Named;
use crate::download::{self, Fetching, Partial};
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::image::Descriptor;
use crate::name::{Digest, MANIFEST_LIMIT_BYTES};
use crate::origin::check_layout_version;
use crate::progress::LayerEvent;
use crate::source::RawManifest;

/// Everybody may read what they were given.
const FILE_MODE: u32 = 0o644;

/// What stands in `oci-layout`.
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// How long who waits for another command's blob does not look whether it has come.
const LOOK: Duration = Duration::from_millis(50);

/// An image layout directory.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// A layout that is there.
    pub fn open(dir: &Path) -> Result<Self> {
        check_layout_version(&files::read_bounded(&dir.join("oci-layout"), MANIFEST_LIMIT_BYTES as u64)?)?;
        Ok(Self { dir: dir.into() })
    }

    /// The same; made, without an image, where there is none yet.
    pub fn open_or_create(dir: &Path) -> Result<Self> {
        let layout = Self { dir: dir.into() };
        let attempted = || format!("create image layout {}", dir.display());
        std::fs::create_dir_all(dir).attempt(attempted)?;
        if dir.join("leases").exists() && dir.join("layers").exists() {
            return Err(Error::invalid(dir.display(), "it is an image store, not only a layout: write store:NAME"));
        }
        let _lock = layout.lock()?;
        if !dir.join("oci-layout").exists() {
            if std::fs::read_dir(dir).attempt(attempted)?.next().is_some() {
                return Err(Error::invalid(dir.display(), "it is no image layout, and not empty: name another directory"));
            }
            layout.replace("index.json", &index::empty())?;
            layout.replace("oci-layout", MARKER)?;
        }
        std::fs::create_dir_all(dir.join("blobs/sha256")).attempt(attempted)?;
        Self::open(dir)
    }

    /// The layout's own lock, while what it lists changes.
    fn lock(&self) -> Result<File> {
        let directory = File::open(&self.dir).attempt(|| format!("open {}", self.dir.display()))?;
        files::try_lock(&directory, FlockOperation::LockExclusive)?;
        Ok(directory)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Whether a blob is there, of the length that is expected.
    pub fn has_blob(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|found| found.len() == blob.size)
    }

    /// Brings a blob here, going on with what an earlier command left. Who needs the same one waits for it.
    pub fn put_blob(&self, blob: &Descriptor, fetching: &Fetching<'_>) -> Result<()> {
        let path = self.dir.join(format!(".partial-{}-{}", blob.digest.algorithm().as_str(), blob.digest.hex()));
        let mut waiting = false;
        let file = loop {
            match files::lock_path(&path, FlockOperation::NonBlockingLockExclusive)? {
                Some(file) => break file,
                None if !waiting => fetching.report(blob, LayerEvent::Waiting),
                None => {}
            }
            waiting = true;
            if !fetching.cancel.sleep(LOOK) {
                return Err(Error::io(format_args!("write blob {}", blob.digest), std::io::Error::other("cancelled")));
            }
        };
        if self.has_blob(blob) {
            fetching.report(blob, LayerEvent::Exists);
            return std::fs::remove_file(&path).attempt(|| format!("remove {}", path.display()));
        }
        let partial = Partial::new(&file, &path, blob.size);
        loop {
            let here = partial.load()?;
            let is_pieced = !here.is_empty();
            let got = fetching.fetch(blob, &partial, here, |bytes| download::hash(bytes, blob, |_| Ok(())))?;
            if got == blob.digest {
                return self.place(&file, &partial, &blob.digest);
            }
            partial.clear()?;
            // What an earlier command left may not have been what it should be: from the beginning, once.
            if !is_pieced {
                return Err(Error::Mismatch { what: format!("blob {}", blob.digest), expected: blob.digest.clone(), got });
            }
        }
    }

    /// Gives a file that is complete its place.
    fn place(&self, file: &File, partial: &Partial<'_>, digest: &Digest) -> Result<()> {
        let to = self.blob_path(digest);
        let attempted = || format!("write {}", to.display());
        file.set_permissions(Permissions::from_mode(FILE_MODE)).attempt(attempted)?;
        file.sync_data().attempt(attempted)?;
        std::fs::create_dir_all(to.parent().unwrap_or(&self.dir)).attempt(attempted)?;
        partial.place(&to)
    }

    /// Stores a manifest, by its digest alone.
    pub fn put_manifest(&self, manifest: &RawManifest) -> Result<()> {
        let path = self.blob_path(&manifest.digest);
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == manifest.bytes.len() as u64) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(parent).attempt(|| format!("create {}", parent.display()))?;
        self.replace(path.strip_prefix(&self.dir).unwrap_or(&path), &manifest.bytes)
    }

    /// Replaces a small file as a whole.
    fn replace(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let scratch = self.dir.join(format!(".{}.tmp", files::random_hex(8)?));
        files::write_atomically(&path, &scratch, bytes)?;
        std::fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)).attempt(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::name::Reference;
    use crate::parallel::Cancel;
    use crate::progress::Progress;
    use crate::source::{BlobReader, Source};

    const BYTES: &[u8] = b"the bytes of a blob";

    fn blob() -> Descriptor {
        Descriptor { media_type: String::new(), digest: Digest::of(BYTES), size: BYTES.len() as u64, platform: None }
    }

    /// What has the blob, or says so.
    struct Bytes<'a> {
        bytes: &'a [u8],
        asked: Mutex<Vec<u64>>,
    }

    impl Source for Bytes<'_> {
        fn manifest(&self, _: &Reference) -> Result<RawManifest> {
            unreachable!("blobs only")
        }

        fn blob<'a>(&'a self, _: &Reference, _: &Descriptor, offset: u64, _: &'a Cancel<'a>) -> Result<BlobReader<'a>> {
            self.asked.lock().unwrap().push(offset);
            Ok(Box::new(self.bytes.get(offset as usize..).unwrap_or_default()))
        }
    }

    struct Quiet;

    impl Progress for Quiet {
        fn layers(&self, _: &[Descriptor]) {}
        fn layer(&self, _: &Digest, _: LayerEvent) {}
    }

    /// What `put` makes of a source of these bytes, and the offsets that were asked for.
    pub(super) fn fetched_from(bytes: &[u8], put: impl FnOnce(&Fetching<'_>) -> Result<()>) -> (Result<()>, Vec<u64>) {
        let source = Bytes { bytes, asked: Mutex::default() };
        let (reference, cancel) = ("localhost/a".parse().unwrap(), Cancel::default());
        let result = put(&Fetching::new(&source, &reference, &Quiet, &cancel));
        (result, source.asked.into_inner().unwrap())
    }

    fn put(layout: &Layout, bytes: &[u8]) -> (Result<()>, Vec<u64>) {
        fetched_from(bytes, |fetching| layout.put_blob(&blob(), fetching))
    }

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open_or_create(dir.path()).unwrap();
        (dir, layout)
    }

    fn leave_partial(dir: &Path, bytes: &[u8]) {
        std::fs::write(dir.join(format!(".partial-sha256-{}", blob().digest.hex())), bytes).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_blob_goes_on_where_it_broke_off() {
        let (dir, layout) = layout();
        let (result, _) = put(&layout, &BYTES[..5]);
        assert!(result.unwrap_err().to_string().contains("ended early") && !layout.has_blob(&blob()));
        let (result, asked) = put(&layout, BYTES);
        result.unwrap();
        assert_eq!(asked, [5]);
        assert!(layout.has_blob(&blob()));
        assert_eq!(names(dir.path()), ["blobs", "index.json", "oci-layout"]);
    }

    #[test]
    fn what_was_left_wrong_is_fetched_from_the_beginning() {
        for wrong in [&b"THE BYTES"[..], b"longer than what it should be by far"] {
            let (dir, layout) = layout();
            leave_partial(dir.path(), wrong);
            let (result, asked) = put(&layout, BYTES);
            result.unwrap();
            assert_eq!(asked.last(), Some(&0));
            assert_eq!(std::fs::read(layout.blob_path(&blob().digest)).unwrap(), BYTES);
        }
    }

    #[test]
    fn wrong_bytes_never_get_a_name() {
        let (dir, layout) = layout();
        assert!(matches!(put(&layout, b"the bytes of a blub").0, Err(Error::Mismatch { .. })));
        assert!(names(&dir.path().join("blobs/sha256")).is_empty());
        put(&layout, BYTES).0.unwrap();
    }

    #[test]
    fn a_link_in_a_layout_from_elsewhere_leads_nowhere() {
        let (dir, layout) = layout();
        let victim = dir.path().with_extension("victim");
        std::fs::write(&victim, "kept").unwrap();
        let partial = dir.path().join(format!(".partial-sha256-{}", blob().digest.hex()));
        std::os::unix::fs::symlink(&victim, &partial).unwrap();
        assert!(put(&layout, BYTES).0.is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
        std::fs::remove_file(&victim).unwrap();
    }

    #[test]
    fn a_directory_that_is_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter"), "x").unwrap();
        assert!(Layout::open_or_create(dir.path()).is_err());
        assert_eq!(names(dir.path()), ["letter"]);
        assert!(Layout::open(dir.path()).is_err());
    }
}
