//! The names of the field, parsed once at the edge: digests, repositories, tags, references and
//! platforms.

mod digest;
mod platform;
mod reference;

pub use digest::{Algorithm, Digest, Hasher};
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, Reference, RepoName, Tag};

/// The longest manifest or index accepted anywhere, in bytes (distribution-spec, "Pushing
/// Manifests": registries should accept at least 4 MiB).
pub const MANIFEST_LIMIT_BYTES: usize = 4 << 20;
