//! Unpacking of layers, seen from outside: what becomes of every entry type, of hostile archives, of
//! broken streams, and whether peers make the same tree.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

#[path = "../needs/mod.rs"]
mod needs;

mod entries;
mod forms;
mod hostile;
mod image;
mod peers;
mod random;
mod rootless;
mod streams;
mod support;
mod whiteouts;
