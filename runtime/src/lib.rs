//! Images and containers on this machine: names and digests, the local image store, unpacking of
//! layers, root filesystems, namespaces and the launch of processes in them.
//!
//! **Invariant: no HTTP and no async runtime in this crate.** What comes from a registry arrives
//! through [`Source`], which the client crate implements. **Invariant: `unsafe` only in `sys`.**

mod cgroup;
pub mod clock;
pub mod container;
pub mod difference;
pub mod download;
pub mod erofs;
pub mod error;
pub mod events;
pub mod files;
pub mod hooks;
pub mod image;
pub mod launch;
pub mod layout;
pub mod lifecycle;
pub mod name;
pub mod network;
pub mod origin;
pub mod parallel;
pub mod peek;
pub mod progress;
pub mod pull;
pub mod save;
mod seccomp;
pub mod source;
pub mod spec;
pub mod store;
mod sys;
pub mod unpack;
mod usage;
pub mod userns;
pub mod volume;
pub mod warning;

pub use error::{Error, Result};
pub use source::{RawManifest, Source};
pub use store::Store;
