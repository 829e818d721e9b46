//! What is reported of layers while they travel, in either direction.

use crate::image::Descriptor;
use crate::name::Digest;

/// What happens to a layer, in order.
#[derive(Debug, Clone, Copy)]
pub enum LayerEvent {
    /// It is there already.
    Exists,
    /// Another command is fetching it; its result will be used.
    Waiting,
    /// It begins to travel, or goes on where an earlier attempt stopped.
    Started {
        /// Its compressed length in bytes.
        total_bytes: u64,
        /// How many of them need not travel again.
        resumed_bytes: u64,
    },
    /// So many more compressed bytes are here, in whatever order. Only of layers that are fetched.
    Arrived(u64),
    /// So many more compressed bytes have travelled; of a layer that is fetched, have been hashed and unpacked, from its
    /// first byte on.
    Moved(u64),
    /// It is where it was going, verified.
    Complete,
}

/// Told of the progress of layers, from several threads.
pub trait Progress: Send + Sync {
    /// All layers of the image, bottom first, before any event.
    fn layers(&self, layers: &[Descriptor]);
    /// Something happened to a layer.
    fn layer(&self, digest: &Digest, event: LayerEvent);
}
