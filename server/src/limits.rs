//! Every limit of the server, by name, in one place.

use std::time::Duration;

pub use longshore_runtime::name::MANIFEST_LIMIT_BYTES;

/// Descriptors (config, layers, child manifests) one manifest may name.
pub const MANIFEST_DESCRIPTOR_LIMIT: usize = 10_000;
/// The longest media type kept, in bytes (RFC 6838: 127 + 1 + 127).
pub const MEDIA_TYPE_LIMIT_BYTES: usize = 255;
/// The longest request path accepted, in bytes: a name of 255, a sha512 digest, and what is around
/// them, each byte percent-encoded.
pub const PATH_LIMIT_BYTES: usize = 2048;
/// The longest repository name that can be pushed to, in bytes: an upload session's file name
/// carries it beside the session's identifier, and file names end at 255.
pub const UPLOAD_REPOSITORY_LIMIT_BYTES: usize = 220;
/// Entries in one page of a list, whatever `n` asks for.
pub const PAGE_LIMIT: usize = 1000;
/// Upload sessions open at one time, over all repositories.
pub const UPLOADS_LIMIT: usize = 10_000;
/// Upload sessions nothing was written to for this long are removed when the server starts.
pub const UPLOAD_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Connections served at one time; further ones wait in the kernel's backlog.
pub const CONNECTIONS_LIMIT: usize = 1024;
/// HTTP/2 streams open at one time on one connection.
pub const STREAMS_LIMIT: u32 = 100;
/// From the first wait for a request to the end of its headers.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest a peer may take nothing and send nothing where it is its turn.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest a request waits for another one that is writing to the same upload session.
pub const UPLOAD_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a shutdown waits for requests in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Bytes of an upload gathered before they are handed to a thread that hashes and writes them. An
/// upload holds at most two such batches and one frame.
pub const WRITE_BATCH_BYTES: usize = 1 << 20;
/// Body frames smaller than this are copied together; larger ones are passed on as they are.
pub const SMALL_FRAME_BYTES: usize = 32 << 10;
/// Bytes of a blob read at once. A download holds at most two such chunks.
pub const READ_CHUNK_BYTES: usize = 256 << 10;
/// Blobs up to this size are read whole.
pub const SMALL_BLOB_BYTES: u64 = 64 << 10;

/// Threads for file and database calls.
pub const BLOCKING_THREADS_LIMIT: usize = 64;
/// Changes of metadata that share one flush.
pub const COMMIT_GROUP_LIMIT: usize = 256;
/// Changes of metadata waiting for the next flush; further ones wait to be let in.
pub const COMMIT_QUEUE_LIMIT: usize = 1024;
/// The longest line of the journal, in bytes.
pub const JOURNAL_LINE_LIMIT_BYTES: usize = 64 << 10;
/// How often the metadata database is flushed while it changes. A crash replays at most what the
/// journal took in since.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// The metadata database's page cache.
pub const METADATA_CACHE_BYTES: u64 = 8 << 20;
