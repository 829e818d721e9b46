//! Images and containers on this machine: names and digests, the local image store, unpacking of
//! layers, root filesystems, namespaces and the launch of processes in them.
//!
//! **Invariant: no HTTP and no async runtime in this crate.** What comes from a registry arrives
//! through [`Source`], which the client crate implements. **Invariant: `unsafe` only in `sys`.**

pub mod error;
pub mod files;
pub mod image;
pub mod name;
pub mod origin;
pub mod parallel;
pub mod progress;
pub mod pull;
pub mod source;
pub mod store;
pub mod unpack;

pub use error::{Error, Result};
pub use source::{RawManifest, Source};
pub use store::Store;
