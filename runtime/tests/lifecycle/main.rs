//! The life of a container by the verbs of the real `roci`, and under real engines.
//!
//! Most of it needs root; what an ordinary user can do is in `rootless`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

#[path = "../launch/bundle.rs"]
mod bundle;
#[path = "../needs/mod.rs"]
mod needs;

mod bad_input;
mod checkpoint;
mod checkpoint_refused;
mod container;
mod containerd;
mod descriptors;
mod dockerd;
mod engines;
mod exec;
mod hooks;
mod host_mounts;
mod hostile;
mod limits;
mod rootless;
mod systemd;
mod terminal;
mod verbs;
