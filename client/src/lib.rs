//! Talking to registries, and every command a person types.
//!
//! `registry` is the protocol, `registry::auth` the proof of who asks, `transfer` moves whole images,
//! `sync` many of them; `command` holds one file a verb, shared by `rbox` and the short names `rpull`, `rpush`, `rrun`.
//!
//! **Invariant: no async above `registry::http`.** Each worker thread owns a single-threaded HTTP client, so
//! the rest of the crate, and the runtime crate below, read bodies as plain [`std::io::Read`].
//! **Invariant: a command that needs no registry opens no socket and starts no async runtime.**

// They panic when standard error is closed: see `stderr`.
#![warn(clippy::print_stderr)]

pub mod artifact;
pub mod command;
pub mod config;
pub mod credentials;
pub mod deletion;
pub mod doctor;
pub mod error;
mod json;
pub mod manifest_list;
pub mod policy;
pub mod progress;
pub mod registry;
pub mod signature;
mod stderr;
pub mod sync;
pub mod template;
pub mod text;
pub mod text_json;
pub mod transfer;

pub use error::{Error, Result};
