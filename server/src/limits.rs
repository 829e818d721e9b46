//! Every limit of the server, by name, in one place: first what an operator may set, then what is
//! fixed.

use std::time::Duration;

use longshore_runtime::name::MANIFEST_LIMIT_BYTES;
use serde::{Deserialize, Serialize};

/// The limits an operator may set, in the configuration's table `limits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest manifest, in bytes.
    pub manifest_bytes: usize,
    /// Descriptors (config, layers, child manifests) one manifest may name.
    pub manifest_descriptors: usize,
    /// Upload sessions open at one time, over all repositories.
    pub uploads: usize,
    /// The size of chunks, in bytes, that clients are asked to keep to (`OCI-Chunk-Min-Length`); 0 for not
    /// asking. Smaller ones are taken all the same.
    pub chunk_min_bytes: u64,
    /// Upload sessions nothing was written to for this long are removed.
    pub upload_expiry_s: u64,
    /// Connections served at one time; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// Requests worked on at one time; further ones are told to come again.
    pub requests: usize,
    /// HTTP/2 streams open at one time on one connection.
    pub streams: u32,
    /// From the first wait for a request to the end of its headers.
    pub header_timeout_s: u64,
    /// The longest a peer may take nothing and send nothing where it is its turn.
    pub idle_timeout_s: u64,
    /// Tags or referrers in one page of a list, whatever `n` asks for.
    pub page_entries: usize,
    /// Repositories in one page of the catalog, whatever `n` asks for.
    pub catalog_entries: usize,
    /// Whether manifests may refer to content the repository lacks (sparse images and indexes).
    pub sparse_manifests: bool,
    /// Bytes of the journal that have to be out of date before it is written anew. More of it than what
    /// counts has to be, too.
    pub journal_rewrite_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: MANIFEST_LIMIT_BYTES,
            manifest_descriptors: 10_000,
            uploads: 10_000,
            chunk_min_bytes: 0,
            upload_expiry_s: 7 * 24 * 3600,
            connections: 1024,
            requests: 1024,
            streams: 100,
            header_timeout_s: 30,
            idle_timeout_s: 60,
            page_entries: 1000,
            catalog_entries: 1000,
            sparse_manifests: false,
            journal_rewrite_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// See [`Self::upload_expiry_s`].
    pub fn upload_expiry(&self) -> Duration {
        Duration::from_secs(self.upload_expiry_s)
    }

    /// See [`Self::header_timeout_s`].
    pub fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.header_timeout_s)
    }

    /// See [`Self::idle_timeout_s`].
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }
}

/// The longest media type kept, in bytes (RFC 6838: 127 + 1 + 127).
pub const MEDIA_TYPE_LIMIT_BYTES: usize = 255;
/// Bytes of manifests that are being received and stored at one time; further ones wait. Small ones do
/// not count.
pub const MANIFESTS_IN_HAND_BYTES: usize = 16 << 20;
/// Manifests up to this size are small.
pub const SMALL_MANIFEST_BYTES: usize = 64 << 10;
/// Tags one request may put on a manifest.
pub const TAG_PARAMETERS_LIMIT: usize = 100;
/// The longest request path accepted, in bytes: a name of 255, a sha512 digest, and what is around
/// them, each byte percent-encoded.
pub const PATH_LIMIT_BYTES: usize = 2048;
/// The longest identifier of a request taken from its client, in bytes.
pub const REQUEST_ID_LIMIT_BYTES: usize = 64;
/// The longest repository name that can be pushed to, in bytes: an upload session's file name
/// carries it beside the session's identifier, and file names end at 255.
pub const UPLOAD_REPOSITORY_LIMIT_BYTES: usize = 220;
/// Repositories looked at for a blob that is to be mounted from anywhere.
pub const MOUNT_SOURCES_LIMIT: usize = 100;
/// The longest a request waits for another one that is writing to the same upload session.
pub const UPLOAD_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest certificate or key file read, in bytes.
pub const CERTIFICATE_LIMIT_BYTES: u64 = 1 << 20;
/// How often the certificate files are looked at.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest the check whether storage works may take.
pub const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long its outcome is good.
pub const READY_LIFETIME: Duration = Duration::from_secs(1);
/// Bytes of log lines waiting to be written; further lines are lost, and their number is told.
pub const LOG_QUEUE_BYTES: usize = 4 << 20;
/// From one write of log lines to the next.
pub const LOG_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of log lines gathered for one write.
pub const LOG_BATCH_BYTES: usize = 64 << 10;
/// The longest text in a log line, in bytes; the rest is cut off.
pub const LOG_TEXT_LIMIT_BYTES: usize = 4 << 10;
/// The longest a shutdown waits for requests in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Bytes of an upload gathered before they are handed to the threads that hash and write them. An
/// upload holds one such batch, those that wait or are worked on, and one frame.
pub const WRITE_BATCH_BYTES: usize = 512 << 10;
/// Batches of an upload that wait or are worked on.
pub const STAGE_DEPTH: usize = 3;
/// Bytes of an upload after which the kernel is told to begin writing them to the disk.
pub const WRITE_BACK_BYTES: u64 = 8 << 20;
/// Body frames smaller than this are copied together; larger ones are passed on as they are.
pub const SMALL_FRAME_BYTES: usize = 32 << 10;
/// Bytes of a blob read at once. A download holds at most two such chunks.
pub const READ_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a file handed to the kernel at once, where it sends them by itself.
pub const SENDFILE_WINDOW_BYTES: usize = 1 << 20;
/// Blobs up to this size are read whole, verified, and kept for a while.
pub const SMALL_BLOB_BYTES: u64 = 64 << 10;

/// Threads for file and database calls.
pub const BLOCKING_THREADS_LIMIT: usize = 64;
/// Changes of metadata that share one flush.
pub const COMMIT_GROUP_LIMIT: usize = 256;
/// Changes of metadata waiting for the next flush; further ones wait to be let in.
pub const COMMIT_QUEUE_LIMIT: usize = 1024;
/// The longest line of the journal, in bytes: what the largest manifest that can be allowed says of its
/// subject, and some more.
pub const JOURNAL_LINE_LIMIT_BYTES: usize = 80 << 20;
/// The longest request on the control socket, and the longest last word on it, in bytes.
pub const CONTROL_MESSAGE_BYTES: u64 = 64 << 10;
/// How long it is remembered at least that somebody was told of something unreferenced; longer where a
/// longer grace period is in use.
pub const LEASE_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Bytes of descriptors in one page of a list of referrers, or one descriptor, if it alone is larger.
pub const REFERRERS_PAGE_BYTES: usize = 4 << 20;
/// How often the metadata database is flushed while it changes. A crash replays at most what the
/// journal took in since.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);
/// Recently used blobs and manifests of at most [`SMALL_BLOB_BYTES`], kept in memory.
pub const CONTENT_CACHE_BYTES: usize = 8 << 20;
/// Recently read values of the metadata database, kept in memory.
pub const METADATA_VALUES_BYTES: usize = 8 << 20;
/// Keys and values that share an item of the metadata database. More of them make a start quicker and a
/// change slower.
pub const METADATA_RUN_BYTES: usize = 4 << 10;
/// The metadata database's page cache.
pub const METADATA_CACHE_BYTES: u64 = 8 << 20;

/// The longest `Authorization` header, in bytes.
pub const AUTHORIZATION_LIMIT_BYTES: usize = 16 << 10;
/// The longest user name, in bytes.
pub const USER_NAME_LIMIT_BYTES: usize = 128;
/// The longest password that can be set, in bytes: bcrypt takes no more in.
pub const PASSWORD_LIMIT_BYTES: usize = 72;
/// The cost of new bcrypt hashes: 2^10 rounds.
pub const BCRYPT_COST: u32 = 10;
/// The highest cost taken from an htpasswd file: a few seconds for one login.
pub const BCRYPT_COST_LIMIT: u32 = 16;
/// The longest htpasswd file, in bytes.
pub const HTPASSWD_LIMIT_BYTES: u64 = 4 << 20;
/// How often it is looked whether the htpasswd file has changed, while there are requests.
pub const HTPASSWD_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a password that was found right is not hashed again.
pub const VERDICT_LIFETIME: Duration = Duration::from_secs(60);
/// Passwords being hashed or waiting for it; further ones are told to come again.
pub const LOGINS_WAITING_LIMIT: usize = 64;
/// How far the clocks of two runs of the server may differ, in seconds.
pub const TOKEN_LEEWAY_S: u64 = 5;
/// Scopes one access token is asked for.
pub const TOKEN_SCOPES_LIMIT: usize = 32;
/// The longest form in which a token is asked for, in bytes.
pub const TOKEN_FORM_LIMIT_BYTES: usize = 16 << 10;
/// Access rules.
pub const ACCESS_RULES_LIMIT: usize = 1000;
/// Pages of repositories looked at for one page of those the caller may see.
pub const CATALOG_SCAN_PAGES: usize = 10;
