//! What tells one version of a file from another.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Another one whenever the file was written to, replaced or removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileStamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Of an open file, or one that was looked up.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of what is there now; the default, when nothing is.
    pub(crate) fn at(path: &Path) -> Self {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata)).unwrap_or_default()
    }
}
