//! The main job end to end, through the real programs: host, push, pull, run.

#[path = "../common/mod.rs"]
mod common;

mod double;
mod image;
mod pull;
mod push;
mod tools;
mod trust;
