//! Every limit of the crate.

use std::time::Duration;

/// How long a registry may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one exchange may take, its body included.
pub const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer read; nothing this crate pushes is longer.
pub const ANSWER_LIMIT_BYTES: usize = 8 << 20;
/// Redirects followed in one exchange (to a blob store, say).
pub const REDIRECT_LIMIT: usize = 5;
/// How much of a body a printed exchange shows.
pub const SHOWN_BODY_LIMIT_CHARS: usize = 400;
/// Pages of a tag list followed before the list counts as endless.
pub const PAGE_LIMIT: usize = 64;
/// The size of manifest every registry should take (distribution-spec, Pushing Manifests).
pub const LARGE_MANIFEST_BYTES: usize = 4_000_000;
/// A size of manifest that a registry with any limit refuses.
pub const HUGE_MANIFEST_BYTES: usize = 16 << 20;
/// Layers of an image with many; Docker's own limit.
pub const LAYERS: usize = 127;
/// Tags of a repository with many: more than fit on one page of most registries.
pub const MANY_TAGS: usize = 120;
/// The longest name of a host, port and repository that every client takes (distribution-spec, Pulling manifests).
pub const CLIENT_NAME_LIMIT_BYTES: usize = 255;
/// The longest tag there is (distribution-spec, Pulling manifests).
pub const TAG_LIMIT_CHARS: usize = 128;
/// A name no registry has a place for.
pub const HOSTILE_NAME_BYTES: usize = 8 << 10;
/// A header no server wants.
pub const HOSTILE_HEADER_BYTES: usize = 2 << 20;
/// How deep hostile JSON is nested.
pub const HOSTILE_DEPTH: usize = 100_000;
/// Ranges of a hostile request.
pub const HOSTILE_RANGES: usize = 1000;
/// Slow connections held open at once.
pub const SLOW_CONNECTIONS: usize = 64;
/// How long a registry may take to answer while slow clients hold on to it.
pub const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// The largest least chunk (`OCI-Chunk-Min-Length`) that uploads here keep to.
pub const CHUNK_MINIMUM_LIMIT_BYTES: usize = 32 << 20;
/// All `Warning` headers of an answer together (distribution-spec, Warnings).
pub const WARNINGS_LIMIT_BYTES: usize = 4096;
/// How long what was deleted may still be seen: 202 is "accepted", not "done".
pub const DELETION_PATIENCE: Duration = Duration::from_secs(3);
/// How long between two looks at what was deleted.
pub const DELETION_POLL: Duration = Duration::from_millis(50);

/// How long one raw exchange may take.
pub const RAW_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection with an answer on it is listened to for another one.
pub const RAW_QUIET: Duration = Duration::from_millis(500);

/// The longest credentials file or answer of a credential helper.
pub const CREDENTIALS_LIMIT_BYTES: u64 = 4 << 20;
/// The longest password read from standard input.
pub const PASSWORD_LIMIT_BYTES: u64 = 64 << 10;
/// The least lifetime of a token (docker's token specification, "Token Response Fields").
pub const TOKEN_LIFETIME_S: f64 = 60.0;

/// The longest head of an answer a load takes.
pub const HEAD_LIMIT_BYTES: usize = 16 << 10;
/// How much of an answer a load's connection takes in at once.
pub const READ_BUFFER_BYTES: usize = 256 << 10;
/// The most connections of a load.
pub const CONNECTIONS_LIMIT: usize = 1024;
/// How long a load goes on without any answer before it is given up.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Content up to this size is made and hashed while the load runs; larger content before.
pub const INLINE_CONTENT_BYTES: u64 = 64 << 10;
/// Bytes of one piece of a large blob, repeated as often as its size takes.
pub const PIECE_BYTES: usize = 1 << 20;
/// Tags of one page of a list.
pub const TAG_PAGE: usize = 100;
