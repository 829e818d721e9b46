//! Containers, launched by the real `roci` from real bundles: what they see, what they cannot do, and
//! what is left of them.
//!
//! As root all tests run; those for an ordinary user start `roci` through `setpriv` and `unshare`,
//! with `/etc/passwd` and `/etc/subuid` of their own in a mount namespace. As an ordinary user the
//! tests that need root say so and return.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

#[path = "../needs/mod.rs"]
mod needs;

mod basics;
mod bundle;
mod cgroups;
mod cleanup;
mod hostile;
mod identity;
mod mounts;
mod namespaces;
mod process;
mod rootless;
mod seccomp;
mod terminal;
