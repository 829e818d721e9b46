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

/// The largest JSON file read back.
pub const JSON_LIMIT_BYTES: u64 = 256 << 20;
/// Lines of one plot.
pub const PLOT_SERIES_LIMIT: usize = 4;
/// Points of one line, about one for each unit of a plot's width.
pub const PLOT_POINT_LIMIT: usize = 400;

/// How long one command of a runtime may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a container may take to do what is waited for.
pub const CONTAINER_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon what tells no event is looked at again.
pub const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long a container stays that nobody ends.
pub const CONTAINER_LIFE_S: u32 = 300;
/// How much of a command's output is read.
pub const OUTPUT_LIMIT_BYTES: u64 = 1 << 20;
/// How much of an output a printed step shows.
pub const SHOWN_OUTPUT_LIMIT_CHARS: usize = 2000;
/// How many of the steps before a failure are shown.
pub const SHOWN_STEPS_LIMIT: usize = 16;
/// The most rounds in which runtimes are timed.
pub const TIMED_ROUNDS_LIMIT: usize = 10_000;

/// The most threads of a load.
pub const THREADS_LIMIT: usize = 64;
/// The highest rate of an open load, in requests a second.
pub const RATE_LIMIT_PER_SECOND: f64 = 1e6;
/// The lowest.
pub const RATE_LEAST_PER_SECOND: f64 = 0.01;
/// The longest pause between two requests of one connection.
pub const THINK_LIMIT: Duration = Duration::from_secs(60);
/// How late a request of an open load may start; one that is later is left out, and counted.
pub const BACKLOG_LIMIT: Duration = Duration::from_secs(10);
/// The weights of a mix, all together.
pub const MIX_LIMIT: u64 = 10_000;
/// The most rounds two registries are compared in.
pub const ROUNDS_LIMIT: u64 = 100;
/// About how many points a throughput over time has.
pub const TIMELINE_POINTS: usize = 50;
/// Intervals in which requests are counted while a load runs.
pub const TIMELINE_INTERVALS: usize = 4096;
/// The largest trace file read.
pub const TRACE_FILE_LIMIT_BYTES: u64 = 8 << 30;
/// The most requests replayed of one.
pub const TRACE_REQUESTS_LIMIT: usize = 1_000_000;
/// The longest path of a recorded request.
pub const TRACE_PATH_LIMIT_BYTES: usize = 4096;
/// The most content that is pushed for a trace.
pub const TRACE_CONTENT_LIMIT_BYTES: u64 = 64 << 30;
/// A manifest of a trace is this large at most.
pub const TRACE_MANIFEST_LIMIT_BYTES: u64 = 256 << 10;
/// All manifests of a trace, which are in memory.
pub const TRACE_MANIFESTS_LIMIT_BYTES: u64 = 1 << 30;
