//! `rhub`, an OCI registry (distribution-spec 1.1).
//!
//! # Map
//! - [`serve`]: connections and their limits; knows HTTP, and nothing of registries.
//! - [`api`]: paths, headers, status codes. A handler takes a request apart, makes one call of
//!   [`Registry`], and makes a response of the answer.
//! - [`access`]: who asks, and what they may do.
//! - [`registry`]: what a registry does, over the two traits below.
//! - [`blob`]: content by digest; a trait and its file system implementation.
//! - [`meta`]: what is in which repository; a trait and its embedded implementation, which is made
//!   of a journal.
//! - [`collect`]: garbage collection. `pins` keeps it from what is just being pushed.
//! - [`maintain`]: what is done to a registry from beside it: why, check, export.
//! - [`manifest`]: what has to be known of a manifest.
//! - [`operation`]: what its operator sees: log, metrics, health.
//! - [`config`]: what its operator sets, out of a file, the environment and flags.
//! - [`limits`], [`error`]: each in one place.
//!
//! # Invariants
//! - **Acknowledged means durable.** Content is synced and renamed into place, then the journal is
//!   synced, then the client is told; in that order.
//! - **No name as text past the edge.** [`api`] parses names, tags and digests once; nothing below
//!   takes them as `&str`, and no path is made of anything else.
//! - **No body in memory**, but manifests, which are limited.
//! - **No lock across I/O** but an upload session's own.

pub mod access;
pub mod api;
pub mod blob;
pub mod cache;
pub mod collect;
pub mod config;
pub mod data_dir;
pub mod error;
#[cfg(test)]
mod faults;
pub mod file_span;
pub mod limits;
pub mod maintain;
pub mod manifest;
pub mod meta;
pub mod operation;
mod pins;
#[cfg(test)]
mod promises;
pub mod registry;
pub mod serve;

pub use error::{Error, Result};
pub use registry::Registry;

/// Runs a call that blocks in the pool meant for such.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(e) => Err(longshore_runtime::Error::io("run a blocking call", std::io::Error::other(e)).into()),
    }
}
