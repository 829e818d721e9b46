//! The main job end to end, through the real programs: host, push, pull, run.

#![allow(unreachable_pub, reason = "a test program has no outside")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod archives;
mod authority;
mod bad_network;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod configured;
mod copy;
mod courses;
mod daily;
mod debian_registry;
mod detached;
mod differences;
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
mod proxies;
mod pull;
mod push;
mod real;
mod remains;
mod remote;
mod remote_hostile;
mod rootless;
mod run;
mod signatures;
mod store;
mod sync;
mod tokens;
mod tools;
mod tree;
mod trust;
#[path = "../common/users.rs"]
mod users;
mod volumes;
