//! The main job end to end, through the real programs: host, push, pull, run.

#![allow(unreachable_pub, reason = "a test program has no outside")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod archives;
mod bad_network;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod courses;
mod daily;
mod detached;
mod dockerd;
mod double;
mod events;
mod fixture;
mod foreground;
mod image;
mod isolation;
mod killed;
mod life;
mod limits;
mod logs;
mod networks;
mod output;
mod peers;
mod pull;
mod push;
mod real;
mod remains;
mod rootless;
mod run;
mod signatures;
mod store;
mod tools;
mod tree;
mod trust;
mod volumes;
